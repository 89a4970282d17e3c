"""The client when servers and connections come and go: nothing is lost, nothing done twice."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.workflow.doubles import StillMonitor
from api.client import AsyncClient, CaseEvent, Client, Retry, UnreachableError

KEY = "reviewer-key"
PATIENT = Retry(attempts=200, first_s=0.02, most_s=0.1)


class Line:
    """A line between client and server that can be cut, slowed, and moved to another server."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.to: int | None = None
        self.delay_s = 0.0
        self.lose_answers = 0
        self.opened = 0
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.opened += 1
                self._join(near)

    def _join(self, near: socket.socket) -> None:
        try:
            if self.to is None:
                raise ConnectionRefusedError
            far = socket.create_connection(("127.0.0.1", self.to))
        except OSError:
            near.close()
            return
        self._open |= {near, far}
        for a, b, answers in ((near, far, False), (far, near, True)):
            threading.Thread(target=self._pump, args=(a, b, answers), daemon=True).start()

    def _pump(self, a: socket.socket, b: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := a.recv(65536):
                if answers and self.lose_answers:
                    self.lose_answers -= 1
                    break
                if answers and self.delay_s:
                    time.sleep(self.delay_s)
                b.sendall(data)
        for end in (a, b):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut(self) -> None:
        """Break every connection; new ones are closed at once until there is a server again."""
        self.to = None
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self.cut()
        # Closing alone would not wake the thread that accepts.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    try:
        yield made
    finally:
        made.close()


def port_of(running: Any) -> int:
    return int(running.url.rpartition(":")[2])


@contextmanager
def behind(line: Line, serve: Any, **changes: Any) -> Iterator[Any]:
    """A server at the line's far end, on the same state folder each time."""
    with serve(**changes) as running:
        line.to = port_of(running)
        yield running
        line.cut()


def posted(running: Any) -> list[dict[str, Any]]:
    with running.client("viewer") as http:
        cases: list[dict[str, Any]] = http.get("/v1/cases").json()["cases"]
    return cases


def test_a_lost_answer_is_asked_for_again_and_makes_no_second_case(
    serve: Any, body: Any, line: Line
) -> None:
    with behind(line, serve) as running, Client(line.url, KEY, retry=PATIENT) as client:
        for lost in (1, 2, 3):
            line.lose_answers = lost
            case = client.create_case(body(0)["features"], reference=f"r{lost}")
            assert case.reference == f"r{lost}"
        assert sorted(case["reference"] for case in posted(running)) == ["r1", "r2", "r3"]
        ready = client.review(body(1)["features"])
        line.lose_answers = 1
        signed = client.accept(ready)
        assert signed.status == "recorded"
        assert len(signed.opinions) == 1


def test_a_slow_server_is_not_asked_for_more_than_was_meant(
    serve: Any, body: Any, line: Line
) -> None:
    with behind(line, serve) as running:
        line.delay_s = 0.6

        def soon() -> None:
            time.sleep(0.5)
            line.delay_s = 0.0

        quick = threading.Thread(target=soon)
        quick.start()
        with Client(line.url, KEY, retry=PATIENT, timeout_s=0.2) as client:
            case = client.create_case(body(0)["features"])
        quick.join()
        assert line.opened > 1
        assert [found["id"] for found in posted(running)] == [case.id]


def test_a_server_that_is_away_for_a_while_only_delays(serve: Any, body: Any, line: Line) -> None:
    async def work() -> tuple[str, list[str]]:
        async with AsyncClient(line.url, KEY, retry=PATIENT) as client:
            first = asyncio.create_task(client.review(body(0)["features"]))
            await asyncio.sleep(0.2)
            with behind_later():
                case = await first
            # Away again: now an action waits.
            signing = asyncio.create_task(client.accept(case))
            await asyncio.sleep(0.2)
            assert not signing.done()
            with behind_later():
                signed = await signing
                kinds = [event.kind async for event in client.events(signed)]
            return signed.status, kinds

    @contextmanager
    def behind_later() -> Iterator[None]:
        with behind(line, serve):
            yield

    status, kinds = asyncio.run(work())
    assert status == "recorded"
    assert kinds.count("decision") == 1
    assert kinds[-1] == "status"


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_events_go_on_over_a_restart_without_gap_or_double(
    serve: Any, body: Any, line: Line, kind: str, until: Any
) -> None:
    ahead = StillMonitor(g_per_kwh=400.0, ahead=(400.0, 390.0, 5.0, 5.0))
    seen: list[CaseEvent] = []
    changes = {"policy": "never", "monitor": ahead}
    with ExitStack() as first:
        running = first.enter_context(behind(line, serve, **changes))
        http = running.client()
        case_id = http.post("/v1/cases", json=body(0)).json()["id"]
        until(http, case_id, "awaiting_clinician", "deferred")
        follower = threading.Thread(target=_follow, args=(kind, line.url, case_id, seen))
        follower.start()
        _wait_for(lambda: any(event.status for event in seen))
        before = len(seen)
        line.cut()
        line.to = port_of(running)
        time.sleep(0.3)
        assert len(seen) == before, "what was told before the cut was told again"
        http.close()
    # Stopped; started again on the same state.
    with behind(line, serve, **changes) as running, running.client() as http:
        http.post(f"/v1/cases/{case_id}/actions", json={"action": "raise_urgency", "urgency": 0.9})
        http.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
        until(http, case_id, "recorded")
        follower.join(timeout=15)
        assert not follower.is_alive()
    steps = [event.seq for event in seen if event.seq is not None]
    assert steps == list(range(len(steps)))
    assert seen[-1].status == "recorded"


def _follow(kind: str, url: str, case_id: str, seen: list[CaseEvent]) -> None:
    if kind == "blocking":
        with Client(url, KEY, retry=PATIENT) as client:
            for one in client.events(case_id):
                seen.append(one)
        return

    async def follow() -> None:
        async with AsyncClient(url, KEY, retry=PATIENT) as client:
            async for event in client.events(case_id):
                seen.append(event)

    asyncio.run(follow())


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_patience_ends(line: Line) -> None:
    brief = Retry(attempts=3, first_s=0.01, most_s=0.01)
    with Client(line.url, KEY, retry=brief) as client:
        with pytest.raises(UnreachableError):
            client.create_case({"clinical": {"row": 0}})
        assert line.opened == 3
        with pytest.raises(UnreachableError, match="3 attempts"):
            next(iter(client.events("c")))


def test_a_job_is_waited_for_with_its_progress(serve: Any) -> None:
    from api.client import JobFailedError, WaitedTooLongError

    with serve() as running, Client(running.url, KEY, retry=PATIENT) as client:
        since = datetime.now(UTC) - timedelta(days=1)
        job = client.start_report("shadow", options={"since": since.isoformat()}, key="one")
        assert (
            client.start_report("shadow", options={"since": since.isoformat()}, key="one").id
            == job.id
        )
        told: list[float] = []
        with pytest.raises(WaitedTooLongError):
            client.wait_for_job(job, timeout_s=0)
        client.cancel_job(job)
        with pytest.raises(JobFailedError, match="cancelled"):
            client.wait_for_job(job, on_progress=lambda found: told.append(found.progress))
        assert told
