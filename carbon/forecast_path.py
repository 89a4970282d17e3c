"""Models of the 24 hours ahead, issued at any hour: how they are fitted, and what they say.

Boosting (mean of an L1 and a Huber model, random thresholds) of the change against yesterday's same
hour, and a ridge regression of the same change, one for each hour of issue and hour ahead. How much
each counts, a quarter to three quarters, follows their errors of the last weeks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int64

from carbon.features_path import LEADS, PATH_HISTORY_H, Pairs, PathDesign, path_design
from carbon.forecast import ForecastConfig
from carbon.forecast_data import ForecastData
from carbon.forecast_models import (
    FOREST_PREFIXES,
    Booster,
    Bounds,
    Middle,
    X,
    fit_bounds,
    fit_forest,
    fit_middle,
)
from carbon.quality import DAY_H, FLOOR_G_PER_KWH, FeedQuality
from carbon.ridge import Ridge, fit_ridge

SHARES: Final = np.linspace(0.0, 1.0, 11)
ISSUE_STRIDE_H: Final = 5
"""Issues that the boosting learns from: every fifth hour, which passes through all hours."""
PATH_METHOD: Final = "boosting and ridge by hour, weighted by their last weeks"


@dataclass(frozen=True, kw_only=True)
class PathForecast:
    """Log changes against yesterday, not yet calibrated.

    Attributes:
        boosted: the boosting's middle.
        linear: the ridges' middle.
        low: lower bound.
        high: upper bound.
    """

    boosted: Float64[np.ndarray, " pairs"]
    linear: Float64[np.ndarray, " pairs"]
    low: Float64[np.ndarray, " pairs"]
    high: Float64[np.ndarray, " pairs"]

    def point(self, share: float | Float64[np.ndarray, " pairs"]) -> Float64[np.ndarray, " pairs"]:
        """The middle, with the boosting's share in it."""
        return np.asarray(share * self.boosted + (1 - share) * self.linear)


def boosting_share(
    boosted: Float64[np.ndarray, " pairs"],
    linear: Float64[np.ndarray, " pairs"],
    truth: Float64[np.ndarray, " pairs"],
) -> float:
    """The share that would have been best on these pairs, moved halfway to one half.

    Pairs that lack any of the three are left out.
    """
    known = np.isfinite(boosted) & np.isfinite(linear) & np.isfinite(truth)
    if np.count_nonzero(known) < 14 * DAY_H:
        return 0.5
    gap, error = (boosted - linear)[known], (linear - truth)[known]
    best = int(np.argmin([np.abs(share * gap + error).mean() for share in SHARES]))
    return float(0.5 * SHARES[best] + 0.25)


Key = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class PathModel:
    """Fitted models of the path; ridges by hour of the day (UTC) of issue and by hour ahead."""

    middle: Middle
    bounds: Bounds
    ridges: Mapping[Key, Ridge]

    def predict(self, design: PathDesign) -> PathForecast:
        """Forecast pairs; where there is no ridge, the boosting speaks for it."""
        boosted = self.middle.predict(design.x)
        linear = boosted.copy()
        for key, rows in _groups(design).items():
            ridge = self.ridges.get(key)
            if ridge is not None:
                linear[rows] = ridge.predict(design.x[rows].astype(np.float64))
        low, high = self.bounds.predict(design.x)
        return PathForecast(boosted=boosted, linear=linear, low=low, high=high)


def _groups(design: PathDesign) -> dict[Key, Int64[np.ndarray, " rows"]]:
    """Rows by hour of the day of issue and hour ahead."""
    issue = (design.hour - design.pairs.lead) % DAY_H
    code = issue * LEADS + design.pairs.lead
    order = np.argsort(code, kind="stable")
    values, starts = np.unique(code[order], return_index=True)
    parts = np.split(order, starts[1:])
    return {divmod(int(v), LEADS): part for v, part in zip(values, parts, strict=True)}


def training_issues(rows: int, late: int, *, stride: int = ISSUE_STRIDE_H) -> Pairs:
    """Issues all over the data for the boosting to learn from."""
    return Pairs.of(np.arange(PATH_HISTORY_H, rows, stride, dtype=np.int64), late=late)


def fit_path(
    boosting: PathDesign,
    linear: Iterable[PathDesign],
    *,
    oldest: int,
    newest: int,
    config: ForecastConfig,
) -> PathModel:
    """Fit all models on what was issued at ``oldest`` or later and came before row ``newest``.

    Args:
        boosting: pairs for the boosting.
        linear: pairs for the ridges.
        oldest: first row that an issue may forecast.
        newest: row from which on nothing may be learnt.
        config: size of the boosting, level of the interval.
    """
    ridges: dict[Key, Ridge] = {}
    for design in linear:
        allowed = fittable(design, oldest=oldest, newest=newest)
        for key, rows in _groups(design).items():
            fit = rows[allowed[rows]]
            if len(fit) >= 2 * DAY_H:
                ridges[key] = fit_ridge(design.x[fit].astype(np.float64), design.y[fit])
    chosen = fittable(boosting, oldest=oldest, newest=newest)
    x, y = boosting.x[chosen], boosting.y[chosen]
    trees = config.boost.trees * 5 // 3
    return PathModel(
        middle=fit_middle(x, y, replace(config.boost, extra_trees=True, trees=trees)),
        bounds=fit_bounds(x, y, config.boost, config.level),
        ridges=ridges,
    )


def fittable(design: PathDesign, *, oldest: int, newest: int) -> Bool[np.ndarray, " pairs"]:
    """Sound pairs issued at ``oldest`` or later whose value came before row ``newest``."""
    pairs = design.pairs
    return np.asarray(design.usable & (pairs.first >= oldest) & (pairs.target < newest))


def issue_designs(
    data: ForecastData, quality: FeedQuality, late: int, hours: Iterable[int]
) -> Iterator[PathDesign]:
    """One design for each hour of the day (UTC) of issue, with an issue a day."""
    for hour in hours:
        start = PATH_HISTORY_H + (hour - data.first_hour - PATH_HISTORY_H) % DAY_H
        issues = np.arange(start, len(data), DAY_H, dtype=np.int64)
        yield path_design(data, quality, Pairs.of(issues, late=late))


FOREST_METHOD: Final = "random forest on calendar, solar, wind, temperature and cloud"
FOREST_CLOCK: Final = ("local_hour", "weekday", "year_sin", "year_cos")


@dataclass(frozen=True, kw_only=True)
class ForestPath:
    """The named baseline: a forest of the level; it knows nothing of the level at issue."""

    forest: Booster

    def predict(self, design: PathDesign) -> PathForecast:
        """Forecast pairs; the interval is left to its past errors."""
        level = np.asarray(self.forest.predict(_forest_columns(design)), dtype=np.float64)
        change = np.log(np.maximum(level, FLOOR_G_PER_KWH)) - design.yesterday
        return PathForecast(
            boosted=change, linear=change.copy(), low=change.copy(), high=change.copy()
        )


def fit_forest_path(
    design: PathDesign, chosen: Bool[np.ndarray, " pairs"], config: ForecastConfig
) -> ForestPath:
    """Fit the named baseline on the chosen pairs."""
    x, level = _forest_columns(design)[chosen], np.exp(design.truth[chosen])
    trees = min(100, config.boost.trees)
    return ForestPath(forest=fit_forest(x, level, trees=trees, seed=config.boost.seed))


def _forest_columns(design: PathDesign) -> X:
    chosen = [
        i for i, name in enumerate(design.names)
        if name in FOREST_CLOCK
        or (name.startswith(FOREST_PREFIXES) and name.endswith((".then", ".newest")))
    ]  # fmt: skip
    columns: X = np.nan_to_num(design.x[:, chosen]).astype(np.float32)
    return columns
