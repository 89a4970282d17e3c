"""Estimates with intervals, and the Pareto front: what the comparison reports, in closed form.

A policy is measured on sessions that every policy shares; a learned policy is trained several
times. So its figures form a table of training seeds by sessions, one table a fold. Intervals
come from a bootstrap that redraws training seeds and sessions independently of each other
(Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2)), fold by fold. The
sessions of one fold share that fold's patients, and here patients are not redrawn: such an
interval says what another draw of sessions and seeds would give, not another set of patients.
:mod:`agent.bootstrap` redraws folds and patients as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from agent.errors import ComparisonError

REPLICATES = 2000
TAILS = (2.5, 97.5)
IQM_CUT = 0.25
IQM_REPLICATES = 500


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

    @classmethod
    def of(cls, value: float, redrawn: Float[np.ndarray, " replicates"], n: int) -> Estimate:
        """A value with the 95 % percentile interval of its redraws."""
        low, high = np.nanpercentile(redrawn, TAILS)
        return cls(value=float(value), low=float(low), high=float(high), n=n)

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


def interquartile_mean(values: Float[np.ndarray, "*batch values"]) -> Float64[np.ndarray, "*batch"]:
    """Mean of the middle half along the last axis: a quarter is cut off at either end.

    Where a quarter is no whole number, it is rounded down (as ``scipy.stats.trim_mean`` does).
    Less swayed by a few runs than the mean, less wasteful than the median (Agarwal et al. 2021,
    "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 34).
    """
    n = values.shape[-1]
    cut = int(n * IQM_CUT)
    middle = np.partition(values, (cut, n - cut - 1), axis=-1)[..., cut : n - cut]
    return np.asarray(middle.mean(axis=-1, dtype=np.float64))


def bootstrap_iqm(
    sample: FoldedSample, rng: np.random.Generator, replicates: int = IQM_REPLICATES
) -> Estimate:
    """Interquartile mean over all runs, with a stratified bootstrap: redrawn within each fold.

    Args:
        sample: figures per fold, training seed and session.
        rng: source of the redraws.
        replicates: number of redraws.
    """
    everything = np.concatenate([block.ravel() for block in sample.blocks])
    redrawn = np.empty(replicates)
    for i in range(replicates):
        parts = []
        for block in sample.blocks:
            seeds = rng.integers(block.shape[0], size=block.shape[0])
            sessions = rng.integers(block.shape[1], size=block.shape[1])
            parts.append(block[np.ix_(seeds, sessions)].ravel())
        redrawn[i] = interquartile_mean(np.concatenate(parts))
    return Estimate.of(float(interquartile_mean(everything)), redrawn, sample.n)


def probability_of_improvement(
    ours: Float[np.ndarray, "seeds sessions"], theirs: Float[np.ndarray, "others sessions"]
) -> float:
    """Chance that one of our runs beats one of theirs in a session; a tie counts half."""
    return float(wins_per_session(ours, theirs).mean())


def wins_per_session(
    ours: Float[np.ndarray, "seeds sessions *redraws"],
    theirs: Float[np.ndarray, "others sessions *redraws"],
) -> Float64[np.ndarray, "..."]:
    """In each session, the share of pairs of runs that ours wins; a tie counts half."""
    won = np.zeros(ours.shape[1:])
    for one in theirs:
        won += (np.sign(ours - one) + 1.0).sum(axis=0, dtype=np.float64)
    return np.asarray(won / (2.0 * len(ours) * len(theirs)))


def two_sided_p(redrawn: Float[np.ndarray, " replicates"]) -> float:
    """How often redraws of a difference fall on the other side of 0, twice, never 0 itself.

    The level at which the percentile interval would just touch 0. A difference that is 0 in
    every redraw has p = 1.
    """
    kept = redrawn[np.isfinite(redrawn)]
    tail = min(int((kept <= 0).sum()), int((kept >= 0).sum()))
    return min(1.0, 2.0 * (tail + 1) / (len(kept) + 1))


def holm(p_values: Float64[np.ndarray, " tests"]) -> Float64[np.ndarray, " tests"]:
    """P-values corrected for how many there are (Holm 1979): valid whatever their dependence.

    The smallest is multiplied by the number of tests, the next by one less, and so on; none may
    fall below an earlier one, none exceeds 1.
    """
    order = np.argsort(p_values, kind="stable")
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected


def kendall_tau(
    first: Float[np.ndarray, "*batch items"], second: Float[np.ndarray, "*batch items"]
) -> Float64[np.ndarray, "*batch"]:
    """Pairs in the same order minus pairs in the opposite order, over all pairs (tau a).

    Raises:
        ComparisonError: if there are fewer than two items.
    """
    n = first.shape[-1]
    if n < 2:
        raise ComparisonError(f"{n} policies have no order; name two or more.")
    upper = np.triu_indices(n, k=1)
    agree = np.sign(first[..., upper[0]] - first[..., upper[1]])
    agree = agree * np.sign(second[..., upper[0]] - second[..., upper[1]])
    return np.asarray(agree.mean(axis=-1, dtype=np.float64))
