"""What callers may do with a case: post it, decide on it, wake it. Each exactly once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from agent.workflow.state import Decision
from api import audit
from api.auth import Principal
from api.idempotency import Once
from api.inputs import CaseInputs
from api.metrics import Metrics
from api.problems import ProblemError
from api.store import cases as store
from api.store.database import Database
from api.store.tables import decisions
from api.worker import Job, Workers

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


class Reviews:
    """Cases from the callers' side."""

    def __init__(
        self,
        *,
        database: Database,
        inputs: CaseInputs,
        workers: Workers,
        metrics: Metrics,
        clock: Callable[[], datetime],
    ) -> None:
        """Put the parts together."""
        self._database = database
        self._inputs = inputs
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
        self, new: NewCase, caller: Principal, once: Once
    ) -> tuple[str, SimpleNamespace | None]:
        """Take a case on; returns its id and its row (None: the same request made it before).

        Raises:
            FeatureError: if the bundle cannot take the features.
            ProblemError: if too much waits, the deadline has passed, or the idempotency key was
                used for something else.
        """
        with self._place():
            return await self._create(new, caller, once)

    async def _create(
        self, new: NewCase, caller: Principal, once: Once
    ) -> tuple[str, SimpleNamespace | None]:
        case_id, now = secrets.token_hex(16), self._clock()
        self._inputs.add(case_id, new.features)
        row = {
            **vars(new),
            "id": case_id,
            "status": store.QUEUED,
            "created_at": now,
            "updated_at": now,
            "created_by": caller.name,
            # The lease comes with the row: nobody else can take the case up in between.
            "lease_owner": self._workers.owner,
            "lease_until": now + timedelta(seconds=self._workers.limits.lease_s),
        }
        async with self._database.write() as connection:
            before = await once.begin(connection, case_id=case_id, now=now)
            if before is None:
                # Asked again after its deadline, a request that was taken on is no error.
                _check_deadline(new.deadline, now)
                await store.insert_case(connection, row)
                await audit.append(
                    connection,
                    time=now,
                    actor=caller.name,
                    action="case.created",
                    subject=case_id,
                    detail={"policy": new.policy, "urgency": new.urgency},
                )
        if before is not None:
            self._inputs.forget(case_id)
            return before, None
        self._metrics.created.inc()
        known = SimpleNamespace(**dict.fromkeys(store.NOT_YET), **row)
        self._workers.add(Job(case_id=case_id, row=known))
        return case_id, known

    async def decide(self, case_id: str, decision: Decision, once: Once) -> bool:
        """Write the clinician's decision and let the case go on; True if it was there already.

        Raises:
            ProblemError: if there is no such case, it does not wait, or it has a decision.
        """
        now, body = self._clock(), decision.model_dump(mode="json")
        try:
            async with self._database.write() as connection:
                if await once.begin(connection, case_id=case_id, now=now) is not None:
                    return True
                await _check_awaiting(connection, case_id)
                await connection.execute(
                    insert(decisions).values(
                        case_id=case_id,
                        decision=body,
                        reviewer=decision.reviewer,
                        decided_at=decision.decided_at,
                    )
                )
                await audit.append(
                    connection,
                    time=now,
                    actor=decision.reviewer,
                    action=f"case.{decision.action}",
                    subject=case_id,
                    detail={"result": decision.result, "reason_code": decision.reason_code},
                )
                row = await self._workers.claim(connection, case_id)
        except IntegrityError as error:
            raise _already_decided() from error
        self._metrics.decisions.labels(decision.action).inc()
        await self._settle(Job(case_id=case_id, decision=body, row=row, finished=asyncio.Event()))
        return False

    async def wake(self, case_id: str, caller: Principal) -> None:
        """Wake a deferred case before its hour.

        Raises:
            ProblemError: if there is no such case or it is not deferred.
        """
        async with self._database.write() as connection:
            row = await store.get_case(connection, case_id)
            if row is None:
                raise case_not_found()
            if row.status != store.DEFERRED:
                raise ProblemError(
                    "not-deferred", f"The case is {row.status}; only a deferred case can be woken."
                )
            await audit.append(
                connection,
                time=self._clock(),
                actor=caller.name,
                action="case.woken",
                subject=case_id,
                detail={},
            )
        await self._settle(Job(case_id=case_id, woken_by=caller.name, finished=asyncio.Event()))

    async def _settle(self, job: Job) -> None:
        """Queue the job and give it a moment to finish, so that the answer shows its effect."""
        self._workers.add(job)
        assert job.finished is not None  # noqa: S101  # set by every caller
        waiter = asyncio.create_task(job.finished.wait())
        await asyncio.wait({waiter}, timeout=SETTLE_S)
        waiter.cancel()


def _check_deadline(deadline: datetime | None, now: datetime) -> None:
    if deadline is not None and deadline <= now:
        raise ProblemError(
            "invalid-request",
            "body/deadline: it has passed. Give a later one, or leave it out: the case is then "
            "reviewed at once or by what its urgency leaves.",
        )


async def _check_awaiting(connection: AsyncConnection, case_id: str) -> None:
    row = await store.get_case(connection, case_id)
    if row is None:
        raise case_not_found()
    if row.decision is not None:
        raise _already_decided()
    if row.status != store.AWAITING:
        raise ProblemError(
            "not-awaiting-clinician",
            f"The case is {row.status}; a decision is taken when it is {store.AWAITING}. "
            "Follow its events until then.",
        )


def case_not_found() -> ProblemError:
    """404 for a case; the id that came is not repeated."""
    return ProblemError("case-not-found", "There is no case with this id; list /v1/cases.")


def _already_decided() -> ProblemError:
    return ProblemError(
        "already-decided", "A decision was recorded before yours; read the case to see it."
    )
