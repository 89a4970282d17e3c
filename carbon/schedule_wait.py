"""Wait for the planned moment, asking again each hour, and say afterwards what that saved.

What waiting saved is always an estimate: what would have been emitted at once was never observed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from carbon.entries import LedgerEntry
from carbon.errors import IntensityError
from carbon.intensity.protocol import Z95, IntensityReading, as_utc, floor_hour
from carbon.intensity.trace import HOUR
from carbon.monitor import CarbonMonitor
from carbon.schedule import Forecaster, Job, Plan, plan_with

LOOK_S = 30.0
"""Longest nap: a computer that was suspended, or a clock that was set, is noticed within it."""
TINY_H = 1e-6
ESTIMATE = (
    "estimate: expected intensity of running at once, as forecast when asked, less the intensity "
    "booked, times the energy; not subtracted from any emission"
)


@dataclass(frozen=True, kw_only=True)
class Waited:
    """How a job came to begin when it did.

    Attributes:
        first: the plan at the moment of asking.
        last: the plan that it began on.
        begun: when that was (UTC).
        asked: how often the forecast was asked.
        notes: what went wrong on the way, if anything.
    """

    first: Plan
    last: Plan
    begun: datetime
    asked: int
    notes: tuple[str, ...] = ()

    @property
    def hours(self) -> float:
        """How long it waited."""
        return (self.begun - self.first.at) / HOUR

    def saving(
        self, energy_kwh: float | None, intensity: IntensityReading | None
    ) -> dict[str, Any]:
        """Estimated saving in gCO2e, from the energy and the intensity that were booked.

        The interval takes the forecast for running at once as uncertain, what was booked as known.
        A negative figure is a wait that did not pay.
        """
        if energy_kwh is None or intensity is None:
            return {"value": None, "ci95": None, "n": 1,
                    "note": f"{ESTIMATE}; energy or intensity is unknown"}  # fmt: skip
        planned_kwh = self.first.job.energy_kwh
        at_once = self.first.now_g_co2e / planned_kwh
        value = energy_kwh * (at_once - intensity.g_per_kwh)
        se = self.first.now_se_g_co2e
        reach = None if se is None else Z95 * energy_kwh * se / planned_kwh
        interval = None if reach is None else [value - reach, value + reach]
        return {"value": value, "ci95": interval, "n": 1, "note": ESTIMATE}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "asked_at": self.first.at.isoformat(),
            "begun_at": self.begun.isoformat(),
            "waited_h": self.hours,
            "times_asked": self.asked,
            "plan_when_asked": self.first.as_dict(),
            "notes": list(self.notes),
        }


def wait_record(
    monitor: CarbonMonitor, waited: Waited, spent: LedgerEntry, *, stage: str
) -> dict[str, Any]:
    """Book the wait with an entry of its own, and give its whole record.

    The entry holds no energy, since nothing ran, and its note the estimate; totals are unchanged.

    Args:
        monitor: keeps the books.
        waited: the wait.
        spent: what was booked for the work itself.
        stage: the work's stage.
    """
    saving = waited.saving(spent.energy_kwh, spent.intensity)
    known = saving["value"] is not None
    grams = f"{saving['value']:.4g} gCO2e" if known else "an unknown amount"
    monitor.record(
        f"{stage}: wait",
        energy_kwh=0.0,
        energy_source="nothing ran",
        at=waited.begun,
        note=f"waited {waited.hours:.2f} h for cleaner electricity; saved {grams} by estimate "
        "(forecast when asked against the intensity booked), subtracted from nothing",
    )
    return {**waited.as_dict(), "saved_g_co2e": saving}


def wait_for_clean(
    forecaster: Forecaster,
    job: Job,
    *,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    tell: Callable[[Plan], None] = lambda plan: None,
    nap: Callable[[float, float], None] = lambda waited_s, left_s: None,
) -> Waited:
    """Sleep until the plan says to run; plan anew at every full hour, never beyond the deadline.

    Args:
        forecaster: knows the grid at ``clock``.
        job: what is to run; the slack counts from now.
        clock: the present (aware).
        sleep: sleeps for seconds; whatever it raises (an interrupt) passes through.
        tell: called with each plan.
        nap: called before each sleep with the seconds waited and those left until the start.

    Raises:
        IntensityError: if nothing is known at the first asking. Later the last plan is kept.
    """
    began = as_utc(clock())
    latest = began + job.slack_h * HOUR
    plan = first = plan_with(forecaster, job, began)
    tell(plan)
    asked, notes = 1, list[str]()
    while not plan.run_now:
        start = plan.stretches[0].start
        next_ask = floor_hour(as_utc(clock())) + HOUR
        begun = _sleep_until(min(start, next_ask), start, began, clock=clock, sleep=sleep, nap=nap)
        left_h = (latest - begun) / HOUR
        if left_h <= TINY_H:
            return _waited(first, plan, begun, asked, notes)
        try:
            plan = plan_with(forecaster, replace(job, slack_h=left_h), begun)
        except IntensityError as error:
            notes.append(f"{begun:%Y-%m-%d %H:%M} UTC: kept to the last plan: {error}")
            if begun >= start:
                return _waited(first, plan, begun, asked, notes)
        else:
            asked += 1
            tell(plan)
    return _waited(first, plan, as_utc(clock()), asked, notes)


def _waited(first: Plan, last: Plan, begun: datetime, asked: int, notes: list[str]) -> Waited:
    return Waited(first=first, last=last, begun=begun, asked=asked, notes=tuple(notes))


def _sleep_until(
    moment: datetime,
    start: datetime,
    began: datetime,
    *,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    nap: Callable[[float, float], None],
) -> datetime:
    while (now := as_utc(clock())) < moment:
        nap((now - began).total_seconds(), (start - now).total_seconds())
        sleep(min(LOOK_S, math.ceil(1e3 * (moment - now).total_seconds()) / 1e3))
    return now
