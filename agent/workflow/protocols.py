"""What the workflow needs of the student, the carbon monitor and a policy: nothing more.

The real ones are ``distill.runtime.StudentRuntime``, ``carbon.monitor.CarbonMonitor`` and the
policies of ``agent.policies``; tests hand in doubles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

Features = Mapping[str, Mapping[str, object] | None]
"""Feature rows of one case by modality; an absent modality is None or left out."""


class Prepared(Protocol):
    """A case's features after validation and preprocessing."""

    @property
    def present(self) -> tuple[str, ...]:
        """Modalities that the case has."""

    @property
    def quality(self) -> Mapping[str, float]:
        """Share of each modality's cells that are filled in."""


class Assessed(Protocol):
    """The student's view of a case under one evidence set."""

    @property
    def probability(self) -> float:
        """Calibrated probability of the positive class."""

    @property
    def logit(self) -> float:
        """Its log-odds."""

    @property
    def disagreement(self) -> float:
        """Standard deviation of the log-odds between tokens."""

    @property
    def processed(self) -> tuple[str, ...]:
        """Modalities whose pipelines have run."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Modalities that the case lacks."""

    @property
    def token_logit(self) -> Mapping[str, float]:
        """Log-odds that each token alone would give."""

    @property
    def attention(self) -> Mapping[str, float]:
        """Share of attention that each token got."""


class Student(Protocol):
    """A fused model that gives a calibrated probability for any evidence set."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Inference modalities, clinical first."""

    def prepare(self, features: Features) -> Any:
        """Validate and preprocess feature rows; raises ``distill.errors.FeatureError``."""

    def assess(self, case: Any, transfers_run: Sequence[str]) -> Assessed:
        """The view of a prepared case after these transfers."""


class GridReading(Protocol):
    """One carbon intensity with its provenance."""

    @property
    def g_per_kwh(self) -> float:
        """Grams of CO2e per kWh."""

    @property
    def zone(self) -> str:
        """Grid zone."""

    @property
    def time(self) -> datetime:
        """The hour that it speaks of, UTC."""

    @property
    def basis(self) -> str:
        """Average or marginal, direct or life-cycle."""

    @property
    def provider(self) -> str:
        """Who said so."""

    @property
    def kind(self) -> str:
        """One of ``measured``, ``forecast``, ``estimated``, ``fallback``."""

    @property
    def age_s(self) -> float:
        """Age when it was read, seconds."""

    @property
    def uncertainty_g_per_kwh(self) -> float | None:
        """One standard error; None where nothing is known about it."""

    @property
    def note(self) -> str:
        """Why a fallback was used, if one was."""


class MeasuredEnergy(Protocol):
    """What a meter says of one window; ``joules`` is None with a reason where unmeasured."""

    @property
    def joules(self) -> float | None:
        """Energy, joules."""

    @property
    def basis(self) -> str:
        """Either ``measured`` or ``modelled``."""

    @property
    def source(self) -> str:
        """Counter or model that it came from."""

    @property
    def reason(self) -> str | None:
        """Why there is no figure."""


class EnergyWindow(Protocol):
    """An open or closed metering window."""

    @property
    def reading(self) -> Any:
        """The energy of the window, once it is closed."""


class Monitor(Protocol):
    """Grid intensity now and ahead, and a meter."""

    def now(self) -> Any:
        """The intensity now (a :class:`GridReading`)."""

    def forecast(self, hours: int) -> Sequence[Any]:
        """Hourly readings ahead, the first one hour from now."""

    def window(self, stage: str, case: str | None = None) -> AbstractContextManager[Any]:
        """Meter what runs inside."""


class Policy(Protocol):
    """Chooses the next action from a flat observation."""

    @property
    def name(self) -> str:
        """Name in reports and cases."""

    def reset(self, num_envs: int, seed: int) -> None:
        """Start afresh."""

    def act(
        self,
        observation: Float32[np.ndarray, "batch size"],
        action_mask: Bool[np.ndarray, "batch n"],
    ) -> Int64[np.ndarray, " batch"]:
        """Indices of the chosen actions."""

    def reason(self, observation: Float32[np.ndarray, " size"], action: int) -> str:
        """One deterministic sentence on why ``action`` was chosen."""


class GainPredictor(Protocol):
    """Expected change of a session's AUC per transfer."""

    def predict(
        self, set_idx: Int64[np.ndarray, " batch"], logit: Float64[np.ndarray, " batch"]
    ) -> Any:
        """Array ``[batch, transfers]``."""
