"""The grid as a case sees it, read at most once a minute whoever asks.

A provider or a learned forecaster may take long to ask, and a board's cases come in bursts. Within
one clock minute they share what was read; how old it is goes on being counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agent.workflow.protocols import GridReading, Monitor
from agent.workflow.state import CarbonView, Reading
from carbon.errors import IntensityError
from carbon.intensity.protocol import floor_hour
from envs.config import LEADS_H, SessionConfig

FORECAST_HOURS = LEADS_H[-1]
FRESH = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A view, as records and as plain JSON."""

    view: CarbonView
    data: dict[str, Any]
    at: datetime

    def serves(self, at: datetime) -> bool:
        """Whether a case at ``at`` may be told this: just read, and in the same clock hour."""
        return timedelta(0) <= at - self.at < FRESH and floor_hour(at) == floor_hour(self.at)

    def told_at(self, at: datetime) -> tuple[CarbonView, dict[str, Any]]:
        """The view with its age at ``at``."""
        if at == self.at:
            return self.view, self.data
        now = self.view.now
        age_s = now.age_s + (at - self.at).total_seconds()
        older = self.view.model_copy(update={"now": now.model_copy(update={"age_s": age_s})})
        return older, {**self.data, "now": {**self.data["now"], "age_s": age_s}}


class GridWatch:
    """Reads the grid for the cases of one bundle.

    Args:
        monitor: the grid.
        config: the spread that training assumed where a source gives none.
    """

    def __init__(self, monitor: Monitor, config: SessionConfig) -> None:
        self._monitor = monitor
        self._config = config
        self._last: Looked | None = None

    async def look(self, clock: Callable[[], datetime]) -> tuple[CarbonView, dict[str, Any]]:
        """The grid now and ahead, as records and as plain JSON.

        Raises:
            IntensityError: if no source can say how it is now.
        """
        at, last = clock(), self._last
        if last is not None and last.serves(at):
            return last.told_at(at)
        # In a thread: a provider may have to be asked.
        view = await asyncio.to_thread(read_grid, self._monitor, self._config)
        self._last = Looked(view=view, data=view.model_dump(mode="json"), at=at)
        return self._last.view, self._last.data


def read_grid(monitor: Monitor, config: SessionConfig) -> CarbonView:
    """Read the grid; without a forecast the view says so and deferral stays closed.

    Raises:
        IntensityError: if no source can say how it is now.
    """
    now = _reading(monitor.now())
    assumed = config.forecast_sd(float(FORECAST_HOURS))
    try:
        ahead = [_reading(r) for r in monitor.forecast(FORECAST_HOURS)]
    except IntensityError as error:
        return CarbonView(
            now=now,
            forecast_note=f"no forecast: {error}",
            relative_uncertainty=assumed,
            uncertainty_note="assumed as in training",
        )
    relative, note = assumed, "assumed as in training"
    if ahead and ahead[-1].uncertainty_g_per_kwh is not None and ahead[-1].g_per_kwh > 0:
        relative = ahead[-1].uncertainty_g_per_kwh / ahead[-1].g_per_kwh
        note = f"given by {ahead[-1].provider}"
    return CarbonView(
        now=now,
        forecast_from=ahead[0].time if ahead else None,
        forecast_g_per_kwh=tuple(r.g_per_kwh for r in ahead),
        forecast_se_g_per_kwh=tuple(r.uncertainty_g_per_kwh for r in ahead),
        forecast_methods=tuple(
            dict.fromkeys(f"{r.provider}: {r.note}" if r.note else r.provider for r in ahead)
        ),
        forecast_note=f"{ahead[0].provider}, {ahead[0].kind}" if ahead else "no forecast",
        relative_uncertainty=relative,
        uncertainty_note=note,
    )


def _reading(reading: GridReading) -> Reading:
    return Reading(
        g_per_kwh=float(reading.g_per_kwh),
        zone=reading.zone,
        time=reading.time,
        basis=reading.basis,
        provider=reading.provider,
        kind=reading.kind,
        age_s=float(reading.age_s),
        uncertainty_g_per_kwh=reading.uncertainty_g_per_kwh,
        note=reading.note,
    )
