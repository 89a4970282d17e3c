"""The learned forecaster beside a source: fitted in advance, asked at once, never in the way.

Importing this costs nothing: what fits and forecasts (:mod:`carbon.forecast_engine`) is imported
by the first fit. A request never waits for a fit: until one is there, the source's own forecast
answers, and its note says why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from carbon.errors import CarbonError, IntensityError, NotReadyError
from carbon.intensity.protocol import (
    IntensityReading,
    Scope,
    floor_hour,
)
from carbon.intensity.trace import HOUR, Trace

Progress = Callable[[int, int, str], None]
Method = Literal["learned", "forest"]
REFIT_AFTER: Final = timedelta(days=7)
"""A fit older than this is renewed in the background while it goes on answering."""


@dataclass(frozen=True, kw_only=True)
class HoursAhead:
    """The next hours, the first clock hour after the moment of asking first.

    Attributes:
        g_per_kwh: the middle.
        low: lower bound of the 90 % interval; NaN where it could not be calibrated.
        high: its upper bound.
        methods: how each hour came about.
        note: what it was fitted on.
    """

    g_per_kwh: Float64[np.ndarray, " leads"]
    low: Float64[np.ndarray, " leads"]
    high: Float64[np.ndarray, " leads"]
    methods: tuple[str, ...]
    note: str


Rows = Mapping[np.datetime64, float]
"""Hours (start, UTC) and their intensity: what a live provider measured after the file's end."""


@runtime_checkable
class Engine(Protocol):
    """A fitted forecaster."""

    @property
    def newest(self) -> np.datetime64:
        """The newest hour that it was fitted on."""
        ...

    def ahead(self, newest: np.datetime64, recent: Rows) -> HoursAhead:
        """Forecast from the feed up to that hour.

        Raises:
            NotReadyError: if the feed does not reach it or has too many gaps.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LearnedConfig:
    """What is fitted.

    Attributes:
        file: history with ``time_utc`` and ``ci_direct`` or ``ci_life``, and whatever else helps.
        trace: history without a file; leads where both are given.
        scope: which of the two columns.
        method: ``learned``, or ``forest``: the named baseline on calendar and weather.
        delay_min: how late the feed comes, 0 to 120 minutes.
        running_hour: whether the hour of the moment is known, as a recorded trace's is; a live
            provider's is not complete yet.
        quick: small models.
    """

    file: Path | None = None
    trace: Trace | None = None
    scope: Scope = "direct"
    method: Method = "learned"
    delay_min: int = 0
    running_hour: bool = True
    quick: bool = False


class LearnedForecaster:
    """Holds a fitted engine and renews it, one fit at a time. Safe to share between threads.

    Args:
        config: what is fitted.
        fit: makes an engine from the configuration and the newest hour that may be used; the real
            one where not given.
        refit_after: age from which a fit is renewed in the background.
    """

    def __init__(
        self,
        config: LearnedConfig,
        *,
        fit: Callable[[LearnedConfig, datetime, Rows, Progress | None], Engine] | None = None,
        refit_after: timedelta = REFIT_AFTER,
    ) -> None:
        self.config = config
        self._make = fit if fit is not None else _fit_engine
        self._refit_after = np.timedelta64(int(refit_after.total_seconds()), "s")
        self._lock = threading.Lock()
        self._fitting = threading.Lock()
        self._engine: Engine | None = None
        self._problem = "it was not fitted yet"
        self._thread: threading.Thread | None = None
        self._tried: np.datetime64 | None = None
        self._recent: dict[np.datetime64, float] = {}

    @property
    def fitted(self) -> bool:
        """Whether there is an engine."""
        return self._engine is not None

    def fit(self, at: datetime, progress: Progress | None = None) -> str:
        """Fit on what was known at ``at``; waits for it.

        Returns:
            Why it could not be fitted; empty if it was.
        """
        with self._fitting:
            self._tried = self._newest(at)
            problem, engine = "", None
            try:
                engine = self._make(self.config, at, self._rows(), progress)
            except CarbonError as error:
                problem = str(error)
            with self._lock:
                # A failed renewal leaves the old fit in place.
                self._engine = engine if engine is not None else self._engine
                self._problem = problem
        return problem

    def fit_in_background(self, at: datetime) -> None:
        """Start a fit in a thread of its own, unless one is under way."""
        if self._fitting.locked():
            return
        name = "carbon-forecast-fit"
        self._thread = threading.Thread(target=self.fit, args=(at,), name=name, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for a fit that is under way; whether it ended in time."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def observe(self, reading: IntensityReading) -> None:
        """Remember a measured hour that the history may not hold yet."""
        hour = np.datetime64(floor_hour(reading.time).replace(tzinfo=None), "h")
        with self._lock:
            self._recent[hour] = reading.g_per_kwh
            for old in sorted(self._recent)[: -24 * 60]:
                del self._recent[old]

    def ahead(self, at: datetime) -> HoursAhead:
        """The 24 hours after the hour of ``at``, at once; starts a renewal if the fit is old.

        Raises:
            NotReadyError: if there is no fit that may answer; says why.
        """
        with self._lock:
            engine, problem = self._engine, self._problem
        newest = self._newest(at)
        if engine is None:
            if self._tried is not None and newest - self._tried > self._refit_after:
                self.fit_in_background(at)
            raise NotReadyError(problem)
        if engine.newest > newest:
            # A fit that has seen later hours may not answer for earlier ones.
            self.fit_in_background(at)
            raise NotReadyError("it was fitted on later hours, and is being fitted again")
        if newest - max(engine.newest, self._tried or engine.newest) > self._refit_after:
            self.fit_in_background(at)
        return engine.ahead(newest, self._rows())

    def _newest(self, at: datetime) -> np.datetime64:
        return newest_known(self.config, at)

    def _rows(self) -> Rows:
        with self._lock:
            return dict(self._recent)


def late_rows(config: LearnedConfig) -> int:
    """Feed rows missing before the first hour that is forecast, the clock hour after the present.

    Hourly rows come whole: one that is 30 minutes late is as absent at the hour as one of 60.

    Raises:
        IntensityError: if the delay is outside 0 to 120 minutes.
    """
    if not 0 <= config.delay_min <= 120:
        raise IntensityError(f"A feed delay of {config.delay_min} minutes; allowed are 0 to 120.")
    return -(-config.delay_min // 60) + (not config.running_hour)


def newest_known(config: LearnedConfig, at: datetime) -> np.datetime64:
    """The newest hour of the feed that is known at ``at``."""
    newest = floor_hour(at) - late_rows(config) * HOUR
    return np.datetime64(newest.replace(tzinfo=None), "h")


def _fit_engine(
    config: LearnedConfig, at: datetime, recent: Rows, progress: Progress | None
) -> Engine:
    # pandas and LightGBM take seconds to import; only who fits pays for it.
    from carbon.forecast_engine import fit_engine  # noqa: PLC0415

    return fit_engine(config, at, recent, progress)
