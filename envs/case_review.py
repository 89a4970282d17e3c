"""The review session as a single Gymnasium environment, under any of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Bool, Float32

from distill.evidence import EvidenceTable
from envs.catalogue import ActionCatalogue
from envs.config import SessionConfig
from envs.engine import ReviewEngine, action_space, observation_space
from envs.errors import SessionError
from envs.gain import GainModel
from envs.observation import ObservationLayout
from envs.picture import picture_of
from envs.render import LastStep, last_step, scene_of, text_of
from envs.session import Traces
from envs.setup import build_setup

Info = dict[str, Any]


class CaseReviewEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One stretch of a tumour board: which knowledge to bring in for each patient, at what carbon.

    For the patient at hand the agent runs transfers, each result seen before the next choice,
    then finalises the case or puts it off. ``rules`` say how cases come up and how the clock
    moves. See ``envs/README.md`` for spaces, rewards, budget modes and limits.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012  (its way)

    def __init__(
        self,
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
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        """Set the sessions up; the arguments are those of :func:`envs.setup.build_setup`.

        Raises:
            EnvsError: if an argument is unknown or cannot be used.
        """
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise SessionError(
                f"render_mode is {render_mode!r}; it can be None, 'ansi' or 'rgb_array'."
            )
        self.setup = build_setup(
            evidence=evidence, folds=folds, fit_folds=fit_folds, trace=trace, period=period,
            config=config, preset=preset, rules=rules, gain_model=gain_model, **settings,
        )  # fmt: skip
        self.render_mode = render_mode
        self.observation_space = observation_space(self.setup)
        self.action_space = action_space(self.setup)
        self._engine = ReviewEngine(self.setup, 1)
        self._last: Float32[np.ndarray, " fields"] | None = None
        self._last_step: LastStep | None = None

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

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Info]:
        """Begin a session; the seed alone says which."""
        super().reset(seed=seed)
        self._engine.begin(np.zeros(1, dtype=np.int64), [self.np_random])
        self._last_step = None
        return self._observe(), {
            "action_mask": self.action_masks(),
            "budget_g": float(self._engine.state.budget_g[0]),
            **self._engine.named(),
        }

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, Info]:
        """Take one action for the patient at hand.

        Raises:
            SessionError: if the session has ended or the action is not in the catalogue.
        """
        if self._engine.over[0]:
            raise SessionError("The session is over or has not begun; call reset() first.")
        score, case = self._engine.state.score[0], int(self._engine.state.case[0])
        before = float(score[case])
        outcome = self._engine.step(np.asarray([action]))
        name = self.catalogue.names[int(action)]
        self._last_step = last_step(name, before, float(score[case]), outcome)
        ended = bool(outcome.terminated[0])
        info: Info = {"action_mask": self.action_masks()}
        info |= {key: value[0].item() for key, value in self._engine.step_info(outcome).items()}
        if ended:
            totals = {key: value[0] for key, value in self._engine.totals().items()}
            info |= {k: v if k == "midpoint" else v.item() for k, v in totals.items()}
        return self._observe(), float(outcome.reward[0]), ended, False, info

    def _observe(self) -> np.ndarray:
        self._last = self._engine.observe()[0]
        return self._last.copy()

    def action_masks(self) -> Bool[np.ndarray, " actions"]:
        """Which actions are open now."""
        return np.asarray(self._engine.mask[0].copy())

    def explain(self, observation: np.ndarray) -> dict[str, tuple[float, str]]:
        """Turn an observation back into names, values and units."""
        return self.layout.explain(observation)

    def render(self) -> str | np.ndarray | None:
        """The moment in words (``ansi``) or as a picture (``rgb_array``); None without a mode.

        Raises:
            SessionError: before the first reset.
        """
        if self.render_mode is None:
            return None
        if self._last is None:
            raise SessionError("Nothing to render yet; call reset() first.")
        scene = scene_of(self._engine, self._last, self._last_step)
        return text_of(scene) if self.render_mode == "ansi" else picture_of(scene)
