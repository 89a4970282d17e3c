"""Nodes that fail: tried again where that can help, else the case is parked for a person."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from langgraph.errors import NodeError

from agent.policies.registry import make_policy
from agent.workflow import nodes, people
from agent.workflow.doubles import StillMonitor, TableStudent, replay_kit, row_features
from agent.workflow.errors import WorkflowError
from agent.workflow.faults import NodeLimits, failure_of
from agent.workflow.graph import NODES, RESTS, build_graph, sqlite_saver
from agent.workflow.run import follow, recover
from agent.workflow.session import ReviewSession
from agent.workflow.state import new_case
from carbon.errors import IntensityError
from distill.errors import FeatureError

QUICK = NodeLimits(first_wait_s=0.001, attempts=3)
SECRET = "age is 42.125 years"


class Failing:
    """Raises the errors it was given, one a call, then lets be."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


def grid_that(failing: Failing) -> Any:
    class Grid(StillMonitor):
        def now(self) -> Any:
            failing()
            return super().now()

    return Grid()


def test_what_may_pass_is_tried_again(walk: Callable[..., Any]) -> None:
    failing = Failing(IntensityError("no answer"), OSError("no route"))
    case = walk(monitor=grid_that(failing), limits=QUICK)
    assert case.begin("never").waits_for == "clinician"
    assert failing.calls == 3
    assert "parked" not in case.kinds


def test_what_stays_parks_the_case_with_the_reason(walk: Callable[..., Any]) -> None:
    failing = Failing(*[IntensityError("the feed is down")] * 3)
    case = walk(monitor=grid_that(failing), limits=QUICK)
    assert case.begin("never").waits_for == "parked"
    assert failing.calls == 3
    (parked,) = case.told("parked")
    assert parked == case.values["failure"]
    assert (parked["node"], parked["error"]) == ("sense_carbon", "IntensityError")
    assert parked["reason"] == "Step sense_carbon failed: the feed is down"
    assert case.act("retry").waits_for == "clinician"
    assert case.values["failure"] is None
    assert case.told("request")[0]["node"] == "sense_carbon"
    assert case.act("accept").ended


def test_an_error_that_would_come_again_is_not_tried_again(
    walk: Callable[..., Any], services_with: Callable[..., Any], tmp_path: Any
) -> None:
    """And its words, which may quote the patient's data, are neither told nor stored."""
    failing = Failing(FeatureError(SECRET))
    fine = services_with().prepared

    async def prepared(case: str, without: frozenset[str]) -> Any:
        failing()
        return await fine(case, without)

    services = services_with(prepared=prepared)

    async def run() -> Any:
        async with sqlite_saver(tmp_path / "graph.sqlite") as saver:
            graph = build_graph(services, saver, QUICK)
            return await follow(graph, "c", new_case("c", policy="never"))

    result = asyncio.run(run())
    assert (result.waits_for, failing.calls) == ("parked", 1)
    assert result.values["failure"]["error"] == "FeatureError"
    assert "42.125" not in str(result.events)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"42.125" not in stored
    assert b"FeatureError" in stored


def test_a_step_that_hangs_is_broken_off(
    walk: Callable[..., Any], services_with: Callable[..., Any]
) -> None:
    fine, calls = services_with().prepared, []

    async def prepared(case: str, without: frozenset[str]) -> Any:
        calls.append(case)
        await asyncio.sleep(30 if len(calls) < 3 else 0)
        return await fine(case, without)

    limits = replace(QUICK, attempts=2, timeout_s=0.05)
    case = walk(prepared=prepared, limits=limits)
    assert case.begin("never").waits_for == "parked"
    assert len(calls) == 2
    assert case.values["failure"]["error"] == "NodeTimeoutError"
    assert case.act("retry").waits_for == "clinician"


def test_computing_that_takes_long_is_still_taken(
    walk: Callable[..., Any], services_with: Callable[..., Any]
) -> None:
    class Slow(TableStudent):
        def assess(self, case: Any, transfers_run: Any) -> Any:
            time.sleep(0.15)
            return super().assess(case, transfers_run)

    slow = Slow(evidence=services_with().student.evidence)
    case = walk(student=slow, limits=replace(QUICK, timeout_s=0.05))
    assert case.begin("never").waits_for == "clinician"
    assert case.stages == ["inference:0"]


@pytest.mark.parametrize("node", [name for name in NODES if name not in RESTS])
def test_every_step_that_fails_can_be_gone_on_with(
    walk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, node: str
) -> None:
    where = people if hasattr(people, node) else nodes
    failing, work = Failing(ValueError(SECRET)), getattr(where, node)

    async def fails_once(services: Any, state: Any) -> Any:
        failing()
        return await work(services, state)

    monkeypatch.setattr(where, node, fails_once)
    case = walk(ahead=True)
    case.now = datetime.now(case.now.tzinfo).replace(minute=20)
    case.begin("defer-first" if node == "defer" else "always:genomics->pathology")
    if node == "request":
        case.act("request_transfer", transfer="clinical->pathology")
    if node == "record":
        case.act("accept")
    assert case.result.waits_for == "parked"
    assert case.values["failure"]["node"] == node
    assert "42.125" not in str(case.result.events)
    case.act("retry")
    if case.result.waits_for == "wait":
        case.wake(by="schedule")
    if node != "record":
        assert case.result.waits_for == "clinician"
        case.act("accept")
    assert case.result.ended
    assert [e["seq"] for e in case.result.events] == list(range(len(case.kinds)))
    assert len(set(case.stages)) == len(case.stages)


@pytest.fixture
def parked(walk: Callable[..., Any]) -> Callable[..., Any]:
    def park(**fields: Any) -> Any:
        failing = Failing(*[OSError("gone")] * 9)
        case = walk(monitor=grid_that(failing), limits=QUICK, **fields)
        assert case.begin("never").waits_for == "parked"
        return case

    return park


def test_a_parked_case_can_be_decided_or_sent_back(parked: Callable[..., Any]) -> None:
    case = parked()
    assert case.act("accept").waits_for == "parked"
    assert "not open" in case.told("request")[0]["refused"]
    assert case.act("raise_urgency", urgency=0.9).waits_for == "parked"
    assert case.act("retry").waits_for == "parked"
    assert case.kinds.count("parked") == 2
    ended = case.act("override", result="positive", reason_code="clinical_judgement")
    assert ended.values["outcome"]["result"] == "positive"
    other = parked()
    assert other.act("send_back", reason_code="wrong_data").ended
    assert other.values["outcome"]["status"] == "sent_back"


def test_a_parked_case_that_nothing_is_known_of_takes_two_where_any_does(
    parked: Callable[..., Any],
) -> None:
    case = parked(second_review_above=0.9)
    answer = {"result": "positive", "reason_code": "clinical_judgement"}
    assert case.act("override", **answer).waits_for == "second"
    # Nothing was suggested, so there is nothing to accept.
    assert case.act("accept", "dr b").waits_for == "second"
    assert case.act("override", "dr c", **answer).waits_for == "second"
    assert case.act("override", "dr b", **answer).ended


class Killed(BaseException):
    """The process ends here."""


def test_a_crash_on_the_way_to_being_parked(
    services_with: Callable[..., Any], tmp_path: Any
) -> None:
    """A failure is durable, by its name, before it is handled; that happens after a restart."""
    failing, fine = Failing(FeatureError(SECRET)), services_with()
    dying = [False]

    async def prepared(case: str, without: frozenset[str]) -> Any:
        dying[0] = bool(failing.errors)
        failing()
        return await fine.prepared(case, without)

    def clock() -> Any:
        if dying[0]:
            raise Killed
        return fine.clock()

    async def run(services: Any, entry: Any) -> Any:
        async with sqlite_saver(tmp_path / "graph.sqlite") as saver:
            graph = build_graph(services, saver, QUICK)
            await follow(graph, "c", entry)
            return await recover(graph, "c")

    async def prepared_late(case: str, without: frozenset[str]) -> Any:
        await asyncio.sleep(0)
        return await prepared(case, without)

    services = replace(fine, prepared=prepared_late, clock=clock)
    with pytest.raises(Killed):
        asyncio.run(run(services, new_case("c", policy="never")))
    dying[0] = False
    result = asyncio.run(run(services, None))
    assert result.waits_for == "parked"
    assert result.values["failure"]["error"] == "FeatureError"
    assert [event["kind"] for event in result.events] == ["parked"]


def test_only_errors_of_our_own_are_quoted() -> None:
    ours = failure_of(NodeError(node="sense_carbon", error=IntensityError("no zone 'X'")))
    assert ours.reason == "Step sense_carbon failed: no zone 'X'"
    theirs = failure_of(NodeError(node="assess", error=ValueError(SECRET)))
    assert "42.125" not in theirs.reason
    assert theirs.error == "ValueError"
    # After a crash nothing but the name is left.
    named = failure_of(NodeError(node="assess", error="OSError"))  # type: ignore[arg-type]
    assert named.error == "OSError"


def test_without_a_server_a_step_that_fails_for_good_is_an_error(table: Any, full_row: int) -> None:
    failing = Failing(*[IntensityError("the feed is down")] * 9)
    kit = replay_kit(table, make_policy=make_policy, policy="never")
    session = ReviewSession(
        replace(kit, monitor=grid_that(failing)), clock=lambda: datetime.now(UTC)
    )
    with pytest.raises(WorkflowError, match="Step sense_carbon failed: the feed is down"):
        asyncio.run(session.review(new_case("c", policy="never"), row_features(table, full_row)))
