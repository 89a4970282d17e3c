"""Drawing sessions: which patients, in which order, how urgent, over which hours of the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float64, Int64

from carbon.intensity.recorded import load_trace
from carbon.intensity.synthetic import synthetic_trace
from carbon.intensity.trace import Trace
from envs.config import LEADS_H, URGENT_ABOVE, Rules, SessionConfig
from envs.errors import SessionError
from envs.tables import PatientTables

Period = Literal["train", "eval", "all"]
Traces: TypeAlias = Trace | str | Path | Sequence[Trace | str | Path] | None
EVAL: Literal["eval"] = "eval"
TRAIN_SHARE = 0.7
SYNTHETIC_HOURS = 24 * 60
SYNTHETIC_SEED = 0
MAX_G_PER_KWH = 4000.0
MIN_FORECAST_FACTOR = 0.1


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The hours that sessions may use, of one trace or of several end to end.

    Attributes:
        g_per_kwh: intensity of the period, hour by hour, one trace after the other.
        first_h: where each trace begins in ``g_per_kwh``.
        n_starts: a session may begin at hours ``0 .. n_starts - 1`` of each trace.
        names: names of the traces; a stressed one says so.
        synthetic: whether any trace was generated.
    """

    g_per_kwh: Float64[np.ndarray, " hours"]
    first_h: Int64[np.ndarray, " traces"]
    n_starts: Int64[np.ndarray, " traces"]
    names: tuple[str, ...]
    synthetic: bool

    @property
    def name(self) -> str:
        """All names in one line."""
        return ", ".join(self.names)


@dataclass(frozen=True, kw_only=True)
class SessionDraw:
    """Sessions as drawn, before any decision (B sessions of N cases over H hours).

    Attributes:
        patient: pool index of each case; the ``n_pos`` positives first.
        order: the cases in visiting order (worklist: no order, but ties fall to the earlier).
        urgency: simulated urgency of each case, 0 to 1.
        arrival_h: hours from the session's start until each case is there.
        deadline_h: hours from the session's start to each case's deadline.
        session_h: length of the session, hours (sequential rules: of the planned visits).
        trace_idx: which trace of the grid.
        g_per_kwh: true intensity at each hour.
        forecast: forecast of the intensity at each hour and lead, with simulated error.
        uncertainty: relative standard deviation of the forecast 24 h ahead.
    """

    patient: Int64[np.ndarray, "batch cases"]
    order: Int64[np.ndarray, "batch cases"]
    urgency: Float64[np.ndarray, "batch cases"]
    arrival_h: Float64[np.ndarray, "batch cases"]
    deadline_h: Float64[np.ndarray, "batch cases"]
    session_h: Int64[np.ndarray, " batch"]
    trace_idx: Int64[np.ndarray, " batch"]
    g_per_kwh: Float64[np.ndarray, "batch hours"]
    forecast: Float64[np.ndarray, "batch hours leads"]
    uncertainty: Float64[np.ndarray, " batch"]


def resolve_grid(
    trace: Traces, period: str, config: SessionConfig, rules: Rules = "sequential"
) -> Grid:
    """Cut the period out of each trace; training and evaluation never share an hour.

    The first 70 % of the hours are ``train``, the rest is ``eval``; a session stays inside its
    period with the longest forecast lead included.

    Args:
        trace: a trace, a file of one, several of these, or None for 60 days of the synthetic grid.
        period: ``train``, ``eval`` or ``all``.
        config: says how many hours a session needs, and how far the trace is made to swing.
        rules: say so too.

    Raises:
        SessionError: if the period is unknown or shorter than a session.
    """
    if period not in get_args(Period):
        raise SessionError(f"Unknown period {period!r}; choose train, eval or all.")
    traces = _read(trace)
    hours = [_period_of(one, period, config, rules) for one in traces]
    lengths = np.array([len(part) for part in hours])
    stress = f", swing x {config.swing:g} (stress)" if config.swing != 1.0 else ""
    return Grid(
        g_per_kwh=np.concatenate(hours),
        first_h=np.cumsum(lengths) - lengths,
        n_starts=lengths - config.horizon_h(rules) + 1,
        names=tuple(one.name + stress for one in traces),
        synthetic=any(one.synthetic for one in traces),
    )


def _read(trace: Traces) -> list[Trace]:
    if trace is None:
        return [synthetic_trace(SYNTHETIC_HOURS, SYNTHETIC_SEED)]
    given = [trace] if isinstance(trace, (Trace, str, Path)) else list(trace)
    if not given:
        raise SessionError("An empty list of traces was given; name one, or None for synthetic.")
    return [one if isinstance(one, Trace) else load_trace(Path(one)) for one in given]


def _period_of(
    trace: Trace, period: str, config: SessionConfig, rules: Rules
) -> Float64[np.ndarray, " hours"]:
    split = int(len(trace.g_per_kwh) * TRAIN_SHARE)
    part = {"train": slice(0, split), EVAL: slice(split, None), "all": slice(None)}[period]
    hours = trace.g_per_kwh[part]
    if len(hours) < config.horizon_h(rules):
        length = (
            f"of up to {config.session_h_max} hours"
            if rules == "worklist"
            else f"of {config.n_cases} cases at {config.slots_per_hour} slots an hour"
        )
        raise SessionError(
            f"Trace {trace.name!r} has {len(hours)} hours in its {period!r} period; a session "
            f"{length} needs {config.horizon_h(rules)} with its forecasts. Use a longer trace or "
            "smaller sessions."
        )
    if not np.isfinite(hours).all() or hours.min() < 0 or hours.max() > MAX_G_PER_KWH:
        raise SessionError(
            f"Trace {trace.name!r} holds intensities outside 0 to {MAX_G_PER_KWH:g} gCO2e/kWh."
        )
    if config.swing == 1.0:
        return hours
    mean = hours.mean()
    return np.asarray(np.clip(mean + config.swing * (hours - mean), 0.0, MAX_G_PER_KWH))


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
    *,
    rules: Rules = "sequential",
) -> SessionDraw:
    """Draw one session from each generator; each depends on its own generator only."""
    n, hours = config.n_cases, config.hours(rules)
    pools = (len(tables.positives), len(tables.negatives))
    arrivals = n if rules == "worklist" else 0
    width = sum(pools) + 3 * n + arrivals + 4
    uniform = np.empty((len(rngs), width))
    noise = np.empty((len(rngs), hours * len(LEADS_H)))
    for row, rng in enumerate(rngs):
        rng.random(out=uniform[row])
        rng.standard_normal(out=noise[row])
    cuts = np.cumsum([*pools, n, n, n, arrivals])
    pos, neg, order, urgent, level, when, rest = np.split(uniform, cuts, axis=1)
    patient = np.hstack(
        [_choose(tables.positives, pos, counts[0]), _choose(tables.negatives, neg, counts[1])]
    )
    visit = np.argsort(order, axis=1)
    urgency = _urgency(urgent, level, config)
    trace_idx = (rest[:, 2] * len(grid.names)).astype(np.int64)
    start = (rest[:, 0] * grid.n_starts[trace_idx]).astype(np.int64)
    truth, forecast, uncertainty = _intensity(
        grid, config, grid.first_h[trace_idx] + start, rest[:, 1],
        noise.reshape(len(rngs), hours, len(LEADS_H)),
    )  # fmt: skip
    session_h = _session_h(rest[:, 3], config, rules)
    arrival_h = _arrival(visit, when, session_h, config, rules)
    due = _deadline(visit, arrival_h, urgency, config, rules)
    return SessionDraw(
        patient=patient,
        order=visit,
        urgency=urgency,
        arrival_h=arrival_h,
        deadline_h=np.minimum(due, session_h[:, None]) if rules == "worklist" else due,
        session_h=session_h,
        trace_idx=trace_idx,
        g_per_kwh=truth,
        forecast=forecast,
        uncertainty=uncertainty,
    )


def _choose(
    members: Int64[np.ndarray, " members"], key: Float64[np.ndarray, "batch members"], n: int
) -> Int64[np.ndarray, "batch chosen"]:
    """The members with the smallest random keys, in the order of the keys.

    That draws without replacement, and the same way on every machine: the bits of floats from 0
    to 1 sort as they do, and their last bits give way to the members' numbers, so that no two are
    equal and nothing but whole numbers need be sorted.
    """
    last = np.uint64((1 << len(members).bit_length()) - 1)
    bits = key.view(np.uint64) & ~last
    bits |= np.arange(len(members), dtype=np.uint64)
    if n < len(members):
        bits.partition(n, axis=1)
    chosen = np.sort(bits[:, :n], axis=1) & last
    return np.asarray(members.take(chosen.astype(np.int64)))


def _session_h(
    level: Float64[np.ndarray, " batch"], config: SessionConfig, rules: Rules
) -> Int64[np.ndarray, " batch"]:
    if rules != "worklist":
        return np.full(len(level), (config.n_cases - 1) // config.slots_per_hour + 1)
    choices = config.session_h_max - config.session_h_min + 1
    return config.session_h_min + (level * choices).astype(np.int64)


def _arrival(
    order: Int64[np.ndarray, "batch cases"],
    when: Float64[np.ndarray, "batch arrivals"],
    session_h: Int64[np.ndarray, " batch"],
    config: SessionConfig,
    rules: Rules,
) -> Float64[np.ndarray, "batch cases"]:
    """A backlog at hour 0; the others uniform over the first part of the session.

    Given how many come, that is a Poisson process. The last hour's beginning is the latest, so that
    everybody can come up.
    """
    if rules != "worklist":
        return np.zeros(order.shape)
    backlog = np.argsort(order, axis=1) < round(config.backlog * config.n_cases)
    latest = np.minimum(config.arrival_share * session_h, session_h - 1.0)
    return np.where(backlog, 0.0, when * latest[:, None])


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
    arrival_h: Float64[np.ndarray, "batch cases"],
    urgency: Float64[np.ndarray, "batch cases"],
    config: SessionConfig,
    rules: Rules,
) -> Float64[np.ndarray, "batch cases"]:
    """A case is due its slack after its arrival (sequential rules: its scheduled visit).

    The slack falls with urgency.
    """
    worklist = rules == "worklist"
    since = arrival_h if worklist else np.argsort(visit, axis=1) / config.slots_per_hour
    span = (config.slack_max_h - config.slack_min_h) / URGENT_ABOVE
    slack = config.slack_max_h - urgency * span
    return np.asarray(since + np.where(urgency > URGENT_ABOVE, config.urgent_slack_h, slack))


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
