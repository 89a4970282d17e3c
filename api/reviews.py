"""What callers may do with a case: post it, decide on it, wake it. Each exactly once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection

from agent.workflow.actions import Act
from api import audit
from api.admission import check_open
from api.auth import Principal
from api.errors import ApiError
from api.idempotency import Once
from api.kits import Kits, Loaded
from api.metrics import Metrics
from api.problems import ProblemError
from api.run import wake_of
from api.store import actions as actions_of
from api.store import cases as store
from api.store.database import Database
from api.worker import Job, Workers, changed_row

SETTLE_S = 10.0
"""How long a decision or a wake is followed before it is answered; it takes effect anyway."""


@dataclass(frozen=True, kw_only=True)
class NewCase:
    """A case as it was asked for, checked."""

    features: Mapping[str, Any]
    reference: str | None
    urgency: float
    deadline: datetime | None
    policy: str
    seen_in_training: bool | None
    unit: str | None
    session: str | None
    subject: str | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a clinician asks for, and under which conditions.

    Attributes:
        action: checked, with its reviewer.
        once: the request, so that the same one again changes nothing.
        version: the case's version that the clinician saw; None if it does not matter to them.
    """

    action: Act
    once: Once
    version: int | None = None


@dataclass(frozen=True, kw_only=True)
class Acted:
    """What became of a clinician's action.

    Attributes:
        replayed: the same request was carried out before; the rest is None then.
        row: the case after it; None where that has to be read from the store.
        actions: the case's actions, this one included.
    """

    replayed: bool
    row: Any = None
    actions: Sequence[Any] = ()


class Reviews:
    """Cases from the callers' side."""

    def __init__(
        self,
        *,
        database: Database,
        kits: Kits,
        workers: Workers,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        """Put the parts together."""
        self._database = database
        self._kits = kits
        self._workers = workers
        self._metrics = metrics
        self._clock = clock
        self._coming = 0

    @contextmanager
    def _place(self) -> Iterator[None]:
        """A place in the queue, held while the case is written down and until it is queued.

        Without it, cases that come at once would all see the same free place.

        Raises:
            ProblemError: 429 with ``Retry-After``, if too much waits.
        """
        waiting, limits = self._workers.waiting + self._coming, self._workers.limits
        if waiting < limits.queue:
            self._coming += 1
            try:
                yield
            finally:
                self._coming -= 1
            return
        self._metrics.refused.inc()
        seconds = max(1, round(waiting * self._workers.run_s / limits.workers))
        raise ProblemError(
            "queue-full",
            f"{waiting} cases wait, {limits.queue} may; try again in {seconds} s.",
            headers={"Retry-After": str(seconds)},
        )

    async def create(
        self, new: NewCase, caller: Principal, once: Once, *, wait_s: float = 0.0
    ) -> tuple[str, SimpleNamespace | None]:
        """Take a case on; returns its id and its row (None: the same request made it before).

        Args:
            new: the case.
            caller: who posts it.
            once: the request, so that the same one again makes no second case.
            wait_s: how long to wait for its review; the row is as it stands then.

        Raises:
            FeatureError: if the bundle cannot take the features.
            ProblemError: if too much waits, the deadline has passed, or the idempotency key was
                used for something else.
        """
        try:
            with self._place():
                case_id, job = await self._create(new, caller, once)
        except ProblemError:
            # A case that was taken on needs no place in a full queue to be found again.
            before = await self._database.read(once.find)
            if before is None:
                raise
            return before, None
        if job is None:
            return case_id, None
        return case_id, await self._settled(job, wait_s) or job.row

    async def _create(self, new: NewCase, caller: Principal, once: Once) -> tuple[str, Job | None]:
        case_id, now, bundle = secrets.token_hex(16), self._clock(), self._kits.active
        bundle.inputs.add(case_id, new.features)
        row = self._row(case_id, new, caller, bundle, now)

        def write(connection: Connection) -> str | None:
            before = once.begin(connection, resource=case_id, now=now)
            if before is None:
                # Asked again after its deadline, a request that was taken on is no error.
                _check_deadline(new.deadline, now)
                store.insert_case(connection, row)
                audit.append(
                    connection,
                    time=now,
                    actor=caller.name,
                    action="case.created",
                    subject=case_id,
                    detail={"policy": new.policy, "urgency": new.urgency},
                )
            return before

        try:
            before = await self._database.write(write)
        except ApiError:
            bundle.inputs.forget(case_id)
            raise
        if before is not None:
            bundle.inputs.forget(case_id)
            return before, None
        self._metrics.created.inc()
        known = SimpleNamespace(**dict.fromkeys(store.NOT_YET), **row)
        job = Job(case_id=case_id, row=known, finished=_awaited())
        self._workers.add(job)
        return case_id, job

    def _row(
        self, case_id: str, new: NewCase, caller: Principal, bundle: Loaded, now: datetime
    ) -> dict[str, Any]:
        return {
            **vars(new),
            "id": case_id,
            "status": store.QUEUED,
            "version": 1,
            "bundle": bundle.version,
            "created_at": now,
            "updated_at": now,
            "created_by": caller.name,
            # The lease comes with the row: nobody else can take the case up in between.
            **self._workers.lease(),
        }

    async def act(self, case_id: str, asked: Asked) -> Acted:
        """Write a clinician's action down and let the case go on.

        Raises:
            ProblemError: if there is no such case, it has changed since, or it does not wait for
                an action of this kind or from this reviewer.
        """
        now = self._clock()
        row, actions = await self._database.write(
            lambda connection: self._take(connection, case_id, asked, now)
        )
        if row is None:
            return Acted(replayed=True)
        self._metrics.decisions.labels(asked.action.action).inc()
        answer = answer_to(row.status, actions[-1].action)
        # Of a parked case it has to be looked up where its graph stands.
        known = None if answer is None else changed_row(row, {})
        job = Job(case_id=case_id, answer=answer, row=known, finished=_awaited())
        self._workers.add(job)
        return Acted(replayed=False, row=await self._settled(job, SETTLE_S), actions=actions)

    def _take(
        self, connection: Connection, case_id: str, asked: Asked, now: datetime
    ) -> tuple[Any, list[Any]]:
        """Check and write the action; the case's row as it was, None for a request seen before."""
        if asked.once.begin(connection, resource=case_id, now=now) is not None:
            return None, []
        row = store.get_case(connection, case_id)
        if row is None:
            raise case_not_found()
        earlier = actions_of.of_case(connection, case_id)
        action = asked.action
        check_open(row, action, earlier, asked.version)
        number = len(earlier)
        body = action.model_copy(update={"round": number}).model_dump(mode="json")
        actions_of.insert_action(
            connection,
            case_id,
            number,
            action=body,
            reviewer=action.reviewer,
            at=action.decided_at,
        )
        told = ("result", "reason_code", "transfer", "modality", "urgency")
        audit.append(
            connection,
            time=now,
            actor=action.reviewer,
            action=f"case.{action.action}",
            subject=case_id,
            detail={name: body[name] for name in told if name in body},
        )
        changed = {"status": store.QUEUED, "updated_at": now, **self._workers.lease()}
        store.update_case(connection, case_id, changed)
        return row, [*earlier, SimpleNamespace(round=number, action=body)]

    async def wake(self, case_id: str, caller: Principal, once: Once) -> bool:
        """Wake a deferred case before its hour; True if this request did so before.

        Raises:
            ProblemError: if there is no such case or it is not deferred.
        """
        now = self._clock()

        def write(connection: Connection) -> bool:
            if once.begin(connection, resource=case_id, now=now) is not None:
                return True
            row = store.get_case(connection, case_id)
            if row is None:
                raise case_not_found()
            if row.status != store.DEFERRED:
                raise ProblemError(
                    "not-deferred", f"The case is {row.status}; only a deferred case can be woken."
                )
            audit.append(
                connection,
                time=now,
                actor=caller.name,
                action="case.woken",
                subject=case_id,
                detail={},
            )
            return False

        if await self._database.write(write):
            return True
        job = Job(case_id=case_id, woken_by=caller.name, finished=_awaited())
        self._workers.add(job)
        await self._settled(job, SETTLE_S)
        return False

    async def _settled(self, job: Job, wait_s: float) -> Any:
        """Give a job a moment to finish, so that the answer shows its effect; the row, or None."""
        if job.finished is None or wait_s <= 0.0:
            return None
        await asyncio.wait({job.finished}, timeout=wait_s)
        return job.finished.result() if job.finished.done() else None


def _awaited() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def answer_to(status: str, action: dict[str, Any]) -> dict[str, Any] | None:
    """What the graph of a case of this status is resumed with; None where that is not known."""
    if status == store.DEFERRED:
        return wake_of(action["reviewer"], action)
    return None if status == store.PARKED else action


def _check_deadline(deadline: datetime | None, now: datetime) -> None:
    if deadline is not None and deadline <= now:
        raise ProblemError(
            "invalid-request",
            "body/deadline: it has passed. Give a later one, or leave it out: the case is then "
            "reviewed at once or by what its urgency leaves.",
        )


def case_not_found() -> ProblemError:
    """404 for a case; the id that came is not repeated."""
    return ProblemError("case-not-found", "There is no case with this id; list /v1/cases.")
