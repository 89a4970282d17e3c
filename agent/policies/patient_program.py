"""What a transfer makes possible: a dynamic programme over one patient's evidence and log-odds.

The state of a case is what is present, what has been processed, and its log-odds. Processing a
modality costs its energy and a slot, moves the log-odds at random (transitions of the training
patients) and leaves a case that may go on or stop:

    V(present, done, l) = max(0, max over m in present - done of
                              gain(done, m, l) - price kWh(m) - fee + E[V(present, done + m, l')])

The last term is what this module tabulates, for several prices of energy and fees of a slot; the
gain of the transfer itself is in the observation. Transfers that process nothing new are worth
their own gain only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

LOWEST, STEP, BINS = -6.0, 0.5, 25
GRID = LOWEST + STEP * np.arange(BINS)


@dataclass(frozen=True, kw_only=True)
class PatientProgram:
    """Expected value of what follows, for cases whose other modalities are M (clinical left out).

    Attributes:
        per_kwh: prices of energy, AUC per kWh, ascending from 0.
        per_slot: prices of a slot, AUC, ascending from 0.
        onward: E[V after processing m] by price, fee, what is present, what is processed (bit m
            of the index stands for modality m), m, and log-odds from -6 to 6 in steps of 0.5.
    """

    per_kwh: Float64[np.ndarray, " prices"]
    per_slot: Float64[np.ndarray, " fees"]
    onward: Float32[np.ndarray, "prices fees present done modalities bins"]

    def follow(
        self,
        state: tuple[Int64[np.ndarray, " batch"], Int64[np.ndarray, " batch"]],
        logit: Float64[np.ndarray, " batch"],
        per_kwh: Float64[np.ndarray, " batch"],
        per_slot: Float64[np.ndarray, " batch"],
    ) -> Float64[np.ndarray, "batch modalities"]:
        """What is expected to follow after processing each modality, net of its cost.

        Args:
            state: bits of what is present and of what is processed.
            logit: log-odds now.
            per_kwh: price of energy later, AUC per kWh.
            per_slot: price of a slot, AUC.
        """
        present, done = state
        total = np.zeros((len(logit), self.onward.shape[4]))
        position = np.clip((logit - LOWEST) / STEP, 0.0, BINS - 1.0)
        for price, share_p in _corners(self.per_kwh, per_kwh):
            for fee, share_f in _corners(self.per_slot, per_slot):
                for bin_, share_b in _between(position, BINS):
                    share = (share_p * share_f * share_b)[:, None]
                    total += share * self.onward[price, fee, present, done, :, bin_]
        return total


Corner = tuple[Int64[np.ndarray, " batch"], Float64[np.ndarray, " batch"]]


def _between(position: Float64[np.ndarray, " batch"], size: int) -> tuple[Corner, Corner]:
    below = np.minimum(position.astype(np.int64), size - 2)
    weight = position - below
    return (below, 1.0 - weight), (below + 1, weight)


def _corners(
    grid: Float64[np.ndarray, " grid"], value: Float64[np.ndarray, " batch"]
) -> tuple[Corner, Corner]:
    """The grid points on both sides of each value, with their weights; clipped to the grid."""
    return _between(np.interp(value, grid, np.arange(len(grid), dtype=np.float64)), len(grid))


def solve(
    gain: Float64[np.ndarray, "done modalities bins"],
    move: Float64[np.ndarray, "done modalities bins bins"],
    kwh: Float64[np.ndarray, " modalities"],
    per_kwh: Float64[np.ndarray, " prices"],
    per_slot: Float64[np.ndarray, " fees"],
) -> PatientProgram:
    """Solve the programme backwards, from cases with everything processed.

    Args:
        gain: expected AUC gain of processing m, by what is processed and log-odds.
        move: probability of each log-odds after processing m.
        kwh: energy of processing each modality.
        per_kwh: prices of energy to solve for.
        per_slot: fees of a slot to solve for.
    """
    done_n, n, bins = gain.shape
    shape = (len(per_kwh), len(per_slot), done_n, done_n)
    onward = np.zeros((*shape, n, bins))
    value = np.zeros((*shape, bins))
    cost = per_kwh[:, None, None] * kwh + per_slot[None, :, None]
    for present in range(done_n):
        for done in sorted(range(done_n), key=lambda bits: -bits.bit_count()):
            if done & ~present:
                continue
            for m in (m for m in range(n) if present & ~done & 1 << m):
                then = value[:, :, present, done | 1 << m] @ move[done, m].T
                onward[:, :, present, done, m] = then
                worth = gain[done, m] - cost[:, :, m, None] + then
                here = value[:, :, present, done]
                np.maximum(here, worth, out=here)
    return PatientProgram(
        per_kwh=per_kwh,
        per_slot=per_slot,
        onward=onward.astype(np.float32),
    )
