"""Drawing sessions: which patients, in which order, how urgent, over which hours of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

from carbon.intensity.recorded import load_trace
from carbon.intensity.synthetic import synthetic_trace
from carbon.intensity.trace import Trace
from envs.config import LEADS_H, URGENT_ABOVE, SessionConfig
from envs.errors import SessionError
from envs.tables import PatientTables

Period = Literal["train", "eval", "all"]
EVAL: Literal["eval"] = "eval"
TRAIN_SHARE = 0.7
SYNTHETIC_HOURS = 24 * 60
SYNTHETIC_SEED = 0
MAX_G_PER_KWH = 4000.0
MIN_FORECAST_FACTOR = 0.1


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The hours that sessions may use.

    Attributes:
        g_per_kwh: intensity of the period, hour by hour.
        n_starts: a session may begin at hours ``0 .. n_starts - 1`` of the period.
        name: name of the trace.
        synthetic: whether the trace was generated.
    """

    g_per_kwh: Float64[np.ndarray, " hours"]
    n_starts: int
    name: str
    synthetic: bool


@dataclass(frozen=True, kw_only=True)
class SessionDraw:
    """Sessions as drawn, before any decision (B sessions of N cases over H visiting hours).

    Attributes:
        patient: pool index of each case; the ``n_pos`` positives first.
        order: the cases in visiting order.
        urgency: simulated urgency of each case, 0 to 1.
        deadline_h: hours from the session's start to each case's deadline.
        g_per_kwh: true intensity at each visiting hour.
        forecast: forecast of the intensity at each hour and lead, with simulated error.
        uncertainty: relative standard deviation of the forecast 24 h ahead.
    """

    patient: Int64[np.ndarray, "batch cases"]
    order: Int64[np.ndarray, "batch cases"]
    urgency: Float64[np.ndarray, "batch cases"]
    deadline_h: Float64[np.ndarray, "batch cases"]
    g_per_kwh: Float64[np.ndarray, "batch hours"]
    forecast: Float64[np.ndarray, "batch hours leads"]
    uncertainty: Float64[np.ndarray, " batch"]


def resolve_grid(trace: Trace | str | Path | None, period: str, config: SessionConfig) -> Grid:
    """Cut the period out of a trace; training and evaluation never share an hour.

    The first 70 % of the hours are ``train``, the rest is ``eval``; a session stays inside its
    period with the longest forecast lead included.

    Args:
        trace: a trace, a file of one, or None for 60 days of the synthetic grid.
        period: ``train``, ``eval`` or ``all``.
        config: says how many hours a session needs.

    Raises:
        SessionError: if the period is unknown or shorter than a session.
    """
    if period not in get_args(Period):
        raise SessionError(f"Unknown period {period!r}; choose train, eval or all.")
    if trace is None:
        trace = synthetic_trace(SYNTHETIC_HOURS, SYNTHETIC_SEED)
    elif not isinstance(trace, Trace):
        trace = load_trace(Path(trace))
    split = int(len(trace.g_per_kwh) * TRAIN_SHARE)
    part = {"train": slice(0, split), EVAL: slice(split, None), "all": slice(None)}[period]
    hours = trace.g_per_kwh[part]
    n_starts = len(hours) - config.horizon_h + 1
    if n_starts < 1:
        raise SessionError(
            f"Trace {trace.name!r} has {len(hours)} hours in its {period!r} period; a session of "
            f"{config.n_cases} cases at {config.slots_per_hour} slots an hour needs "
            f"{config.horizon_h} with its forecasts. Use a longer trace or smaller sessions."
        )
    if not np.isfinite(hours).all() or hours.min() < 0 or hours.max() > MAX_G_PER_KWH:
        raise SessionError(
            f"Trace {trace.name!r} holds intensities outside 0 to {MAX_G_PER_KWH:g} gCO2e/kWh."
        )
    return Grid(g_per_kwh=hours, n_starts=n_starts, name=trace.name, synthetic=trace.synthetic)


def class_counts(tables: PatientTables, config: SessionConfig) -> tuple[int, int]:
    """Positives and negatives of every session: the pool's prevalence, at least one of each.

    Raises:
        SessionError: if the pool has too few patients of a class (no one is drawn twice).
    """
    have = {"positive": len(tables.positives), "negative": len(tables.negatives)}
    n = config.n_cases
    prevalence = have["positive"] / max(sum(have.values()), 1)
    n_pos = min(max(round(n * prevalence), 1), n - 1)
    for name, need in (("positive", n_pos), ("negative", n - n_pos)):
        if have[name] < need:
            most = sum(have.values()) if min(have.values()) else 0
            lower = f" or set n_cases lower, to {most} at most" if most else ""
            raise SessionError(
                f"A session of {n} cases needs {need} {name} patients; the chosen folds have "
                f"{have[name]}. Choose more folds{lower}."
            )
    return n_pos, n - n_pos


def draw_sessions(
    tables: PatientTables,
    grid: Grid,
    config: SessionConfig,
    counts: tuple[int, int],
    rngs: Sequence[np.random.Generator],
) -> SessionDraw:
    """Draw one session from each generator; each depends on its own generator only."""
    n, hours = config.n_cases, (config.max_visits - 1) // config.slots_per_hour + 1
    pools = (len(tables.positives), len(tables.negatives))
    width = sum(pools) + 3 * n + 2
    uniform = np.empty((len(rngs), width))
    noise = np.empty((len(rngs), hours * len(LEADS_H)))
    for row, rng in enumerate(rngs):
        rng.random(out=uniform[row])
        rng.standard_normal(out=noise[row])
    cuts = np.cumsum([*pools, n, n, n])
    pos, neg, order, urgent, level, rest = np.split(uniform, cuts, axis=1)
    # Sorting random keys draws without replacement, and the same way on every machine.
    patient = np.hstack(
        [
            tables.positives[np.argsort(pos, axis=1)[:, : counts[0]]],
            tables.negatives[np.argsort(neg, axis=1)[:, : counts[1]]],
        ]
    )
    visit = np.argsort(order, axis=1)
    urgency = _urgency(urgent, level, config)
    start = (rest[:, 0] * grid.n_starts).astype(np.int64)
    truth, forecast, uncertainty = _intensity(
        grid, config, start, rest[:, 1], noise.reshape(len(rngs), hours, len(LEADS_H))
    )
    return SessionDraw(
        patient=patient,
        order=visit,
        urgency=urgency,
        deadline_h=_deadline(visit, urgency, config),
        g_per_kwh=truth,
        forecast=forecast,
        uncertainty=uncertainty,
    )


def _urgency(
    urgent: Float64[np.ndarray, "batch cases"],
    level: Float64[np.ndarray, "batch cases"],
    config: SessionConfig,
) -> Float64[np.ndarray, "batch cases"]:
    """Simulated: a fraction uniform above 0.8, the others Beta(1, 2) stretched over 0 to 0.8.

    ``1 - sqrt(1 - u)`` is the inverse distribution function of Beta(1, 2).
    """
    high = 1.0 - (1.0 - URGENT_ABOVE) * level
    low = URGENT_ABOVE * (1.0 - np.sqrt(1.0 - level))
    return np.where(urgent < config.urgent_fraction, high, low)


def _deadline(
    visit: Int64[np.ndarray, "batch cases"],
    urgency: Float64[np.ndarray, "batch cases"],
    config: SessionConfig,
) -> Float64[np.ndarray, "batch cases"]:
    """A case is due its slack after its scheduled visit; the slack falls with urgency."""
    scheduled = np.argsort(visit, axis=1) / config.slots_per_hour
    span = (config.slack_max_h - config.slack_min_h) / URGENT_ABOVE
    slack = config.slack_max_h - urgency * span
    return np.asarray(scheduled + np.where(urgency > URGENT_ABOVE, config.urgent_slack_h, slack))


def _intensity(
    grid: Grid,
    config: SessionConfig,
    start: Int64[np.ndarray, " batch"],
    level: Float64[np.ndarray, " batch"],
    noise: Float64[np.ndarray, "batch hours leads"],
) -> tuple[
    Float64[np.ndarray, "batch hours"],
    Float64[np.ndarray, "batch hours leads"],
    Float64[np.ndarray, " batch"],
]:
    """True intensity, forecasts whose error grows with the lead, and how large it is said to be.

    The forecaster is simulated: the future value times one plus a normal error, independent
    between hours; a session's forecaster is 0.5 to 1.5 times as uncertain as configured.
    """
    hour = start[:, None] + np.arange(noise.shape[1])
    lead = np.array(LEADS_H)
    sd = np.array([config.forecast_sd(float(h)) for h in LEADS_H])
    skill = 0.5 + level
    factor = np.maximum(1.0 + noise * sd * skill[:, None, None], MIN_FORECAST_FACTOR)
    forecast = grid.g_per_kwh[hour[:, :, None] + lead] * factor
    return grid.g_per_kwh[hour], forecast, skill * config.forecast_sd_24h
