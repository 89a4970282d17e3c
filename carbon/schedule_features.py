"""Features of a waiting decision, one row an hour, from what was known at that hour only.

Apart from ``carbon.features``, which describes the next hour, these describe whole windows of
work: what yesterday's, last week's and the mean day's windows did from this hour on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64

from carbon.intensity.protocol import Scope
from carbon.intensity.recorded import load_trace
from carbon.intensity.trace import Trace

DAY_H = 24
OBSERVED = ("low_carbon_pct", "renewable_pct", "temp_c", "cloud_pct", "wind_kmh")
FORETOLD = ("wind_ms", "temp_k", "dewpt_k", "dswrf_wm2")
"""Weather that was forecast the day before, 24 to 48 h ahead: an hour's row is known 16 h early."""
FORETOLD_H = 16
WARM_UP_H = 29 * DAY_H

Hours = Float64[np.ndarray, " hours"]


@dataclass(frozen=True, kw_only=True)
class ScheduleData:
    """A trace with the columns beside it that help.

    Attributes:
        trace: hourly intensity.
        observed: measured series, known up to the same hour as the intensity.
        foretold: forecasts on record, known up to 16 h ahead.
        time_zone: whose clock people live by.
    """

    trace: Trace
    observed: Mapping[str, Hours] = field(default_factory=dict)
    foretold: Mapping[str, Hours] = field(default_factory=dict)
    time_zone: str = "UTC"


def load_schedule_data(path: Path, basis: Scope, *, time_zone: str = "UTC") -> ScheduleData:
    """Read a trace and its usable columns; others are left alone.

    Raises:
        TraceError: if the trace cannot be read.
    """
    trace = load_trace(path, basis)
    read = pd.read_parquet if path.suffix == ".parquet" else pd.read_csv
    table = read(path)
    table.index = pd.DatetimeIndex(pd.to_datetime(table["time_utc"], utc=True)).floor("h")
    wanted = [c for c in (*OBSERVED, *FORETOLD) if c in table and table[c].notna().any()]
    hours = pd.DatetimeIndex(trace.time_utc.astype("datetime64[ns]"), tz="UTC")
    table = table[wanted].groupby(level=0).mean().reindex(hours)
    columns = {c: table[c].to_numpy(dtype=np.float64) for c in wanted}
    return ScheduleData(
        trace=trace,
        observed={c: v for c, v in columns.items() if c in OBSERVED},
        foretold={c: v for c, v in columns.items() if c in FORETOLD},
        time_zone=time_zone,
    )


def window_means(values: Hours, duration_h: int) -> Hours:
    """Mean over the ``duration_h`` hours from each hour on; NaN where the series ends before."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    means = np.full(len(values), np.nan)
    means[: len(values) - duration_h + 1] = (sums[duration_h:] - sums[:-duration_h]) / duration_h
    return means


def shifted(values: Hours, by: int) -> Hours:
    """Row i holds ``values[i + by]``; NaN outside."""
    out = np.full(len(values), np.nan)
    if by >= 0:
        out[: len(values) - by] = values[by:]
    else:
        out[-by:] = values[:by]
    return out


def window_features(
    data: ScheduleData, duration_h: int, slack_h: int, delay_h: int
) -> Float32[np.ndarray, "hours features"]:
    """Row i: what is known at the start of hour i, or during it if ``delay_h`` is 0.

    Args:
        data: the feed.
        duration_h: length of the window of work.
        slack_h: latest start.
        delay_h: the newest intensity known in row i is that of hour ``i - delay_h``.
    """
    g = data.trace.g_per_kwh
    last = shifted(g, -delay_h)
    columns = [last]
    columns += [shifted(g, -delay_h - k) - last for k in (1, 2, 3, 4, 6, 9, 12)]
    series = pd.Series(g)
    for hours in (24, 72, 168):
        columns.append(shifted(series.rolling(hours).mean().to_numpy(), -delay_h) - last)
    columns.append(shifted(series.rolling(24).max().to_numpy(), -delay_h) - last)
    columns.append(shifted(series.rolling(24).min().to_numpy(), -delay_h) - last)
    columns += _profiles(window_means(g, duration_h), last, duration_h, slack_h, delay_h)
    for observed in data.observed.values():
        value = shifted(observed, -delay_h)
        columns += [value, *(value - shifted(observed, -delay_h - k) for k in (1, 3, 6, 24))]
    for foretold in data.foretold.values():
        columns.append(foretold)
        reach = min(slack_h + duration_h, FORETOLD_H)
        columns += [shifted(foretold, k) - foretold for k in range(2, reach + 1, 2)]
    columns += _calendar(data)
    return np.stack(columns, axis=1).astype(np.float32)


def profile_lag(duration_h: int, slack_h: int, delay_h: int) -> int:
    """Hours back to the latest day whose windows were all over and published."""
    return DAY_H * -(-(slack_h + duration_h - 1 + delay_h) // DAY_H)


def _profiles(
    windows: Hours, last: Hours, duration_h: int, slack_h: int, delay_h: int
) -> list[Hours]:
    lag = profile_lag(duration_h, slack_h, delay_h)
    steps = sorted({*range(0, slack_h + 1, 2), slack_h})
    columns = []
    for back in (lag, 7 * DAY_H if lag <= 7 * DAY_H else 2 * lag):
        start = shifted(windows, -back)
        columns += [start - last, *(shifted(windows, k - back) - start for k in steps if k)]
    days = max(1, lag // DAY_H)
    for length, chosen in ((7, range(1, slack_h + 1)), (28, steps[1:])):
        backs = [DAY_H * day for day in range(days, max(length, days) + 1)]
        for k in chosen:
            ramps = [shifted(windows, k - b) - shifted(windows, -b) for b in backs]
            columns.append(np.mean(ramps, axis=0))
    return columns


def _calendar(data: ScheduleData) -> list[Hours]:
    utc = pd.DatetimeIndex(data.trace.time_utc.astype("datetime64[ns]"), tz="UTC")
    local = utc.tz_convert(data.time_zone)
    angle = 2.0 * np.pi * local.dayofyear.to_numpy() / 365.25
    hour, weekday = local.hour.to_numpy(), local.weekday.to_numpy()
    return [hour.astype(float), weekday.astype(float), np.sin(angle), np.cos(angle)]
