"""A synthetic grid: seeded days with a solar dip, an evening peak and wandering wind.

For demonstrations and tests where no grid can be reached. It describes no real grid, and every
trace and reading from it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from jaxtyping import Float64

from carbon.errors import TraceError
from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    as_utc,
    floor_hour,
    make_basis,
    require_horizon,
)
from carbon.intensity.recorded import RecordedSource
from carbon.intensity.trace import HOUR, Trace

ZONE = "synthetic"
DEFAULT_START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class SyntheticGrid:
    """Shape of a synthetic grid, in gCO2e/kWh. The defaults swing about as much as Britain's.

    Attributes:
        mean_g_per_kwh: level around which everything moves.
        solar_dip_g_per_kwh: depth of the midday dip (at 12 UTC).
        evening_peak_g_per_kwh: height of the evening peak (at 18 UTC).
        weekend_drop_g_per_kwh: how much lower Saturdays and Sundays are.
        wind_sd_g_per_kwh: standard deviation of the slow wander that wind brings.
        wind_correlation: hour-to-hour correlation of that wander, 0 to below 1.
        floor_g_per_kwh: nothing goes below this.
    """

    mean_g_per_kwh: float = 180.0
    solar_dip_g_per_kwh: float = 50.0
    evening_peak_g_per_kwh: float = 45.0
    weekend_drop_g_per_kwh: float = 15.0
    wind_sd_g_per_kwh: float = 40.0
    wind_correlation: float = 0.97
    floor_g_per_kwh: float = 20.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.wind_correlation < 1.0:
            raise TraceError(
                f"wind_correlation is {self.wind_correlation}; give 0 or more and below 1."
            )
        if self.wind_sd_g_per_kwh < 0 or self.floor_g_per_kwh < 0:
            raise TraceError("A synthetic grid's spread and floor must not be negative.")


def synthetic_trace(
    hours: int,
    seed: int,
    *,
    start: datetime = DEFAULT_START,
    grid: SyntheticGrid | None = None,
    basis: Basis | None = None,
    name: str | None = None,
) -> Trace:
    """Generate a trace; the same arguments give the same trace, bit for bit.

    Args:
        hours: length, 1 or more.
        seed: seed of the wind.
        start: first hour (aware).
        grid: the shape; the defaults where not given.
        basis: what the figures stand for; ``average-direct-unstated`` where not given.
        name: what to call it; the seed where not given.

    Raises:
        TraceError: if ``hours`` is below 1.
    """
    if hours < 1:
        raise TraceError(f"A synthetic trace of {hours} hours was asked for; give 1 or more.")
    shape = grid if grid is not None else SyntheticGrid()
    first = floor_hour(start)
    times = np.datetime64(first.replace(tzinfo=None), "h") + np.arange(hours).astype(
        "timedelta64[h]"
    )
    values = _profile(first, hours, shape) + _wander(hours, np.random.default_rng(seed), shape)
    return Trace(
        time_utc=times,
        g_per_kwh=np.maximum(values, shape.floor_g_per_kwh),
        estimated=np.ones(hours, dtype=bool),
        basis=basis if basis is not None else make_basis(),
        zone=ZONE,
        name=name if name is not None else f"seed-{seed}",
        synthetic=True,
    )


def _profile(first: datetime, hours: int, shape: SyntheticGrid) -> Float64[np.ndarray, " hours"]:
    step = np.arange(hours)
    hour = (first.hour + step) % 24
    weekend = (first.weekday() + (first.hour + step) // 24) % 7 >= 5
    dip = shape.solar_dip_g_per_kwh * np.exp(-0.5 * ((hour - 12) / 2.5) ** 2)
    peak = shape.evening_peak_g_per_kwh * np.exp(-0.5 * ((hour - 18) / 2.0) ** 2)
    level = shape.mean_g_per_kwh - shape.weekend_drop_g_per_kwh * weekend
    return np.asarray(level - dip + peak, dtype=np.float64)


def _wander(
    hours: int, rng: np.random.Generator, shape: SyntheticGrid
) -> Float64[np.ndarray, " hours"]:
    """First-order autoregression with standard deviation ``wind_sd`` from the first hour on."""
    rho = shape.wind_correlation
    shocks = rng.standard_normal(hours) * shape.wind_sd_g_per_kwh
    shocks[1:] *= np.sqrt(1.0 - rho**2)
    level = np.empty(hours, dtype=np.float64)
    previous = 0.0
    for i, shock in enumerate(shocks):
        previous = rho * previous + float(shock)
        level[i] = previous
    return level


class SyntheticSource:
    """A synthetic grid as a source: the same seed and hour always give the same value.

    Weeks are generated one at a time from (seed, week number), so that any date has a value. The
    wind starts afresh each Monday at 00 UTC.
    """

    _EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
    _WEEK = timedelta(days=7)

    def __init__(
        self, *, seed: int = 0, basis: Basis | None = None, grid: SyntheticGrid | None = None
    ) -> None:
        self.seed = seed
        self._basis: Basis = basis if basis is not None else make_basis()
        self._grid = grid

    @property
    def name(self) -> str:
        """``synthetic:`` and the seed."""
        return f"synthetic:seed-{self.seed}"

    @property
    def basis(self) -> Basis:
        """The basis that its figures stand for."""
        return self._basis

    def now(self, at: datetime) -> IntensityReading:
        """The synthetic value of the hour of ``at``."""
        return RecordedSource(self._week(at)).now(at)

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """The daily profile, with today's wind fading out as the grid forgets it.

        The uncertainty is the spread that the wander regains over each lead (its first-order
        autoregression in closed form; the floor and the week's end are left out of it).
        """
        require_horizon(hours)
        shape = self._grid if self._grid is not None else SyntheticGrid()
        first = floor_hour(at)
        profile = _profile(first, hours + 1, shape)
        wind = self.now(at).g_per_kwh - profile[0]
        readings = []
        for lead in range(1, hours + 1):
            decay = shape.wind_correlation**lead
            readings.append(
                IntensityReading(
                    g_per_kwh=max(shape.floor_g_per_kwh, float(profile[lead] + decay * wind)),
                    zone=ZONE,
                    time=first + lead * HOUR,
                    basis=self.basis,
                    provider=self.name,
                    kind="forecast",
                    age_s=0.0,
                    uncertainty_g_per_kwh=float(shape.wind_sd_g_per_kwh * np.sqrt(1 - decay**2)),
                    note=f"expected value of the synthetic grid, no real grid; seed {self.seed}",
                )
            )
        return tuple(readings)

    def _week(self, at: datetime) -> Trace:
        number = (as_utc(at) - self._EPOCH) // self._WEEK
        # A seed must not be negative, and weeks before the epoch are: fold the sign into it.
        entropy = [self.seed, abs(number), int(number < 0)]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        return synthetic_trace(
            7 * 24,
            seed,
            start=self._EPOCH + number * self._WEEK,
            grid=self._grid,
            basis=self._basis,
            name=f"seed-{self.seed}",
        )
