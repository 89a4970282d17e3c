"""A review whose process ends anywhere goes on from its checkpoints: nothing lost or twice."""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command

from agent.workflow.graph import build_graph, sqlite_saver, strict_serializer
from agent.workflow.run import RunResult, follow, recover
from agent.workflow.state import new_case

SCRIPT = Path(__file__).with_name("killed_review.py")
POLICY = "always:genomics->pathology"


class Killed(BaseException):
    """The process ends here."""


class MortalSaver(AsyncSqliteSaver):
    """Ends the process at one of its writes, just before it or just after."""

    dies_at, after, writes = -1, False, 0

    async def aput(self, *args: Any, **kwargs: Any) -> Any:
        return await self._write(super().aput, *args, **kwargs)

    async def aput_writes(self, *args: Any, **kwargs: Any) -> Any:
        return await self._write(super().aput_writes, *args, **kwargs)

    async def _write(self, write: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        mine, self.writes = self.writes, self.writes + 1
        # A dead process writes nothing more, whatever its tasks still try.
        if self.dies_at >= 0 and mine >= self.dies_at + self.after:
            raise Killed
        return await write(*args, **kwargs)


@asynccontextmanager
async def mortal_saver(path: Path, dies_at: int, after: bool) -> AsyncIterator[MortalSaver]:
    async with aiosqlite.connect(path) as connection:
        saver = MortalSaver(connection, serde=strict_serializer())
        await saver.setup()
        saver.dies_at, saver.after = dies_at, after
        yield saver


def action(name: str, at: datetime, **fields: Any) -> dict[str, Any]:
    return {"action": name, "reviewer": "dr", "decided_at": at.isoformat()} | fields


ACTIONS: list[dict[str, Any]] = [
    {"name": "request_transfer", "transfer": "clinical->genomics", "round": 0},
    {"name": "mark_unreliable", "modality": "genomics", "round": 1},
    {"name": "accept", "round": 2},
]


async def go_on(graph: Any, at: datetime) -> RunResult:
    """Carry a case to its end from wherever it stands, as a server does after a restart."""
    result = await recover(graph, "c")
    while not result.ended:
        entry: Any = None
        if not result.values:
            entry = new_case("c", policy=POLICY)
        elif result.waits_for is not None:
            answer = dict(ACTIONS[result.values.get("answered", 0)])
            entry = Command(resume=action(answer.pop("name"), at, **answer))
        result = await follow(graph, "c", entry, result=result)
    return result


def check_whole(result: RunResult, kinds: list[str], stages: list[str]) -> None:
    assert [event["seq"] for event in result.events] == list(range(len(kinds)))
    assert [event["kind"] for event in result.events] == kinds
    assert [charge.stage for charge in result.charges] == stages
    spent = sum((charge.g_co2e or 0.0) for charge in result.charges)
    assert result.values["spent"]["g_co2e"] == pytest.approx(spent)


def test_killed_between_any_two_writes(services_with: Callable[..., Any], tmp_path: Path) -> None:
    services, deaths = services_with(), list[int]()

    async def whole(path: Path) -> tuple[RunResult, int]:
        async with mortal_saver(path, -1, after=False) as saver:
            result = await go_on(build_graph(services, saver), services.clock())
            return result, saver.writes

    async def dies(path: Path, dies_at: int, after: bool) -> RunResult:
        try:
            async with mortal_saver(path, dies_at, after) as saver:
                await go_on(build_graph(services, saver), services.clock())
        except Killed:
            deaths.append(dies_at)
        async with sqlite_saver(path) as saver:
            graph = build_graph(services, saver)
            result = await go_on(graph, services.clock())
            again = await recover(graph, "c")
            assert again.events == result.events
            assert again.charges == result.charges
            return result

    reference, writes = asyncio.run(whole(tmp_path / "whole.sqlite"))
    kinds = [event["kind"] for event in reference.events]
    stages = [charge.stage for charge in reference.charges]
    check_whole(reference, kinds, stages)
    assert {"request", "unreliable", "record"} <= set(kinds)
    assert len(set(stages)) == len(stages)
    for dies_at in range(writes):
        result = asyncio.run(dies(tmp_path / f"{dies_at}.sqlite", dies_at, dies_at % 2 == 0))
        check_whole(result, kinds, stages)
    assert len(deaths) >= writes - 1


@pytest.mark.parametrize("steps", [1, 6])
def test_killed_with_no_warning(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "graph.sqlite"
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(path)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for _ in range(steps):
            assert process.stdout.readline() == "step\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    script = runpy.run_path(str(SCRIPT))

    async def finish() -> RunResult:
        async with sqlite_saver(path) as saver:
            graph = build_graph(script["toy_services"](), saver)
            before = await recover(graph, "c")
            assert len(before.events) >= steps
            result = await follow(graph, "c", None, result=before)
            assert (await recover(graph, "c")).events == result.events
            return result

    result = asyncio.run(finish())
    assert result.waits_for == "clinician"
    check_whole(
        result,
        [event["kind"] for event in result.events],
        list(dict.fromkeys(charge.stage for charge in result.charges)),
    )
    assert len(result.values["transfers_run"]) == 6


def test_two_resumes_at_once_leave_one_line_of_steps(
    services_with: Callable[..., Any], tmp_path: Path
) -> None:
    """LangGraph runs both to the end; the later line is the case, and it is whole."""
    services, path = services_with(), tmp_path / "graph.sqlite"

    async def race() -> tuple[RunResult, list[RunResult]]:
        async with sqlite_saver(path) as one, sqlite_saver(path) as two:
            graphs = [build_graph(services, saver) for saver in (one, two)]
            await follow(graphs[0], "c", new_case("c", policy="never"))
            answers = [
                action("override", services.clock(), result=result, reason_code="other")
                for result in ("positive", "negative")
            ]
            ends = await asyncio.gather(
                *(follow(g, "c", Command(resume=a)) for g, a in zip(graphs, answers, strict=True))
            )
            return await recover(graphs[0], "c"), list(ends)

    result, ends = asyncio.run(race())
    assert all(end.ended for end in ends)
    kinds = [event["kind"] for event in result.events]
    assert kinds[-3:] == ["explanation", "decision", "record"]
    assert [event["seq"] for event in result.events] == list(range(len(kinds)))
    decided, recorded = (event["data"] for event in result.events[-2:])
    assert recorded["result"] == decided["result"] == result.values["outcome"]["result"]
    # Whatever both brought has the same numbers, so that a store takes only one of each.
    seqs = {event["seq"] for end in ends for event in end.events}
    assert seqs == {len(kinds) - 2, len(kinds) - 1}


def test_a_wait_outlives_restarts_and_ends_early_where_it_gets_urgent(
    services_with: Callable[..., Any], tmp_path: Path
) -> None:
    path, now = tmp_path / "graph.sqlite", [datetime.now().astimezone().replace(minute=20)]
    services = services_with(ahead=True, clock=lambda: now[0])

    async def run(entry: Any) -> RunResult:
        async with sqlite_saver(path) as saver:
            graph = build_graph(services, saver)
            await follow(graph, "c", entry)
            return await recover(graph, "c")

    waiting = asyncio.run(run(new_case("c", policy="defer-first")))
    assert waiting.waits_for == "wait"
    plan = waiting.values["plan"]
    assert datetime.fromisoformat(plan["wake_at"]) > now[0]
    assert asyncio.run(run(None)).values["plan"] == plan
    now[0] += timedelta(hours=1)
    woken = asyncio.run(run(Command(resume={"by": "dr", "urgency": 0.8, "round": 0})))
    assert woken.waits_for == "clinician"
    assert woken.values["urgency"] == 0.8
    (waited,) = woken.values["waits"]
    assert (waited["by"], waited["met_g_per_kwh"]) == ("dr", 300.0)
    kinds = [event["kind"] for event in woken.events]
    assert kinds.count("deferral") == kinds.count("wake") == 1


def test_an_unknown_case_has_brought_nothing(services_with: Callable[..., Any]) -> None:
    from agent.workflow.graph import memory_saver

    result = asyncio.run(recover(build_graph(services_with(), memory_saver()), "nobody"))
    assert (result.values, result.events, result.ended) == ({}, [], False)
