"""A head start: the network first learns to do what a planner does, and what that earns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from agent.calibration import calibrate, calibrate_price
from agent.network import MaskableScoringPolicy
from agent.policies.price import PricePolicy
from agent.policies.protocol import Policy
from agent.rollout import start_sessions
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
    """

    seed: int
    sessions: int
    epochs: int
    batch: int
    learning_rate: float
    reward_scale: float


def calibrated_price_policy(setup: ReviewSetup, seed: int) -> PricePolicy:
    """The price policy at the price that spends the budget of these training sessions."""
    relaxed = replace(setup, config=replace(setup.config, budget_mode="price"))
    price = calibrate_price(relaxed, range(seed, seed + CALIBRATION_SESSIONS))
    return PricePolicy(layout=setup.layout, catalogue=setup.catalogue, g_per_auc=price.g_per_auc)


def teacher_policy(name: str, setup: ReviewSetup, seed: int) -> Policy:
    """The policy to imitate, calibrated on these training sessions.

    Args:
        name: ``price``, or a planner that :func:`agent.calibration.calibrate` knows.
        setup: TRAINING sessions.
        seed: of the first session.

    Raises:
        PolicyError: if there is none of this name.
    """
    if name == "price":
        return calibrated_price_policy(setup, seed)
    return calibrate(name, setup, range(seed, seed + CALIBRATION_SESSIONS))


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
    observation, action, mask = (
        torch.as_tensor(array) for array in (shown.observation, shown.action, shown.mask)
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
            loss = (value.flatten() - returns[at]).square().mean() - log_prob.mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            decay.step()
    with torch.no_grad():
        chosen, _, _ = policy(observation, deterministic=True, action_masks=mask)
    return float((chosen == action).float().mean())
