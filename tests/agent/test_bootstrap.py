"""Redrawing patients: weights against duplicates, and how often the interval covers the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata

from agent.bootstrap import (
    fold_mean,
    over_folds,
    pooled_gains,
    pooled_weighted_auc,
    redraw,
    session_draws,
    shares,
    weighted_gains,
)
from agent.errors import ComparisonError
from agent.policies.registry import make_policy
from agent.rollout import SessionRecords, run_sessions
from envs.reward import pooled_auc
from envs.setup import build_setup
from envs.toy import toy_evidence


def auc(pos: np.ndarray, neg: np.ndarray) -> float:
    """By ranks, an independent way."""
    ranks = rankdata(np.concatenate([pos, neg]))
    won = ranks[: len(pos)].sum() - len(pos) * (len(pos) + 1) / 2
    return float(won / (len(pos) * len(neg)))


def test_whole_weights_are_duplicated_patients() -> None:
    rng = np.random.default_rng(0)
    first, final = (rng.integers(0, 6, (2, 9)).astype(np.float32) for _ in range(2))
    weight = rng.integers(1, 4, (3, 9))
    found = weighted_gains(first, final, 4, weight.astype(np.float32))
    for k in range(2):
        for r in range(3):
            expected = auc(
                np.repeat(final[k, :4], weight[r, :4]), np.repeat(final[k, 4:], weight[r, 4:])
            ) - auc(np.repeat(first[k, :4], weight[r, :4]), np.repeat(first[k, 4:], weight[r, 4:]))
            assert found[k, r] == pytest.approx(expected, abs=1e-6)


def test_a_redraw_without_a_class_has_no_auc() -> None:
    score = np.zeros((1, 3), dtype=np.float32)
    weight = np.array([[0, 1, 1], [1, 1, 1]], dtype=np.float32)
    found = weighted_gains(score, score, 1, weight)
    assert np.isnan(found[0, 0])
    assert found[0, 1] == 0


def test_pooled_auc_with_weights_is_the_pooled_auc_of_duplicates() -> None:
    rng = np.random.default_rng(1)
    score = rng.integers(0, 9, (5, 6)).astype(np.float32)
    ones = np.ones((1, 5, 6))
    is_positive = np.arange(6) < 2
    assert pooled_weighted_auc(score, 2, ones)[0] == pytest.approx(pooled_auc(score, is_positive))
    weight = rng.integers(0, 3, (1, 5, 6))
    pos = np.repeat(score[:, :2].ravel(), weight[0][:, :2].ravel())
    neg = np.repeat(score[:, 2:].ravel(), weight[0][:, 2:].ravel())
    assert pooled_weighted_auc(score, 2, weight.astype(float))[0] == pytest.approx(auc(pos, neg))


@pytest.fixture(scope="module")
def records() -> SessionRecords:
    setup = build_setup(evidence=toy_evidence(120), n_cases=20)
    policy = make_policy("always-everything", setup.layout, setup.catalogue)
    return run_sessions(policy, setup, range(8))


def test_weights_of_one_give_what_the_records_say(records: SessionRecords) -> None:
    drawn = redraw([records], [120], np.random.default_rng(0), 3)
    plain = replace(drawn.by_fold[0], patients=np.ones((3, 120), dtype=np.float32))
    draws = session_draws([records, records], plain)
    np.testing.assert_allclose(draws.auc_gain[1, :, 2], records.auc_gain, atol=1e-6)
    np.testing.assert_allclose(draws.g_co2e[0, :, 0], records.g_co2e, rtol=1e-5)
    seeds, sessions = shares(np.random.default_rng(1), 2, 3), np.full((3, 8), 1 / 8)
    mean = fold_mean(draws.auc_gain, seeds, sessions)
    np.testing.assert_allclose(mean, records.auc_gain.mean(), atol=1e-6)
    np.testing.assert_allclose(over_folds([mean, mean], np.full((3, 2), 0.5)), mean)
    assert pooled_gains(records, drawn.by_fold[0], 3).shape == (3,)


def test_the_same_redraws_cancel_in_a_difference(records: SessionRecords) -> None:
    drawn = redraw([records], [120], np.random.default_rng(0), 50).by_fold[0]
    first, second = (session_draws([records], drawn).auc_gain for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_other_sessions_are_refused(records: SessionRecords) -> None:
    drawn = redraw([records], [120], np.random.default_rng(0), 2).by_fold[0]
    other = replace(records, patient=records.patient[::-1].copy())
    with pytest.raises(ComparisonError, match="sessions that the others did"):
        session_draws([other], drawn)


def drawn_sessions(rng: np.random.Generator, n_pool: int, shift: float) -> SessionRecords:
    """Sessions of one pool: final scores separate the classes by ``shift``, first ones do not."""
    n, sessions = 12, 10
    first, final = rng.normal(size=(2, n_pool)).astype(np.float32)
    final[: n_pool // 2] += np.float32(shift)
    halves = [
        np.stack([rng.permutation(n_pool // 2)[: n // 2] for _ in range(sessions)])
        + at * (n_pool // 2)
        for at in (0, 1)
    ]
    patient = np.hstack(halves)
    zero, none = np.zeros(sessions), np.zeros((sessions, n))
    whole = none.astype(np.int64)
    label = np.broadcast_to(np.arange(n) < n // 2, patient.shape).astype(np.int8)
    return SessionRecords(
        auc_base=zero, auc_gain=zero, g_co2e=zero, reward=zero, budget_g_co2e=zero,
        transfers_per_case=zero, deferrals_per_case=zero, finalised_at_once=zero, lateness_h=zero,
        invalid=zero, trace_idx=zero.astype(np.int64), session_h=zero, patient=patient,
        label=label, first_score=first[patient], final_score=final[patient], final_set=whole,
        case_g_co2e=none, case_lateness_h=none, case_transfers=whole, case_deferrals=whole,
        by_urgency=np.zeros((3, 1), dtype=np.int64),
        by_uncertainty=np.zeros((3, 1), dtype=np.int64), by_hour=np.zeros((7, 1), dtype=np.int64),
    )  # fmt: skip


def test_redrawing_patients_covers_the_truth_where_sessions_alone_do_not() -> None:
    """True gain: Phi(shift / sqrt 2) - 1/2. Ten sessions of a pool of 40 share its luck."""
    rng = np.random.default_rng(7)
    truth = 0.760250 - 0.5  # Phi(1 / sqrt 2)
    covered = naive = 0
    runs = 120
    for _ in range(runs):
        records = drawn_sessions(rng, 40, 1.0)
        redraws = redraw([records], [40], rng, 200)
        fold, seeds = redraws.by_fold[0], np.ones((200, 1))
        gains = session_draws([records], fold).auc_gain
        low, high = np.percentile(fold_mean(gains, seeds, fold.sessions), (2.5, 97.5))
        covered += low <= truth <= high
        plain = replace(fold, patients=np.ones_like(fold.patients))
        fixed = session_draws([records], plain).auc_gain
        low, high = np.percentile(fold_mean(fixed, seeds, fold.sessions), (2.5, 97.5))
        naive += low <= truth <= high
    assert covered / runs >= 0.89
    assert naive / runs <= 0.75
