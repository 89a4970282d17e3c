"""The hour ahead: rolled forward through time, each forecast from what was known at its issue.

The same code serves the backtest and the present: a live forecast is the last row of a roll that
began weeks before, whose own errors set the width of the interval and pass or fail the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64

from carbon.errors import IntensityError
from carbon.features import Design, hourly_design
from carbon.forecast_data import ForecastData
from carbon.forecast_hour import HOUR_METHOD, fit_hour
from carbon.forecast_models import BoostConfig, fit_bounds
from carbon.quality import DAY_H, inspect_feed

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class ForecastConfig:
    """How the forecaster is fitted, calibrated and gated.

    Attributes:
        boost: size of the models.
        refit_days: how often they are fitted anew.
        history_days: rows before that are forgotten.
        calibration_days: window of the rolling conformal correction.
        gate_days: window over which the model must beat persistence.
        min_history_days: below it, persistence.
        level: share of the values that the interval should hold.
    """

    boost: BoostConfig = field(default_factory=BoostConfig)
    refit_days: int = 42
    history_days: int = 730
    calibration_days: int = 30
    gate_days: int = 28
    min_history_days: int = 60
    level: float = 0.9

    def __post_init__(self) -> None:
        if self.refit_days < 1 or self.min_history_days < 1 or not 0 < self.level < 1:
            raise IntensityError(
                f"Forecast settings need refit_days and min_history_days of 1 or more and a level "
                f"between 0 and 1, not {self.refit_days}, {self.min_history_days}, {self.level}."
            )


@dataclass(frozen=True, kw_only=True)
class Rolled:
    """Forecasts of rows ``start`` to ``start + n``, as they would have been issued.

    Attributes:
        point: gCO2e/kWh.
        low: lower bound of the interval, NaN before it can be calibrated.
        high: its upper bound.
        fallback: rows where persistence stood in.
        reasons: why, once each.
    """

    start: int
    point: Float64[np.ndarray, " hours"]
    low: Float64[np.ndarray, " hours"]
    high: Float64[np.ndarray, " hours"]
    fallback: Bool[np.ndarray, " hours"]
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NextHour:
    """One forecast: what, for when, how sure, and by which method."""

    time_utc: np.datetime64
    g_per_kwh: float
    low_g_per_kwh: float | None
    high_g_per_kwh: float | None
    level: float
    method: str


QUICK: Final = ForecastConfig(boost=BoostConfig(trees=60, quantile_trees=40, learning_rate=0.1))
"""Small models: for a first look and for tests."""


def roll_forward(
    design: Design,
    start: int,
    stop: int,
    config: ForecastConfig,
    *,
    progress: Progress | None = None,
    train_until: int | None = None,
) -> Rolled:
    """Forecast rows ``start`` to ``stop``, refitting on the way, never looking ahead.

    Models for the rows from s on are fitted on rows before ``s - step``: the newest row known when
    row s is forecast, less one hour, since only then was it judged. ``train_until`` is the first
    row that no model may be fitted on; the interval still follows the errors after it.
    """
    warm_up = max(start - config.calibration_days * DAY_H, 0)
    y_hat, low, high = (np.full(stop, np.nan) for _ in range(3))
    blocks = list(_blocks(warm_up, start, stop, config.refit_days * DAY_H))
    for i, (first, last) in enumerate(blocks):
        if progress is not None:
            progress(i, len(blocks), f"hour ahead, fit {i + 1} of {len(blocks)}")
        rows = training_rows(design, first, config, train_until)
        if len(rows) < config.min_history_days * DAY_H:
            continue
        x, y, ahead = design.x[rows], design.y[rows], design.x[first:last]
        y_hat[first:last] = fit_hour(design, rows, config.boost).predict(ahead)
        bounds = fit_bounds(x, y, config.boost, config.level)
        low[first:last], high[first:last] = bounds.predict(ahead)
    return _assemble(design, y_hat=y_hat, low=low, high=high, start=start, stop=stop, config=config)


def _blocks(warm_up: int, start: int, stop: int, length: int) -> Sequence[tuple[int, int]]:
    before = [(s, min(s + length, start)) for s in range(warm_up, start, length)]
    return before + [(s, min(s + length, stop)) for s in range(start, stop, length)]


def training_rows(
    design: Design, first: int, config: ForecastConfig, train_until: int | None = None
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Sound rows that were known and judged when row ``first`` was forecast."""
    oldest = max(0, first - config.history_days * DAY_H)
    limit = first - design.step
    newest = max(oldest, limit if train_until is None else min(limit, train_until))
    return oldest + np.flatnonzero(design.usable[oldest:newest]).astype(np.int64)


def _assemble(
    design: Design,
    *,
    y_hat: Float64[np.ndarray, " stop"],
    low: Float64[np.ndarray, " stop"],
    high: Float64[np.ndarray, " stop"],
    start: int,
    stop: int,
    config: ForecastConfig,
) -> Rolled:
    fallback, reasons = _gate(design, y_hat, start, config)
    y_hat = np.where(fallback, 0.0, y_hat)
    # The interval is as wide as the quantile models say, around the better middle. Persistence
    # has none: its past errors alone make the interval.
    half = np.where(fallback, 0.0, 0.5 * (high - low))
    y = np.where(design.usable[:stop], design.y[:stop], np.nan)
    widen = rolling_quantile(
        np.abs(y - y_hat) - half,
        start,
        stop,
        delay=design.step + 1,
        days=config.calibration_days,
        level=config.level,
    )
    middle = design.last[start:stop] + y_hat[start:]
    # A negative correction may not turn the interval inside out.
    reach = np.maximum(half[start:] + widen, 0.0)
    return Rolled(
        start=start,
        point=np.exp(middle),
        low=np.exp(middle - reach),
        high=np.exp(middle + reach),
        fallback=fallback[start:],
        reasons=reasons,
    )


def _gate(
    design: Design, y_hat: Float64[np.ndarray, " stop"], start: int, config: ForecastConfig
) -> tuple[Bool[np.ndarray, " stop"], tuple[str, ...]]:
    """Rows that are left to persistence, and why."""
    stop = len(y_hat)
    y = np.where(design.usable[:stop], design.y[:stop], np.nan)
    missing = np.isnan(y_hat)
    beaten = _loses(
        np.abs(y - y_hat), np.abs(y), start=start, stop=stop, step=design.step,
        days=config.gate_days,
    )  # fmt: skip
    reasons = []
    if missing[start:].any():
        reasons.append(
            f"persistence: fewer than {config.min_history_days} days of sound history before it"
        )
    if beaten[start:].any():
        reasons.append(f"persistence: the model lost to it over the {config.gate_days} days before")
    return missing | beaten, tuple(reasons)


def _loses(
    error: Float64[np.ndarray, " stop"],
    naive: Float64[np.ndarray, " stop"],
    *,
    start: int,
    stop: int,
    step: int,
    days: int,
) -> Bool[np.ndarray, " stop"]:
    """Rows whose issue came after a stretch in which persistence was the better one."""
    out = np.zeros(stop, dtype=bool)
    window = days * DAY_H
    for day in range(start, stop, DAY_H):
        known = slice(max(0, day - step - window), max(0, day - step))
        both = np.isfinite(error[known]) & np.isfinite(naive[known])
        if np.count_nonzero(both) >= 2 * DAY_H:
            out[day : day + DAY_H] = error[known][both].mean() > naive[known][both].mean()
    return out


def rolling_quantile(
    miss: Float64[np.ndarray, " stop"],
    start: int,
    stop: int,
    *,
    delay: int,
    days: int,
    level: float,
) -> Float64[np.ndarray, " hours"]:
    """How far past bounds would have had to move to hold ``level`` of the past values.

    Conformalised quantile regression (Romano, Patterson and Candes 2019) over a moving window, for
    what a grid does drifts. Recomputed every six hours from rows known by then.
    """
    out = np.full(stop - start, np.nan)
    for row in range(start, stop, 6):
        known = miss[max(0, row - delay - days * DAY_H) : max(0, row - delay)]
        known = known[np.isfinite(known)]
        if len(known) >= 7 * DAY_H:
            rank = min(1.0, level * (1 + 1 / len(known)))
            out[row - start : row - start + 6] = np.quantile(known, rank)
    return out


def forecast_next(
    data: ForecastData, *, delay_min: int = 0, config: ForecastConfig | None = None
) -> NextHour:
    """Forecast the hour after the present one from a feed that ends with its newest row.

    Args:
        data: the feed; with a delay its newest row is that much older.
        delay_min: age of the newest row beyond the usual, 0 to 120 minutes.
        config: settings; the defaults are those of the published figures.

    Raises:
        IntensityError: if the feed is empty or the delay is out of range.
    """
    chosen = config or ForecastConfig()
    step = delay_step(delay_min)
    longer = _extend(data, step)
    if np.isfinite(data.g_per_kwh).sum() == 0:
        raise IntensityError(f"{data.name} has no values to forecast from.")
    target = len(longer) - 1
    quality = inspect_feed(longer.g_per_kwh, first_hour=longer.first_hour)
    design = hourly_design(longer, quality, step=step)
    rolled = roll_forward(design, target, target + 1, chosen)
    known = bool(np.isfinite(rolled.low[0]))
    method = rolled.reasons[0] if rolled.fallback[0] else HOUR_METHOD
    return NextHour(
        time_utc=longer.time_utc[target],
        g_per_kwh=float(rolled.point[0]),
        low_g_per_kwh=float(rolled.low[0]) if known else None,
        high_g_per_kwh=float(rolled.high[0]) if known else None,
        level=chosen.level,
        method=method,
    )


def delay_step(delay_min: int) -> int:
    """Feed rows from the newest known to the one forecast.

    Hourly rows come whole: one that is 30 minutes late is as absent at the hour as one that is 60.

    Raises:
        IntensityError: outside 0 to 120 minutes.
    """
    if not 0 <= delay_min <= 120:
        raise IntensityError(f"A feed delay of {delay_min} minutes; allowed are 0 to 120.")
    return 1 + -(-delay_min // 60)


def _extend(data: ForecastData, hours: int) -> ForecastData:
    """Open rows after the newest one, for the hours to come."""

    def longer(values: Float64[np.ndarray, " hours"]) -> Float64[np.ndarray, " longer"]:
        return np.concatenate([values, np.full(hours, np.nan)])

    more = data.time_utc[-1] + np.arange(1, hours + 1).astype("timedelta64[h]")
    return replace(
        data,
        time_utc=np.concatenate([data.time_utc, more]),
        g_per_kwh=longer(data.g_per_kwh),
        observed={n: longer(v) for n, v in data.observed.items()},
        foretold={n: longer(v) for n, v in data.foretold.items()},
        rival=None,
    )
