"""Writing a log in replay: a policy that explores, and what it does, decision by decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from agent.errors import OffPolicyError
from agent.ope_log import DecisionLog, log_of
from agent.policies.protocol import Policy
from agent.policies.simple import RandomPolicy
from agent.rollout import start_sessions
from distill.bundle import hash_case_id
from envs.catalogue import ActionCatalogue
from envs.setup import ReviewSetup

Observations = Float32[np.ndarray, "batch fields"]
Masks = Bool[np.ndarray, "batch actions"]
Probabilities = Float64[np.ndarray, "batch actions"]


@runtime_checkable
class Chooser(Protocol):
    """A policy that says how likely it is to take each action."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        ...

    def probabilities(self, observation: Observations, action_mask: Masks) -> Probabilities:
        """How likely each action is; 0 for masked ones, sums to 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class Exploring:
    """Follows a policy, except that with some probability it draws among all open actions.

    Attributes:
        policy: what it follows otherwise.
        catalogue: names of the actions.
        share: probability of drawing, 0 to 1.
    """

    policy: Policy
    catalogue: ActionCatalogue
    share: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise OffPolicyError(f"The share of exploration is {self.share}; give 0 to 1.")

    @property
    def name(self) -> str:
        """What it follows, and how much it explores."""
        return f"{self.policy.name}, {self.share:.0%} explored"

    def probabilities(self, observation: Observations, action_mask: Masks) -> Probabilities:
        """The policy's own choice and an equal share of the exploration for each open action."""
        uniform = action_mask / action_mask.sum(axis=1, keepdims=True)
        own = action_probabilities(self.policy, observation, action_mask)
        return np.asarray((1.0 - self.share) * own + self.share * uniform)


def action_probabilities(
    policy: Policy | Chooser, observation: Observations, action_mask: Masks
) -> Probabilities:
    """How likely a policy is to take each action; a deterministic one is sure of its own."""
    if isinstance(policy, Chooser):
        return policy.probabilities(observation, action_mask)
    if isinstance(policy, RandomPolicy):
        return np.asarray(action_mask / action_mask.sum(axis=1, keepdims=True))
    policy.reset(len(observation), seed=0)
    chosen = policy.act(observation, action_mask)
    sure = np.zeros(action_mask.shape)
    sure[np.arange(len(sure)), chosen] = 1.0
    return sure


def log_sessions(
    behaviour: Chooser, setup: ReviewSetup, seeds: Sequence[int], rng: np.random.Generator
) -> DecisionLog:
    """Let a policy review sessions and log every decision with its propensity.

    Args:
        behaviour: the policy in use; it must explore, or the log says nothing of others.
        setup: the environment's fixed numbers.
        seeds: one a session.
        rng: draws the actions.
    """
    engine = start_sessions(setup, seeds)
    rows: list[dict[str, object]] = []
    n_cases = setup.config.n_cases
    steps = np.zeros((len(seeds), n_cases), dtype=np.int64)
    at = np.arange(len(seeds))
    names = [[hash_case_id(f"replay {seed} {i}") for i in range(n_cases)] for seed in seeds]
    last: dict[str, dict[str, object]] = {}
    while not engine.over.all():
        active, case = np.flatnonzero(~engine.over), engine.state.case.copy()
        mask, observation = engine.mask.copy(), engine.observe()
        chances = behaviour.probabilities(observation, mask)
        action = _draw(chances, rng)
        outcome = engine.step(action)
        for i in active:
            name = names[i][case[i]]
            last[name] = {
                "case": name, "step": int(steps[i, case[i]]), "observation": observation[i],
                "mask": mask[i], "action": int(action[i]),
                "propensity": float(chances[i, action[i]]), "propensities": chances[i],
                "reward": float(outcome.reward[i]),
            }  # fmt: skip
            rows.append(last[name])
        steps[at[active], case[active]] += 1
    for i in at:
        for j, name in enumerate(names[i]):
            if name in last:
                last[name]["score"] = float(engine.state.score[i, j])
                last[name]["label"] = float(j < setup.n_pos)
    header = {
        "modalities": setup.layout.modalities,
        "transfers": setup.layout.transfers,
        "behaviour": behaviour.name,
        "reward_unit": f"{setup.config.reward}, less carbon at {setup.price_per_g:g} per gCO2e",
    }
    return log_of(header, list(rows))


def _draw(chances: Probabilities, rng: np.random.Generator) -> Int64[np.ndarray, " batch"]:
    """One action a row; never one of probability 0."""
    level = rng.random(len(chances)) * chances.sum(axis=1)
    beyond = np.cumsum(chances, axis=1) <= level[:, None]
    action = np.minimum(beyond.sum(axis=1), chances.shape[1] - 1)
    impossible = chances[np.arange(len(action)), action] <= 0.0
    return np.asarray(np.where(impossible, chances.argmax(axis=1), action).astype(np.int64))
