"""A source whose forecast is learned, and how a monitor comes by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np

from carbon.errors import IntensityError, NotReadyError
from carbon.intensity.chain import ChainSource
from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    IntensitySource,
    as_utc,
    floor_hour,
    require_horizon,
)
from carbon.intensity.recorded import RecordedSource
from carbon.intensity.trace import HOUR
from carbon.learned import HoursAhead, LearnedConfig, LearnedForecaster, Progress, late_rows

Z90: Final = 1.644854
"""Two-sided 90 % point of the normal distribution."""


@runtime_checkable
class TellsRecent(Protocol):
    """A source that can say what it measured in the past day."""

    def recent(self, at: datetime) -> tuple[IntensityReading, ...]:
        """Measured readings before ``at``."""
        ...


class LearnedSource:
    """A source whose forecast is learned where that can be had, and the source's own elsewhere.

    Args:
        source: gives the present, and the forecast while nothing better is there.
        forecaster: of the same grid on the same basis.
        history_time: the moment in the history that stands for a moment; itself if not given.
        recent: what a live provider measured in the past day.
    """

    def __init__(
        self,
        source: IntensitySource,
        forecaster: LearnedForecaster,
        *,
        history_time: Callable[[datetime], datetime] = as_utc,
        recent: Callable[[datetime], tuple[IntensityReading, ...]] | None = None,
    ) -> None:
        self.source = source
        self.forecaster = forecaster
        self._history_time = history_time
        self._recent = recent

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    @property
    def basis(self) -> Basis:
        """The source's basis."""
        return self.source.basis

    def now(self, at: datetime) -> IntensityReading:
        """The source's own reading."""
        return self.source.now(at)

    def fit(self, at: datetime, progress: Progress | None = None) -> str:
        """Fit for ``at`` and wait; why it could not be, or nothing."""
        self._look_back(at)
        return self.forecaster.fit(self._history_time(at), progress)

    def fit_in_background(self, at: datetime) -> None:
        """Fit for ``at`` without waiting."""
        self.forecaster.fit_in_background(self._history_time(at))

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """Learned for up to 24 hours, the source's own beyond and while nothing is fitted."""
        require_horizon(hours)
        try:
            present = self.source.now(at)
            readings = self._readings(at, present, self._ahead(at, present))[:hours]
        except NotReadyError as error:
            why = f"the {self.forecaster.config.method} forecaster was not used: {error}"
            return tuple(r.with_note(why) for r in self.source.forecast(at, hours))
        if hours > len(readings):
            beyond = self.source.forecast(at, hours)[len(readings) :]
            why = f"beyond the {len(readings)} hours that the learned forecaster foresees"
            readings += tuple(r.with_note(why) for r in beyond)
        return readings

    def _look_back(self, at: datetime) -> None:
        """Hours that a live provider measured since the history's end."""
        if self._recent is None:
            return
        try:
            readings = self._recent(at)
        except IntensityError:
            # Without them the forecaster finds its history too old, and says so itself.
            return
        for hour in sorted({floor_hour(r.time) for r in readings}):
            parts = [r for r in readings if floor_hour(r.time) == hour and r.kind == "measured"]
            if parts:
                mean = sum(r.g_per_kwh for r in parts) / len(parts)
                self.forecaster.observe(replace(parts[0], g_per_kwh=mean, time=hour))

    def _ahead(self, at: datetime, present: IntensityReading) -> HoursAhead:
        if present.kind == "fallback":
            raise NotReadyError("the present is a fallback, not the grid that it has learnt")
        if self.forecaster.fitted:
            self._look_back(at)
        return self.forecaster.ahead(self._history_time(at))

    def _readings(
        self, at: datetime, present: IntensityReading, ahead: HoursAhead
    ) -> tuple[IntensityReading, ...]:
        first = floor_hour(at) + HOUR
        origin = present.note if present.note.startswith("replayed") else ""
        readings = []
        for lead, value in enumerate(ahead.g_per_kwh):
            low, high = float(ahead.low[lead]), float(ahead.high[lead])
            known = bool(np.isfinite(low) and np.isfinite(high))
            parts = [f"forecast by {ahead.methods[lead]}", ahead.note, origin]
            readings.append(
                replace(
                    present,
                    g_per_kwh=float(value),
                    time=first + lead * HOUR,
                    kind="forecast",
                    age_s=0.0,
                    uncertainty_g_per_kwh=(high - low) / (2 * Z90) if known else None,
                    interval90_g_per_kwh=(low, high) if known else None,
                    note="; ".join(part for part in parts if part),
                )
            )
        return tuple(readings)


@dataclass(frozen=True, kw_only=True)
class ForecastOptions:
    """How a monitor forecasts.

    Attributes:
        method: ``learned``; ``forest``, the named baseline; ``thin``, whatever the source itself
            foresees.
        delay_min: how late the feed comes, 0 to 120 minutes.
        history: recorded hours of the same grid on the same basis, for a live provider; a trace
            is its own history.
        quick: small models: weaker, and fitted in a second or two.
    """

    method: Literal["learned", "forest", "thin"] = "learned"
    delay_min: int = 0
    history: Path | None = None
    quick: bool = False


def learned_source(
    source: IntensitySource, options: ForecastOptions, *, trace_file: Path | None = None
) -> LearnedSource | None:
    """A source with its forecaster; None where there is no history to learn from.

    Args:
        source: a source, or a chain whose first source is forecast.
        options: how to forecast.
        trace_file: the file of a recorded trace, for the columns that the trace does not hold.

    Raises:
        IntensityError: if the delay is out of range.
    """
    first = source.sources[0] if isinstance(source, ChainSource) else source
    recorded = isinstance(first, RecordedSource)
    if options.method == "thin" or not (recorded or options.history):
        return None
    config = LearnedConfig(
        file=trace_file if isinstance(first, RecordedSource) else options.history,
        trace=first.trace if isinstance(first, RecordedSource) else None,
        scope="life" if "-life-" in source.basis else "direct",
        method=options.method,
        delay_min=options.delay_min,
        running_hour=recorded,
        quick=options.quick,
    )
    late_rows(config)
    return LearnedSource(
        source,
        LearnedForecaster(config),
        history_time=first.history_time if isinstance(first, RecordedSource) else as_utc,
        recent=first.recent if isinstance(first, TellsRecent) else None,
    )
