"""Training sessions whose observations carry a planner's advice."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from agent.policies.guide import advised_observation
from agent.policies.protocol import Policy


class GuidedSessions(VecEnvWrapper):
    """Puts what the guide would do beside each observation, one column an action."""

    def __init__(self, venv: VecEnv, guide: Policy, n_actions: int) -> None:
        inner = venv.observation_space
        advice = np.zeros(n_actions, dtype=np.float32)
        space = spaces.Box(
            np.concatenate([inner.low, advice]),  # type: ignore[attr-defined]
            np.concatenate([inner.high, advice + 1.0]),  # type: ignore[attr-defined]
            dtype=np.float32,
        )
        super().__init__(venv, observation_space=space)
        self.guide = guide

    def _advised(self, observation: Any) -> np.ndarray:
        masks = np.stack(self.venv.env_method("action_masks"))
        return advised_observation(self.guide, observation, masks)

    def reset(self) -> np.ndarray:
        """Begin the sessions anew."""
        self.guide.reset(self.num_envs, 0)
        return self._advised(self.venv.reset())

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step, with the advice on what to do next."""
        observations, rewards, terminated, infos = self.venv.step_wait()
        return self._advised(observations), rewards, terminated, infos
