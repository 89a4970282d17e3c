"""Sequential AUC credit: what one changed score does to a session's AUC, exactly.

AUC is the Mann-Whitney statistic: over all pairs of a positive and a negative, 1 where the
positive scores higher, 1/2 where they tie. In whole numbers, with ``sign`` in {-1, 0, 1}:

    half_wins = sum over pairs (sign(s_pos - s_neg) + 1),   AUC = half_wins / (2 n_pos n_neg)

Changing one score changes only its own pairs, so its credit is a difference of signs against the
opposite class's current scores, and the credits of an episode telescope to final minus base AUC
without rounding. The credit of one step depends on the order of the steps; their sum does not.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

CHUNK_PAIRS = 4_000_000
"""Pairs compared at once, so that long sessions in many environments fit in memory."""


def half_wins(
    pos: Float32[np.ndarray, "batch pos"], neg: Float32[np.ndarray, "batch neg"]
) -> Int64[np.ndarray, " batch"]:
    """Twice the number of won pairs (ties count one) of each session, in whole numbers."""
    batch, n_pos, n_neg = len(pos), pos.shape[1], neg.shape[1]
    total = np.empty(batch, dtype=np.int64)
    rows = max(1, CHUNK_PAIRS // (n_pos * n_neg))
    for start in range(0, batch, rows):
        part = slice(start, start + rows)
        sign = np.sign(pos[part, :, None] - neg[part, None, :])
        total[part] = sign.sum(axis=(1, 2), dtype=np.float64).astype(np.int64)
    return np.asarray(total + n_pos * n_neg)


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
