"""A fixed figure as a source: one number from a table, the same at every hour."""

from __future__ import annotations

from datetime import datetime

from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    as_utc,
    floor_hour,
    require_horizon,
)
from carbon.intensity.trace import HOUR

TYPICAL_HOURLY_CV = 0.33
"""Standard deviation over mean of hourly direct intensity: the mean of five recorded grids
(California 0.345 and 0.349, Germany 0.362, New England 0.147, Great Britain 0.449); used where
nothing better is known about how far one hour lies from a flat figure (carbon/README.md)."""


class FixedSource:
    """One published figure for a grid, for example last year's average.

    Args:
        g_per_kwh: the figure, gCO2e/kWh.
        zone: the grid.
        basis: what the figure stands for.
        origin: the publication it was taken from.
        as_of: when the figure was valid (aware); sets the age of every reading.
        uncertainty_g_per_kwh: one standard error of taking it for a single hour;
            :data:`TYPICAL_HOURLY_CV` times the figure where not given.
    """

    def __init__(
        self,
        g_per_kwh: float,
        *,
        zone: str,
        basis: Basis,
        origin: str,
        as_of: datetime | None = None,
        uncertainty_g_per_kwh: float | None = None,
    ) -> None:
        self._figure = g_per_kwh
        self._zone = zone
        self._basis: Basis = basis
        self._note = f"fixed figure from {origin}, the same at every hour"
        self._as_of = as_utc(as_of) if as_of is not None else None
        self._uncertainty = uncertainty_g_per_kwh
        if uncertainty_g_per_kwh is None:
            self._uncertainty = TYPICAL_HOURLY_CV * g_per_kwh
            self._note += f"; spread assumed to be {TYPICAL_HOURLY_CV:.0%} of it"

    @property
    def name(self) -> str:
        """``fixed``."""
        return "fixed"

    @property
    def basis(self) -> Basis:
        """The basis that the figure was declared with."""
        return self._basis

    def now(self, at: datetime) -> IntensityReading:
        """The figure; its age runs from ``as_of`` where that is known."""
        time = self._as_of if self._as_of is not None else as_utc(at)
        age_s = max(0.0, (as_utc(at) - time).total_seconds())
        return IntensityReading(
            g_per_kwh=self._figure,
            zone=self._zone,
            time=time,
            basis=self._basis,
            provider=self.name,
            kind="estimated",
            age_s=age_s,
            uncertainty_g_per_kwh=self._uncertainty,
            note=self._note,
        )

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """The figure for every hour: it foresees nothing, and its note says so."""
        first = floor_hour(at) + HOUR
        return tuple(
            IntensityReading(
                g_per_kwh=self._figure,
                zone=self._zone,
                time=first + step * HOUR,
                basis=self._basis,
                provider=self.name,
                kind="forecast",
                age_s=0.0,
                uncertainty_g_per_kwh=self._uncertainty,
                note=self._note,
            )
            for step in range(require_horizon(hours))
        )
