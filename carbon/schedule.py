"""When to run a job within its deadline: the plan, what it saves, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from carbon.errors import UnitError
from carbon.intensity.protocol import (
    Z95,
    Basis,
    IntensityReading,
    as_utc,
    floor_hour,
    require_one_basis,
)
from carbon.intensity.trace import HOUR

TINY_H = 1e-9
LONGEST_H = 24 * 366


@runtime_checkable
class Forecaster(Protocol):
    """Whatever knows the present and the hours ahead; a ``CarbonMonitor`` does."""

    def now(self) -> IntensityReading:
        """The present hour."""
        ...

    def forecast(self, hours: int) -> Sequence[IntensityReading]:
        """One reading for each of the next ``hours`` clock hours."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """What has to run.

    Attributes:
        duration_h: hours of work.
        slack_h: hours that it may end later than if it started now; the deadline is the present
            plus duration plus slack.
        power_w: constant draw while it runs.
        interruptible: whether it may pause and go on; pausing is taken to cost nothing.
    """

    duration_h: float
    slack_h: float
    power_w: float
    interruptible: bool = False

    def __post_init__(self) -> None:
        for name, least in (("duration_h", TINY_H), ("slack_h", 0.0), ("power_w", TINY_H)):
            value = getattr(self, name)
            if not math.isfinite(value) or value < least:
                allowed = "0 or more" if least == 0 else "above 0"
                raise UnitError(f"{name} is {value}; it must be finite and {allowed}.")
        if self.duration_h + self.slack_h > LONGEST_H:
            raise UnitError(
                f"Duration and slack are {self.duration_h + self.slack_h:g} h together; at most "
                f"{LONGEST_H} can be planned."
            )

    @classmethod
    def due(
        cls,
        deadline: datetime,
        at: datetime,
        *,
        duration_h: float,
        power_w: float,
        interruptible: bool = False,
    ) -> Job:
        """A job that has to be over by a moment.

        Raises:
            UnitError: if it could not be over by then if it started now.
        """
        left_h = (as_utc(deadline) - as_utc(at)) / HOUR
        if math.isfinite(duration_h) and left_h < duration_h - TINY_H:
            raise UnitError(
                f"The deadline {_iso(as_utc(deadline))} is {left_h:.4g} h away and the job takes "
                f"{duration_h:g} h: it cannot be met. Started now it is over at "
                f"{_iso(as_utc(at) + duration_h * HOUR)}; give that or later."
            )
        slack_h = max(left_h - duration_h, 0.0)
        return cls(
            duration_h=duration_h, slack_h=slack_h, power_w=power_w, interruptible=interruptible
        )

    @property
    def energy_kwh(self) -> float:
        """Energy of the whole job."""
        return self.power_w * self.duration_h / 1000.0

    def hours_ahead(self, at: datetime) -> int:
        """Clock hours after the present one that its deadline reaches into."""
        into = (as_utc(at) - floor_hour(at)) / HOUR
        return max(0, math.ceil(into + self.duration_h + self.slack_h - TINY_H) - 1)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One uninterrupted piece of work: its start (UTC) and length."""

    start: datetime
    hours: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """When to run, and what that is expected to emit.

    Attributes:
        stretches: in order; one, unless the job is interruptible.
        now_g_co2e: expected emissions of starting now and running through.
        planned_g_co2e: expected emissions of the plan.
        now_se_g_co2e: standard error of the former; None where an hour's error is unknown.
        planned_se_g_co2e: standard error of the plan's emissions; likewise.
        saved_se_g_co2e: standard error of the difference; hours in both cancel.
        basis: of the intensities.
        methods: how the intensities came about, in the sources' words.
    """

    job: Job
    at: datetime
    stretches: tuple[Stretch, ...]
    now_g_co2e: float
    planned_g_co2e: float
    now_se_g_co2e: float | None
    planned_se_g_co2e: float | None
    saved_se_g_co2e: float | None
    basis: Basis
    methods: tuple[str, ...]

    @property
    def run_now(self) -> bool:
        """Whether work starts at once; ask again each hour, with a new forecast, if not."""
        return self.stretches[0].start <= self.at

    @property
    def saved_g_co2e(self) -> float:
        """Expected saving against running now."""
        return self.now_g_co2e - self.planned_g_co2e

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; 95 % intervals by the normal approximation."""
        return {
            "at": _iso(self.at),
            "deadline": _iso(self.at + (self.job.duration_h + self.job.slack_h) * HOUR),
            "run_now": self.run_now,
            "plan": [{"start": _iso(s.start), "hours": s.hours} for s in self.stretches],
            "duration_h": self.job.duration_h,
            "slack_h": self.job.slack_h,
            "power_w": self.job.power_w,
            "interruptible": self.job.interruptible,
            "energy_kwh": self.job.energy_kwh,
            "now_g_co2e": _figure(self.now_g_co2e, self.now_se_g_co2e, 0.0),
            "planned_g_co2e": _figure(self.planned_g_co2e, self.planned_se_g_co2e, 0.0),
            "saved_g_co2e": _figure(self.saved_g_co2e, self.saved_se_g_co2e, -math.inf),
            "basis": self.basis,
            "methods": list(self.methods),
        }


def plan_with(forecaster: Forecaster, job: Job, at: datetime) -> Plan:
    """Plan on a forecaster's present and forecast; call it again each hour until ``run_now``.

    Raises:
        IntensityError: if the forecaster knows nothing.
        BasisError: if the forecast and the present are on different bases.
    """
    hours = job.hours_ahead(at)
    ahead = tuple(forecaster.forecast(hours)) if hours else ()
    return plan_job(job, (forecaster.now(), *ahead), at)


def plan_job(job: Job, readings: Sequence[IntensityReading], at: datetime) -> Plan:
    """The start, or the hours, with the lowest expected emissions before the deadline.

    An intensity holds for its clock hour, so the best uninterrupted run begins now, as late as
    allowed, or such that it begins or ends on the hour: no other start is cheaper. Equal ones go
    to the earliest.

    Args:
        job: what has to run.
        readings: the present hour first, then each clock hour up to the deadline. The first may
            describe an older hour: it is then the last value known.
        at: the present (aware).

    Raises:
        UnitError: if hours are missing.
        BasisError: if the readings differ in basis.
    """
    at = as_utc(at)
    needed = job.hours_ahead(at) + 1
    if len(readings) < needed:
        raise UnitError(
            f"The deadline is reached in {needed} clock hours, the forecast has {len(readings)}; "
            "give a longer forecast or less slack."
        )
    readings = readings[:needed]
    basis = require_one_basis((r.basis for r in readings), what="The plan")
    into = (at - floor_hour(at)) / HOUR
    values = np.array([r.g_per_kwh for r in readings])
    now = _hours_of(into, job.duration_h, needed)
    if job.interruptible:
        chosen = _cheapest_hours(job, into, values)
        stretches = _stretches(chosen, at)
    else:
        start = _cheapest_start(job, into, values)
        chosen = _hours_of(start, job.duration_h, needed)
        stretches = (Stretch(start=at + (start - into) * HOUR, hours=job.duration_h),)
    kwh = job.power_w / 1000.0
    sigma = _sigmas(readings)
    return Plan(
        job=job,
        at=at,
        stretches=stretches,
        now_g_co2e=float(now @ values) * kwh,
        planned_g_co2e=float(chosen @ values) * kwh,
        now_se_g_co2e=_se(now, sigma, kwh),
        planned_se_g_co2e=_se(chosen, sigma, kwh),
        saved_se_g_co2e=_se(now - chosen, sigma, kwh),
        basis=basis,
        methods=tuple(dict.fromkeys(f"{r.provider}: {r.note or r.kind}" for r in readings)),
    )


def _hours_of(start: float, duration: float, hours: int) -> Float64[np.ndarray, " hours"]:
    """Share of each clock hour that a run takes; ``start`` counts from the present clock hour."""
    begin = np.arange(hours)
    taken = np.minimum(begin + 1.0, start + duration) - np.maximum(begin, start)
    return np.asarray(np.clip(taken, 0.0, 1.0))


def _cheapest_start(job: Job, into: float, values: Float64[np.ndarray, " hours"]) -> float:
    latest = into + job.slack_h
    whole = np.arange(len(values) + 1)
    options = np.concatenate([[into, latest], whole, whole - job.duration_h])
    options = np.unique(options[(options >= into) & (options <= latest)])
    # The integral of the intensity is linear between clock hours.
    integral = np.concatenate([[0.0], np.cumsum(values)])
    cost = np.interp(options + job.duration_h, whole, integral) - np.interp(
        options, whole, integral
    )
    ties = cost <= cost.min() + TINY_H * max(1.0, float(values.max()))
    return float(options[int(np.argmax(ties))])


def _cheapest_hours(
    job: Job, into: float, values: Float64[np.ndarray, " hours"]
) -> Float64[np.ndarray, " hours"]:
    room = _hours_of(into, job.duration_h + job.slack_h, len(values))
    chosen = np.zeros(len(values))
    left = job.duration_h
    for hour in np.argsort(values, kind="stable"):
        chosen[hour] = min(left, room[hour])
        left -= chosen[hour]
        if left <= TINY_H:
            break
    return chosen


def _stretches(chosen: Float64[np.ndarray, " hours"], at: datetime) -> tuple[Stretch, ...]:
    found: list[Stretch] = []
    for hour in np.flatnonzero(chosen > TINY_H):
        start = max(at, floor_hour(at) + int(hour) * HOUR)
        hours = float(chosen[hour])
        if found and abs(found[-1].start + found[-1].hours * HOUR - start) < timedelta(seconds=1):
            hours += found[-1].hours
            start = found.pop().start
        found.append(Stretch(start=start, hours=hours))
    return tuple(found)


def _sigmas(readings: Sequence[IntensityReading]) -> Float64[np.ndarray, " hours"]:
    """One standard error an hour; 0 for a measured present, NaN where unknown."""
    return np.array(
        [
            r.uncertainty_g_per_kwh
            if r.uncertainty_g_per_kwh is not None
            else (0.0 if r.kind == "measured" else math.nan)
            for r in readings
        ]
    )


def _se(
    weights: Float64[np.ndarray, " hours"], sigma: Float64[np.ndarray, " hours"], kwh: float
) -> float | None:
    # Errors of neighbouring hours go together: full correlation within each side of a difference,
    # and none between the sides, is the careful reading.
    used = np.abs(weights) > TINY_H
    if np.isnan(sigma[used]).any():
        return None
    w, s = weights[used], sigma[used]
    return kwh * math.hypot(float(w[w > 0] @ s[w > 0]), float(w[w < 0] @ s[w < 0]))


def _figure(value: float, se: float | None, lowest: float) -> dict[str, Any]:
    interval = None if se is None else [max(lowest, value - Z95 * se), value + Z95 * se]
    return {"value": value, "ci95": interval, "n": 1}


def _iso(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
