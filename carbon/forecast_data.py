"""What a forecaster may look at: the intensity, and whatever else the trace's columns hold.

Columns are sorted by what is known when:

- generation by fuel (``*_mw``) and other shares (``*_pct``): observed, known up to the last row;
- ``wind_ms``, ``temp_k``, ``dewpt_k``, ``dswrf_wm2``: a weather forecast issued the day before,
  known for the hour that is forecast;
- ``temp_c``, ``cloud_pct``, ``wind_kmh``: observed weather, known up to the last row.

Anything else is left alone: above all other people's forecasts of the same figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from carbon.errors import TraceError
from carbon.intensity.protocol import Scope
from carbon.intensity.recorded import COLUMN_OF, TIME_COLUMN, load_trace
from carbon.intensity.trace import Trace

WEATHER_FORECAST: Final = ("wind_ms", "temp_k", "dewpt_k", "dswrf_wm2")
WEATHER_OBSERVED: Final = ("temp_c", "cloud_pct", "wind_kmh")
LONGEST_GAP_H: Final = 31 * 24
TIME_ZONES: Final[Mapping[str, str]] = {
    "ciso": "America/Los_Angeles",
    "isne": "America/New_York",
    "pjm": "America/New_York",
    "nyiso": "America/New_York",
    "erco": "America/Chicago",
    "miso": "America/Chicago",
    "bpat": "America/Los_Angeles",
    "de": "Europe/Berlin",
    "es": "Europe/Madrid",
    "fr": "Europe/Paris",
    "nl": "Europe/Amsterdam",
    "pl": "Europe/Warsaw",
    "se": "Europe/Stockholm",
    "gb": "Europe/London",
}
"""Local clock of grids, by a word of the trace's name; people live by it, not by UTC."""


@dataclass(frozen=True, kw_only=True)
class ForecastData:
    """An hourly feed, its gaps left open, with what was observed and foretold beside it.

    Attributes:
        time_utc: start of each hour, consecutive.
        g_per_kwh: intensity, NaN where the feed had none.
        observed: name to values known up to the last row.
        foretold: name to values known for the hour that is forecast.
        rival: another forecaster's day-ahead figures on the same basis; for scoring only.
        time_zone: local clock of the grid; UTC where unknown.
    """

    name: str
    basis: str
    time_utc: Shaped[np.ndarray, " hours"]
    g_per_kwh: Float64[np.ndarray, " hours"]
    observed: Mapping[str, Float64[np.ndarray, " hours"]]
    foretold: Mapping[str, Float64[np.ndarray, " hours"]]
    rival: Float64[np.ndarray, " hours"] | None = None
    time_zone: str = "UTC"

    def __len__(self) -> int:
        return len(self.time_utc)

    @property
    def first_hour(self) -> int:
        """Hour of the day of the first row, UTC."""
        return int(self.time_utc[0].astype("datetime64[h]").astype(np.int64) % 24)

    def local(self) -> pd.DatetimeIndex:
        """Each hour on the grid's own clock."""
        return pd.DatetimeIndex(self.time_utc, tz="UTC").tz_convert(ZoneInfo(self.time_zone))

    def row_of(self, time: np.datetime64) -> int:
        """The row of an hour; may lie outside of the data."""
        return int((time.astype("datetime64[h]") - self.time_utc[0]).astype(np.int64))


def load_forecast_data(path: Path | str, basis: Scope | None = None) -> ForecastData:
    """Read a trace with all columns that may help to forecast it.

    Args:
        path: as for :func:`carbon.intensity.recorded.load_trace`.
        basis: ``direct`` or ``life``; without it ``direct`` where the file has it.

    Raises:
        TraceError: if the file cannot be read as a trace.
    """
    file = Path(path)
    frame = _frame(file)
    if basis is None:
        basis = "direct" if COLUMN_OF["direct"] in frame.columns else "life"
    # One reader decides what a valid trace is; this one only adds the other columns.
    trace = load_trace(file, basis, max_gap_h=LONGEST_GAP_H)
    hours = pd.DatetimeIndex(trace.time_utc, tz="UTC")
    frame = frame.groupby(pd.DatetimeIndex(frame.index).floor("h")).mean().reindex(hours)
    known = {name: frame[name].to_numpy(np.float64) for name in frame.columns}
    rival = known.get(f"cc_d1_{basis}")
    return ForecastData(
        name=trace.name,
        basis=str(trace.basis),
        time_utc=trace.time_utc,
        g_per_kwh=known[COLUMN_OF[basis]],
        observed={n: v for n, v in known.items() if _is_observed(n)},
        foretold={n: known[n] for n in WEATHER_FORECAST if n in known},
        rival=rival if rival is not None and np.isfinite(rival).any() else None,
        time_zone=zone_of(trace.name),
    )


def data_of_trace(trace: Trace) -> ForecastData:
    """A trace that is in memory; hours that were filled when it was read are open again."""
    values = trace.g_per_kwh.copy()
    filled = np.zeros(len(values), dtype=bool)
    filled[1:] = trace.estimated[1:] & (values[1:] == values[:-1])
    values[filled] = np.nan
    return ForecastData(
        name=trace.name,
        basis=str(trace.basis),
        time_utc=trace.time_utc,
        g_per_kwh=values,
        observed={},
        foretold={},
        time_zone=zone_of(f"{trace.name}_{trace.zone}"),
    )


def known_at(data: ForecastData, newest: int, ahead: int, *, first: int = 0) -> ForecastData:
    """The feed from row ``first`` on as it stood when ``newest`` was its newest row.

    The ``ahead`` rows after it are open; only the weather forecast reaches into them.
    """
    rows = newest + 1 + ahead - first

    def cut(values: Float64[np.ndarray, " hours"], stop: int) -> Float64[np.ndarray, " rows"]:
        out = np.full(rows, np.nan)
        part = values[first:stop]
        out[: len(part)] = part
        return out

    return replace(
        data,
        time_utc=data.time_utc[0] + np.arange(first, first + rows).astype("timedelta64[h]"),
        g_per_kwh=cut(data.g_per_kwh, newest + 1),
        observed={n: cut(v, newest + 1) for n, v in data.observed.items()},
        foretold={n: cut(v, newest + 1 + ahead) for n, v in data.foretold.items()},
        rival=None,
    )


def with_rows(data: ForecastData, rows: Mapping[np.datetime64, float]) -> ForecastData:
    """The feed with further hours of intensity; what it holds itself is left as it is."""
    found = {data.row_of(time): value for time, value in rows.items()}
    new = {row: value for row, value in found.items() if row >= len(data)}
    if not new:
        return data
    longer = known_at(data, len(data) - 1, max(new) + 1 - len(data))
    for row, value in new.items():
        longer.g_per_kwh[row] = value
    return longer


def zone_of(name: str) -> str:
    """The time zone that a trace's name gives away (``cc_de``, ``em_gb``), else UTC."""
    words = name.lower().replace("-", "_").split("_")
    return next((TIME_ZONES[w] for w in words if w in TIME_ZONES), "UTC")


def _is_observed(name: str) -> bool:
    return name in WEATHER_OBSERVED or name.endswith(("_mw", "_pct"))


def _frame(file: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except FileNotFoundError as error:
        raise TraceError(f"No trace at {file}. Check the path.") from error
    except (OSError, EOFError, ValueError) as error:
        raise TraceError(f"{file} cannot be read: {error}") from error
    if TIME_COLUMN not in frame.columns:
        raise TraceError(
            f"{file} lacks the column {TIME_COLUMN!r}; it has {', '.join(frame.columns)}."
        )
    try:
        frame.index = pd.DatetimeIndex(pd.to_datetime(frame.pop(TIME_COLUMN), utc=True))
    except ValueError as error:
        raise TraceError(f"{file}: {TIME_COLUMN} holds what is not a time: {error}") from error
    numeric: pd.DataFrame = frame.apply(pd.to_numeric, errors="coerce")
    return numeric
