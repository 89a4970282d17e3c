"""The day ahead: hours 0 to 23, issued at 00 UTC: the path of 24 hours, rolled through time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from carbon.features_path import Pairs, PathDesign, path_design
from carbon.forecast import ForecastConfig, Rolled
from carbon.forecast_data import ForecastData
from carbon.forecast_path import boosting_share, fit_path, training_issues
from carbon.quality import DAY_H, FeedQuality

Progress = Callable[[int, int, str], None]
ACI_RATE: Final = 0.15
"""How fast the conformal level follows misses (Gibbs and Candes 2021), per day."""
HALF_LIFE_DAYS: Final = 3.0
"""After which an error counts half in the widening: grids turn restless within days."""


@dataclass(frozen=True, kw_only=True)
class DayDesign:
    """The path as issued at midnights: row T of ``own`` uses the feed up to the midnight before it.

    Attributes:
        own: one pair for each hour of the data.
        training: issues at all hours, for the boosting to learn from.
    """

    own: PathDesign
    training: PathDesign

    @property
    def x(self) -> Float32[np.ndarray, "hours features"]:
        """Features of each hour as issued at the midnight before it."""
        return self.own.x

    @property
    def hour(self) -> Int64[np.ndarray, " hours"]:
        """Hour of the day, UTC."""
        return self.own.hour

    @property
    def yesterday(self) -> Float64[np.ndarray, " hours"]:
        """Log of the same hour of the day before."""
        return self.own.yesterday

    @property
    def last(self) -> Float64[np.ndarray, " hours"]:
        """Log of the newest value at issue."""
        return self.own.last

    @property
    def truth(self) -> Float64[np.ndarray, " hours"]:
        """Log values, NaN where the feed had none."""
        return self.own.truth

    @property
    def usable(self) -> Bool[np.ndarray, " hours"]:
        """Rows that may be fitted and scored."""
        return self.own.usable


def day_design(data: ForecastData, quality: FeedQuality, *, late_rows: int = 0) -> DayDesign:
    """Features of each hour as issued at the midnight (UTC) before it.

    Args:
        data: the feed.
        quality: its verdicts.
        late_rows: feed rows before midnight that have not come yet.
    """
    rows = np.arange(len(data), dtype=np.int64)
    hour = (data.first_hour + rows) % DAY_H
    return DayDesign(
        own=path_design(data, quality, Pairs(first=rows - hour, lead=hour, late=late_rows)),
        training=path_design(data, quality, training_issues(len(data), late_rows)),
    )


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

    The interval: quantile models, widened by conformal correction over the days before, the newest
    counting most, whose level adapts to their misses.
    """
    warm_up = max(start - config.calibration_days * DAY_H, 0)
    # Refits fall on midnights, so that a day is forecast by one model.
    warm_up -= int(design.hour[warm_up])
    boosted, linear, low, high = (np.full(stop, np.nan) for _ in range(4))
    for first in range(max(warm_up, 0), stop, config.refit_days * DAY_H):
        last = min(first + config.refit_days * DAY_H, stop)
        if progress is not None:
            progress(first - warm_up, stop - warm_up, "day ahead")
        oldest = max(0, first - config.history_days * DAY_H)
        newest = first - 2 if train_until is None else min(first - 2, train_until - 1)
        sound = np.count_nonzero(design.usable[oldest : max(oldest, newest)])
        if sound < config.min_history_days * DAY_H:
            continue
        model = fit_path(
            design.training, (design.own,), oldest=oldest, newest=newest, config=config
        )
        ahead = model.predict(design.own.rows(slice(first, last)))
        boosted[first:last], linear[first:last] = ahead.boosted, ahead.linear
        low[first:last], high[first:last] = ahead.low, ahead.high
    point = design.yesterday[:stop] + _blend(design, boosted, linear, config)
    return _finish(design, point=point, low=low, high=high, start=start, stop=stop, config=config)


def _blend(
    design: DayDesign,
    boosted: Float64[np.ndarray, " stop"],
    linear: Float64[np.ndarray, " stop"],
    config: ForecastConfig,
) -> Float64[np.ndarray, " stop"]:
    """Both middles, weighted anew each midnight by their errors of the weeks before."""
    out = np.full(len(boosted), np.nan)
    truth = np.where(design.usable, design.own.y, np.nan)
    for day in range(-int(design.hour[0]), len(boosted), DAY_H):
        known = slice(max(0, day - 1 - config.calibration_days * DAY_H), max(0, day - 1))
        share = boosting_share(boosted[known], linear[known], truth[known])
        rows = slice(max(0, day), day + DAY_H)
        out[rows] = share * boosted[rows] + (1 - share) * linear[rows]
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
    # The interval is as wide as the quantile models say, around the better middle.
    half = np.where(fallback, 0.0, 0.5 * (high - low))
    widen = _adaptive(
        np.where(usable, np.abs(truth - point) - half, np.nan), design.hour[:stop], config
    )
    reach = np.maximum(half + widen, 0.0)
    return Rolled(
        start=start,
        point=np.exp(point[start:]),
        low=np.exp((point - reach)[start:]),
        high=np.exp((point + reach)[start:]),
        fallback=fallback[start:],
        reasons=tuple(dict.fromkeys(reasons)),
    )


def _adaptive(
    miss: Float64[np.ndarray, " stop"],
    hour: Int64[np.ndarray, " stop"],
    config: ForecastConfig,
) -> Float64[np.ndarray, " stop"]:
    """Widening of each day's bounds, its level raised after days that missed and lowered after."""
    out = np.full(len(miss), np.nan)
    level = config.level
    first = int(np.argmax(np.isfinite(miss))) if np.isfinite(miss).any() else len(miss)
    first += (-int(hour[first])) % DAY_H if first < len(miss) else 0
    for day in range(first, len(miss), DAY_H):
        known = miss[max(0, day - 1 - config.calibration_days * DAY_H) : day - 1]
        if np.count_nonzero(np.isfinite(known)) < 7 * DAY_H:
            continue
        out[day : day + DAY_H] = recent_quantile(known, level)
        # The day's own misses are known only when the next day is issued.
        today = miss[day : day + DAY_H - 1]
        today = today[np.isfinite(today)]
        if len(today):
            missed = float((today > out[day]).mean())
            level += ACI_RATE * (missed - (1 - config.level))
            level = min(0.995, max(0.5, level))
    return out


def recent_quantile(values: Float64[np.ndarray, " hours"], level: float) -> float:
    """Quantile of the known values, oldest first, each weighted by how recent it is.

    Weighted conformal prediction for errors that drift (Barber et al. 2023).
    """
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    # Weight halves with each half-life before the last value.
    weight = np.exp2(-(len(values) - 1 - order) / (HALF_LIFE_DAYS * DAY_H))
    share = np.cumsum(weight) / weight.sum()
    return float(values[order[min(int(np.searchsorted(share, level)), len(order) - 1)]])
