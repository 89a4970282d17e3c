from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student_t

from distill.cohort import Cohort
from distill.errors import CohortError
from distill.splits import corrected_interval, hospital_splits


def test_interval_by_hand():
    # Mean 2, variance 1, J 3: the variance of the mean is (1/3 + 20/80) * 1 = 7/12.
    mean, low, high = corrected_interval([1.0, 2.0, 3.0], 80, 20)
    half = 4.302652729696 * (7 / 12) ** 0.5  # the 97.5 % point of t with 2 degrees of freedom
    assert mean == 2.0
    assert (low, high) == pytest.approx((2 - half, 2 + half), rel=1e-9)


def test_interval_is_wider_than_the_plain_one_by_a_known_factor():
    values = np.random.default_rng(0).normal(size=20)
    _, low, high = corrected_interval(list(values), 4, 1, confidence=0.9)
    plain = 2 * student_t.ppf(0.95, 19) * values.std(ddof=1) / 20**0.5
    assert (high - low) / plain == pytest.approx((1 + 20 / 4) ** 0.5)


def test_equal_differences_have_no_width():
    assert tuple(corrected_interval([0.5] * 4, 8, 2)) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "n_train", "n_test", "confidence"),
    [([1.0], 8, 2, 0.95), ([1.0, float("nan")], 8, 2, 0.95), ([1.0, 2.0], 0, 2, 0.95),
     ([1.0, 2.0], 8, 0, 0.95), ([1.0, 2.0], 8, 2, 1.0)],
)  # fmt: skip
def test_impossible_intervals_are_refused(
    values: list[float], n_train: float | int, n_test: float | int, confidence: float
):
    with pytest.raises(ValueError, match=r"came"):
        corrected_interval(values, n_train, n_test, confidence)


def confounded(cohort: Cohort) -> Cohort:
    """Every hospital has one class, as in TCGA."""
    label = (np.arange(cohort.n_patients) % 20 < 8).astype(np.int8)
    return replace(cohort, label=label)


@pytest.mark.parametrize("whole", [True, False])
def test_hospitals_stay_whole_and_classes_keep_their_share(tiny_cohort: Cohort, whole: bool):
    cohort = confounded(tiny_cohort) if whole else tiny_cohort
    splits = hospital_splits(cohort, n=6, test_share=0.25, seed=3)
    assert len(splits) == 6
    group = np.array(cohort.group)
    for train, test in splits:
        assert np.array_equal(train, ~test)
        assert not set(group[train]) & set(group[test])
        for kind in (0, 1):
            share = float(test[cohort.label == kind].mean())
            assert 0.1 < share < 0.45
            if whole:
                assert share == pytest.approx(0.25, abs=0.06)


def test_same_seed_same_splits_and_the_cohorts_folds_are_not_looked_at(tiny_cohort: Cohort):
    first = hospital_splits(tiny_cohort, n=3, seed=1)
    again = hospital_splits(replace(tiny_cohort, fold=None), n=3, seed=1)
    other = hospital_splits(tiny_cohort, n=3, seed=2)
    tests = [np.stack([test for _, test in splits]) for splits in (first, again, other)]
    assert np.array_equal(tests[0], tests[1])
    assert not np.array_equal(tests[0], tests[2])
    assert not np.array_equal(tests[0][0], tests[0][1])


def test_one_hospital_of_a_class_is_refused(make_cohort: Callable[..., Cohort]):
    cohort = make_cohort(1, 60)
    alone = replace(cohort, label=np.array([g == "H00" for g in cohort.group], dtype=np.int8))
    with pytest.raises(CohortError, match="1 have mostly positive"):
        hospital_splits(alone)
    with pytest.raises(ValueError, match="at least one split"):
        hospital_splits(cohort, n=0)
    with pytest.raises(ValueError, match="between 0"):
        hospital_splits(cohort, test_share=1.0)
