"""Features of the hour ahead: one row per issue, nothing in it that was unknown then.

Everything is relative to the last value (log scale), so that a model learns changes and carries
over to levels it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Float64

from carbon.forecast_data import ForecastData
from carbon.quality import DAY_H, FLOOR_G_PER_KWH, FeedQuality, hold, settle

WEEK_H: Final = 7 * DAY_H
RECENT_LAGS: Final = 6
DAILY_LAGS: Final = (23, 24, 25, 47, 48, 49, 72, WEEK_H)
"""Hours before the hour that is forecast."""
LONGEST_LAG: Final = 14 * DAY_H + 2


@dataclass(frozen=True, kw_only=True)
class Design:
    """Features and targets, one row per hour that is forecast.

    Attributes:
        names: of the features.
        x: features; row i forecasts hour i and uses feed rows up to ``i - step`` only.
        last: log of the last sound value at issue: persistence.
        seasonal: log of the value 24 hours before the hour that is forecast.
        truth: the feed's own log values, NaN where it had none.
        usable: rows that may be fitted and scored.
        step: feed rows from the newest one known to the one forecast.
    """

    names: tuple[str, ...]
    x: Float32[np.ndarray, "hours features"]
    last: Float64[np.ndarray, " hours"]
    seasonal: Float64[np.ndarray, " hours"]
    truth: Float64[np.ndarray, " hours"]
    usable: Bool[np.ndarray, " hours"]
    step: int

    @property
    def y(self) -> Float64[np.ndarray, " hours"]:
        """Log-ratio to the last value: what is learnt."""
        return np.asarray(self.truth - self.last)


def log_feed(
    data: ForecastData, quality: FeedQuality
) -> tuple[Float64[np.ndarray, " hours"], Float64[np.ndarray, " hours"]]:
    """Logs of the feed as newest value (held) and as history (settled), doubtful rows replaced."""
    held = hold(data.g_per_kwh, quality.at_once | ~np.isfinite(data.g_per_kwh))
    past = settle(data.g_per_kwh, quality.settled | ~np.isfinite(data.g_per_kwh))
    return (
        np.log(np.maximum(held, FLOOR_G_PER_KWH)),
        np.log(np.maximum(past, FLOOR_G_PER_KWH)),
    )


def hourly_design(data: ForecastData, quality: FeedQuality, *, step: int = 1) -> Design:
    """Features for each hour of the data, issued ``step`` feed rows before it.

    Args:
        data: the feed.
        quality: its verdicts; doubtful rows are replaced in features and left out as targets.
        step: 1 if the row of the hour before is known, 2 if it comes an hour late.
    """
    held, past = log_feed(data, quality)
    last = _back(held, step)
    columns: dict[str, Float64[np.ndarray, " hours"]] = {}
    _add_lags(columns, past, last, step)
    _add_ramps(columns, past, last, step)
    _add_levels(columns, past, last, step)
    _add_observed(columns, data.observed, quality, step)
    _add_weather(columns, data.foretold, step)
    _add_calendar(columns, data)
    truth = np.log(np.maximum(data.g_per_kwh, FLOOR_G_PER_KWH))
    usable = np.isfinite(truth) & ~quality.settled & np.isfinite(last)
    usable[:LONGEST_LAG] = False
    return Design(
        names=tuple(columns),
        x=np.stack(list(columns.values()), axis=1).astype(np.float32),
        last=last,
        seasonal=_back(past, DAY_H),
        truth=truth,
        usable=usable,
        step=step,
    )


def _back(values: Float64[np.ndarray, " hours"], lag: int) -> Float64[np.ndarray, " hours"]:
    out = np.full(len(values), np.nan)
    out[lag:] = values[: len(values) - lag]
    return out


def _add_lags(
    columns: dict[str, Float64[np.ndarray, " hours"]],
    past: Float64[np.ndarray, " hours"],
    last: Float64[np.ndarray, " hours"],
    step: int,
) -> None:
    for k in range(1, RECENT_LAGS):
        columns[f"lag_{k + step}h"] = _back(past, step + k) - last
    columns["change_1h"] = last - _back(past, step + 1)
    columns["bend_1h"] = last - 2 * _back(past, step + 1) + _back(past, step + 2)
    for lag in DAILY_LAGS:
        columns[f"lag_{lag}h"] = _back(past, lag) - last


def _add_ramps(
    columns: dict[str, Float64[np.ndarray, " hours"]],
    past: Float64[np.ndarray, " hours"],
    last: Float64[np.ndarray, " hours"],
    step: int,
) -> None:
    """The change that these hours of the day made on the days before."""
    ramp = past - _back(past, step)
    days = np.stack([_back(ramp, d * DAY_H) for d in range(1, 15)])
    columns["ramp_1d"] = days[0]
    columns["ramp_2d"] = days[1]
    columns["ramp_7d"] = days[6]
    columns["ramp_mean_3d"] = days[:3].mean(axis=0)
    columns["ramp_mean_7d"] = days[:7].mean(axis=0)
    columns["ramp_mean_14d"] = days.mean(axis=0)
    columns["ramp_std_14d"] = days.std(axis=0)
    # How far the last known hour's own ramp was from what it usually is.
    before = _back(past, step) - _back(past, step + 1)
    usual = np.stack([_back(before, d * DAY_H) for d in range(1, 8)]).mean(axis=0)
    columns["surprise_1h"] = last - _back(past, step + 1) - usual


def _add_levels(
    columns: dict[str, Float64[np.ndarray, " hours"]],
    past: Float64[np.ndarray, " hours"],
    last: Float64[np.ndarray, " hours"],
    step: int,
) -> None:
    columns["last"] = last
    for window in (DAY_H, WEEK_H):
        # From settled rows, the newest of which waits for the row after it: one more step back.
        total = np.cumsum(np.insert(past, 0, 0.0))
        mean = np.full(len(past), np.nan)
        mean[window - 1 :] = (total[window:] - total[:-window]) / window
        columns[f"mean_{window}h"] = _back(mean, step + 1) - last


def _add_observed(
    columns: dict[str, Float64[np.ndarray, " hours"]],
    observed: Mapping[str, Float64[np.ndarray, " hours"]],
    quality: FeedQuality,
    step: int,
) -> None:
    fuels = [name for name in observed if name.endswith("_mw")]
    total = np.sum([np.nan_to_num(observed[name]) for name in fuels], axis=0) if fuels else None
    for name, values in observed.items():
        known = values
        if total is not None and name in fuels:
            known = np.divide(values, total, out=np.full(len(values), np.nan), where=total > 0)
        newest, past = _newest_and_past(known, quality)
        columns[f"{name}.now"] = _back(newest, step)
        columns[f"{name}.change"] = _back(newest, step) - _back(past, step + 1)
        # Its ramp on the last day over the very hours that are ahead.
        columns[f"{name}.ramp_1d"] = _back(past, DAY_H) - _back(past, DAY_H + step)
    if total is not None:
        newest, past = _newest_and_past(np.log(np.maximum(total, 1.0)), quality)
        columns["demand.change"] = _back(newest, step) - _back(past, step + 1)
        columns["demand.ramp_1d"] = _back(past, DAY_H) - _back(past, DAY_H + step)
        columns["demand.ramp_7d"] = _back(past, WEEK_H) - _back(past, WEEK_H + step)


def _newest_and_past(
    values: Float64[np.ndarray, " hours"], quality: FeedQuality
) -> tuple[Float64[np.ndarray, " hours"], Float64[np.ndarray, " hours"]]:
    return np.where(quality.at_once, np.nan, values), np.where(quality.settled, np.nan, values)


def _add_weather(
    columns: dict[str, Float64[np.ndarray, " hours"]],
    foretold: Mapping[str, Float64[np.ndarray, " hours"]],
    step: int,
) -> None:
    for name, values in foretold.items():
        columns[f"{name}.then"] = values
        columns[f"{name}.change"] = values - _back(values, step)
        columns[f"{name}.against_1d"] = columns[f"{name}.change"] - (
            _back(values, DAY_H) - _back(values, DAY_H + step)
        )


def _add_calendar(columns: dict[str, Float64[np.ndarray, " hours"]], data: ForecastData) -> None:
    local = data.local()
    hour = np.asarray(local.hour, dtype=np.float64)
    day = np.asarray(local.dayofyear, dtype=np.float64)
    columns["local_hour"] = hour
    columns["utc_hour"] = ((data.first_hour + np.arange(len(data))) % DAY_H).astype(np.float64)
    columns["weekday"] = np.asarray(local.dayofweek, dtype=np.float64)
    columns["weekend"] = (columns["weekday"] >= 5).astype(np.float64)
    columns["year_sin"] = np.sin(2 * np.pi * day / 365.25)
    columns["year_cos"] = np.cos(2 * np.pi * day / 365.25)
