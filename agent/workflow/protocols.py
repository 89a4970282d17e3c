"""What the workflow needs of the student and the carbon monitor: nothing more.

The real ones are ``distill.runtime.StudentRuntime`` and ``carbon.monitor.CarbonMonitor``; tests
hand in doubles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from carbon.meter import Meter

Features = Mapping[str, Mapping[str, object] | None]
"""Feature rows of one case by modality; an absent modality is None or left out."""


@runtime_checkable
class Prepared(Protocol):
    """A case's features after validation and preprocessing."""

    @property
    def present(self) -> tuple[str, ...]:
        """Modalities that the case has."""

    @property
    def quality(self) -> Mapping[str, float]:
        """Share of each modality's cells that are filled in."""

    @property
    def cautions(self) -> tuple[str, ...]:
        """What is unusual about the values; names features, never a value."""


@runtime_checkable
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

    @property
    def conformal_set(self) -> tuple[str, ...]:
        """Names of the classes that cannot be ruled out at the level."""

    @property
    def conformal_level(self) -> float | None:
        """The level; None where nothing is ever ruled out."""

    @property
    def contributions(self) -> Mapping[str, float]:
        """By processed modality: log-odds with it minus those without it and its bridges."""


@runtime_checkable
class Student(Protocol):
    """A fused model that gives a calibrated probability for any evidence set."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Inference modalities, clinical first."""

    def example(self) -> Features:
        """A few features of each modality, clinical first, that :meth:`prepare` takes; made up."""

    def prepare(self, features: Features) -> Any:
        """Validate and preprocess feature rows; raises ``distill.errors.FeatureError``."""

    def assess(self, case: Any, transfers_run: Sequence[str]) -> Assessed:
        """The view of a prepared case after these transfers."""


@runtime_checkable
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


@runtime_checkable
class Monitor(Protocol):
    """Grid intensity now and ahead, and a meter."""

    def now(self) -> GridReading:
        """The intensity now."""

    def forecast(self, hours: int) -> Sequence[GridReading]:
        """Hourly readings ahead, the first one hour from now."""

    @property
    def meter(self) -> Meter:
        """What energy is measured with."""
