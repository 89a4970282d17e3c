"""When a deferred case is woken: planned by the scheduler, before its limit, with its reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.types import Command

from agent.workflow.doubles import StillMonitor, replay_kit, row_features
from agent.workflow.graph import build_graph, memory_saver
from agent.workflow.run import RunResult, follow
from agent.workflow.state import CarbonView, Plan, Reading, new_case
from agent.workflow.waiting import OpenTransfer, WaitTerms, plan_wait
from envs.toy import toy_evidence

HOUR = timedelta(hours=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = NOON + timedelta(minutes=20)


def view(
    now: float, ahead: Sequence[float], *, errors: Sequence[float | None] = (), at: datetime = NOON
) -> CarbonView:
    reading = Reading(
        g_per_kwh=now, zone="X", time=at, basis="average-direct-unstated", provider="feed",
        kind="measured", age_s=0.0,
    )  # fmt: skip
    return CarbonView(
        now=reading, forecast_from=at + HOUR, forecast_g_per_kwh=list(ahead),
        forecast_se_g_per_kwh=list(errors), forecast_methods=["feed: its own forecast"],
        forecast_note="feed, forecast", relative_uncertainty=0.1,
    )  # fmt: skip


def work(pipeline_h: float | None = 1.0, gain: float = 0.1, kwh: float = 2.0) -> OpenTransfer:
    return OpenTransfer(
        name="genomics->pathology", predicted_auc_gain=gain, energy_kwh=kwh, pipeline_h=pipeline_h
    )


def terms(limit_h: float, g_per_auc: float = 20_000.0) -> WaitTerms:
    return WaitTerms(limit=AT + limit_h * HOUR, g_per_auc=g_per_auc, visit_h=0.25)


def test_the_plan_by_hand() -> None:
    carbon = view(300.0, [250.0, 100.0, 90.0, 40.0, 400.0], errors=[10.0] * 5)
    plan = plan_wait([work()], carbon, AT, terms(4.0))
    assert plan is not None
    # 16:00 is cleanest, but work of one hour has to be over by 16:20.
    assert plan.wake_at == NOON + 3 * HOUR + timedelta(minutes=20)
    assert plan.latest_start == plan.wake_at
    assert plan.limit == AT + 4 * HOUR
    assert plan.now_g_co2e is not None
    assert plan.now_g_co2e.value == pytest.approx(2 * (300 * 2 / 3 + 250 / 3))
    assert plan.planned_g_co2e is not None
    assert plan.planned_g_co2e.value == pytest.approx(2 * (90 * 2 / 3 + 40 / 3))
    assert plan.saved_g_co2e is not None
    assert plan.saved_g_co2e.value == pytest.approx(
        plan.now_g_co2e.value - plan.planned_g_co2e.value
    )
    assert plan.saved_g_co2e.ci95 is not None
    assert plan.forecast == ["feed: its own forecast"]
    assert "starts up to 2026-03-01 15:20 UTC" in plan.why
    assert "genomics->pathology" in plan.why
    assert "(95 %:" in plan.why


def test_the_same_moment_gives_the_same_plan() -> None:
    carbon = view(300.0, [250.0, 100.0, 90.0])
    plans = {plan_wait([work()], carbon, AT, terms(4.0)).model_dump_json() for _ in range(3)}  # type: ignore[union-attr]
    assert len(plans) == 1


@pytest.mark.parametrize(
    ("carbon", "jobs", "limit_h"),
    [
        (view(50.0, [60.0, 70.0]), [work()], 9.0),
        (view(50.0, [50.0, 50.0]), [work()], 9.0),
        (view(300.0, [10.0, 10.0]), [], 9.0),
        (view(300.0, [10.0, 10.0]), [work()], 1.0),
        (view(300.0, [10.0, 10.0]), [work(20.0)], 12.0),
        (view(300.0, []), [work()], 9.0),
    ],
    ids=["dirtier", "equal", "no work", "no slack", "too long", "no forecast"],
)
def test_no_wait_without_a_reason(
    carbon: CarbonView, jobs: list[OpenTransfer], limit_h: float
) -> None:
    assert plan_wait(jobs, carbon, AT, terms(limit_h)) is None


def test_a_grid_read_an_hour_ago_is_read_on() -> None:
    carbon = view(10.0, [300.0, 200.0, 100.0], at=NOON - HOUR)
    plan = plan_wait([work(None)], carbon, AT, terms(9.0))
    assert plan is not None
    assert plan.intensity_now_g_per_kwh == 300.0
    assert plan.wake_at == NOON + 2 * HOUR
    assert plan.duration_assumed
    assert plan.duration_h == 0.25
    assert "one visit assumed" in plan.why


def test_an_unknown_error_gives_no_interval() -> None:
    plan = plan_wait([work()], view(300.0, [100.0, 100.0]), AT, terms(9.0))
    assert plan is not None
    assert plan.saved_g_co2e is not None
    assert plan.saved_g_co2e.ci95 is None
    assert "error unknown" in plan.why


def test_the_work_is_what_is_worth_most_at_the_cleanest_hour() -> None:
    heavy = replace(work(kwh=100.0, gain=0.2), name="heavy")
    light = replace(work(kwh=1.0, gain=0.15), name="light")
    carbon = view(300.0, [100.0] * 9)
    cheap = plan_wait([heavy, light], carbon, AT, terms(9.0, g_per_auc=1_000.0))
    dear = plan_wait([heavy, light], carbon, AT, terms(9.0, g_per_auc=1e9))
    assert (cheap and cheap.transfer, dear and dear.transfer) == ("light", "heavy")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([0.0, 50.0, 120.0, 300.0]), min_size=1, max_size=24),
    st.sampled_from([0.1, 0.25, 1.0, 4.5, 20.0]),
    st.sampled_from([0.0, 0.2, 1.0, 3.3, 30.0]),
    st.integers(0, 59),
)
def test_the_limit_holds_and_waiting_is_foreseen_to_save(
    ahead: list[float], pipeline_h: float, limit_h: float, minute: int
) -> None:
    at = NOON + timedelta(minutes=minute)
    within = WaitTerms(limit=at + limit_h * HOUR, g_per_auc=1.0, visit_h=0.25)
    plan = plan_wait([work(pipeline_h)], view(120.0, ahead), at, within)
    if plan is None:
        return
    assert at < plan.wake_at
    assert plan.wake_at + pipeline_h * HOUR <= within.limit + timedelta(seconds=1)
    assert plan.saved_g_co2e is not None
    assert plan.saved_g_co2e.value > 0.0


def test_plans_of_earlier_versions_are_still_read() -> None:
    old = {
        "wake_at": NOON.isoformat(), "wait_h": 1.5, "intensity_now_g_per_kwh": 3.0,
        "intensity_expected_g_per_kwh": 2.0,
    }  # fmt: skip
    assert Plan.model_validate(old).why == ""


class DeferFirst:
    """Defers whatever may be deferred."""

    name = "defer-first"

    def __init__(self, catalogue: Any) -> None:
        self.catalogue = catalogue

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget."""

    def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
        may = action_mask[:, self.catalogue.defer]
        return np.where(may, self.catalogue.defer, self.catalogue.finalise).astype(np.int64)

    def reason(self, observation: np.ndarray, action: int) -> str:
        return "deferred for a test"


def review(urgency: float, *, hours: dict[str, float] | None = None) -> RunResult:
    evidence = toy_evidence(n_patients=80, seed=1)
    row = int(np.flatnonzero(evidence.present.all(axis=1))[0])
    if hours is not None:
        evidence = replace(evidence, meta={**evidence.meta, "pipeline_h": hours})
    now = [datetime.now(UTC).replace(minute=20, second=0, microsecond=0)]
    kit = replay_kit(
        evidence, make_policy=lambda name, layout, catalogue: DeferFirst(catalogue),
        policy="defer-first", monitor=StillMonitor(g_per_kwh=300.0, ahead=(250.0,) * 11 + (50.0,)),
    )  # fmt: skip

    async def prepared(case: str, without: Any = frozenset()) -> Any:
        return kit.student.prepare(row_features(evidence, row))

    async def run() -> RunResult:
        graph = build_graph(kit.services(prepared=prepared, clock=lambda: now[0]), memory_saver())
        case = new_case("c", policy="defer-first", urgency=urgency)
        result = await follow(graph, "c", case)
        if result.waits_for == "wait":
            now[0] = datetime.fromisoformat(result.values["plan"]["wake_at"])
            result.waits_for = None
            return await follow(graph, "c", Command(resume={"by": "schedule"}), result=result)
        return result

    return asyncio.run(run())


def test_the_record_says_why_that_hour_and_what_came() -> None:
    result = review(0.0, hours={"genomics": 0.5, "pathology": 0.5})
    plan = Plan.model_validate(next(e["data"] for e in result.events if e["kind"] == "deferral"))
    assert plan.intensity_expected_g_per_kwh == 50.0
    assert (plan.duration_h, plan.duration_assumed) == (0.5, False)
    assert plan.forecast == ["still: made up for a test"]
    lines = result.values["explanation"]["lines"]
    assert any(
        line.startswith("Waited for cleaner electricity, by estimate. Of the") for line in lines
    )
    assert any("foreseen were 50, and 300 when the wait began" in line for line in lines)


def test_an_urgent_case_is_not_put_off_beyond_its_limit() -> None:
    """Urgent cases have 4 h, others 24 h less 6 h at an urgency of 0.8."""
    (urgent,) = [e["data"] for e in review(1.0).events if e["kind"] == "deferral"]
    (calm,) = [e["data"] for e in review(0.6).events if e["kind"] == "deferral"]
    for plan, limit_h in ((urgent, 4.0), (calm, 24.0 - 6.0 * 0.6 / 0.8)):
        assert plan["wait_h"] + plan["duration_h"] <= limit_h
    assert urgent["intensity_expected_g_per_kwh"] == 250.0, "the cleanest hour is beyond its limit"
    assert calm["intensity_expected_g_per_kwh"] == 50.0


def test_work_that_cannot_be_over_in_time_is_not_put_off() -> None:
    result = review(0.5, hours={"genomics": 20.0, "pathology": 20.0})
    assert not [e for e in result.events if e["kind"] == "deferral"]
