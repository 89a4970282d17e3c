"""A fitted forecaster for the present: the next hour and the path of 24, each with its interval.

One fit is two: models fitted on all but the last weeks forecast those weeks, which tells whether
they beat persistence and yesterday's profile and how wide the interval must be; models fitted on
everything then answer. All of it sees the feed through :func:`known_at`, which holds nothing later
than the moment of asking.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np
from jaxtyping import Float64

from carbon.errors import IntensityError, NotReadyError
from carbon.features import hourly_design
from carbon.features_path import LEADS, PATH_HISTORY_H, Pairs, PathDesign, path_design
from carbon.forecast import QUICK, ForecastConfig, training_rows
from carbon.forecast_data import (
    ForecastData,
    data_of_trace,
    known_at,
    load_forecast_data,
    with_rows,
)
from carbon.forecast_hour import HOUR_METHOD, HourModel, fit_hour
from carbon.forecast_models import Bounds, fit_bounds
from carbon.forecast_path import (
    FOREST_METHOD,
    PATH_METHOD,
    ForestPath,
    PathForecast,
    PathModel,
    boosting_share,
    fit_forest_path,
    fit_path,
    fittable,
    issue_designs,
    training_issues,
)
from carbon.learned import HoursAhead, LearnedConfig, Progress, Rows, late_rows, newest_known
from carbon.quality import DAY_H, FeedQuality, inspect_feed

PERSISTENCE: Final = "persistence (the last value held)"
YESTERDAY: Final = "yesterday's profile"
TAIL_DAYS: Final = 40
"""Days that a forecast looks at: features reach 16 back, verdicts on them 14 further."""
GROUPS: Final = ((0, 1), (1, 6), (6, LEADS))
"""Hours ahead that are gated together: the next, the five after it, the rest."""
MOST_MISSING: Final = 6
"""Missing hours of the newest 24 above which the feed is too thin to forecast from."""
MODEL, HELD, DAY_BEFORE = 0, 1, 2
"""What answers for an hour ahead: the model, persistence, or yesterday's profile."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """What is fitted at once.

    Attributes:
        path: the hours ahead, as changes against yesterday.
        hour: the next hour, as a change against the last value; None leaves it to ``path``.
    """

    path: PathModel | ForestPath
    hour: tuple[HourModel, Bounds] | None

    def predict(
        self, known: ForecastData, quality: FeedQuality, design: PathDesign
    ) -> PathForecast:
        """Forecast whole issues, 24 pairs each."""
        ahead = self.path.predict(design)
        if self.hour is not None:
            rows = design.pairs.lead == 0
            first = design.pairs.first[rows]
            x = hourly_design(known, quality, step=design.pairs.late + 1).x[first]
            base = design.last[rows] - design.yesterday[rows]
            low, high = self.hour[1].predict(x)
            ahead.boosted[rows] = ahead.linear[rows] = base + self.hour[0].predict(x)
            ahead.low[rows], ahead.high[rows] = base + low, base + high
        return ahead


@dataclass(frozen=True, kw_only=True)
class Check:
    """What the last weeks, forecast without having been learnt from, say about each hour ahead.

    Attributes:
        chosen: which of model, persistence and yesterday's profile answers.
        share: of the boosting in the model.
        widen: how far the bounds move outwards, log scale.
        reasons: why the model was left out; empty where it answers.
    """

    chosen: tuple[int, ...]
    share: float
    widen: Float64[np.ndarray, " leads"]
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PathEngine:
    """A fitted forecaster; see :class:`carbon.learned.Engine`."""

    data: ForecastData
    newest: np.datetime64
    late: int
    models: Models
    check: Check
    methods: tuple[str, ...]
    note: str

    def ahead(self, newest: np.datetime64, recent: Rows) -> HoursAhead:
        """Forecast from the feed up to the hour ``newest``, from its last weeks alone."""
        data = with_rows(self.data, recent)
        row = data.row_of(newest)
        _require_fresh(data, row)
        tail = max(0, row + 1 - TAIL_DAYS * DAY_H)
        known = known_at(data, row, self.late + LEADS, first=tail)
        quality = inspect_feed(known.g_per_kwh, first_hour=known.first_hour)
        first = np.array([row + 1 + self.late - tail], dtype=np.int64)
        design = path_design(known, quality, Pairs.of(first, late=self.late))
        if not np.isfinite(design.yesterday).all():
            raise NotReadyError("there is too little history before this moment")
        forecast = _settle(self.models.predict(known, quality, design), design, self.check)
        doubt = quality.note(row - tail)
        return HoursAhead(
            g_per_kwh=np.exp(design.yesterday + forecast.point),
            low=np.exp(design.yesterday + forecast.low),
            high=np.exp(design.yesterday + forecast.high),
            methods=self.methods,
            note=f"{self.note}; newest row {doubt}, not used" if doubt else self.note,
        )


def fit_engine(
    config: LearnedConfig, at: datetime, recent: Rows, progress: Progress | None = None
) -> PathEngine:
    """Fit on what was known at ``at``.

    Raises:
        NotReadyError: if the history is too short, too old or too full of gaps.
        TraceError: if the history cannot be read.
    """
    tell = progress if progress is not None else _silent
    settings, late = QUICK if config.quick else ForecastConfig(), late_rows(config)
    tell(0, 4, "reading the history")
    data = with_rows(_load(config), recent)
    newest = newest_known(config, at)
    row = data.row_of(newest)
    _require_fresh(data, row)
    known = known_at(data, row, late + LEADS)
    quality = inspect_feed(known.g_per_kwh, first_hour=known.first_hour)
    days = int(np.count_nonzero(~quality.settled[: row + 1])) // DAY_H
    if days < settings.min_history_days:
        raise NotReadyError(
            f"{days} days of sound history are fewer than {settings.min_history_days}"
        )
    fit = _Fit(known=known, quality=quality, late=late, config=settings, method=config.method)
    held_out = min(settings.calibration_days, days // 3)
    begin = row + 1 - held_out * DAY_H
    tell(1, 4, f"fitting without the last {held_out} days")
    trial = fit.models(begin - 1)
    tell(2, 4, "forecasting them")
    check = fit.check(trial, begin, row)
    tell(3, 4, "fitting on everything")
    models = fit.models(row)
    tell(4, 4, "fitted")
    return PathEngine(
        data=data,
        newest=newest,
        late=late,
        models=models,
        check=check,
        methods=_methods(config, check),
        note=f"fitted on {days} days up to {newest} UTC",
    )


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """One history, as known at one moment, to fit on."""

    known: ForecastData
    quality: FeedQuality
    late: int
    config: ForecastConfig
    method: str

    def models(self, newest: int) -> Models:
        """Fit on rows before ``newest``, which is not judged yet."""
        oldest = max(0, newest - self.config.history_days * DAY_H)
        if self.method == "forest":
            issues = np.arange(max(PATH_HISTORY_H, oldest), newest, dtype=np.int64)
            pairs = Pairs(first=issues, lead=issues * 7 % LEADS, late=self.late)
            design = path_design(self.known, self.quality, pairs)
            chosen = fittable(design, oldest=oldest, newest=newest)
            return Models(path=fit_forest_path(design, chosen, self.config), hour=None)
        hourly = hourly_design(self.known, self.quality, step=self.late + 1)
        rows = training_rows(hourly, newest + hourly.step, self.config)
        x, y = hourly.x[rows], hourly.y[rows]
        bounds = fit_bounds(x, y, self.config.boost, self.config.level)
        training = training_issues(len(self.known), self.late)
        path = fit_path(
            path_design(self.known, self.quality, training),
            issue_designs(self.known, self.quality, self.late, range(DAY_H)),
            oldest=oldest,
            newest=newest,
            config=self.config,
        )
        return Models(path=path, hour=(fit_hour(hourly, rows, self.config.boost), bounds))

    def check(self, trial: Models, begin: int, newest: int) -> Check:
        """Forecast rows ``begin`` to ``newest`` from every hour among them."""
        issues = np.arange(begin, newest + 1, dtype=np.int64)
        design = path_design(self.known, self.quality, Pairs.of(issues, late=self.late))
        forecast = trial.predict(self.known, self.quality, design)
        sound = design.usable.reshape(-1, LEADS)
        share = boosting_share(
            forecast.boosted, forecast.linear, np.where(design.usable, design.y, np.nan)
        )
        errors = np.abs(design.y - np.stack([forecast.point(share), _held(design), 0 * design.y]))
        mean = errors.reshape(3, -1, LEADS).mean(axis=1, where=sound)
        check = Check(
            chosen=(MODEL,) * LEADS, share=share, widen=np.zeros(LEADS), reasons=("",) * LEADS
        )
        if self.method != "forest":
            check = _gated(check, mean, days=len(issues) // DAY_H)
        settled = _settle(forecast, design, check)
        miss = np.maximum(settled.low - design.y, design.y - settled.high)
        miss = np.where(sound, miss.reshape(-1, LEADS), np.nan)
        return replace(check, widen=_widening(miss, self.config.level))


def _gated(check: Check, mean: Float64[np.ndarray, "three leads"], *, days: int) -> Check:
    """Leave hours ahead to persistence or yesterday's profile where those were better."""
    chosen, reasons = list(check.chosen), list(check.reasons)
    for group in (range(*g) for g in GROUPS):
        scores = mean[:, list(group)].mean(axis=1)
        best = int(np.argmin(scores))
        for lead in group if best != MODEL else ():
            chosen[lead] = best
            reasons[lead] = (
                f"the model lost to it on the last {days} days: mean error "
                f"{scores[MODEL]:.1%} against {scores[best]:.1%}"
            )
    return replace(check, chosen=tuple(chosen), reasons=tuple(reasons))


def _widening(
    miss: Float64[np.ndarray, "issues leads"], level: float
) -> Float64[np.ndarray, " leads"]:
    """Conformal correction of each hour ahead; all but the first borrow from their neighbours."""
    widen = np.full(LEADS, np.nan)
    for lead in range(LEADS):
        near = slice(0, 1) if lead == 0 else slice(max(1, lead - 2), lead + 3)
        known = miss[:, near][np.isfinite(miss[:, near])]
        if len(known) >= 7 * DAY_H:
            widen[lead] = np.quantile(known, min(1.0, level * (1 + 1 / len(known))))
    return widen


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Log changes against yesterday, chosen and calibrated."""

    point: Float64[np.ndarray, " pairs"]
    low: Float64[np.ndarray, " pairs"]
    high: Float64[np.ndarray, " pairs"]


def _settle(forecast: PathForecast, design: PathDesign, check: Check) -> Settled:
    """The answer of whoever was chosen for each hour ahead, its bounds widened."""
    lead = design.pairs.lead
    chosen = np.array(check.chosen)[lead]
    base = np.where(chosen == HELD, _held(design), 0.0)
    point = np.where(chosen == MODEL, forecast.point(check.share), base)
    half = np.where(chosen == MODEL, 0.5 * (forecast.high - forecast.low), 0.0)
    # The interval is as wide as the quantile models say, around the better middle. A negative
    # correction may not turn it inside out.
    half = np.maximum(half + check.widen[lead], 0.0)
    return Settled(point=point, low=point - half, high=point + half)


def _held(design: PathDesign) -> Float64[np.ndarray, " pairs"]:
    return np.asarray(design.last - design.yesterday)


def _methods(config: LearnedConfig, check: Check) -> tuple[str, ...]:
    names = {
        MODEL: FOREST_METHOD if config.method == "forest" else PATH_METHOD,
        HELD: PERSISTENCE,
        DAY_BEFORE: YESTERDAY,
    }
    texts = []
    for lead, (chosen, reason) in enumerate(zip(check.chosen, check.reasons, strict=True)):
        own = chosen == MODEL and lead == 0 and config.method != "forest"
        text = HOUR_METHOD if own else names[chosen]
        texts.append(f"{text}, since {reason}" if reason else text)
    return tuple(texts)


def _load(config: LearnedConfig) -> ForecastData:
    if config.file is not None:
        return load_forecast_data(config.file, config.scope)
    if config.trace is not None:
        return data_of_trace(config.trace)
    raise IntensityError("The learned forecaster needs a history: give a file or a trace.")


def _require_fresh(data: ForecastData, row: int) -> None:
    if row < 0:
        raise NotReadyError(f"its history begins only at {data.time_utc[0]} UTC")
    recent = data.g_per_kwh[max(0, row + 1 - DAY_H) : row + 1]
    missing = row + 1 - max(0, row + 1 - DAY_H) - np.count_nonzero(np.isfinite(recent))
    if missing > MOST_MISSING:
        raise NotReadyError(
            f"its history, which ends at {data.time_utc[-1]} UTC, lacks {missing} of the last 24 "
            "hours"
        )


def _silent(finished: int, total: int, what: str) -> None:
    """No progress is asked for."""
