"""Between the sessions and SB3: the scaled reward, the log of ended sessions, the progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper


class ScaledReward(VecEnvWrapper):
    """Multiplies rewards by a constant, which changes no optimum, only the value loss's scale."""

    def __init__(self, venv: VecEnv, scale: float) -> None:
        super().__init__(venv)
        self.scale = scale

    def reset(self) -> np.ndarray:
        """Begin the sessions anew."""
        return np.asarray(self.venv.reset())

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step, with scaled rewards."""
        observations, rewards, terminated, infos = self.venv.step_wait()
        return np.asarray(observations), rewards * self.scale, terminated, infos


class SessionLog(BaseCallback):
    """Writes the ended sessions' AUC gain and emissions to tensorboard; reports progress."""

    def __init__(self, progress: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self._progress = progress
        self._reported = 0
        self._ended: list[tuple[float, float]] = []

    def start_at(self, num_timesteps: int) -> None:
        """Report the steps of an earlier run as done."""
        if self._progress is not None:
            self._progress(num_timesteps)
        self._reported = num_timesteps

    def _on_step(self) -> bool:
        for row in np.flatnonzero(self.locals["dones"]):
            info = self.locals["infos"][row]
            gain = info["session_auc_final"] - info["session_auc_base"]
            self._ended.append((float(gain), float(info["total_g_co2e"])))
        return True

    def _on_rollout_end(self) -> None:
        if self._ended:
            gain, g_co2e = np.mean(self._ended, axis=0)
            self.logger.record("session/auc_gain", float(gain))
            self.logger.record("session/g_co2e", float(g_co2e))
            self.logger.record("session/ended", len(self._ended))
            self._ended.clear()
        if self._progress is not None:
            self._progress(self.num_timesteps - self._reported)
            self._reported = self.num_timesteps
