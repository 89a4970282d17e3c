"""Rolling-origin backtest of the forecaster on a recorded trace, beside its rivals.

Each hour is forecast from what was known at its issue; models are refitted on the way. It is run
twice where the feed has defects: with doubtful rows masked (replaced as inputs, left out as
targets and scores), and on the feed as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from carbon.backtest_scores import Hours, accuracy, hindsight_width, interval_scores, skill
from carbon.errors import TraceError
from carbon.features import LONGEST_LAG, Design, hourly_design
from carbon.forecast import ForecastConfig, delay_step, roll_forward, training_rows
from carbon.forecast_data import ForecastData
from carbon.forecast_day import day_design, roll_days
from carbon.forecast_models import fit_forest, forest_inputs, library_versions
from carbon.forecast_path import PATH_METHOD
from carbon.quality import REASONS, FeedQuality, inspect_feed

Progress = Callable[[int, int, str], None]
LEAST_G_PER_KWH: Final = 1.0
"""Percentages of less say nothing; such hours are left out of all scores, and counted."""


@dataclass(frozen=True, kw_only=True)
class BacktestConfig:
    """What is tested, and when.

    Attributes:
        delay_min: how late the feed's rows come.
        start: first hour that is scored; the last half year (last quarter if shorter) without it.
        stop: the hour after the last scored one; the end of the trace without it.
        train_until: no model is fitted on hours from here on; refitted on the way without it.
        forest_trees: of each of the two named baselines; fitted once, before ``start``.
        day_ahead: whether to test the day ahead as well.
        unmasked: whether to test on the feed as it came as well.
        seed: of models and resampling.
    """

    forecast: ForecastConfig = field(default_factory=ForecastConfig)
    delay_min: int = 0
    start: np.datetime64 | None = None
    stop: np.datetime64 | None = None
    train_until: np.datetime64 | None = None
    forest_trees: int = 100
    day_ahead: bool = True
    unmasked: bool = True
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Span:
    """Rows that are scored, and the row from which nothing may be learnt."""

    start: int
    stop: int
    train_until: int | None


def backtest(
    data: ForecastData, config: BacktestConfig, progress: Progress | None = None
) -> dict[str, Any]:
    """Run the backtest.

    Returns:
        The report: ``one_hour``, ``day_ahead``, ``interval90`` and what they rest on. Every figure
        is a value with its 95 % interval and n.

    Raises:
        TraceError: if the period lies outside of the trace, or leaves too little before it.
    """
    span = find_span(data, config)
    quality = inspect_feed(data.g_per_kwh, first_hour=data.first_hour)
    body = _both_horizons(data, quality, span, config, progress)
    gaps_only = _only_gaps(quality)
    if config.unmasked:
        clean = bool((quality.flags_settled == gaps_only.flags_settled).all()) and bool(
            (quality.flags_at_once == gaps_only.flags_at_once).all()
        )
        raw = body if clean else _both_horizons(data, gaps_only, span, config, progress)
        body = {**body, "unmasked": {"same_as_masked": clean, **raw}}
    rows = slice(span.start, span.stop)
    return {
        "trace": data.name,
        "basis": data.basis,
        "from": str(data.time_utc[span.start]),
        "to": str(data.time_utc[span.stop - 1]),
        "train_until": str(config.train_until) if config.train_until is not None else None,
        "delay_min": config.delay_min,
        "seed": config.seed,
        "time_zone": data.time_zone,
        "defects": {
            "whole_trace": quality.counts(),
            "scored_period": int(np.count_nonzero(quality.settled[rows])),
            "hours_in_period": span.stop - span.start,
        },
        "versions": dict(library_versions()),
        **body,
    }


def find_span(data: ForecastData, config: BacktestConfig) -> Span:
    """The scored rows; see :class:`BacktestConfig`.

    Raises:
        TraceError: as :func:`backtest`.
    """
    stop = len(data) if config.stop is None else data.row_of(config.stop)
    if config.start is not None:
        start = data.row_of(config.start)
    else:
        half_year = pd.Timestamp(data.time_utc[stop - 1]) + pd.Timedelta(hours=1)
        start = data.row_of(np.datetime64(half_year - pd.DateOffset(months=6)))
        if start < 0.5 * stop:
            start = int(0.75 * stop)
    least = LONGEST_LAG + 24
    if not least <= start < stop <= len(data):
        raise TraceError(
            f"{data.name} has {len(data)} hours from {data.time_utc[0]}; the period to score, rows "
            f"{start} to {stop}, must lie inside and leave {least} hours before it."
        )
    until = None if config.train_until is None else data.row_of(config.train_until)
    return Span(start=start, stop=stop, train_until=until)


def _only_gaps(quality: FeedQuality) -> FeedQuality:
    bit = np.uint8(REASONS["gap"])
    return FeedQuality(
        flags_at_once=quality.flags_at_once & bit, flags_settled=quality.flags_settled & bit
    )


def _both_horizons(
    data: ForecastData,
    quality: FeedQuality,
    span: Span,
    config: BacktestConfig,
    progress: Progress | None,
) -> dict[str, Any]:
    hour, interval = _one_hour(data, quality, span, config, progress)
    body: dict[str, Any] = {"one_hour": hour, "interval90": interval}
    if config.day_ahead:
        body["day_ahead"] = _day_ahead(data, quality, span, config, progress)
    return body


def _one_hour(
    data: ForecastData,
    quality: FeedQuality,
    span: Span,
    config: BacktestConfig,
    progress: Progress | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    design = hourly_design(data, quality, step=delay_step(config.delay_min))
    rolled = roll_forward(
        design,
        span.start,
        span.stop,
        config.forecast,
        progress=progress,
        train_until=span.train_until,
    )
    rows = slice(span.start, span.stop)
    hours = _hours(data, design.usable, rows, config.seed)
    persistence = np.exp(design.last[rows])
    body: dict[str, Any] = {
        **accuracy(hours, rolled.point),
        "persistence": accuracy(hours, persistence),
        "seasonal_naive": accuracy(hours, np.exp(design.seasonal[rows])),
        "skill_persistence": skill(hours, rolled.point, persistence),
        "skill_seasonal_naive": skill(hours, rolled.point, np.exp(design.seasonal[rows])),
        "persistence_gate": {
            "hours": int(rolled.fallback.sum()), "reasons": list(rolled.reasons),
        },
        "left_out_hours": int(np.count_nonzero(~hours.scored)),
    }  # fmt: skip
    for name, lagged in (("forest", False), ("lagged_forest", True)):
        if progress is not None:
            progress(0, 1, f"baseline {name}")
        forecast = _forest(design, span, config, lagged=lagged)
        if forecast is not None:
            body[name] = accuracy(hours, forecast)
    interval = interval_scores(hours, rolled.low, rolled.high)
    interval["hindsight_constant_width"] = hindsight_width(hours, rolled.point)
    return body, interval


def _forest(
    design: Design, span: Span, config: BacktestConfig, *, lagged: bool
) -> Float64[np.ndarray, " hours"] | None:
    """The named baselines: forests of the level, on calendar and weather, and lags if asked."""
    train = training_rows(design, span.start, config.forecast, span.train_until)
    if len(train) < 7 * 24:
        return None
    x = forest_inputs(design, lagged=lagged)
    model = fit_forest(
        x[train], np.exp(design.truth[train]), trees=config.forest_trees, seed=config.seed
    )
    return np.asarray(model.predict(x[span.start : span.stop]), dtype=np.float64)


def _day_ahead(
    data: ForecastData,
    quality: FeedQuality,
    span: Span,
    config: BacktestConfig,
    progress: Progress | None,
) -> dict[str, Any]:
    design = day_design(data, quality, late_rows=delay_step(config.delay_min) - 1)
    rolled = roll_days(
        design,
        span.start,
        span.stop,
        config.forecast,
        progress=progress,
        train_until=span.train_until,
    )
    rows = slice(span.start, span.stop)
    usable = design.usable.copy()
    if data.rival is not None:
        usable &= np.isfinite(data.rival)
    hours = _hours(data, usable, rows, config.seed)
    seasonal = np.exp(design.yesterday[rows])
    body: dict[str, Any] = {
        **accuracy(hours, rolled.point),
        "method": PATH_METHOD,
        "issued": "00:00 UTC, hours 0 to 23",
        "persistence": accuracy(hours, np.exp(design.last[rows])),
        "seasonal_naive": accuracy(hours, seasonal),
        "skill_seasonal_naive": skill(hours, rolled.point, seasonal),
        "persistence_gate": {
            "hours": int(rolled.fallback.sum()), "reasons": list(rolled.reasons),
        },
        "interval90": interval_scores(hours, rolled.low, rolled.high),
    }  # fmt: skip
    if data.rival is not None:
        body["carboncast"] = accuracy(hours, data.rival[rows])
        body["skill_carboncast"] = skill(hours, rolled.point, data.rival[rows])
    return body


def _hours(data: ForecastData, usable: Bool[np.ndarray, " hours"], rows: slice, seed: int) -> Hours:
    truth = data.g_per_kwh[rows]
    with np.errstate(invalid="ignore"):
        scored = np.asarray(usable[rows] & (truth >= LEAST_G_PER_KWH))
    return Hours(truth=truth, time_utc=data.time_utc[rows], scored=scored, seed=seed)
