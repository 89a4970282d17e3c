"""What holds of every plan, whatever the job and the forecast."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.errors import UnitError
from carbon.intensity.protocol import IntensityReading
from carbon.schedule import Job, Plan, plan_job

HOUR = timedelta(hours=1)
MIDNIGHT = datetime(2024, 3, 1, tzinfo=UTC)
moments = st.integers(0, 59).map(lambda minute: MIDNIGHT + timedelta(minutes=minute))
durations = st.sampled_from([0.1, 0.25, 1.0, 1.5, 2.0, 3.75, 5.0])
slacks = st.sampled_from([0.0, 0.3, 1.0, 2.5, 4.0, 7.0])
# Few different values: ties are then common.
forecasts = st.lists(st.sampled_from([0.0, 50.0, 80.5, 200.0]), min_size=14, max_size=14)


def readings(values: Sequence[float]) -> tuple[IntensityReading, ...]:
    return tuple(
        IntensityReading(
            g_per_kwh=float(value), zone="X", time=MIDNIGHT + i * HOUR, provider="test",
            basis="average-direct-unstated", kind="forecast", age_s=0.0,
            uncertainty_g_per_kwh=5.0,
        )
        for i, value in enumerate(values)
    )  # fmt: skip


def planned(
    at: datetime, duration: float, slack: float, values: Sequence[float], interruptible: bool
) -> Plan:
    job = Job(duration_h=duration, slack_h=slack, power_w=1000.0, interruptible=interruptible)
    return plan_job(job, readings(values), at)


def emitted(plan: Plan, values: Sequence[float]) -> float:
    """By the minute, from the plan's own stretches."""
    minutes = 0.0
    for stretch in plan.stretches:
        for step in range(round(stretch.hours * 60)):
            moment = stretch.start + timedelta(minutes=step)
            minutes += values[int((moment - MIDNIGHT) / HOUR + 1e-6)]
    return minutes / 60


@settings(max_examples=60, deadline=None, derandomize=True)
@given(moments, durations, slacks, forecasts, st.booleans())
def test_all_the_work_is_done_between_now_and_the_deadline(
    at: datetime, duration: float, slack: float, values: list[float], interruptible: bool
) -> None:
    plan = planned(at, duration, slack, values, interruptible)
    assert sum(s.hours for s in plan.stretches) == pytest.approx(duration)
    assert plan.stretches[0].start >= at
    ends = [s.start + s.hours * HOUR for s in plan.stretches]
    assert ends[-1] <= at + (duration + slack) * HOUR + timedelta(seconds=1)
    for end, after in zip(ends, plan.stretches[1:]):
        assert end < after.start


@settings(max_examples=60, deadline=None, derandomize=True)
@given(moments, durations, slacks, forecasts)
def test_never_worse_than_now_and_pausing_never_hurts(
    at: datetime, duration: float, slack: float, values: list[float]
) -> None:
    through = planned(at, duration, slack, values, False)
    paused = planned(at, duration, slack, values, True)
    assert through.planned_g_co2e <= through.now_g_co2e + 1e-9
    assert paused.planned_g_co2e <= through.planned_g_co2e + 1e-9


@settings(max_examples=25, deadline=None, derandomize=True)
@given(moments, durations, slacks, forecasts)
def test_no_other_start_is_cheaper_and_no_equal_one_is_earlier(
    at: datetime, duration: float, slack: float, values: list[float]
) -> None:
    plan = planned(at, duration, slack, values, False)
    chosen = plan.stretches[0].start
    for minute in range(0, int(slack * 60 + 1e-6) + 1, 5):
        start = at + timedelta(minutes=minute)
        cost = planned(
            start, duration, 0.0, values[(start - MIDNIGHT) // HOUR :] + [0.0] * 9, False
        )
        assert cost.now_g_co2e >= plan.planned_g_co2e - 1e-6
        if start < chosen - timedelta(seconds=1):
            assert cost.now_g_co2e > plan.planned_g_co2e + 1e-9


@settings(max_examples=40, deadline=None, derandomize=True)
@given(moments, st.sampled_from([0.25, 1.0, 1.5, 4.0]), slacks, forecasts)
def test_the_figure_is_that_of_the_stretches(
    at: datetime, duration: float, slack: float, values: list[float]
) -> None:
    plan = planned(at, duration, slack, values, False)
    # Starts that end on the hour fall on whole minutes here, so the sum by the minute is exact.
    assert emitted(plan, values) == pytest.approx(plan.planned_g_co2e, abs=1e-6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(moments, durations, st.booleans())
def test_equal_hours_are_not_waited_for(at: datetime, duration: float, pause: bool) -> None:
    plan = planned(at, duration, 4.0, [70.0] * 14, pause)
    assert plan.run_now
    assert len(plan.stretches) == 1


def test_a_run_may_be_placed_to_end_on_the_hour() -> None:
    plan = planned(MIDNIGHT, 1.5, 4.0, [200, 80, 10, 200, 300, 300, 300], False)
    assert plan.stretches[0].start == MIDNIGHT + 1.5 * HOUR
    assert plan.planned_g_co2e == pytest.approx(0.5 * 80 + 10)


def test_a_deadline_gives_the_slack() -> None:
    job = Job.due(MIDNIGHT + 6.5 * HOUR, MIDNIGHT, duration_h=4.0, power_w=10.0)
    assert (job.duration_h, job.slack_h) == (4.0, 2.5)
    assert Job.due(MIDNIGHT + 4 * HOUR, MIDNIGHT, duration_h=4.0, power_w=10.0).slack_h == 0.0


def test_a_deadline_that_cannot_be_met_is_refused_with_the_earliest_end() -> None:
    with pytest.raises(UnitError, match="over at 2024-03-01T04:00:00Z; give that or later"):
        Job.due(MIDNIGHT + 3 * HOUR, MIDNIGHT, duration_h=4.0, power_w=10.0)
    with pytest.raises(UnitError, match="duration_h is nan"):
        Job.due(MIDNIGHT + 3 * HOUR, MIDNIGHT, duration_h=float("nan"), power_w=10.0)
