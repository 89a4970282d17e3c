"""Waiting for the planned moment, under a clock that only sleeping moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from carbon.backends import make_meter
from carbon.entries import LedgerEntry
from carbon.errors import IntensityError
from carbon.intensity.protocol import IntensityReading
from carbon.intensity.recorded import RecordedSource
from carbon.intensity.synthetic import synthetic_trace
from carbon.ledger import Ledger
from carbon.monitor import CarbonMonitor
from carbon.schedule import Job, Plan
from carbon.schedule_wait import Waited, wait_for_clean, wait_record

HOUR = timedelta(hours=1)
START = datetime(2024, 5, 1, 8, 20, tzinfo=UTC)


class SleepingClock:
    """The present; sleeping is what moves it."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at
        self.naps: list[float] = []

    def __call__(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.naps.append(seconds)
        self.at += timedelta(seconds=seconds)


class Foretold:
    """What is foretold at each asking, one list of hourly values an asking; then the last again."""

    def __init__(self, clock: Callable[[], datetime], *askings: Sequence[float] | None) -> None:
        self.clock, self.askings, self.asked = clock, askings, 0

    def reading(self, value: float, lead: int) -> IntensityReading:
        hour = self.clock().replace(minute=0, second=0, microsecond=0)
        return IntensityReading(
            g_per_kwh=float(value), zone="X", time=hour + lead * HOUR, provider="test",
            basis="average-direct-unstated", kind="forecast" if lead else "measured", age_s=0.0,
            uncertainty_g_per_kwh=10.0 if lead else None,
        )  # fmt: skip

    def _values(self) -> Sequence[float]:
        values = self.askings[min(self.asked, len(self.askings) - 1)]
        if values is None:
            raise IntensityError("the feed is down")
        return values

    def forecast(self, hours: int) -> tuple[IntensityReading, ...]:
        try:
            values = self._values()
        except IntensityError:
            self.asked += 1
            raise
        return tuple(self.reading(v, i + 1) for i, v in enumerate(values[1 : hours + 1]))

    def now(self) -> IntensityReading:
        reading = self.reading(self._values()[0], 0)
        self.asked += 1
        return reading


JOB = Job(duration_h=1.0, slack_h=4.0, power_w=1000.0)


def wait(*askings: Sequence[float] | None, job: Job = JOB) -> tuple[Waited, SleepingClock]:
    clock = SleepingClock()
    waited = wait_for_clean(Foretold(clock, *askings), job, clock=clock, sleep=clock.sleep)
    return waited, clock


def test_the_best_moment_being_now_nothing_sleeps() -> None:
    waited, clock = wait([10.0, 20.0, 30.0, 40.0, 50.0, 60.0])
    assert (waited.hours, waited.asked, clock.naps) == (0.0, 1, [])


def test_it_asks_again_each_full_hour_and_begins_at_the_planned_moment() -> None:
    waited, clock = wait(
        [300, 200, 100, 50, 200, 200], [200, 100, 50, 200, 200], [100, 50, 200, 200], [50, 200, 200]
    )
    assert waited.begun == START.replace(hour=11, minute=0)
    assert waited.asked == 4
    assert waited.first.planned_g_co2e == pytest.approx(50.0)
    assert max(clock.naps) <= 30.0, "short naps notice a suspended computer"


def test_a_forecast_that_turns_is_followed() -> None:
    waited, _ = wait([300, 200, 100, 50, 60, 200], [40, 90, 90, 90, 90, 90])
    assert waited.begun == START.replace(hour=9, minute=0)
    assert waited.last.run_now


def test_a_forecast_that_always_promises_more_ends_at_the_deadline() -> None:
    waited, _ = wait([300, 200, 100, 90, 80, 70])
    assert waited.begun <= START + JOB.slack_h * HOUR
    assert waited.hours == pytest.approx(4.0)


def test_a_feed_that_fails_on_the_way_leaves_the_last_plan_in_force() -> None:
    waited, _ = wait([300, 200, 100, 50, 200, 200], None)
    assert waited.begun == START.replace(hour=11, minute=0)
    assert waited.asked == 1
    assert "kept to the last plan: the feed is down" in waited.notes[0]


def test_nothing_is_waited_for_where_nothing_is_known() -> None:
    with pytest.raises(IntensityError):
        wait(None)


def test_an_interrupt_passes_through() -> None:
    clock = SleepingClock()

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_for_clean(Foretold(clock, [9.0] + [1.0] * 9), JOB, clock=clock, sleep=interrupted)


def test_plans_and_naps_are_told() -> None:
    clock, plans, naps = SleepingClock(), list[Plan](), list[float]()
    wait_for_clean(
        Foretold(clock, [9.0] + [1.0] * 9, [1.0] * 9), JOB, clock=clock, sleep=clock.sleep,
        tell=plans.append, nap=lambda waited_s, left_s: naps.append(waited_s + left_s),
    )  # fmt: skip
    assert len(plans) == 2
    assert set(naps) == {2400.0}


def test_what_it_saved_is_booked_as_an_estimate_and_nothing_else(tmp_path: Path) -> None:
    trace = synthetic_trace(24 * 20, seed=0)
    clock = SleepingClock(trace.start + timedelta(days=10, hours=6))
    monitor = CarbonMonitor(
        source=RecordedSource(trace), meter=make_meter("modelled"),
        ledger=Ledger(tmp_path / "ledger.jsonl"), clock=clock,
    )  # fmt: skip
    waited = wait_for_clean(monitor, JOB, clock=clock, sleep=clock.sleep)
    spent = monitor.record("train", energy_kwh=3.0)
    record = wait_record(monitor, waited, spent, stage="train")
    assert spent.intensity is not None
    at_once = waited.first.now_g_co2e / 1.0
    saved = record["saved_g_co2e"]
    assert saved["value"] == pytest.approx(3.0 * (at_once - spent.intensity.g_per_kwh))
    assert saved["ci95"] is None, "the error of the first hour is not known here"
    assert "estimate" in saved["note"]
    assert json.loads(json.dumps(record))["waited_h"] == waited.hours
    train, booked = [e for e in monitor.ledger.entries() if isinstance(e, LedgerEntry)]  # type: ignore[union-attr]
    assert (train.stage, booked.stage) == ("train", "train: wait")
    assert (booked.energy_kwh, booked.g_co2e) == (0.0, 0.0)
    assert "by estimate" in booked.note
    unknown = waited.saving(None, spent.intensity)
    assert unknown["value"] is None
    assert "unknown" in unknown["note"]


def test_the_interval_of_the_estimate_is_that_of_running_at_once() -> None:
    waited, clock = wait([300, 200, 100, 50, 200, 200], [40, 90, 90, 90, 90, 90])
    booked = Foretold(clock, [40.0]).now()
    saved = waited.saving(2.0, booked)
    at_once = 300 * 2 / 3 + 200 / 3
    assert saved["value"] == pytest.approx(2 * (at_once - 40))
    half = 1.959964 * 2 * 10 / 3  # only the second hour was foretold
    assert saved["ci95"] == pytest.approx([saved["value"] - half, saved["value"] + half], rel=1e-4)
