"""What one changed score is worth: credits that add up, exactly, to what a session gained.

In use: ``basis = credit_basis(kind, tables, n_pos)`` once, then for each step that moves cases

    credit(basis, score=, patient=, case=, before=, after=) -> float64[rows]

with the scores *before* the move. Kinds (``SessionConfig.reward``):

- ``auc``: AUC is the Mann-Whitney statistic, over all pairs of a positive and a negative 1 where
  the positive scores higher and 1/2 where they tie. In whole numbers, ``sign`` in {-1, 0, 1}:

      half_wins = sum over pairs (sign(s_pos - s_neg) + 1),   AUC = half_wins / (2 n_pos n_neg)

  One score changes only its own pairs, so its credit is a difference of signs against the
  opposite class's current scores.
- ``expected_auc``: each label gives way to a weight p, the probability of being positive. Over all
  pairs of two cases, A = sum p_i (1 - p_j) psi(s_i, s_j) / W with W = sum p_i (1 - p_j), psi being
  1, 1/2 (tie) or 0. When case c moves, its pairs change as winner and as loser, and
  p_c (1 - p_j) - (1 - p_c) p_j = p_c - p_j, so

      credit = sum_j (p_c - p_j) (sign(new - s_j) - sign(old - s_j)) / (2 W).

  Weights are whole 2**-24ths, so that sums are exact whatever their order.
- ``logloss``, ``brier``: the fall of the case's own loss, over the number of cases.

An episode's credits telescope to final minus first value. What one step of ``auc`` is given
depends on the order of the steps (their sum does not); :func:`midpoint_credit` has no order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int64

from envs.config import RewardKind
from envs.expected import expected_labels
from envs.tables import PatientTables

CHUNK_PAIRS = 200_000
"""Pairs compared at once, so that they stay in a processor's cache."""
WEIGHT_UNIT = 2**24
"""Weights are counted in units of 1 / this."""


@dataclass(frozen=True, kw_only=True)
class CreditBasis:
    """What the credits of one kind are worked out from; computed once for a pool of patients.

    Attributes:
        kind: the reward.
        n_pos: positives in a session; they are its first cases.
        n_sets: evidence sets; flat arrays are indexed ``patient * n_sets + set``.
        logit: log-odds of each patient and set, flat.
        weight: ``expected_auc``: how much each patient counts as positive, in whole 2**-24ths;
            empty otherwise.
        loss: ``logloss`` and ``brier``: loss of each patient and set, flat; empty otherwise.
    """

    kind: RewardKind
    n_pos: int
    n_sets: int
    logit: Float32[np.ndarray, " patients_sets"]
    weight: Int64[np.ndarray, " weights"]
    loss: Float64[np.ndarray, " losses"]


def credit_basis(kind: RewardKind, tables: PatientTables, n_pos: int) -> CreditBasis:
    """Prepare the credits of one kind for a pool of patients."""
    weight, loss = np.empty(0, dtype=np.int64), np.empty(0)
    if kind == "expected_auc":
        weight = whole_weights(expected_labels(tables))
    elif kind in ("logloss", "brier"):
        loss = losses(kind, tables)
    return CreditBasis(
        kind=kind, n_pos=n_pos, n_sets=tables.n_sets, logit=tables.logit, weight=weight, loss=loss
    )


def whole_weights(probability: Float64[np.ndarray, " patients"]) -> Int64[np.ndarray, " patients"]:
    """Probabilities in whole 2**-24ths."""
    return np.asarray(np.rint(probability * WEIGHT_UNIT).astype(np.int64))


def losses(kind: RewardKind, tables: PatientTables) -> Float64[np.ndarray, " patients_sets"]:
    """Loss of each patient under each set, flat: nats or squared error."""
    label = np.zeros(len(tables.logit) // tables.n_sets)
    label[tables.positives] = 1.0
    # Unreachable sets hold NaN; nobody gets there, and zeros keep the table finite.
    y, logit = np.repeat(label, tables.n_sets), np.nan_to_num(tables.logit.astype(np.float64))
    if kind == "logloss":
        return np.asarray(np.logaddexp(0.0, np.where(y > 0, -logit, logit)))
    return np.asarray((1.0 / (1.0 + np.exp(-logit)) - y) ** 2)


def credit(
    basis: CreditBasis,
    *,
    score: Float32[np.ndarray, "rows cases"],
    patient: Int64[np.ndarray, "rows cases"],
    case: Int64[np.ndarray, " rows"],
    before: Int64[np.ndarray, " rows"],
    after: Int64[np.ndarray, " rows"],
) -> Float64[np.ndarray, " rows"]:
    """What it is worth that one case of each session gets another evidence set.

    Args:
        basis: the kind of reward and its tables.
        score: log-odds of all cases as they stand, before the move.
        patient: pool index of all cases.
        case: the case that moves.
        before: its evidence set so far.
        after: its evidence set from now on.
    """
    own = patient[np.arange(len(case)), case] * basis.n_sets
    if basis.kind in ("logloss", "brier"):
        return np.asarray((basis.loss[own + before] - basis.loss[own + after]) / score.shape[1])
    old, new = basis.logit[own + before], basis.logit[own + after]
    if basis.kind == "expected_auc":
        return expected_credit(score, basis.weight[patient], case, old, new)
    wins, is_pos = np.empty(len(case), dtype=np.int64), case < basis.n_pos
    wins[is_pos] = half_win_change(old[is_pos], new[is_pos], score[is_pos, basis.n_pos :])
    wins[~is_pos] = -half_win_change(old[~is_pos], new[~is_pos], score[~is_pos, : basis.n_pos])
    return auc(wins, basis.n_pos, score.shape[1] - basis.n_pos)


def expected_credit(
    score: Float32[np.ndarray, "rows cases"],
    weight: Int64[np.ndarray, "rows cases"],
    case: Int64[np.ndarray, " rows"],
    old: Float32[np.ndarray, " rows"],
    new: Float32[np.ndarray, " rows"],
) -> Float64[np.ndarray, " rows"]:
    """Exact change of :func:`weighted_auc` when one case of each session moves.

    Args:
        score: log-odds of all cases; the moving case's own entry does not matter.
        weight: how much each case counts as positive, in whole 2**-24ths.
        case: the case that moves.
        old: its score before.
        new: its score after.
    """
    passed = np.sign(new[:, None] - score) - np.sign(old[:, None] - score)
    ahead = weight[np.arange(len(case)), case][:, None] - weight
    # Whole numbers below 2**53: the sum is exact, whatever its order.
    change = (passed.astype(np.float64) * ahead).sum(axis=1)
    return np.asarray(change / (2.0 * _pair_weight(weight)))


def _pair_weight(weight: Int64[np.ndarray, "rows cases"]) -> Float64[np.ndarray, " rows"]:
    """W: weight of all pairs of two cases, one positive and one negative, in 2**-24ths."""
    total, unit = weight.sum(axis=1).astype(np.float64), float(WEIGHT_UNIT)
    own = (weight * (WEIGHT_UNIT - weight)).sum(axis=1).astype(np.float64)
    return np.asarray((total * (weight.shape[1] * unit - total) - own) / unit)


def weighted_auc(
    score: Float32[np.ndarray, "batch cases"], weight: Int64[np.ndarray, "batch cases"]
) -> Float64[np.ndarray, " batch"]:
    """AUC of each session where a case counts as positive by its weight, negative by the rest.

    Args:
        score: log-odds.
        weight: in whole 2**-24ths.
    """
    batch, n = score.shape
    won = np.empty(batch)
    rows = max(1, CHUNK_PAIRS // (n * n))
    for start in range(0, batch, rows):
        part = slice(start, start + rows)
        psi = np.sign(score[part, :, None] - score[part, None, :]).astype(np.float64) + 1.0
        psi[:, np.arange(n), np.arange(n)] = 0.0
        share = weight[part] / float(WEIGHT_UNIT)
        won[part] = (share[:, :, None] * (1.0 - share[:, None, :]) * psi).sum(axis=(1, 2))
    return np.asarray(won / (2.0 * _pair_weight(weight)) * WEIGHT_UNIT)


def half_wins(
    pos: Float32[np.ndarray, "batch pos"], neg: Float32[np.ndarray, "batch neg"]
) -> Int64[np.ndarray, " batch"]:
    """Twice the number of won pairs (ties count one) of each session, in whole numbers."""
    batch, n_pos, n_neg = len(pos), pos.shape[1], neg.shape[1]
    total = np.empty(batch, dtype=np.int64)
    rows = max(1, CHUNK_PAIRS // (n_pos * n_neg))
    for start in range(0, batch, rows):
        part = slice(start, start + rows)
        won = _half_wins(pos[part, :, None], neg[part, None, :]).astype(np.float32)
        # Whole numbers below 2**24 for a positive, in float64 over the positives: exact.
        of_pos = won.reshape(-1, n_neg) @ np.ones(n_neg, dtype=np.float32)
        total[part] = of_pos.reshape(-1, n_pos).sum(axis=1, dtype=np.float64)
    return total


def _half_wins(
    pos: Float32[np.ndarray, "batch pos 1"], neg: Float32[np.ndarray, "batch 1 neg"]
) -> Int8[np.ndarray, "batch pos neg"]:
    """2 for a won pair, 1 for a tie: comparisons, cheaper than the signs of differences."""
    won = (pos > neg).view(np.int8)
    won += (pos >= neg).view(np.int8)
    return won


def half_win_change(
    old: Float32[np.ndarray, " batch"],
    new: Float32[np.ndarray, " batch"],
    opposite: Float32[np.ndarray, "batch opposite"],
) -> Int64[np.ndarray, " batch"]:
    """How many half wins a positive gains when its score moves; for a negative, negate it.

    Args:
        old: the score before.
        new: the score after.
        opposite: current scores of the opposite class.
    """
    sign = np.sign(new[:, None] - opposite)
    sign -= np.sign(old[:, None] - opposite)
    # A matrix product of small whole numbers is exact in float32 up to 2**24 cases.
    return np.asarray(sign @ np.ones(opposite.shape[1], dtype=np.float32)).astype(np.int64)


def auc(wins: Int64[np.ndarray, " batch"], n_pos: int, n_neg: int) -> np.ndarray:
    """AUC from half wins, or a change of AUC from a change of half wins."""
    return np.asarray(wins / (2.0 * n_pos * n_neg))


def midpoint_credit(
    first: Float32[np.ndarray, "batch cases"],
    final: Float32[np.ndarray, "batch cases"],
    is_positive: Bool[np.ndarray, " cases"],
) -> Float64[np.ndarray, "batch cases"]:
    """Each case's part in its session's AUC gain, whatever the order of the decisions.

    Half the change against the others' first scores plus half that against their final ones: the
    parts of a session sum to its AUC gain (Shapley's value of every pair of cases).

    Args:
        first: scores at the session's start.
        final: scores at its end.
        is_positive: the cases of the positive class, the same columns in every session.
    """
    pos, neg = np.flatnonzero(is_positive), np.flatnonzero(~is_positive)
    quarters = np.empty(first.shape)
    rows = max(1, CHUNK_PAIRS // max(len(pos) * len(neg), 1))
    for start in range(0, len(first), rows):
        part = slice(start, start + rows)
        b_pos, b_neg = first[part][:, pos, None], first[part][:, None, neg]
        f_pos, f_neg = final[part][:, pos, None], final[part][:, None, neg]
        both = _half_wins(f_pos, f_neg) - _half_wins(b_pos, b_neg)
        apart = _half_wins(f_pos, b_neg) - _half_wins(b_pos, f_neg)
        # Sums of small whole numbers are exact in float32, and a product is the quickest of them.
        of_pos = (both + apart).astype(np.float32).reshape(-1, len(neg))
        quarters[part, pos] = (of_pos @ np.ones(len(neg), np.float32)).reshape(-1, len(pos))
        quarters[part, neg] = (both - apart).astype(np.float32).sum(axis=1)
    return np.asarray(quarters / (4.0 * len(pos) * len(neg)))


def pooled_auc(
    score: Float32[np.ndarray, "sessions cases"], is_positive: Bool[np.ndarray, " cases"]
) -> float:
    """AUC over the cases of all sessions together, each case against every other session's too.

    The mean of the sessions' own AUCs compares patients who sat at the same board; this one also
    asks whether scores mean the same from one session to the next.

    Args:
        score: scores of every session.
        is_positive: the cases of the positive class, the same columns in every session.
    """
    pos, neg = score[:, is_positive].ravel(), np.sort(score[:, ~is_positive], axis=None)
    below = np.searchsorted(neg, pos, side="left").astype(np.float64)
    below += np.searchsorted(neg, pos, side="right")
    return float(below.sum() / (2.0 * len(pos) * len(neg)))
