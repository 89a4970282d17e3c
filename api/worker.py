"""The workers: take cases up, run the graph to its next rest, and write down what that brought.

Everything that matters is in the store and in the graph's checkpoints. What a run brought is
written in one transaction when it rests, keyed by case and step or stage, so that repeating a run
adds nothing. A case is worked on by whoever holds its lease.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from langgraph.types import Command
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.workflow.graph import CaseGraph
from agent.workflow.run import RunResult, follow
from api import audit
from api.hub import Hub
from api.inputs import CaseInputs
from api.metrics import Metrics
from api.run import Entry, columns, find_entry, first_state
from api.spend import Spend
from api.store import cases as store
from api.store.database import Database
from api.store.ledger import insert_charges
from api.store.tables import events

log = logging.getLogger("greenboard.worker")
RETRY_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is taken on, and for how long a case belongs to a worker."""

    queue: int
    workers: int
    lease_s: float
    wake_poll_s: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """One case to take up.

    Attributes:
        case_id: the case.
        woken_by: who or what ends its wait.
        decision: the clinician's decision to carry out.
        row: the case's row, if the lease was taken together with writing it; spares a transaction.
        finished: set when the run is over.
    """

    case_id: str
    woken_by: str | None = None
    decision: dict[str, Any] | None = None
    row: Any = None
    finished: asyncio.Event | None = None


class Workers:
    """Runs cases, as many at once as the limits say."""

    def __init__(
        self,
        *,
        graph: CaseGraph,
        database: Database,
        inputs: CaseInputs,
        spend: Spend,
        hub: Hub,
        metrics: Metrics,
        limits: Limits,
        clock: Callable[[], datetime],
    ) -> None:
        """Put the parts together; :meth:`start` begins to work."""
        self._graph = graph
        self._database = database
        self._inputs = inputs
        self._spend = spend
        self._hub = hub
        self._metrics = metrics
        self._clock = clock
        self._jobs: asyncio.Queue[Job] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._runs: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()
        self.limits = limits
        self.owner = secrets.token_hex(8)
        self.run_s = 0.05

    async def start(self, *, alone: bool) -> None:
        """Take up what an earlier server left, then work.

        Args:
            alone: no other server works on this store, so leases of a dead one can be dropped.
        """
        async with self._database.write() as connection:
            if alone:
                await store.release_all(connection)
            left = await store.unfinished(connection)
            await self._spend.recover(connection, self._clock())
        for case_id in left:
            self.add(Job(case_id=case_id))
        for _ in range(self.limits.workers):
            self._tasks.append(asyncio.create_task(self._work()))
        self._tasks.append(asyncio.create_task(self._wake_due()))

    async def stop(self) -> None:
        """Stop working; whatever is under way goes on after the next start."""
        for task in (*self._tasks, *self._runs):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._runs, return_exceptions=True)
        self._tasks.clear()

    @property
    def alive(self) -> bool:
        """Whether every worker is at work."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def waiting(self) -> int:
        """Cases that wait for a worker."""
        return self._jobs.qsize()

    def is_running(self, case_id: str) -> bool:
        """Whether a worker has the case in hand."""
        return case_id in self._busy

    def add(self, job: Job) -> None:
        """Queue a case."""
        self._jobs.put_nowait(job)
        self._metrics.waiting.set(self.waiting)

    async def claim(self, connection: AsyncConnection, case_id: str) -> Any:
        """Take a case's lease for this server; its row, or None if another server has it."""
        return await store.claim(
            connection,
            case_id,
            owner=self.owner,
            now=self._clock(),
            lease_s=self.limits.lease_s,
        )

    async def _work(self) -> None:
        while True:
            job = await self._jobs.get()
            self._metrics.waiting.set(self.waiting)
            began_s = time.monotonic()
            run = asyncio.create_task(self._take_up(job))
            self._runs.add(run)
            await asyncio.wait({run})
            self._runs.discard(run)
            took_s = time.monotonic() - began_s
            self.run_s += 0.1 * (took_s - self.run_s)
            self._metrics.run_seconds.observe(took_s)
            error = None if run.cancelled() else run.exception()
            if error is not None:
                await self._park(job.case_id, error)

    async def _take_up(self, job: Job) -> None:
        if job.case_id in self._busy:
            self._later(job)
            return
        self._busy.add(job.case_id)
        try:
            await self._run(job)
        finally:
            self._busy.discard(job.case_id)

    def _later(self, job: Job) -> None:
        asyncio.get_running_loop().call_later(RETRY_S, self.add, job)

    async def _run(self, job: Job) -> None:
        row = job.row
        if row is None:
            async with self._database.write() as connection:
                row = await self.claim(connection, job.case_id)
                before = await store.get_case(connection, job.case_id) if row is None else None
            if row is None:
                if before is not None and before.status not in store.FINAL:
                    self._later(job)
                elif job.finished is not None:
                    job.finished.set()
                return
        entry = await self._entry(job, row)
        result = entry.earlier
        if not entry.resting:
            result = await follow(
                self._graph,
                job.case_id,
                entry.value,
                result=entry.earlier,
                on_steps=lambda steps: self._hub.publish(job.case_id, steps),
            )
        await self._write_down(job.case_id, result, session=row.session)
        if job.finished is not None:
            job.finished.set()

    async def _entry(self, job: Job, row: Any) -> Entry:
        """Quickly where memory is sure of where the case stands, else from what is durable."""
        if job.row is not None and row.status == store.QUEUED:
            return Entry(value=first_state(row), earlier=RunResult())
        if job.row is not None and job.decision is not None:
            return Entry(value=Command(resume=job.decision), earlier=RunResult())
        return await find_entry(self._graph, row, woken_by=job.woken_by)

    async def _write_down(self, case_id: str, result: RunResult, *, session: str | None) -> None:
        changed = columns(result)
        steps = [_event_row(case_id, step) for step in result.events]
        async with self._database.write(rebuildable=True) as connection:
            await self._database.insert_new(connection, events, steps)
            await insert_charges(self._database, connection, case_id, result.charges)
            await store.update_case(connection, case_id, {**changed, **self._released()})
        for charge in result.charges:
            self._spend.charge(case_id, charge, session=session)
        self._metrics.charge(result.charges)
        self._metrics.runs.labels(changed["status"]).inc()
        if changed["status"] in store.FINAL:
            self._inputs.forget(case_id)
        self._hub.rest(case_id, changed["status"])

    def _released(self) -> dict[str, Any]:
        return {"updated_at": self._clock(), "lease_owner": None, "lease_until": None}

    async def _park(self, case_id: str, error: BaseException) -> None:
        """Set a case that cannot go on aside; the log gets the error's place, not its words."""
        log.error("case %s parked: %s", case_id, type(error).__name__, exc_info=error)
        failure = f"{type(error).__name__}: {error}"
        async with self._database.write() as connection:
            await store.update_case(
                connection,
                case_id,
                {"status": store.FAILED, "failure": failure, **self._released()},
            )
            await audit.append(
                connection,
                time=self._clock(),
                actor="greenboard",
                action="case.failed",
                subject=case_id,
                detail={"error": type(error).__name__},
            )
        self._metrics.runs.labels(store.FAILED).inc()
        self._hub.rest(case_id, store.FAILED)

    async def _wake_due(self) -> None:
        while True:
            async with self._database.read() as connection:
                due = await store.due(connection, self._clock())
            for case_id in due:
                if case_id not in self._busy:
                    self.add(Job(case_id=case_id, woken_by="schedule"))
            await asyncio.sleep(self.limits.wake_poll_s)


def _event_row(case_id: str, step: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "case_id": case_id,
        "seq": step["seq"],
        "kind": step["kind"],
        "time": datetime.fromisoformat(step["time"]),
        "data": step["data"],
    }
