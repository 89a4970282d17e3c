"""Choosing a planner's few constants on training sessions: one after another, where it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from agent.policies.planner import PlannedPolicy
from agent.rollout import run_sessions
from envs.setup import ReviewSetup

CANDIDATES: Mapping[str, tuple[float, ...]] = {
    "spend": (0.75, 1.0),
    "crowding": (0.4, 2.5),
    "follow_share": (0.5,),
    "run_size": (3.0,),
    "min_gain": (3e-5, 3e-4),
}
"""Values beside the default of each constant."""
STANDARD_ERRORS = 1.0
"""How many of them a change must gain by, so that the search does not follow noise."""


def search(policy: PlannedPolicy, setup: ReviewSetup, seeds: Sequence[int]) -> PlannedPolicy:
    """The policy with the constants that gain most on these sessions.

    Labels count by their probability given the fullest evidence (``expected_auc``), which takes
    most of the noise out; the environment's price and mask count as they are.

    Args:
        policy: fitted, at its default constants.
        setup: TRAINING sessions.
        seeds: one a session.
    """
    quiet = replace(setup, config=replace(setup.config, reward="expected_auc"))
    best, reward = policy, _reward(policy, quiet, seeds)
    for name, values in CANDIDATES.items():
        if not _matters(name, policy):
            continue
        for value in values:
            settings = best.settings.model_copy(update={name: value})
            tried = replace(best, settings=settings)
            found = _reward(tried, quiet, seeds)
            if _better(found, reward):
                best, reward = tried, found
    return best


def _reward(
    policy: PlannedPolicy, setup: ReviewSetup, seeds: Sequence[int]
) -> Float64[np.ndarray, " sessions"]:
    return run_sessions(policy, setup, seeds).reward


def _better(new: Float64[np.ndarray, " sessions"], old: Float64[np.ndarray, " sessions"]) -> bool:
    """Whether the mean of the paired differences is above its standard error."""
    change = new - old
    return bool(change.mean() > STANDARD_ERRORS * change.std() / max(len(change), 1) ** 0.5)


def _matters(name: str, policy: PlannedPolicy) -> bool:
    """Whether the constant has a part in what this policy does."""
    settings = policy.settings
    return {
        "crowding": settings.waits and settings.any_hour,
        "follow_share": policy.program is not None,
        "run_size": settings.batches and settings.setup_factor > 0.0,
    }.get(name, True)
