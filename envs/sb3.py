"""The batched review session as Stable-Baselines3's ``VecEnv``.

SB3 does not take Gymnasium's ``VectorEnv``. This adapter resets in the same step, hands over the
last observation as ``terminal_observation`` and the masks under the name that sb3-contrib's
MaskablePPO asks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

import numpy as np
from gymnasium.vector import AutoresetMode
from jaxtyping import Bool
from stable_baselines3.common.vec_env import VecEnv

from envs.errors import SessionError
from envs.vector import CaseReviewVectorEnv

Indices = None | int | Iterable[int]


@final
class Sb3VecEnv(VecEnv):
    """Review sessions for SB3; takes the arguments of the vector environment.

    Attributes:
        last_infos: the arrays of the last step (``auc_gain``, ``g_co2e``, ``cost``, ...). The
            dictionaries that SB3 expects, one a session, are filled only at a session's end.
    """

    def __init__(self, num_envs: int, **kwargs: Any) -> None:
        """Set the sessions up.

        Raises:
            EnvsError: if an argument is unknown or cannot be used.
        """
        if "autoreset_mode" in kwargs:
            raise SessionError("Stable-Baselines3 resets in the same step; drop autoreset_mode.")
        self.envs = CaseReviewVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)
        self.render_mode = None
        self.last_infos: dict[str, Any] = {}
        self._actions = np.zeros(num_envs, dtype=np.int64)
        super().__init__(
            num_envs, self.envs.single_observation_space, self.envs.single_action_space
        )

    def action_masks(self) -> Bool[np.ndarray, "batch actions"]:
        """Which actions are open now, in each session."""
        return self.envs.action_masks()

    def reset(self) -> np.ndarray:
        """Begin a session in every row, with the seeds of the last :meth:`seed` if any."""
        observations, infos = self.envs.reset(seed=list(self._seeds))
        self.last_infos = infos
        self.reset_infos = [{"action_mask": mask} for mask in infos["action_mask"]]
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for :meth:`step_wait`."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Take the actions; sessions that end begin anew at once."""
        observations, rewards, terminated, _, infos = self.envs.step(self._actions)
        self.last_infos = infos
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(terminated):
            final_info = infos["final_info"]
            rows[row] = {
                key: value[row]
                for key, value in final_info.items()
                if not key.startswith("_") and final_info[f"_{key}"][row]
            }
            rows[row]["terminal_observation"] = infos["final_obs"][row]
            rows[row]["TimeLimit.truncated"] = False
        return observations, rewards.astype(np.float32), terminated, rows

    def close(self) -> None:
        """Nothing is held open."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """An attribute, once for each chosen session; the sessions share it."""
        source = self if attr_name in ("render_mode", "action_masks") else self.envs
        return [getattr(source, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Refused: the sessions share one setup.

        Raises:
            SessionError: always.
        """
        raise SessionError(f"{attr_name!r} cannot be set; make the environment anew instead.")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """``action_masks``, one row for each chosen session.

        Raises:
            SessionError: if another method is asked for.
        """
        if method_name != "action_masks" or method_args or method_kwargs:
            raise SessionError(f"Sessions have the method 'action_masks', not {method_name!r}.")
        masks = self.action_masks()
        return [masks[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Indices = None) -> list[bool]:
        """No session is wrapped."""
        return [False for _ in self._get_indices(indices)]
