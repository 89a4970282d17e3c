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
from datetime import datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

from langgraph.types import Command
from sqlalchemy import Connection, Row
from sqlalchemy.exc import SQLAlchemyError

from agent.workflow.errors import WorkflowError
from agent.workflow.graph import CaseGraph
from agent.workflow.run import RunResult, follow
from api import audit
from api.drift import DriftWatch
from api.hub import Hub
from api.kits import Kits
from api.metrics import Metrics
from api.run import Entry, Past, columns, find_entry, first_state
from api.spend import Spend
from api.store import actions as actions_of
from api.store import cases as store
from api.store.database import Database
from api.store.ledger import insert_charges
from api.store.tables import events, shadow

log = logging.getLogger("greenboard.worker")
RETRY_S = 0.2
STORE_RETRY_S = 2.0
"""Pause before a case is taken up again whose end could not be written down."""


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
        answer: what the graph is resumed with, if it is known to wait for just that.
        row: the case's row, if the lease was taken together with writing it; spares a transaction.
        finished: gets the case's row as the run left it; None if there was nothing to run.
    """

    case_id: str
    woken_by: str | None = None
    answer: dict[str, Any] | None = None
    row: Any = None
    finished: asyncio.Future[Any] | None = None

    def tell(self, row: Any) -> None:
        """The run is over: say so to whoever waits for it."""
        if self.finished is not None and not self.finished.done():
            self.finished.set_result(row)


class Workers:
    """Runs cases, as many at once as the limits say."""

    def __init__(
        self,
        *,
        kits: Kits,
        database: Database,
        spend: Spend,
        drift: DriftWatch,
        hub: Hub,
        metrics: Metrics,
        limits: Limits,
        clock: Callable[[], datetime],
    ) -> None:
        """Put the parts together; :meth:`start` begins to work."""
        self._kits = kits
        self._database = database
        self._spend = spend
        self._drift = drift
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
        now = self._clock()

        def take_stock(connection: Connection) -> list[str]:
            if alone:
                store.release_all(connection)
            self._spend.recover(connection, now)
            self._drift.restore(self._kits.active.kit, connection)
            return store.unfinished(connection)

        left = await self._database.write(take_stock)
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

    def lease(self) -> dict[str, Any]:
        """Columns that make a case this server's."""
        until = self._clock() + timedelta(seconds=self.limits.lease_s)
        return {"lease_owner": self.owner, "lease_until": until}

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
                await self._set_aside(job.case_id, error)
                job.tell(None)

    async def _set_aside(self, case_id: str, error: BaseException) -> None:
        """Park the case; where not even that can be written, it is taken up again from its store.

        A full disk must cost neither the worker nor the case.
        """
        try:
            await self._park(case_id, error)
        except (SQLAlchemyError, OSError) as failed:
            log.error("case %s waits for the store: %s", case_id, type(failed).__name__)
            loop = asyncio.get_running_loop()
            loop.call_later(STORE_RETRY_S, self.add, Job(case_id=case_id))

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
        row: Any = job.row
        past = Past()
        if row is None:
            row, before, past = await self._database.write(
                lambda connection: self._claim(connection, job.case_id)
            )
            if row is None:
                if before is not None and before not in store.FINAL:
                    self._later(job)
                else:
                    job.tell(None)
                return
        bundle = await self._kits.of(row.bundle)
        graph = bundle.graph
        entry = await self._entry(graph, job, row, past)
        result = entry.earlier
        if not entry.resting:
            result = await follow(
                graph,
                job.case_id,
                entry.value,
                result=entry.earlier,
                on_steps=lambda steps: self._hub.publish(job.case_id, steps),
            )
        after = await self._write_down(row, result)
        self._drift.observe(bundle.kit, row.id, result.events)
        job.tell(after)

    def _claim(self, connection: Connection, case_id: str) -> tuple[Any, str | None, Past]:
        """The case's row if its lease could be taken, its status, and what was done to it."""
        row = store.claim(
            connection,
            case_id,
            owner=self.owner,
            now=self._clock(),
            lease_s=self.limits.lease_s,
        )
        if row is None:
            return None, store.get_status(connection, case_id), Past()
        return row, row.status, _past(connection, case_id)

    async def _entry(self, graph: CaseGraph, job: Job, row: Any, past: Past) -> Entry:
        """Quickly where memory is sure of where the case stands, else from what is durable."""
        if job.answer is not None:
            if self._hub.live(job.case_id) is not None:
                return Entry(value=Command(resume=job.answer), earlier=RunResult())
            # An earlier server brought it here: its checkpoints may be gone.
            past = await self._database.read(partial(_past, case_id=job.case_id))
        elif job.row is not None:
            return Entry(value=first_state(row), earlier=RunResult())
        return await find_entry(graph, row, woken_by=job.woken_by, past=past)

    async def _write_down(self, row: Any, result: RunResult) -> Any:
        """Store what a run brought; returns the case's row as it is then."""
        changed = {**columns(result, row), **self._released()}

        def everything(connection: Connection) -> None:
            steps = [_event_row(row.id, step) for step in result.events]
            self._database.insert_new(connection, events, steps)
            insert_charges(self._database, connection, row.id, result.charges)
            beside = [{"case_id": row.id, **entry} for entry in result.shadow]
            self._database.insert_new(connection, shadow, beside)
            store.update_case(connection, row.id, changed)

        await self._database.write(everything, rebuildable=True)
        for charge in result.charges:
            self._spend.charge(row.id, charge, session=row.session)
        self._metrics.charge(result.charges)
        self._metrics.runs.labels(changed["status"]).inc()
        if changed["status"] in store.FINAL:
            self._kits.forget(row.id)
        self._hub.rest(row.id, changed["status"])
        return changed_row(row, changed)

    def _released(self) -> dict[str, Any]:
        return {"updated_at": self._clock(), "lease_owner": None, "lease_until": None}

    async def _park(self, case_id: str, error: BaseException) -> None:
        """Set a case that cannot go on aside; the log gets the error's place, not its words."""
        log.error("case %s parked: %s", case_id, type(error).__name__, exc_info=error)
        reason = f"{type(error).__name__}; the server's log has the place."
        if isinstance(error, WorkflowError):
            # Ours, and written for people.
            reason = str(error)
        changed = {"status": store.PARKED, "failure": reason, **self._released()}

        def set_aside(connection: Connection) -> None:
            store.update_case(connection, case_id, changed)
            audit.append(
                connection,
                time=changed["updated_at"],
                actor="greenboard",
                action="case.parked",
                subject=case_id,
                detail={"error": type(error).__name__},
            )

        await self._database.write(set_aside)
        self._metrics.runs.labels(store.PARKED).inc()
        self._hub.rest(case_id, store.PARKED)

    async def _wake_due(self) -> None:
        while True:
            try:
                due = await self._database.read(partial(store.due, now=self._clock()))
            except (SQLAlchemyError, OSError) as failed:
                log.error("deferred cases cannot be looked at: %s", type(failed).__name__)
                due = []
            for case_id in due:
                if case_id not in self._busy:
                    self.add(Job(case_id=case_id, woken_by="schedule"))
            await asyncio.sleep(self.limits.wake_poll_s)


def _past(connection: Connection, case_id: str) -> Past:
    done = [dict(action.action) for action in actions_of.of_case(connection, case_id)]
    return Past(actions=done, last_step=store.last_event(connection, case_id))


def changed_row(row: Any, changed: Mapping[str, Any]) -> SimpleNamespace:
    """A row as it is after :func:`api.store.cases.update_case`."""
    before = row._asdict() if isinstance(row, Row) else vars(row)
    return SimpleNamespace(**{**before, **changed, "version": row.version + 1})


def _event_row(case_id: str, step: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "case_id": case_id,
        "seq": step["seq"],
        "kind": step["kind"],
        "time": datetime.fromisoformat(step["time"]),
        "data": step["data"],
    }
