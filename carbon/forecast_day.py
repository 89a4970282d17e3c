"""The day ahead: hours 0 to 23, issued at 00 UTC, from what was known at that moment.

Boosting (mean of an L1 and a Huber model) of the change against yesterday's same hour carries 60 %;
a ridge regression of the same change, one for each hour of the day, carries 40 %.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Float64

from carbon.features import LONGEST_LAG, log_feed
from carbon.forecast import ForecastConfig, Rolled
from carbon.forecast_data import ForecastData
from carbon.forecast_models import fit_bounds, fit_middle
from carbon.quality import DAY_H, FeedQuality

Progress = Callable[[int, int, str], None]
BOOSTING_SHARE: Final = 0.6
RIDGE_ALPHA: Final = 3.0
DAY_METHOD: Final = "0.6 boosting (L1 and Huber) + 0.4 hour-wise ridge"
ACI_RATE: Final = 0.02
"""How fast the conformal level follows misses (Gibbs and Candes 2021), per day."""


@dataclass(frozen=True, kw_only=True)
class DayDesign:
    """Features and bases, one row an hour; row T uses the feed up to the midnight before it.

    Attributes:
        x: features.
        yesterday: log of the same hour of the day before.
        last: log of the newest value at issue.
        truth: log values, NaN where the feed had none.
        usable: rows that may be fitted and scored.
    """

    x: Float32[np.ndarray, "hours features"]
    hour: Float64[np.ndarray, " hours"]
    yesterday: Float64[np.ndarray, " hours"]
    last: Float64[np.ndarray, " hours"]
    truth: Float64[np.ndarray, " hours"]
    usable: Bool[np.ndarray, " hours"]


def day_design(data: ForecastData, quality: FeedQuality, *, late_rows: int = 0) -> DayDesign:
    """Features of each hour as issued at the midnight (UTC) before it.

    Args:
        data: the feed.
        quality: its verdicts.
        late_rows: feed rows before midnight that have not come yet.
    """
    view = _Midnight.of(data, quality, late_rows)
    days = np.stack([view.lag(d * DAY_H) for d in range(1, 15)])
    yesterday, week = days[0], days[:7].mean(axis=0)
    columns: dict[str, Float64[np.ndarray, " hours"]] = {"week": week - yesterday}
    for d in (2, 3, 7, 14):
        columns[f"lag_{d}d"] = days[d - 1] - yesterday
    columns["fortnight"] = days.mean(axis=0) - yesterday
    columns["spread"] = days[:7].std(axis=0)
    columns["level"] = yesterday
    _add_evening(columns, view, yesterday)
    _add_day_weather(columns, data.foretold, view)
    _add_mix(columns, data, view)
    _add_clock(columns, data, view.hour)
    truth = np.log(np.maximum(data.g_per_kwh, 1.0))
    usable = np.isfinite(truth) & ~quality.settled
    usable[: LONGEST_LAG + 2 * DAY_H] = False
    return DayDesign(
        x=np.stack(list(columns.values()), axis=1).astype(np.float32),
        hour=view.hour,
        yesterday=yesterday,
        last=view.evening(0),
        truth=truth,
        usable=usable,
    )


@dataclass(frozen=True, kw_only=True)
class _Midnight:
    """The feed as seen from the midnight before each hour."""

    held: Float64[np.ndarray, " hours"]
    past: Float64[np.ndarray, " hours"]
    issue: np.ndarray[tuple[int], np.dtype[np.int64]]
    hour: Float64[np.ndarray, " hours"]
    late: int

    @classmethod
    def of(cls, data: ForecastData, quality: FeedQuality, late: int) -> _Midnight:
        held, past = log_feed(data, quality)
        rows = np.arange(len(data))
        hour = (data.first_hour + rows) % DAY_H
        return cls(held=held, past=past, issue=rows - hour, hour=hour.astype(np.float64), late=late)

    def lag(self, back: int) -> Float64[np.ndarray, " hours"]:
        """The value that many hours before each hour; the newest one known if it was not in yet."""
        return self._known(np.arange(len(self.held)) - back)

    def evening(self, back: int) -> Float64[np.ndarray, " hours"]:
        """The value that many rows before the newest one known at midnight."""
        return self._known(self.issue - 1 - self.late - back)

    def _known(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Float64[np.ndarray, " h"]:
        newest = self.issue - 1 - self.late
        rows = np.minimum(rows, newest)
        # The newest row is unsettled: its verdict waits for the row after it.
        values = np.where(rows == newest, self.held[rows], self.past[rows])
        return np.where(rows >= 0, values, np.nan)


def _add_evening(
    columns: dict[str, Float64[np.ndarray, " hours"]],
    view: _Midnight,
    yesterday: Float64[np.ndarray, " hours"],
) -> None:
    recent = np.stack([view.evening(k) for k in range(2 * DAY_H)])
    columns["evening"] = recent[0] - yesterday
    for hours in (3, 6, 12, 24):
        columns[f"evening_{hours}h"] = recent[:hours].mean(axis=0) - yesterday
    columns["evening_against_1d"] = recent[0] - recent[24]
    columns["evening_6h_against_1d"] = recent[:6].mean(axis=0) - recent[24:30].mean(axis=0)
    columns["day_against_1d"] = recent[:24].mean(axis=0) - recent[24:].mean(axis=0)
    columns["day_low"] = recent[:24].min(axis=0) - yesterday
    columns["day_high"] = recent[:24].max(axis=0) - yesterday
    columns["change"] = recent[0] - recent[1]


def _add_day_weather(
    columns: dict[str, Float64[np.ndarray, " hours"]],
    foretold: Mapping[str, Float64[np.ndarray, " hours"]],
    view: _Midnight,
) -> None:
    for name, values in foretold.items():
        before = np.stack([_shift(values, d * DAY_H) for d in range(1, 8)])
        columns[f"{name}.then"] = values
        columns[f"{name}.against_1d"] = values - before[0]
        columns[f"{name}.against_7d"] = values - before.mean(axis=0)
        # The whole day's forecast is known at midnight.
        day = _day_mean(values, view)
        columns[f"{name}.day"] = day
        columns[f"{name}.day_against_1d"] = day - _shift(day, DAY_H)
        near = np.stack([_shift(values, k) for k in range(-2, 3)]).mean(axis=0)
        columns[f"{name}.near_against_1d"] = near - _shift(near, DAY_H)


def _add_mix(
    columns: dict[str, Float64[np.ndarray, " hours"]], data: ForecastData, view: _Midnight
) -> None:
    """Yesterday's mix: the newest day that is surely in, by hour and on average."""
    fuels = [n for n in data.observed if n.endswith("_mw")]
    total = np.sum([np.nan_to_num(data.observed[n]) for n in fuels], axis=0) if fuels else None
    newest = np.clip(view.issue - 1 - view.late, 0, None)
    rows = np.arange(len(data))
    # With late rows the last hours of yesterday are not in: the day before serves there.
    back = np.where(rows - DAY_H <= view.issue - 1 - view.late, DAY_H, 2 * DAY_H)
    source = np.clip(rows - back, 0, None)
    for name, values in data.observed.items():
        known = values
        if total is not None and name in fuels:
            known = np.divide(values, total, out=np.full(len(values), np.nan), where=total > 0)
        columns[f"{name}.1d"] = known[source]
        columns[f"{name}.newest"] = known[newest]
    if total is not None:
        demand = np.log(np.maximum(total, 1.0))
        columns["demand.1d_against_7d"] = demand[source] - demand[np.clip(source - 144, 0, None)]


def _add_clock(
    columns: dict[str, Float64[np.ndarray, " hours"]],
    data: ForecastData,
    hour: Float64[np.ndarray, " hours"],
) -> None:
    local = data.local()
    day = np.asarray(local.dayofyear, dtype=np.float64)
    weekday = np.asarray(local.dayofweek, dtype=np.float64)
    columns["hour"] = hour
    columns["local_hour"] = np.asarray(local.hour, dtype=np.float64)
    columns["weekday"] = weekday
    columns["weekend"] = (weekday >= 5).astype(np.float64)
    columns["monday"] = (weekday == 0).astype(np.float64)
    columns["saturday"] = (weekday == 5).astype(np.float64)
    columns["year_sin"] = np.sin(2 * np.pi * day / 365.25)
    columns["year_cos"] = np.cos(2 * np.pi * day / 365.25)


def _shift(values: Float64[np.ndarray, " hours"], lag: int) -> Float64[np.ndarray, " hours"]:
    rows = np.arange(len(values)) - lag
    inside = (rows >= 0) & (rows < len(values))
    return np.where(inside, values[np.clip(rows, 0, len(values) - 1)], np.nan)


def _day_mean(
    values: Float64[np.ndarray, " hours"], view: _Midnight
) -> Float64[np.ndarray, " hours"]:
    day = view.issue - view.issue.min()
    counts = np.bincount(day, weights=np.isfinite(values))
    sums = np.bincount(day, weights=np.nan_to_num(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((sums / counts)[day])


def roll_days(
    design: DayDesign,
    start: int,
    stop: int,
    config: ForecastConfig,
    *,
    progress: Progress | None = None,
    train_until: int | None = None,
) -> Rolled:
    """Forecast rows ``start`` to ``stop``, each from the midnight before it, refitting on the way.

    The interval: quantile models, widened by rolling conformal correction whose level adapts to the
    misses of the days before.
    """
    warm_up = max(start - config.calibration_days * DAY_H, 0)
    # Refits fall on midnights, so that a day is forecast by one model.
    warm_up -= int(design.hour[warm_up])
    point, low, high = (np.full(stop, np.nan) for _ in range(3))
    for first in range(max(warm_up, 0), stop, config.refit_days * DAY_H):
        last = min(first + config.refit_days * DAY_H, stop)
        if progress is not None:
            progress(first - warm_up, stop - warm_up, "day ahead")
        oldest = max(0, first - config.history_days * DAY_H)
        newest = first - 1 if train_until is None else min(first - 1, train_until)
        rows = oldest + np.flatnonzero(design.usable[oldest : max(oldest, newest - 1)])
        if len(rows) < config.min_history_days * DAY_H:
            continue
        ahead = np.arange(first, last)
        point[ahead] = _fit_predict(design, rows, ahead, config)
        change = (design.truth - design.yesterday)[rows]
        bounds = fit_bounds(design.x[rows], change, config.boost, config.level)
        low[ahead], high[ahead] = bounds.predict(design.x[ahead])
    return _finish(design, point=point, low=low, high=high, start=start, stop=stop, config=config)


Rows = np.ndarray[tuple[int], np.dtype[np.int64]]


def _fit_predict(
    design: DayDesign, rows: Rows, ahead: Rows, config: ForecastConfig
) -> Float64[np.ndarray, " ahead"]:
    y = (design.truth - design.yesterday)[rows]
    boosted = design.yesterday[ahead] + fit_middle(design.x[rows], y, config.boost).predict(
        design.x[ahead]
    )
    linear = _ridge(design, rows, ahead)
    return np.asarray(BOOSTING_SHARE * boosted + (1 - BOOSTING_SHARE) * linear)


def _ridge(design: DayDesign, rows: Rows, ahead: Rows) -> Float64[np.ndarray, " ahead"]:
    """One ridge for each hour of the day, on standardised features, of the change to yesterday."""
    out = np.zeros(len(ahead))
    x_all = design.x.astype(np.float64)
    for hour in range(DAY_H):
        fit, use = rows[design.hour[rows] == hour], design.hour[ahead] == hour
        if not len(fit) or not use.any():
            out[use] = design.yesterday[ahead[use]]
            continue
        with np.errstate(invalid="ignore"):
            x, z = x_all[fit], x_all[ahead[use]]
            known = np.isfinite(x)
            mean = np.where(known, x, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
            spread = np.sqrt(np.where(known, (x - mean) ** 2, 0).mean(axis=0))
        scale = np.where(spread > 1e-6, spread, np.inf)
        x = np.where(known, x - mean, 0.0) / scale
        # Features far outside of what was seen may not carry a line to anywhere.
        z = np.clip(np.where(np.isfinite(z), z - mean, 0.0) / scale, -4, 4)
        y = (design.truth - design.yesterday)[fit]
        weights = np.linalg.solve(x.T @ x + RIDGE_ALPHA * np.eye(x.shape[1]), x.T @ (y - y.mean()))
        out[use] = design.yesterday[ahead[use]] + y.mean() + z @ weights
    return out


def _finish(
    design: DayDesign,
    *,
    point: Float64[np.ndarray, " stop"],
    low: Float64[np.ndarray, " stop"],
    high: Float64[np.ndarray, " stop"],
    start: int,
    stop: int,
    config: ForecastConfig,
) -> Rolled:
    base, truth, usable = design.yesterday[:stop], design.truth[:stop], design.usable[:stop]
    fallback, reasons = np.isnan(point), []
    if fallback[start:].any():
        reasons.append(
            f"yesterday's profile: fewer than {config.min_history_days} days of sound history"
        )
    own = np.where(usable, np.abs(truth - point), np.nan)
    naive = np.where(usable, np.abs(truth - base), np.nan)
    for day in range(start - int(design.hour[start]), stop, DAY_H):
        known = slice(max(0, day - 1 - config.gate_days * DAY_H), max(0, day - 1))
        both = np.isfinite(own[known]) & np.isfinite(naive[known])
        if both.sum() >= 7 * DAY_H and own[known][both].mean() > naive[known][both].mean():
            fallback[max(day, 0) : day + DAY_H] = True
            reasons.append("yesterday's profile: the model lost to it over the weeks before")
    point = np.where(fallback, base, point)
    low, high = np.where(fallback, 0.0, low), np.where(fallback, 0.0, high)
    miss = np.where(usable, np.maximum(low - (truth - base), truth - base - high), np.nan)
    widen = _adaptive(miss, design.hour[:stop], start, config)
    middle = 0.5 * (low + high)
    lower, upper = np.minimum(low - widen, middle), np.maximum(high + widen, middle)
    return Rolled(
        start=start,
        point=np.exp(point[start:]),
        low=np.exp((base + lower)[start:]),
        high=np.exp((base + upper)[start:]),
        fallback=fallback[start:],
        reasons=tuple(dict.fromkeys(reasons)),
    )


def _adaptive(
    miss: Float64[np.ndarray, " stop"],
    hour: Float64[np.ndarray, " stop"],
    start: int,
    config: ForecastConfig,
) -> Float64[np.ndarray, " stop"]:
    """Widening of each day's bounds, its level raised after days that missed and lowered after."""
    out = np.full(len(miss), np.nan)
    level = config.level
    first = int(np.argmax(np.isfinite(miss))) if np.isfinite(miss).any() else len(miss)
    first += (-int(hour[first])) % DAY_H if first < len(miss) else 0
    for day in range(first, len(miss), DAY_H):
        known = miss[max(0, day - 1 - config.calibration_days * DAY_H) : day - 1]
        known = known[np.isfinite(known)]
        if len(known) < 7 * DAY_H:
            continue
        out[day : day + DAY_H] = np.quantile(known, min(1.0, max(0.0, level)))
        # The day's own misses are known only when the next day is issued.
        today = miss[day : day + DAY_H - 1]
        today = today[np.isfinite(today)]
        if len(today):
            missed = float((today > out[day]).mean())
            level += ACI_RATE * (missed - (1 - config.level))
            level = min(0.995, max(0.5, level))
    return out
