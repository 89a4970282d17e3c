"""The review session as a native batch: many sessions, one set of arrays, any of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Int64

from distill.evidence import EvidenceTable
from envs.catalogue import ActionCatalogue
from envs.config import SessionConfig
from envs.engine import ReviewEngine, action_space, observation_space
from envs.errors import SessionError
from envs.gain import GainModel
from envs.observation import ObservationLayout
from envs.session import Traces
from envs.setup import build_setup
from envs.state import StepOutcome

Info = dict[str, Any]
Seeds = int | Sequence[int | None] | None


class CaseReviewVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many review sessions at once; row ``i`` is what a single environment would do, bit for bit.

    Rewards are float64. Each key of ``infos`` is an array with one row a session; ``_key`` says
    which rows hold a value, as in Gymnasium's own vector environments.
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        evidence: EvidenceTable | str | Path,
        folds: Sequence[int] | None = None,
        fit_folds: Sequence[int] | None = None,
        trace: Traces = None,
        period: str = "train",
        config: SessionConfig | None = None,
        preset: str | None = None,
        rules: str = "sequential",
        gain_model: GainModel | str | Path | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Set the sessions up; the arguments are those of :func:`envs.setup.build_setup`.

        Raises:
            EnvsError: if an argument is unknown or cannot be used.
        """
        if render_mode is not None:
            raise SessionError("The batched environment does not render; use gymnasium.make().")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            modes = ", ".join(mode.value for mode in AutoresetMode)
            raise SessionError(f"Unknown autoreset_mode {autoreset_mode!r}: {modes}.") from error
        self.setup = build_setup(
            evidence=evidence, folds=folds, fit_folds=fit_folds, trace=trace, period=period,
            config=config, preset=preset, rules=rules, gain_model=gain_model, **settings,
        )  # fmt: skip
        self.num_envs = num_envs
        self.render_mode = None
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = observation_space(self.setup)
        self.single_action_space = action_space(self.setup)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._engine = ReviewEngine(self.setup, num_envs)
        self._rngs: list[np.random.Generator | None] = [None] * num_envs
        self._all = np.ones(num_envs, dtype=np.bool_)

    @property
    def config(self) -> SessionConfig:
        """The session's settings."""
        return self.setup.config

    @property
    def layout(self) -> ObservationLayout:
        """The observation's fields."""
        return self.setup.layout

    @property
    def catalogue(self) -> ActionCatalogue:
        """The actions."""
        return self.setup.catalogue

    @property
    def gain_model(self) -> GainModel:
        """The predicted gains, fitted on training rows only."""
        return self.setup.gain_model

    def action_masks(self) -> Bool[np.ndarray, "batch actions"]:
        """Which actions are open now, in each session."""
        return self._engine.mask.copy()

    def reset(
        self, *, seed: Seeds = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Info]:
        """Begin a session in every row, or in those of ``options["reset_mask"]``.

        Args:
            seed: one seed a row; a single number ``s`` gives row ``i`` the seed ``s + i``; None
                goes on with each row's own generator.
            options: ``reset_mask``: which rows to reset (bool array).

        Raises:
            SessionError: if the seeds or the mask have the wrong length.
        """
        rows = self._rows_to_reset(options)
        seeds = self._seeds(seed)
        for row in rows:
            if seeds[row] is not None or self._rngs[row] is None:
                self._rngs[row], _ = seeding.np_random(seeds[row])
        self._begin(rows)
        reset = np.zeros(self.num_envs, dtype=np.bool_)
        reset[rows] = True
        return self._engine.observe(), self._reset_info(reset)

    def _rows_to_reset(self, options: dict[str, Any] | None) -> Int64[np.ndarray, " rows"]:
        mask = (options or {}).get("reset_mask", self._all)
        if not isinstance(mask, np.ndarray) or mask.shape != self._all.shape or mask.dtype != bool:
            raise SessionError(f"options['reset_mask'] must be {self.num_envs} booleans.")
        return np.flatnonzero(mask)

    def _seeds(self, seed: Seeds) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise SessionError(f"{len(seed)} seeds were given for {self.num_envs} sessions.")
        return list(seed)

    def _begin(self, rows: Int64[np.ndarray, " rows"]) -> None:
        rngs = [rng for row in rows if (rng := self._rngs[row]) is not None]
        self._engine.begin(rows, rngs)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Info]:
        """Take one action in every session.

        A session that has ended is reset as ``autoreset_mode`` says: at the next step, whose
        action is ignored (``NEXT_STEP``); in the same step, with the last observation and info
        in ``infos["final_obs"]`` and ``infos["final_info"]`` (``SAME_STEP``); or by the caller.

        Raises:
            SessionError: if an action is not in the catalogue, or a session has ended and must
                be reset first (before the first reset, or with autoreset disabled).
        """
        idle = self._engine.over.copy()
        if idle.any() and not self._may_reset(idle):
            raise SessionError(f"{int(idle.sum())} sessions are over; call reset() on them first.")
        outcome = self._engine.step(np.asarray(actions))
        infos = self._step_info(outcome, idle)
        if idle.any():
            self._begin(np.flatnonzero(idle))
            self._merge(infos, self._reset_info(idle))
        if self.autoreset_mode == AutoresetMode.SAME_STEP and outcome.terminated.any():
            infos = self._same_step_reset(outcome.terminated, infos)
        infos["action_mask"], infos["_action_mask"] = self._engine.mask.copy(), self._all.copy()
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        return self._engine.observe(), outcome.reward, outcome.terminated, truncated, infos

    def _may_reset(self, idle: Bool[np.ndarray, " batch"]) -> bool:
        begun = all(self._rngs[row] is not None for row in np.flatnonzero(idle))
        return begun and self.autoreset_mode == AutoresetMode.NEXT_STEP

    def _same_step_reset(self, ended: Bool[np.ndarray, " batch"], infos: Info) -> Info:
        """Put the last observation and info of the ended rows aside and begin them anew."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        observations = self._engine.observe()
        for row in np.flatnonzero(ended):
            final_obs[row] = observations[row]
        infos["action_mask"], infos["_action_mask"] = self._engine.mask.copy(), self._all
        final_info = _only(infos, ended)
        # What is left in the open is of the sessions that go on, and of those just begun.
        kept = _only(infos, ~ended)
        self._begin(np.flatnonzero(ended))
        self._merge(kept, self._reset_info(ended))
        kept |= {"final_obs": final_obs, "_final_obs": ended.copy()}
        kept |= {"final_info": final_info, "_final_info": ended.copy()}
        return kept

    def _reset_info(self, reset: Bool[np.ndarray, " batch"]) -> Info:
        budget = np.where(reset, self._engine.state.budget_g, 0.0)
        mask = self._engine.mask & reset[:, None]
        infos = {"action_mask": mask, "_action_mask": reset, "budget_g": budget, "_budget_g": reset}
        for key, name in self._engine.named().items():
            infos[key], infos[f"_{key}"] = np.full(self.num_envs, None, dtype=object), reset
            infos[key][reset] = name
        return infos

    def _step_info(self, outcome: StepOutcome, idle: Bool[np.ndarray, " batch"]) -> Info:
        held = ~idle
        infos: Info = {}
        if idle.all():  # nobody steps, so nobody has anything to say
            return infos
        for key, value in self._engine.step_info(outcome).items():
            infos[key], infos[f"_{key}"] = value, held
        if outcome.terminated.any():
            rows = np.flatnonzero(outcome.terminated)
            for key, value in self._engine.totals(rows).items():
                infos[key] = np.zeros((self.num_envs, *value.shape[1:]), dtype=value.dtype)
                infos[key][rows] = value
                infos[f"_{key}"] = outcome.terminated.copy()
        return infos

    @staticmethod
    def _merge(infos: Info, other: Info) -> None:
        """Add the rows of ``other`` to ``infos``, key by key."""
        for key in [key for key in other if not key.startswith("_")]:
            rows = other[f"_{key}"]
            if key not in infos:
                infos[key], infos[f"_{key}"] = other[key], rows.copy()
                continue
            infos[key] = infos[key].copy()
            infos[key][rows] = other[key][rows]
            infos[f"_{key}"] = infos[f"_{key}"] | rows


def _only(infos: Info, rows: Bool[np.ndarray, " batch"]) -> Info:
    """The infos of some rows; the other rows are zero and marked as not held."""
    kept: Info = {}
    for key in [key for key in infos if not key.startswith("_")]:
        held = infos[f"_{key}"] & rows
        if held.any():
            value = infos[key].copy()
            value[~held] = None if value.dtype == object else 0
            kept[key], kept[f"_{key}"] = value, held
    return kept
