"""Background jobs: what was asked for, how far it is, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from api.store.cases import CursorError
from api.store.tables import jobs

QUEUED = "queued"
RUNNING = "running"
DONE = "done"
FAILED = "failed"
CANCELLED = "cancelled"
OVER = (DONE, FAILED, CANCELLED)


def insert_job(connection: Connection, values: Mapping[str, Any]) -> None:
    """Write a new job down."""
    connection.execute(insert(jobs), dict(values))


def get_job(connection: Connection, job_id: str) -> Row[Any] | None:
    """One job; None if there is none of this id."""
    return connection.execute(select(jobs).where(jobs.c.id == job_id)).first()


def list_jobs(
    connection: Connection,
    *,
    status: Sequence[str] = (),
    kind: str | None = None,
    limit: int,
    after: str | None = None,
) -> tuple[Sequence[Row[Any]], str | None]:
    """A page of jobs, newest first, and the id that the next page comes after.

    Args:
        connection: of a reading transaction.
        status: any of these; all if empty.
        kind: of this kind only.
        limit: how many.
        after: id of the last job of the page before.

    Raises:
        CursorError: if there is no such job.
    """
    query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    if status:
        query = query.where(jobs.c.status.in_(status))
    if kind is not None:
        query = query.where(jobs.c.kind == kind)
    if after is not None:
        last = get_job(connection, after)
        if last is None:
            raise CursorError("No job has this cursor; use next_cursor as it came.")
        at = last.created_at
        earlier_id = and_(jobs.c.created_at == at, jobs.c.id < after)
        query = query.where(or_(jobs.c.created_at < at, earlier_id))
    rows = connection.execute(query.limit(limit + 1)).all()
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def waiting(connection: Connection) -> int:
    """How many jobs wait for their turn."""
    query = select(func.count()).where(jobs.c.status == QUEUED)
    return int(connection.execute(query).scalar_one())


def take_next(connection: Connection, now: datetime) -> Row[Any] | None:
    """The oldest job that waits, now running; None if nothing waits."""
    oldest = select(jobs).where(jobs.c.status == QUEUED).order_by(jobs.c.created_at, jobs.c.id)
    job = connection.execute(oldest.limit(1)).first()
    if job is not None:
        update_job(connection, job.id, {"status": RUNNING, "updated_at": now})
    return job


def update_job(connection: Connection, job_id: str, values: Mapping[str, Any]) -> bool:
    """Change a job that is not over; False if it is, or there is none."""
    going = and_(jobs.c.id == job_id, jobs.c.status.not_in(OVER))
    return bool(connection.execute(update(jobs).where(going).values(**values)).rowcount)


def fail_running(connection: Connection, *, reason: str, now: datetime) -> None:
    """Say of jobs that an earlier server was running that they came to nothing."""
    values = {"status": FAILED, "failure": reason, "updated_at": now}
    connection.execute(update(jobs).where(jobs.c.status == RUNNING).values(**values))


def newest(connection: Connection, kept: int) -> set[str]:
    """The jobs whose files are kept: those that are not over, and the last ``kept`` others."""
    over = select(jobs.c.id).where(jobs.c.status.in_(OVER))
    last = over.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(kept)
    going = select(jobs.c.id).where(jobs.c.status.not_in(OVER))
    return {*connection.execute(last).scalars(), *connection.execute(going).scalars()}
