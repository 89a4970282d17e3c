from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from distill.faithfulness import (
    Asked,
    above_zero,
    attention_by_modality,
    features_removed,
    left_out,
    most_against_least,
    randomised,
    swapped,
)
from distill.metrics import Figure
from distill.train import Trained


@pytest.fixture(scope="module")
def asked(trained: Trained) -> Asked:
    return Asked(
        student=trained.student, calibration=trained.calibration,
        x=trained.student.features(trained.data), present=trained.data.present(),
    )  # fmt: skip


def test_left_out_equals_scoring_without_the_modality(asked: Asked):
    change = left_out(asked)
    assert np.array_equal(np.isfinite(change), asked.present)
    whole = asked.logit(asked.x)
    for j in (1, 2):
        less = asked.present.copy()
        less[:, j] = False
        without = replace(asked, present=less).logit(asked.x)
        has = asked.present[:, j]
        assert np.allclose(change[has, j], (whole - without)[has], atol=1e-5)
    alone = asked.present.sum(axis=1) == 1
    prior = asked.calibration.prior_logit
    assert np.allclose(change[alone, 0], whole[alone] - prior, atol=1e-5)


def test_attention_is_a_share_of_what_the_patient_has(asked: Asked):
    share = attention_by_modality(asked)
    assert np.array_equal(np.isfinite(share), asked.present)
    assert (np.nansum(share, axis=1) < 1).all()
    assert (share[asked.present] >= 0).all()


def test_what_is_said_to_matter_does_and_random_weights_know_less(asked: Asked, trained: Trained):
    group = np.array(trained.cohort.group)
    rng = np.random.default_rng(0)
    effect, size = swapped(asked, rng, donors=3)
    assert (effect <= size + 1e-9)[asked.present].all()
    lie = np.where(asked.present, rng.random(asked.present.shape), np.nan)
    true = most_against_least(np.abs(left_out(asked)), effect, group, rng, control=lie)
    assert above_zero(true["most_minus_least_beyond_control"])
    false = most_against_least(lie, effect, group, rng)
    assert above_zero(true["most_minus_least"])
    assert true["most_minus_least"]["value"] > 3 * abs(false["most_minus_least"]["value"])
    assert true["most_minus_least"]["n"] == (asked.present.sum(axis=1) >= 2).sum()


def test_order_counts_by_hand_ties_and_missing_included():
    said = np.array([[3.0, 1.0, np.nan], [1.0, 2.0, 3.0], [5.0, np.nan, np.nan]])
    effect = np.array([[0.5, 0.2, np.nan], [0.1, 0.4, 0.7], [9.0, np.nan, np.nan]])
    group = np.array(["a", "b", "c"])
    got = most_against_least(said, effect, group, np.random.default_rng(0))
    assert got["most_minus_least"]["value"] == pytest.approx((0.3 + 0.6) / 2)
    assert got["most_minus_random"]["value"] == pytest.approx((0.15 + 0.3) / 2)
    assert got["share_most_above_least"]["value"] == 1.0
    assert got["most_minus_least"]["n"] == 2  # a single modality has no order
    none = most_against_least(said[2:], effect[2:], group[2:], np.random.default_rng(0))
    assert none["most_minus_least"]["value"] is None


def test_top_features_move_more_than_random_ones_and_none_moves_nothing(asked: Asked):
    rng = np.random.default_rng(0)
    changed = features_removed(asked, asked, (0, 2), rng, draws=3)
    assert all((change == 0).all() for change in changed[0].values())
    assert changed[2]["top"].mean() > 2 * changed[2]["random"].mean()
    assert changed[2]["top"].mean() > changed[2]["random_model"].mean()


def test_a_random_student_is_another_and_repeatable(asked: Asked):
    first, again = (randomised(asked.student, 7) for _ in range(2))
    mask = asked.everything[:, None]
    same, other = first.logits(asked.x, mask)[0], asked.student.logits(asked.x, mask)[0]
    assert np.array_equal(same, again.logits(asked.x, mask)[0])
    assert not np.allclose(same, other, atol=0.1)


def test_above_zero_reads_figures_and_their_json():
    assert above_zero(Figure(value=1.0, ci95=(0.1, 2.0), n=3))
    assert not above_zero({"value": 1.0, "ci95": [-0.1, 2.0], "n": 3})
    assert not above_zero({"value": None, "ci95": None, "n": 0})
