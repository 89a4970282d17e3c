"""What happened on a held-out fold, as every summary of it reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from agent.bounds import SessionBounds
from agent.contestants import Contestant
from agent.rollout import SessionRecords
from agent.statistics import FoldedSample
from envs.setup import ReviewSetup


@dataclass(frozen=True, kw_only=True)
class RewardTerms:
    """How a session's reward follows from its gain, its carbon and its lateness.

    Attributes:
        price_per_g: reward taken for one gram of CO2e.
        per_late_h: reward taken for one hour of lateness.
        additive: whether the reward is the AUC gain minus those two; otherwise (log-loss, Brier,
            expected AUC) it is only known as recorded.
    """

    price_per_g: float
    per_late_h: float
    additive: bool

    @classmethod
    def of(cls, setup: ReviewSetup) -> RewardTerms:
        """The terms of these sessions."""
        return cls(
            price_per_g=setup.price_per_g,
            per_late_h=setup.config.auc_per_late_h,
            additive=setup.config.reward == "auc",
        )


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """What happened on one held-out fold.

    Attributes:
        fold: the fold.
        n_patients: patients in it.
        rows: their rows in the evidence table; records hold indices into these.
        actions: names of the actions.
        traces: names of the traces that sessions drew from.
        terms: how the reward comes about.
        contestants: the policies.
        records: by policy, one entry a training seed.
        reference: processing everything for everybody, without budget and with room for all.
        bounds: of each session that was bounded; the first ones, all of them by default.
        expected_gain: by policy, the label-averaged gain [training seeds, bounded sessions].
    """

    fold: int
    n_patients: int
    rows: Int64[np.ndarray, " pool"]
    actions: tuple[str, ...]
    traces: tuple[str, ...]
    terms: RewardTerms
    contestants: tuple[Contestant, ...]
    records: Mapping[str, Sequence[SessionRecords]]
    reference: SessionRecords
    bounds: Sequence[SessionBounds]
    expected_gain: Mapping[str, Float64[np.ndarray, "seeds sessions"]]

    def figures(self, name: str, metric: str) -> Float64[np.ndarray, "seeds sessions"]:
        """One metric of one policy, a row a training seed."""
        if metric == "expected_gain":
            return self.expected_gain[name]
        if metric == "regret":
            bound = np.array([b.expected.expected_gain for b in self.bounds])
            return np.asarray(bound - self.expected_gain[name])
        if metric == "carbon_share":
            everything = self.reference.g_co2e
            spent = np.stack([r.g_co2e for r in self.records[name]])
            share = np.zeros_like(spent)
            np.divide(spent, everything, out=share, where=everything > 0)
            return np.asarray(share)
        return np.stack([getattr(record, metric) for record in self.records[name]])


def sample(results: Sequence[FoldResult], name: str, metric: str) -> FoldedSample:
    """One metric of one policy over all folds."""
    return FoldedSample(blocks=tuple(result.figures(name, metric) for result in results))


def policy_names_of(results: Sequence[FoldResult]) -> tuple[str, ...]:
    """The policies compared, in order."""
    return tuple(contestant.name for contestant in results[0].contestants)


def best_planner(results: Sequence[FoldResult]) -> str | None:
    """The policy without training with the highest mean reward; None if all were trained."""
    planners = [c.name for c in results[0].contestants if not c.learned]
    if not planners:
        return None
    return max(planners, key=lambda name: sample(results, name, "reward").mean)
