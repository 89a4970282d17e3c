"""A head start: the network first learns to do what the price policy does, and what it earns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from sb3_contrib import MaskablePPO

from agent.calibration import calibrate_price
from agent.policies.price import PricePolicy
from agent.rollout import start_sessions
from envs.setup import ReviewSetup

SESSIONS = 192
EPOCHS = 12
BATCH = 256
LEARNING_RATE = 1e-3
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


def calibrated_price_policy(setup: ReviewSetup, seed: int) -> PricePolicy:
    """The price policy at the price that spends the budget of these training sessions."""
    relaxed = replace(setup, config=replace(setup.config, budget_mode="price"))
    price = calibrate_price(relaxed, range(seed, seed + CALIBRATION_SESSIONS))
    return PricePolicy(layout=setup.layout, catalogue=setup.catalogue, g_per_auc=price.g_per_auc)


def demonstrate(policy: PricePolicy, setup: ReviewSetup, seed: int) -> Demonstrations:
    """Every decision of the policy in some training sessions."""
    engine = start_sessions(setup, range(seed, seed + SESSIONS))
    seen: list[tuple[np.ndarray, ...]] = []
    rewards = []
    policy.reset(SESSIONS, seed)
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


def clone_price_policy(
    model: MaskablePPO, setup: ReviewSetup, *, seed: int, reward_scale: float
) -> None:
    """Fit the network to the price policy's decisions and returns; Adam starts afresh after.

    Args:
        model: its policy and value networks are changed in place.
        setup: training sessions.
        seed: of the sessions and of the order of the batches.
        reward_scale: what training will multiply rewards with.
    """
    shown = demonstrate(calibrated_price_policy(setup, seed), setup, seed)
    observation, action, mask = (
        torch.as_tensor(array) for array in (shown.observation, shown.action, shown.mask)
    )
    returns = torch.as_tensor(shown.return_to_go * reward_scale, dtype=torch.float32)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.policy.parameters(), lr=LEARNING_RATE)
    for _ in range(EPOCHS):
        for rows in np.array_split(rng.permutation(len(action)), max(1, len(action) // BATCH)):
            value, log_prob, _ = model.policy.evaluate_actions(
                observation[rows], action[rows], action_masks=mask[rows]
            )
            loss = (value.flatten() - returns[rows]).square().mean() - log_prob.mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
