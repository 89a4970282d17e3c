"""Sessions that training looks at and does not learn from: when to stop, and which network to keep.

The validation patients are one of the training folds, another one for another seed; the held-out
fold is never among them. The hours are the end of the training period. The sessions are the same
at every look, so that two looks differ by the policy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from agent.policies.features import FeatureIndex
from agent.policies.guide import advised_observation
from agent.policies.protocol import Policy
from agent.policies.scoring import ScoringWeights
from agent.rollout import start_sessions
from carbon.intensity.trace import Trace
from envs.session import TRAIN_SHARE
from envs.setup import ReviewSetup

VALIDATION_SEED = 7_000_000
VALIDATION_HOURS = 0.25
"""Share of the training period that is kept for looking."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Where a policy is looked at during training.

    Attributes:
        setup: validation patients and hours, with the environment's own reward.
        fold: the fold that the patients come from.
        seeds: one a session.
    """

    setup: ReviewSetup
    fold: int
    seeds: Sequence[int]

    def reward(
        self, weights: ScoringWeights, guide: Policy | None = None
    ) -> Float64[np.ndarray, " sessions"]:
        """Reward of each session under the network's best open actions."""
        index = FeatureIndex.of(self.setup.layout)

        def best(
            observation: Float32[np.ndarray, "batch fields"],
            mask: Bool[np.ndarray, "batch actions"],
        ) -> Int64[np.ndarray, " batch"]:
            seen = advised_observation(guide, observation, mask)
            return np.asarray(np.where(mask, weights.logits(index, seen), -np.inf).argmax(axis=1))

        engine = start_sessions(self.setup, list(self.seeds))
        total = np.zeros(len(self.seeds))
        while not engine.over.all():
            total += engine.step(best(engine.observe(), engine.mask)).reward
        return total


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look.

    Attributes:
        steps: environment steps trained on before it.
        reward: mean over the validation sessions.
    """

    steps: int
    reward: float


def best_look(looks: Sequence[Look]) -> int:
    """Position of the highest reward, the earliest of equal ones."""
    return int(np.argmax([look.reward for look in looks]))


def keeps_failing(looks: Sequence[Look], patience: int) -> bool:
    """Whether so many looks have passed without a new best."""
    return len(looks) - 1 - best_look(looks) >= patience if looks else False


def validation_fold(training_folds: Sequence[int], seed: int) -> int:
    """The training fold that a run of this seed looks at: each in turn."""
    return sorted(training_folds)[seed % len(training_folds)]


def split_hours(trace: Trace) -> tuple[Trace, Trace]:
    """The training period's hours to learn from, and the later ones to look at."""
    end = int(len(trace) * TRAIN_SHARE)
    middle = int(end * (1.0 - VALIDATION_HOURS))
    return _part(trace, slice(0, middle)), _part(trace, slice(middle, end))


def _part(trace: Trace, rows: slice) -> Trace:
    return replace(
        trace,
        time_utc=trace.time_utc[rows],
        g_per_kwh=trace.g_per_kwh[rows],
        estimated=trace.estimated[rows],
    )
