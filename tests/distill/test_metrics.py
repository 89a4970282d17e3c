from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from distill.metrics import (
    auc,
    auc_difference,
    auc_over_hospitals,
    auc_value,
    brier,
    cluster_bootstrap,
    ece,
    score_card,
)


def test_auc_counted_by_hand():
    # Pairs (positive, negative): 3>1, 3>2, 2=2 (half), 2>1.
    label, score = np.array([1, 1, 0, 0]), np.array([3.0, 2.0, 1.0, 2.0])
    assert auc_value(label, score) == pytest.approx(3.5 / 4)
    assert auc(label, score).value == pytest.approx(3.5 / 4)


def test_auc_agrees_with_scikit_learn_ties_included():
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 2, 300), rng.integers(0, 20, 300).astype(float)
    assert auc_value(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert auc(label, score).value == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_delong_interval_covers_like_the_bootstrap():
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 400)
    score = label + 1.2 * rng.standard_normal(400)
    figure = auc(label, score)
    assert figure.ci95 is not None
    low, high = cluster_bootstrap(
        lambda rows: auc_value(label[rows], score[rows]), np.arange(400), rng, resamples=600
    )
    assert figure.ci95[0] == pytest.approx(low, abs=0.008)
    assert figure.ci95[1] == pytest.approx(high, abs=0.008)


def test_paired_difference_is_tighter_than_unpaired_and_zero_with_itself():
    rng = np.random.default_rng(2)
    label = rng.integers(0, 2, 300)
    first = label + rng.standard_normal(300)
    second = first + 0.1 * rng.standard_normal(300)
    same = auc_difference(label, first, first)
    assert same.value == 0.0
    assert same.ci95 == (0.0, 0.0)
    paired, alone = auc_difference(label, first, second), auc(label, first)
    assert paired.ci95 is not None
    assert alone.ci95 is not None
    assert np.ptp(paired.ci95) < np.ptp(alone.ci95) / 2


@pytest.mark.parametrize("label", [np.zeros(30, dtype=int), np.ones(30, dtype=int)])
def test_one_class_gives_a_reason_instead_of_a_number(label):
    card = score_card(label, np.linspace(-1, 1, 30), np.random.default_rng(0))
    assert card["auc"]["value"] is None
    assert "only one class" in card["auc"]["reason"]
    assert card["brier"]["value"] is not None


def test_no_patients_gives_reasons():
    card = score_card(np.array([], dtype=int), np.array([]), np.random.default_rng(0))
    assert [card[key]["value"] for key in ("auc", "brier", "ece")] == [None, None, None]


def test_brier_by_hand():
    figure = brier(np.array([1, 0]), np.array([0.8, 0.4]))
    assert figure.value == pytest.approx((0.04 + 0.16) / 2)


def test_calibration_error_by_hand_and_in_the_limit():
    # 15 bins of one patient each: the mean absolute gap.
    label, p = np.array([1] * 5 + [0] * 10), np.linspace(0.9, 0.1, 15)
    assert ece(label, p, np.random.default_rng(0)).value == pytest.approx(np.abs(label - p).mean())
    rng = np.random.default_rng(4)
    z = 2 * rng.standard_normal(20_000)
    drawn = (rng.random(20_000) < expit(z)).astype(int)
    good, bad = ece(drawn, expit(z), rng), ece(drawn, expit(3 * z), rng)
    assert good.value is not None
    assert bad.ci95 is not None
    assert good.value < 0.02
    assert bad.ci95[0] > 0.08


def test_patients_without_a_score_are_left_out():
    label = np.array([0, 1] * 20)
    logit = np.where(np.arange(40) < 30, label * 2.0 - 1, np.nan)
    card = score_card(label, logit, np.random.default_rng(0))
    assert card["auc"]["n"] == 30
    assert card["auc"]["value"] == 1.0


def test_the_auc_over_hospitals_needs_hospitals_and_both_classes():
    rng = np.random.default_rng(0)
    label, score = np.array([0, 1] * 30), rng.standard_normal(60)
    hospital = [f"H{i % 6}" for i in range(60)]
    given = auc_over_hospitals(label, score, hospital, np.random.default_rng(1))
    again = auc_over_hospitals(label, score, hospital, np.random.default_rng(1))
    assert given == again
    assert given.value == pytest.approx(roc_auc_score(label, score))
    assert given.ci95 is not None
    assert given.ci95[0] < given.value < given.ci95[1]
    for group, reason in ((None, "names no hospitals"), (["H0"] * 60, "one hospital")):
        none = auc_over_hospitals(label, score, group, rng)
        assert none.value is None
        assert reason in str(none.reason)
    assert auc_over_hospitals(label * 0, score, hospital, rng).reason == "only one class (label 0)"


def test_drawing_whole_hospitals_widens_the_interval():
    rng = np.random.default_rng(5)
    hospital = np.repeat(np.arange(10), 30)
    value = np.repeat(rng.standard_normal(10), 30) + 0.1 * rng.standard_normal(300)
    whole = cluster_bootstrap(lambda rows: float(value[rows].mean()), hospital, rng, 300)
    single = cluster_bootstrap(lambda rows: float(value[rows].mean()), np.arange(300), rng, 300)
    assert np.ptp(whole) > 2 * np.ptp(single)
