"""A price on cost that training finds by itself: the multiplier of a budget constraint.

Maximise the reward subject to ``E[cost] <= E[budget]``: the policy is trained on ``reward -
multiplier * cost / budget``, and the multiplier follows the constraint by plain gradient ascent on
the dual, ``multiplier <- max(0, multiplier + rate * (cost / budget - 1))``. No momentum and no
logarithm: the multiplier returns to 0 when the budget does not bind, and Adam's normalised steps
would overshoot it for ever (Stooke, Achiam and Abbeel 2020 discuss the oscillation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from agent.errors import RlTrainingError


@dataclass(frozen=True, kw_only=True)
class Multiplier:
    """What a session's whole budget costs, in reward.

    Attributes:
        value: never below 0.
        rate: step size of the ascent.
    """

    value: float
    rate: float

    def __post_init__(self) -> None:
        if not (self.value >= 0.0 and self.rate >= 0.0):
            raise RlTrainingError(
                f"A multiplier of {self.value} with rate {self.rate}: neither may be below 0."
            )

    def updated(self, cost: float, budget: float) -> Multiplier:
        """One step: up when the cost is above the budget, down, to 0 at least, when below.

        Args:
            cost: summed over some sessions.
            budget: of the same sessions, in the same unit, above 0.

        Raises:
            RlTrainingError: if the budget is not above 0 or a figure is not finite.
        """
        if not (np.isfinite(cost) and np.isfinite(budget) and budget > 0.0):
            raise RlTrainingError(
                f"A cost of {cost} against a budget of {budget} gives the multiplier no direction; "
                "the budget must be above 0."
            )
        moved = self.value + self.rate * (cost / budget - 1.0)
        return replace(self, value=max(0.0, moved))


class PricedCost(VecEnvWrapper):
    """Takes ``multiplier * cost / budget`` from each reward and adds up cost and budget.

    Attributes:
        multiplier: may be replaced between rollouts.
    """

    def __init__(self, venv: VecEnv, multiplier: Multiplier, mean_budget: float) -> None:
        super().__init__(venv)
        self.multiplier = multiplier
        self._mean_budget = mean_budget
        self._ended = np.zeros(2)

    def reset(self) -> np.ndarray:
        """Begin the sessions anew; what had been added up is kept."""
        return np.asarray(self.venv.reset())

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step, at the multiplier's price."""
        observations, rewards, terminated, infos = self.venv.step_wait()
        costs = step_costs(self.venv)
        for row in np.flatnonzero(terminated):
            self._ended += (infos[row]["total_g_co2e"], infos[row]["budget_g"])
            costs[row] = infos[row]["cost"]
        price = self.multiplier.value / self._mean_budget
        priced = (rewards - price * costs).astype(np.float32)
        return np.asarray(observations), priced, terminated, infos

    def update(self) -> Multiplier:
        """Move the multiplier by the sessions that have ended since the last call, if any."""
        cost, budget = self._ended
        self._ended = np.zeros(2)
        if budget > 0.0:
            self.multiplier = self.multiplier.updated(float(cost), float(budget))
        return self.multiplier


def step_costs(venv: VecEnv) -> np.ndarray:
    """gCO2e of the last step of each session that goes on (those that ended say it themselves)."""
    costs = getattr(venv.unwrapped, "last_infos", {}).get("cost")
    return np.zeros(venv.num_envs) if costs is None else np.array(costs, dtype=np.float64)
