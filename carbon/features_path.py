"""Features of the 24 hours ahead, issued at any hour: one row per issue and hour ahead.

Everything is relative to the same hour of the day before (log scale). An issue is named by the
first row that it forecasts; it knows the feed up to the row before, less the late ones, and the
weather forecast for its own 24 hours, no further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from carbon.features import LONGEST_LAG, log_feed
from carbon.forecast_data import ForecastData
from carbon.holidays import holidays
from carbon.quality import DAY_H, FLOOR_G_PER_KWH, FeedQuality

LEADS: Final = DAY_H
"""Hours that one issue forecasts."""
PATH_HISTORY_H: Final = LONGEST_LAG + 2 * DAY_H
ZERO_CELSIUS_K: Final = 273.15
COOL_ABOVE_C: Final = 18.0
HEAT_BELOW_C: Final = 14.0
RATED_WIND_MS: Final = 14.0
"""Above it, turbines give no more."""
Columns = dict[str, Float64[np.ndarray, " pairs"]]


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Issues and the hours that each forecasts, as flat arrays.

    Attributes:
        first: first row that the issue forecasts.
        lead: hours after that one, 0 to 23.
        late: feed rows before ``first`` that have not come.
    """

    first: Int64[np.ndarray, " pairs"]
    lead: Int64[np.ndarray, " pairs"]
    late: int = 0

    @classmethod
    def of(cls, issues: Int64[np.ndarray, " issues"], *, late: int = 0) -> Pairs:
        """All 24 hours of each issue, issue by issue."""
        lead = np.tile(np.arange(LEADS), len(issues))
        return cls(first=np.repeat(issues, LEADS), lead=lead, late=late)

    @property
    def target(self) -> Int64[np.ndarray, " pairs"]:
        """Rows that are forecast."""
        return np.asarray(self.first + self.lead)

    @property
    def newest(self) -> Int64[np.ndarray, " pairs"]:
        """Newest row known."""
        return np.asarray(self.first - 1 - self.late)


@dataclass(frozen=True, kw_only=True)
class PathDesign:
    """Features and targets of pairs.

    Attributes:
        x: features.
        hour: hour of the day (UTC) that is forecast.
        yesterday: log of the same hour of the newest day that was in.
        last: log of the newest value at issue.
        truth: log values, NaN where the feed had none or has not come yet.
        usable: pairs that may be fitted and scored.
    """

    names: tuple[str, ...]
    pairs: Pairs
    x: Float32[np.ndarray, "pairs features"]
    hour: Int64[np.ndarray, " pairs"]
    yesterday: Float64[np.ndarray, " pairs"]
    last: Float64[np.ndarray, " pairs"]
    truth: Float64[np.ndarray, " pairs"]
    usable: Bool[np.ndarray, " pairs"]

    @property
    def y(self) -> Float64[np.ndarray, " pairs"]:
        """Log-ratio to yesterday: what is learnt."""
        return np.asarray(self.truth - self.yesterday)

    def rows(self, chosen: slice) -> PathDesign:
        """Some of the pairs."""
        pairs = Pairs(
            first=self.pairs.first[chosen], lead=self.pairs.lead[chosen], late=self.pairs.late
        )
        return PathDesign(
            names=self.names,
            pairs=pairs,
            x=self.x[chosen],
            hour=self.hour[chosen],
            yesterday=self.yesterday[chosen],
            last=self.last[chosen],
            truth=self.truth[chosen],
            usable=self.usable[chosen],
        )


def path_design(data: ForecastData, quality: FeedQuality, pairs: Pairs) -> PathDesign:
    """Features of each pair.

    Args:
        data: the feed, with open rows for the hours to come where they are forecast.
        quality: its verdicts.
        pairs: what is issued when, for which hour.
    """
    view = _View.of(data, quality, pairs)
    days = np.stack([view.day(d) for d in range(1, 15)])
    yesterday = days[0]
    columns: Columns = {"lead": pairs.lead.astype(np.float64), "level": yesterday}
    columns["week"] = days[:7].mean(axis=0) - yesterday
    columns["fortnight"] = days.mean(axis=0) - yesterday
    columns["spread"] = days[:7].std(axis=0)
    for d in (2, 3, 7, 14):
        columns[f"lag_{d}d"] = days[d - 1] - yesterday
    _add_recent(columns, view, days)
    _add_weather(columns, data.foretold, pairs)
    _add_mix(columns, data, view)
    hour = _add_clock(columns, data, pairs)
    inside = pairs.target < len(data)
    rows = np.where(inside, pairs.target, 0)
    truth = np.log(np.maximum(data.g_per_kwh[rows], FLOOR_G_PER_KWH))
    truth = np.where(inside, truth, np.nan)
    usable = np.isfinite(truth) & ~quality.settled[rows] & (pairs.first >= PATH_HISTORY_H)
    return PathDesign(
        names=tuple(columns),
        pairs=pairs,
        x=np.stack(list(columns.values()), axis=1).astype(np.float32),
        hour=hour,
        yesterday=yesterday,
        last=view.recent(0),
        truth=truth,
        usable=usable,
    )


@dataclass(frozen=True, kw_only=True)
class _View:
    """The feed as it stood at each issue."""

    held: Float64[np.ndarray, " hours"]
    past: Float64[np.ndarray, " hours"]
    pairs: Pairs

    @classmethod
    def of(cls, data: ForecastData, quality: FeedQuality, pairs: Pairs) -> _View:
        held, past = log_feed(data, quality)
        return cls(held=held, past=past, pairs=pairs)

    def day(self, days: int) -> Float64[np.ndarray, " pairs"]:
        """The same hour so many days before; a day further back where that was not in yet."""
        return self.known(self.same_hour(days))

    def same_hour(self, days: int) -> Int64[np.ndarray, " pairs"]:
        """The rows of :meth:`day`."""
        missing = self.pairs.target - DAY_H > self.pairs.newest
        return np.asarray(self.pairs.target - DAY_H * (days + missing))

    def recent(self, back: int) -> Float64[np.ndarray, " pairs"]:
        """The value so many rows before the newest one."""
        return self.known(self.pairs.newest - back)

    def known(self, rows: Int64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " pairs"]:
        """Values at rows up to the newest one, whose verdict still waits for the row after it."""
        inside = np.clip(rows, 0, len(self.held) - 1)
        values = np.where(rows == self.pairs.newest, self.held[inside], self.past[inside])
        return np.where((rows >= 0) & (rows <= self.pairs.newest), values, np.nan)


def _add_recent(columns: Columns, view: _View, days: Float64[np.ndarray, "days pairs"]) -> None:
    """The newest hours, against yesterday and against what they were then."""
    yesterday = days[0]
    recent = np.stack([view.recent(k) for k in range(2 * DAY_H)])
    columns["newest"] = recent[0] - yesterday
    for hours in (3, 6, 12, 24):
        columns[f"newest_{hours}h"] = recent[:hours].mean(axis=0) - yesterday
    columns["newest_against_1d"] = recent[0] - recent[24]
    columns["newest_3h_against_1d"] = recent[:3].mean(axis=0) - recent[24:27].mean(axis=0)
    columns["newest_6h_against_1d"] = recent[:6].mean(axis=0) - recent[24:30].mean(axis=0)
    columns["day_against_1d"] = recent[:24].mean(axis=0) - recent[24:].mean(axis=0)
    columns["day_low"] = recent[:24].min(axis=0) - yesterday
    columns["day_high"] = recent[:24].max(axis=0) - yesterday
    columns["change"] = recent[0] - recent[1]
    then = np.stack([view.recent(d * DAY_H) for d in range(1, 8)])
    # The newest value carried on by what the same hours did on the days before.
    columns["carried_7d"] = recent[0] + (days[:7] - then).mean(axis=0) - yesterday
    columns["newest_against_7d"] = recent[0] - then.mean(axis=0)


def _add_weather(
    columns: Columns, foretold: Mapping[str, Float64[np.ndarray, " hours"]], pairs: Pairs
) -> None:
    target, first = pairs.target, pairs.first
    for name, values in foretold.items():
        then = _at(values, target)
        before = np.stack([_at(values, target - d * DAY_H) for d in range(1, 8)])
        columns[f"{name}.then"] = then
        columns[f"{name}.against_1d"] = then - before[0]
        columns[f"{name}.against_7d"] = then - before.mean(axis=0)
        ahead = _window_mean(values, first, first + LEADS)
        columns[f"{name}.ahead"] = ahead
        columns[f"{name}.ahead_against_1d"] = ahead - _window_mean(values, first - LEADS, first)
        low, high = np.maximum(target - 2, first), np.minimum(target + 3, first + LEADS)
        near = _window_mean(values, low, high)
        columns[f"{name}.near_against_1d"] = near - _window_mean(values, low - DAY_H, high - DAY_H)
    for name, values in weather_effects(foretold).items():
        then = _at(values, target)
        columns[f"{name}.then"] = then
        columns[f"{name}.against_1d"] = then - _at(values, target - DAY_H)


def weather_effects(
    foretold: Mapping[str, Float64[np.ndarray, " hours"]],
) -> Columns:
    """What weather does to load and wind power, roughly: degrees to cool or heat, wind cubed.

    By the hour, and for cooling and heating also over the past day, since buildings are slow.
    """
    effects: Columns = {}
    if "temp_k" in foretold:
        celsius = foretold["temp_k"] - ZERO_CELSIUS_K
        rows = np.arange(len(celsius), dtype=np.int64)
        for name, degrees in (
            ("cooling", np.maximum(celsius - COOL_ABOVE_C, 0.0)),
            ("heating", np.maximum(HEAT_BELOW_C - celsius, 0.0)),
        ):
            effects[f"{name}_k"] = degrees
            effects[f"{name}_day_k"] = _window_mean(degrees, rows - 23, rows + 1)
    if "wind_ms" in foretold:
        effects["wind_cubed"] = np.minimum(foretold["wind_ms"], RATED_WIND_MS) ** 3
    return effects


def _add_mix(columns: Columns, data: ForecastData, view: _View) -> None:
    """The mix at the newest row and at the same hour of the day before."""
    fuels = [n for n in data.observed if n.endswith("_mw")]
    total = np.sum([np.nan_to_num(data.observed[n]) for n in fuels], axis=0) if fuels else None
    newest, before = view.pairs.newest, view.same_hour(1)
    for name, values in data.observed.items():
        known = values
        if total is not None and name in fuels:
            known = np.divide(values, total, out=np.full(len(values), np.nan), where=total > 0)
        columns[f"{name}.1d"] = _at(known, before)
        columns[f"{name}.newest"] = _at(known, newest)
        columns[f"{name}.newest_against_1d"] = _at(known, newest) - _at(known, newest - DAY_H)
    if total is not None:
        demand = np.log(np.maximum(total, 1.0))
        columns["demand.1d_against_7d"] = _at(demand, before) - _at(demand, before - 6 * DAY_H)
        columns["demand.newest_against_1d"] = _at(demand, newest) - _at(demand, newest - DAY_H)


def _add_clock(columns: Columns, data: ForecastData, pairs: Pairs) -> Int64[np.ndarray, " pairs"]:
    local = data.local()
    known = np.minimum(pairs.target, len(data) - 1)
    weekday = np.asarray(local.dayofweek, dtype=np.float64)[known]
    day = np.asarray(local.dayofyear, dtype=np.float64)[known]
    hour = (data.first_hour + pairs.target) % DAY_H
    columns["hour"] = hour.astype(np.float64)
    columns["local_hour"] = np.asarray(local.hour, dtype=np.float64)[known]
    columns["weekday"] = weekday
    columns["weekend"] = (weekday >= 5).astype(np.float64)
    holiday = holidays(local, data.time_zone).astype(np.float64)
    free = np.maximum(holiday, np.asarray(local.dayofweek) >= 5)
    for name, flags in (("holiday", holiday), ("free", free)):
        columns[name] = flags[known]
        columns[f"{name}.against_1d"] = flags[known] - _at(flags, known - DAY_H)
    columns["monday"] = (weekday == 0).astype(np.float64)
    columns["saturday"] = (weekday == 5).astype(np.float64)
    columns["year_sin"] = np.sin(2 * np.pi * day / 365.25)
    columns["year_cos"] = np.cos(2 * np.pi * day / 365.25)
    return hour


def _at(
    values: Float64[np.ndarray, " hours"], rows: Int64[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " pairs"]:
    inside = (rows >= 0) & (rows < len(values))
    return np.where(inside, values[np.where(inside, rows, 0)], np.nan)


def _window_mean(
    values: Float64[np.ndarray, " hours"],
    low: Int64[np.ndarray, " pairs"],
    high: Int64[np.ndarray, " pairs"],
) -> Float64[np.ndarray, " pairs"]:
    """Mean of the known values of rows ``low`` up to, not including, ``high``."""
    sums = np.cumsum(np.insert(np.nan_to_num(values), 0, 0.0))
    counts = np.cumsum(np.insert(np.isfinite(values), 0, 0))
    low, high = np.clip(low, 0, len(values)), np.clip(high, 0, len(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((sums[high] - sums[low]) / (counts[high] - counts[low]))
