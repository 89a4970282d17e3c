"""Scores of forecasts, each with an interval and the number of hours behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

RESAMPLES: Final = 500
Figure = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Hours:
    """The hours that are scored, and how they fall into days for resampling.

    Whole days are resampled: errors of neighbouring hours are alike, and an interval that took
    them for independent would be too narrow.
    """

    truth: Float64[np.ndarray, " hours"]
    time_utc: Shaped[np.ndarray, " hours"]
    scored: Bool[np.ndarray, " hours"]
    seed: int

    @property
    def day(self) -> Int64[np.ndarray, " scored"]:
        """Number of the day of each scored hour."""
        days = self.time_utc[self.scored].astype("datetime64[D]").astype(np.int64)
        return np.unique(days, return_inverse=True)[1].astype(np.int64)

    def month(self) -> Shaped[np.ndarray, " hours"]:
        """Calendar month of each hour, ``2021-07``."""
        return self.time_utc.astype("datetime64[M]").astype(str)


def accuracy(hours: Hours, forecast: Float64[np.ndarray, " hours"]) -> dict[str, Figure]:
    """Mean absolute percentage error and mean absolute error."""
    error = np.abs(forecast - hours.truth)[hours.scored]
    relative = 100.0 * error / hours.truth[hours.scored]
    return {
        "mape": figure(relative, hours, unit="percent"),
        "mae": figure(error, hours, unit="gCO2e/kWh"),
    }


def skill(
    hours: Hours,
    forecast: Float64[np.ndarray, " hours"],
    reference: Float64[np.ndarray, " hours"],
) -> Figure:
    """1 - MAE / MAE of the reference: 0 is no better, 1 is perfect."""
    own = np.abs(forecast - hours.truth)[hours.scored]
    other = np.abs(reference - hours.truth)[hours.scored]
    sums = _by_day(own, hours), _by_day(other, hours)
    picks = _picks(len(sums[0]), hours.seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = 1 - sums[0][picks].sum(axis=1) / sums[1][picks].sum(axis=1)
        value = 1 - own.sum() / other.sum() if len(own) else np.nan
    return _figure(float(value), ratios, len(own))


def interval_scores(
    hours: Hours, low: Float64[np.ndarray, " hours"], high: Float64[np.ndarray, " hours"]
) -> Figure:
    """Coverage and mean width, over all and by calendar month; coverage by day as well."""
    known = np.isfinite(low) & np.isfinite(high)
    months = hours.month()
    body = _interval(hours, low, high, known)
    body["months"] = {
        str(month): _interval(hours, low, high, known & (months == month))
        for month in np.unique(months[hours.scored & known])
    }
    body["days"] = _daily(hours, (hours.truth >= low) & (hours.truth <= high), known)
    return body


def _daily(
    hours: Hours, inside: Bool[np.ndarray, " hours"], known: Bool[np.ndarray, " hours"]
) -> dict[str, float]:
    """Coverage of each day: neighbouring hours miss together, and so do days."""
    chosen = hours.scored & known
    days, at = np.unique(hours.time_utc[chosen].astype("datetime64[D]"), return_inverse=True)
    covered = np.bincount(at, weights=inside[chosen]) / np.maximum(np.bincount(at), 1)
    return {str(day): round(float(share), 4) for day, share in zip(days, covered, strict=True)}


def hindsight_width(
    hours: Hours, forecast: Float64[np.ndarray, " hours"], level: float = 0.9
) -> Figure:
    """Width of the narrowest band of one width around the forecast that holds ``level`` of it all.

    Chosen with the errors in hand, so no such band could have been given narrower in advance.
    """
    error = np.abs(forecast - hours.truth)[hours.scored]
    if not len(error):
        return {"value": None, "ci95": None, "n": 0, "reason": "no hours to score"}
    day = hours.day
    order = np.argsort(error)
    picks = _picks(int(day.max()) + 1, hours.seed)
    widths = np.empty(len(picks))
    for i, pick in enumerate(picks):
        # Weighted quantile: a day drawn twice counts twice.
        weight = np.cumsum(np.bincount(pick, minlength=int(day.max()) + 1)[day[order]])
        widths[i] = 2 * error[order[np.searchsorted(weight, level * weight[-1])]]
    value = 2 * float(np.quantile(error, level))
    return {**_figure(value, widths, len(error)), "unit": "gCO2e/kWh"}


def _interval(
    hours: Hours,
    low: Float64[np.ndarray, " hours"],
    high: Float64[np.ndarray, " hours"],
    chosen: Bool[np.ndarray, " hours"],
) -> Figure:
    part = Hours(
        truth=hours.truth, time_utc=hours.time_utc, scored=hours.scored & chosen, seed=hours.seed
    )
    inside = ((hours.truth >= low) & (hours.truth <= high))[part.scored]
    return {
        "coverage": figure(inside.astype(np.float64), part, unit="share"),
        "width": figure((high - low)[part.scored], part, unit="gCO2e/kWh"),
        "width_percent": figure(
            100.0 * ((high - low) / hours.truth)[part.scored], part, unit="percent of the value"
        ),
    }


def figure(values: Float64[np.ndarray, " scored"], hours: Hours, *, unit: str) -> Figure:
    """A mean with its 95 % interval by resampling days."""
    if not len(values):
        return {"value": None, "ci95": None, "n": 0, "unit": unit, "reason": "no hours to score"}
    totals, counts = _by_day(values, hours), _by_day(np.ones(len(values)), hours)
    picks = _picks(len(totals), hours.seed)
    means = totals[picks].sum(axis=1) / counts[picks].sum(axis=1)
    return {**_figure(float(values.mean()), means, len(values)), "unit": unit}


def _figure(value: float, resampled: Float64[np.ndarray, " resamples"], n: int) -> Figure:
    if not np.isfinite(value):
        return {"value": None, "ci95": None, "n": n, "reason": "not defined on these hours"}
    finite = resampled[np.isfinite(resampled)]
    low, high = np.quantile(finite, [0.025, 0.975])
    return {"value": value, "ci95": [float(low), float(high)], "n": n}


def _by_day(values: Float64[np.ndarray, " scored"], hours: Hours) -> Float64[np.ndarray, " days"]:
    return np.bincount(hours.day, weights=values).astype(np.float64)


def _picks(days: int, seed: int) -> Int64[np.ndarray, "resamples days"]:
    return np.random.default_rng(seed).integers(0, days, size=(RESAMPLES, days))


def value_of(report: Mapping[str, Any], path: str) -> float:
    """The value of a figure by its dotted path.

    Raises:
        KeyError: if the report has none there.
    """
    node: Any = report
    for key in path.split("."):
        node = node[key]
    return float(node["value"])
