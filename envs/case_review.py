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
from envs.session import Traces
from envs.setup import build_setup

Info = dict[str, Any]


class CaseReviewEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One stretch of a tumour board: which knowledge to bring in for each patient, at what carbon.

    Patients come one after another. For the patient at hand the agent runs transfers, each
    result seen before the next choice, then finalises, or defers the case to the end of the
    queue. See ``envs/README.md`` for spaces, reward, budget modes and limits.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012  (Gymnasium's way)

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
        if render_mode not in (None, "ansi"):
            raise SessionError(f"render_mode is {render_mode!r}; it can be None or 'ansi'.")
        self.setup = build_setup(
            evidence=evidence, folds=folds, fit_folds=fit_folds, trace=trace, period=period,
            config=config, preset=preset, rules=rules, gain_model=gain_model, **settings,
        )  # fmt: skip
        self.render_mode = render_mode
        self.observation_space = observation_space(self.setup)
        self.action_space = action_space(self.setup)
        self._engine = ReviewEngine(self.setup, 1)
        self._last: Float32[np.ndarray, " fields"] | None = None
        self._last_action: int | None = None

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
        return self._observe(None), {
            "action_mask": self.action_masks(),
            "budget_g": float(self._engine.state.budget_g[0]),
        }

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, Info]:
        """Take one action for the patient at hand.

        Raises:
            SessionError: if the session has ended or the action is not in the catalogue.
        """
        if self._engine.over[0]:
            raise SessionError("The session is over or has not begun; call reset() first.")
        outcome = self._engine.step(np.asarray([action]))
        ended = bool(outcome.terminated[0])
        info: Info = {"action_mask": self.action_masks()}
        info |= {key: value[0].item() for key, value in self._engine.step_info(outcome).items()}
        if ended:
            totals = {key: value[0] for key, value in self._engine.totals().items()}
            info |= {k: v if k == "midpoint" else v.item() for k, v in totals.items()}
        return self._observe(int(action)), float(outcome.reward[0]), ended, False, info

    def _observe(self, action: int | None) -> np.ndarray:
        self._last = self._engine.observe()[0]
        self._last_action = action
        return self._last.copy()

    def action_masks(self) -> Bool[np.ndarray, " actions"]:
        """Which actions are open now."""
        return np.asarray(self._engine.mask[0].copy())

    def explain(self, observation: np.ndarray) -> dict[str, tuple[float, str]]:
        """Turn an observation back into names, values and units."""
        return self.layout.explain(observation)

    def render(self) -> str | None:
        """A few lines of text in ``ansi`` mode; None otherwise."""
        if self.render_mode != "ansi":
            return None
        if self._last is None:
            raise SessionError("Nothing to render yet; call reset() first.")
        seen = {name: value for name, (value, _) in self.explain(self._last).items()}
        run = [t for t in self.layout.transfers if seen[f"run_{t}"] > 0.5]
        last = "-" if self._last_action is None else self.catalogue.names[self._last_action]
        source = "synthetic patients" if self.setup.synthetic else self.setup.cohort
        return (
            f"{source}: {seen['cases_left']:.0f} visits left, last action {last}\n"
            f"case   p {seen['probability']:.3f}  entropy {seen['entropy']:.2f} bit  "
            f"urgency {seen['urgency']:.2f} (simulated)  due in {seen['slack_h']:.1f} h  "
            f"run {' + '.join(run) or 'nothing'}\n"
            f"grid   {seen['intensity_now']:.0f} gCO2e/kWh now, "
            f"{seen['intensity_lead_24h']:.0f} forecast for 24 h ahead\n"
            f"budget {seen['budget_left']:.0%} left ({seen['budget_left_g_co2e']:.0f} gCO2e)"
        )
