"""Folds: hospitals stay whole, classes stay balanced, and what cannot be split is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from distill.cohort import Cohort
from distill.cohort_folds import assign_folds, with_folds
from distill.errors import CohortError


def without_folds(cohort: Cohort) -> Cohort:
    return replace(cohort, fold=None)


@pytest.mark.parametrize("n_folds", [2, 3, 5])
def test_assigned_folds_keep_hospitals_whole_and_classes_balanced(
    tiny_cohort: Cohort, n_folds: int
) -> None:
    cohort = without_folds(tiny_cohort)
    fold = assign_folds(cohort, n_folds)
    np.testing.assert_array_equal(fold, assign_folds(cohort, n_folds))
    for hospital in set(cohort.group):
        assert len({f for f, h in zip(fold, cohort.group, strict=True) if h == hospital}) == 1
    positives = np.array([cohort.label[fold == k].sum() for k in range(n_folds)])
    # Ten patients a hospital: a fold can miss its share by less than one hospital.
    assert np.abs(positives - cohort.label.sum() / n_folds).max() < 10


def test_too_few_hospitals_are_refused(make_cohort: Callable[..., Cohort]) -> None:
    cohort = without_folds(make_cohort(patients=4))
    with pytest.raises(CohortError, match=r"4 hospitals and \d cases of the smaller class"):
        with_folds(cohort)


def test_one_fold_is_for_evaluation_only(tiny_cohort: Cohort) -> None:
    cohort = replace(tiny_cohort, fold=np.full(tiny_cohort.n_patients, 3, dtype=np.int16))
    with pytest.raises(CohortError, match="all its patients in fold 3"):
        with_folds(cohort)
