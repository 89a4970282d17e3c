"""A carbon monitor as the surroundings of a training run: hours booked, epochs put off.

``distill``'s carbon-aware loop asks callables for intensity, energy and waiting; here they are
made of a :class:`carbon.monitor.CarbonMonitor`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from carbon.entries import LedgerEntry
from carbon.errors import IntensityError
from carbon.intensity.protocol import IntensityReading, as_utc, floor_hour
from carbon.intensity.trace import HOUR
from carbon.meter import EnergyBasis, combine
from carbon.monitor import CarbonMonitor
from carbon.schedule import Job, Plan, plan_with
from carbon.schedule_wait import wait_for_clean
from distill.carbon_book import CarbonSettings
from distill.config import TrainConfig

STALE_S = 2 * 3600.0
"""A live reading that is older is no longer the present; a recording is as old as it is."""
ASK_AGAIN_S = 60.0
LEAST_H = 1e-3
REPLAYED = ("recorded:", "synthetic")


@dataclass(frozen=True, kw_only=True)
class CarbonOptions:
    """How a run is to mind the grid.

    Attributes:
        settings: budget, temperature and learning rate.
        deadline_h: hours from now in which the run has to be over, waiting included; None: no
            waiting.
        duration_h: hours that the run itself is expected to take.
        folder: where students are kept while it runs; None keeps none.
        resume: go on from what the folder holds.
        fingerprint: of data and settings; :func:`fingerprint` makes it.
    """

    settings: CarbonSettings
    deadline_h: float | None = None
    duration_h: float = 1.0
    folder: Path | None = None
    resume: bool = False
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if self.deadline_h is not None and not self.deadline_h > self.duration_h:
            raise AgentError(
                f"The deadline is {self.deadline_h:g} h away and the run takes "
                f"{self.duration_h:g} h: nothing could be put off. Give a later deadline, or the "
                "hours that the run really takes."
            )


class SimulatedClock:
    """A clock that a sleep sets forward, for waiting on a recording.

    Args:
        base: the real time, which goes on while work is done.
    """

    def __init__(self, base: Callable[[], datetime]) -> None:
        self._base = base
        self._skipped = timedelta()

    def __call__(self) -> datetime:
        """The simulated present."""
        return self._base() + self._skipped

    def sleep(self, seconds: float) -> None:
        """Skip these seconds."""
        self._skipped += timedelta(seconds=seconds)


@dataclass(kw_only=True)
class _Hour:
    reading: IntensityReading | None
    joules: float = 0.0
    seconds: float = 0.0
    unmeasured: bool = False


class HourlyTally:
    """Energy of a run by clock hour, each with the grid's intensity of that hour.

    Args:
        monitor: meter, grid and books.
        clock: the present (aware); that of the monitor.
        monotonic: clock for lengths.
    """

    def __init__(
        self,
        monitor: CarbonMonitor,
        *,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monitor, self._clock, self._monotonic = monitor, clock, monotonic
        self._hours: dict[datetime, _Hour] = {}
        self._asked: tuple[datetime, IntensityReading | None] | None = None
        self._joules = 0.0
        self._basis: EnergyBasis = "measured"
        self._source = "none"
        self._reason: str | None = None
        self._looked_s = monotonic()
        self._run = monitor.meter.begin()

    def reading(self) -> IntensityReading | None:
        """The grid at present; None where nobody knows, or the newest figure is hours old."""
        at = as_utc(self._clock())
        if self._asked is not None:
            asked, known = self._asked
            if floor_hour(asked) == floor_hour(at) and (at - asked).total_seconds() < ASK_AGAIN_S:
                return known
        try:
            found: IntensityReading | None = self._monitor.now()
        except IntensityError:
            found = None
        if found is not None and found.age_s > STALE_S and not found.provider.startswith(REPLAYED):
            found = None
        self._asked = (at, found)
        return found

    def intensity(self) -> float | None:
        """The same in gCO2e/kWh."""
        reading = self.reading()
        return None if reading is None else reading.g_per_kwh

    def energy_kwh(self) -> float | None:
        """Energy since the beginning; None where the meter has none."""
        components = self._run.end()
        self._run = self._monitor.meter.begin()
        now_s = self._monotonic()
        found = combine(components, now_s - self._looked_s)
        self._looked_s = now_s
        at = floor_hour(as_utc(self._clock()))
        hour = self._hours.setdefault(at, _Hour(reading=self.reading()))
        hour.reading = hour.reading or self.reading()
        hour.seconds += found.seconds
        self._source, self._reason = found.source, found.reason
        if found.basis != "measured":
            self._basis = "modelled"
        if found.joules is None:
            hour.unmeasured = True
            return None
        hour.joules += found.joules
        self._joules += found.joules
        return self._joules / 3.6e6

    def book(self, stage: str, note: str) -> list[LedgerEntry]:
        """One entry an hour into the monitor's ledger."""
        self.energy_kwh()
        return [
            self._monitor.record(
                stage,
                energy_kwh=None if hour.unmeasured else hour.joules / 3.6e6,
                energy_basis=self._basis,
                energy_source=self._source,
                energy_reason=self._reason,
                seconds=hour.seconds,
                at=at,
                intensity=hour.reading,
                note=note,
            )
            for at, hour in sorted(self._hours.items())
        ]


class Deferral:
    """Waits, between epochs, while the hours left before the deadline promise to be cleaner.

    The forecast is asked when a clock hour begins, and again at every full hour of a wait. Where
    it knows nothing, the run goes on.

    Args:
        monitor: foresees the grid.
        clock: the present (aware).
        sleep: real, or that of a :class:`SimulatedClock`.
        deadline_h: hours from now in which the run has to be over.
        duration_h: hours that it takes.
        power_w: that it draws.
        tell: called with each plan.
    """

    def __init__(
        self,
        monitor: CarbonMonitor,
        *,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
        deadline_h: float,
        duration_h: float,
        power_w: float,
        tell: Callable[[Plan], None] = lambda plan: None,
    ) -> None:
        self._monitor, self._clock, self._sleep, self._tell = monitor, clock, sleep, tell
        self.deadline = as_utc(clock()) + deadline_h * HOUR
        self._duration_h, self._power_w = duration_h, power_w
        self._asked: datetime | None = None
        self.waits: list[dict[str, Any]] = []

    def __call__(self, share_left: float) -> float:
        """Wait if that is foreseen to pay; gives the hours waited."""
        at = as_utc(self._clock())
        if self._asked == floor_hour(at):
            return 0.0
        self._asked = floor_hour(at)
        work_h = max(LEAST_H, self._duration_h * share_left)
        slack_h = (self.deadline - at) / HOUR - work_h
        if slack_h <= LEAST_H:
            return 0.0
        job = Job(duration_h=work_h, slack_h=slack_h, power_w=self._power_w, interruptible=True)
        try:
            if plan_with(self._monitor, job, at).run_now:
                return 0.0
            waited = wait_for_clean(
                self._monitor, job, clock=self._clock, sleep=self._sleep, tell=self._tell
            )
        except IntensityError as error:
            self.waits.append({"at": at.isoformat(), "hours": 0.0, "note": str(error)})
            return 0.0
        self._asked = floor_hour(waited.begun)
        self.waits.append({"at": at.isoformat(), "hours": waited.hours, "note": ""})
        return waited.hours


def fingerprint(cohort_path: Path, config: TrainConfig, settings: CarbonSettings) -> str:
    """Names what decides the weights: the cohort's files, the settings, what steers the loop.

    Budget, prior and intervals between checkpoints may differ when a run is taken up again.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in cohort_path.iterdir() if p.is_file()):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    steering = replace(settings, budget_g_co2e=None, step_kwh=1.0, keep_every_s=0.0, least_epochs=1)
    for part in (asdict(config), asdict(steering)):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def hours_record(entries: Sequence[LedgerEntry], seconds: float) -> dict[str, Any]:
    """The ``training`` part of ``metrics.json`` from the hours that were booked."""
    kwh = [entry.energy_kwh for entry in entries]
    grams = [entry.g_co2e for entry in entries]
    known = [entry.intensity for entry in entries if entry.intensity is not None]
    unknown = "intensity unknown in some hours; carbon_aware.g_co2e has them at an assumed one"
    return {
        "seconds": seconds,
        "energy_kwh": {
            "value": None if None in kwh else sum(k for k in kwh if k is not None),
            "basis": entries[0].energy_basis,
            "source": entries[0].energy_source,
            "reason": entries[0].energy_reason,
        },
        "g_co2e": {
            "value": None if None in grams else sum(g for g in grams if g is not None),
            "reason": unknown if None in grams else None,
        },
        "intensity": known[-1].as_dict() if known else None,
    }
