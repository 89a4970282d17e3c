"""A head start: the network first learns to do what a planner does, and what that earns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from agent.algorithms import TrainPpoConfig
from agent.calibration import calibrate, calibrate_price
from agent.network import MaskableScoringPolicy
from agent.policies.files import PolicyFile, write_policy
from agent.policies.guide import with_advice
from agent.policies.plan_files import planner_kind, write_plan
from agent.policies.planner import PlannedPolicy
from agent.policies.price import PricePolicy
from agent.policies.protocol import Policy
from agent.rollout import start_sessions
from agent.training_task import TrainingTask
from envs.setup import ReviewSetup

CALIBRATION_SESSIONS = 64


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """What a policy saw and did.

    Attributes:
        observation: one row a decision.
        mask: which actions were open.
        action: what it chose.
        return_to_go: reward from this decision to the session's end.
    """

    observation: Float32[np.ndarray, "decisions fields"]
    mask: Bool[np.ndarray, "decisions actions"]
    action: Int64[np.ndarray, " decisions"]
    return_to_go: Float64[np.ndarray, " decisions"]


@dataclass(frozen=True, kw_only=True)
class CloneSettings:
    """How the imitation is fitted.

    Attributes:
        seed: of the sessions and of the order of the batches.
        sessions: sessions that are shown.
        epochs: passes over the decisions.
        batch: decisions in one gradient step.
        learning_rate: Adam's first step size; it falls to 0 along a cosine.
        reward_scale: what training will multiply rewards with.
        guided: whether the network reads the decisions as advice; only the returns are fitted then.
    """

    seed: int
    sessions: int
    epochs: int
    batch: int
    learning_rate: float
    reward_scale: float
    guided: bool = False


def calibrated_price_policy(
    setup: ReviewSetup, seed: int, sessions: int = CALIBRATION_SESSIONS
) -> PricePolicy:
    """The price policy at the price that spends the budget of these training sessions."""
    relaxed = replace(setup, config=replace(setup.config, budget_mode="price"))
    price = calibrate_price(relaxed, range(seed, seed + sessions))
    return PricePolicy(layout=setup.layout, catalogue=setup.catalogue, g_per_auc=price.g_per_auc)


def teacher_policy(
    name: str, setup: ReviewSetup, seed: int, sessions: int = CALIBRATION_SESSIONS
) -> Policy:
    """The policy to imitate, calibrated on these training sessions.

    Args:
        name: ``price``, or a planner that :func:`agent.calibration.calibrate` knows.
        setup: TRAINING sessions.
        seed: of the first session.
        sessions: how many to calibrate on.

    Raises:
        PolicyError: if there is none of this name.
    """
    if name == "price":
        return calibrated_price_policy(setup, seed, sessions)
    return calibrate(name, setup, range(seed, seed + sessions))


def write_guide(task: TrainingTask, config: TrainPpoConfig, folder: Path) -> Path:
    """Keep the calibrated policy to imitate as a policy directory, to be opened again."""
    setup, name = task.teaching, config.warm_start
    teacher = teacher_policy(name, setup, config.seed, config.calibration_sessions)
    facts = {**task.provenance, "calibration_sessions": config.calibration_sessions}
    if isinstance(teacher, PlannedPolicy):
        kind = planner_kind(name)
        return write_plan(folder, kind, teacher, provenance=facts, patients=task.patients)
    price = cast(PricePolicy, teacher)
    stored = PolicyFile.for_layout(
        setup.layout, setup.catalogue, kind="price", name=name, g_per_auc=price.g_per_auc,
        provenance=facts,
    )  # fmt: skip
    return write_policy(folder, stored, patients=task.patients)


def demonstrate(policy: Policy, setup: ReviewSetup, seed: int, sessions: int) -> Demonstrations:
    """Every decision of the policy in some training sessions."""
    engine = start_sessions(setup, range(seed, seed + sessions))
    seen: list[tuple[np.ndarray, ...]] = []
    rewards = []
    policy.reset(sessions, seed)
    while not engine.over.all():
        active, mask, observation = ~engine.over, engine.mask, engine.observe()
        action = policy.act(observation, mask)
        seen.append((observation[active], mask[active], action[active], np.flatnonzero(active)))
        rewards.append(engine.step(action).reward)
    to_go = np.cumsum(np.array(rewards)[::-1], axis=0)[::-1]
    observations, masks, actions, _ = (np.concatenate(column) for column in zip(*seen))
    returns = np.concatenate([step[rows[3]] for step, rows in zip(to_go, seen)])
    return Demonstrations(
        observation=observations, mask=masks, action=actions, return_to_go=returns
    )


def clone(policy: MaskableScoringPolicy, shown: Demonstrations, how: CloneSettings) -> float:
    """Fit the network to a policy's decisions and returns; PPO's Adam starts afresh after.

    Args:
        policy: its network is changed in place.
        shown: what to imitate.
        how: with what settings.

    Returns:
        The share of the shown decisions that the network takes as well.
    """
    seen = shown.observation
    if how.guided:
        seen = with_advice(seen, shown.action, shown.mask.shape[1])
    observation, action, mask = (
        torch.as_tensor(array) for array in (seen, shown.action, shown.mask)
    )
    returns = torch.as_tensor(shown.return_to_go * how.reward_scale, dtype=torch.float32)
    rng = np.random.default_rng(how.seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=how.learning_rate)
    parts = max(1, len(action) // how.batch)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, how.epochs * parts))
    for _ in range(how.epochs):
        for rows in np.array_split(rng.permutation(len(action)), parts):
            at = torch.as_tensor(rows)
            value, log_prob, _ = policy.evaluate_actions(observation[at], action[at], mask[at])
            loss = (value.flatten() - returns[at]).square().mean()
            if not how.guided:  # what is advised is what was done: there is nothing to imitate
                loss = loss - log_prob.mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            decay.step()
    with torch.no_grad():
        chosen, _, _ = policy(observation, deterministic=True, action_masks=mask)
    return float((chosen == action).float().mean())
