"""Estimates with intervals, and the Pareto front: what the comparison reports, in closed form.

A policy is measured on sessions that every policy shares; a learned policy is trained several
times. So its figures form a table of training seeds by sessions, one table a fold. Intervals
come from a bootstrap that redraws training seeds and sessions independently of each other
(Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2)), fold by fold. The
sessions of one fold share that fold's patients, and patients are not redrawn: an interval says
what another draw of sessions and seeds would give, not another set of patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from agent.errors import ComparisonError

REPLICATES = 2000
TAILS = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval, in the unit of what was averaged.

    Attributes:
        value: the mean.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        n: how many sessions (times training seeds) were averaged.
    """

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, object]:
        """``{"value", "ci95", "n"}``: the shape of every figure in greenboard's JSON files."""
        return {"value": self.value, "ci95": [self.low, self.high], "n": self.n}

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, kw_only=True)
class FoldedSample:
    """One figure per training seed and session, for each fold.

    Attributes:
        blocks: one array [training seeds, sessions] a fold; a policy without training has one row.
    """

    blocks: tuple[Float64[np.ndarray, "_ _"], ...]

    def __post_init__(self) -> None:
        if not self.blocks or any(block.size == 0 for block in self.blocks):
            raise ComparisonError("There is nothing to average: at least one session is needed.")

    @property
    def mean(self) -> float:
        """The folds' means, averaged: every fold counts the same."""
        return float(np.mean([block.mean() for block in self.blocks]))

    @property
    def n(self) -> int:
        """Sessions times training seeds, over all folds."""
        return sum(block.size for block in self.blocks)

    def minus(self, other: FoldedSample) -> FoldedSample:
        """The paired difference, session by session.

        Where only one side was trained several times, the other side's row is set against each
        of them; where both were, each training seed meets the other side's mean over seeds.

        Raises:
            ComparisonError: if the two were not measured on the same folds and sessions.
        """
        if [b.shape[1] for b in self.blocks] != [b.shape[1] for b in other.blocks]:
            raise ComparisonError("Paired differences need the same sessions on both sides.")
        pairs = zip(self.blocks, other.blocks)
        return FoldedSample(blocks=tuple(a - b.mean(axis=0, keepdims=True) for a, b in pairs))


def _redraw_weights(
    rng: np.random.Generator, n: int, replicates: int
) -> Float64[np.ndarray, "replicates units"]:
    """How often each of ``n`` units occurs in a redraw of ``n``, as shares of that redraw."""
    counts = rng.multinomial(n, np.full(n, 1.0 / n), size=replicates)
    return np.asarray(counts / n, dtype=np.float64)


def bootstrap_mean(
    sample: FoldedSample, rng: np.random.Generator, replicates: int = REPLICATES
) -> Estimate:
    """The mean with a 95 % percentile interval, redrawing seeds and sessions within each fold.

    Args:
        sample: figures per fold, training seed and session.
        rng: source of the redraws.
        replicates: number of redraws.
    """
    means = np.zeros(replicates)
    for block in sample.blocks:
        seeds = _redraw_weights(rng, block.shape[0], replicates)
        sessions = _redraw_weights(rng, block.shape[1], replicates)
        means += np.einsum("rs,sn,rn->r", seeds, block, sessions, optimize=True)
    low, high = np.percentile(means / len(sample.blocks), TAILS)
    return Estimate(value=sample.mean, low=float(low), high=float(high), n=sample.n)


def paired_difference(
    sample: FoldedSample,
    baseline: FoldedSample,
    rng: np.random.Generator,
    replicates: int = REPLICATES,
) -> Estimate:
    """By how much ``sample`` exceeds ``baseline`` on the same sessions, with its interval."""
    return bootstrap_mean(sample.minus(baseline), rng, replicates)


def dominated_by(
    gain: Float64[np.ndarray, " policies"], g_co2e: Float64[np.ndarray, " policies"]
) -> Bool[np.ndarray, "policies policies"]:
    """Entry [i, j]: policy j gains at least as much as i for at most i's carbon, and one strictly.

    Args:
        gain: AUC gain of each policy (more is better).
        g_co2e: emissions of each policy in g (less is better).
    """
    no_worse = (gain[None, :] >= gain[:, None]) & (g_co2e[None, :] <= g_co2e[:, None])
    better = (gain[None, :] > gain[:, None]) | (g_co2e[None, :] < g_co2e[:, None])
    return np.asarray(no_worse & better)


def pareto_front(
    gain: Float64[np.ndarray, " policies"], g_co2e: Float64[np.ndarray, " policies"]
) -> Bool[np.ndarray, " policies"]:
    """Which policies no other dominates: more AUC gain always costs more carbon among them."""
    return np.asarray(~dominated_by(gain, g_co2e).any(axis=1))
