"""A trace: carbon intensity of one grid, hour by hour, with its basis."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from carbon.errors import IntensityError, TraceError
from carbon.intensity.protocol import Basis, as_utc, floor_hour

HOUR = timedelta(hours=1)
FILL = "Fill them, or cut the trace there; load_trace fills short gaps."


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Carbon intensity of one grid, one value an hour, without gaps.

    Attributes:
        time_utc: start of each hour, ``datetime64[h]``, consecutive.
        g_per_kwh: gCO2e per kWh.
        estimated: hours that the provider estimated, or that were filled when reading.
        basis: average or marginal, direct or life-cycle, production or consumption.
        zone: the grid.
        name: where the trace came from.
        synthetic: whether it was generated; whatever shows it must say so.
    """

    time_utc: Shaped[np.ndarray, " hours"]
    g_per_kwh: Float64[np.ndarray, " hours"]
    estimated: Bool[np.ndarray, " hours"]
    basis: Basis
    zone: str
    name: str
    synthetic: bool = False

    def __post_init__(self) -> None:
        n = len(self.time_utc)
        if n == 0 or self.g_per_kwh.shape != (n,) or self.estimated.shape != (n,):
            raise TraceError(
                f"Trace {self.name}: {n} times, {self.g_per_kwh.shape} values and "
                f"{self.estimated.shape} flags; each hour needs one of each, and one hour at least."
            )
        if self.time_utc.dtype != np.dtype("datetime64[h]"):
            raise TraceError(f"Trace {self.name}: times are {self.time_utc.dtype}, not hours.")
        self._check_hours()
        bad = np.flatnonzero(~np.isfinite(self.g_per_kwh) | (self.g_per_kwh < 0))
        if bad.size:
            raise TraceError(
                f"Trace {self.name}: {self.g_per_kwh[bad[0]]:g} gCO2e/kWh at "
                f"{self.time_utc[bad[0]]}:00 UTC, the first of {bad.size} intensities that are not "
                f"finite or negative. {FILL}"
            )

    def _check_hours(self) -> None:
        """Every hour follows the one before it; the first that does not is named."""
        if np.isnat(self.time_utc).any():
            raise TraceError(f"Trace {self.name}: a time is missing (NaT). Drop that hour's row.")
        step = np.diff(self.time_utc).astype(np.int64)
        wrong = np.flatnonzero(step != 1)
        if not wrong.size:
            return
        first = int(wrong[0])
        at, following = self.time_utc[first], self.time_utc[first + 1]
        raise TraceError(
            f"Trace {self.name}: the hours are not consecutive: {at}:00 UTC is followed by "
            f"{following}:00 UTC, the first of {wrong.size} such places. "
            + (FILL if step[first] > 1 else "Sort the hours and drop repeated ones.")
        )

    def __len__(self) -> int:
        return len(self.time_utc)

    @property
    def start(self) -> datetime:
        """Start of the first hour, UTC."""
        return to_datetime(self.time_utc[0])

    @property
    def end(self) -> datetime:
        """End of the last hour, UTC."""
        return to_datetime(self.time_utc[-1]) + HOUR

    def index_at(self, at: datetime) -> int:
        """Row of the hour that holds ``at``.

        Raises:
            IntensityError: if the trace does not cover it.
        """
        index = (floor_hour(at) - self.start) // HOUR
        if not 0 <= index < len(self):
            raise IntensityError(
                f"Trace {self.name} covers {self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M}"
                f" UTC, not {as_utc(at):%Y-%m-%d %H:%M}. Use another trace, or replay this one."
            )
        return index

    def between(self, start: datetime, end: datetime) -> Trace:
        """The hours from ``start`` up to, not including, ``end``."""
        first, last = self.index_at(start), self.index_at(end - HOUR)
        rows = slice(first, last + 1)
        return Trace(
            time_utc=self.time_utc[rows],
            g_per_kwh=self.g_per_kwh[rows],
            estimated=self.estimated[rows],
            basis=self.basis,
            zone=self.zone,
            name=self.name,
            synthetic=self.synthetic,
        )


def to_datetime(hour: np.datetime64) -> datetime:
    """A NumPy time as an aware UTC one."""
    seconds = int(hour.astype("datetime64[s]").astype(np.int64))
    return datetime.fromtimestamp(seconds, tz=UTC)
