"""Cases: create, look up, list, claim, and write down what a run of the graph brought."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from api.errors import ApiError
from api.store.tables import cases, decisions, events

QUEUED = "queued"
RUNNING = "running"
DEFERRED = "deferred"
AWAITING = "awaiting_clinician"
RECORDED = "recorded"
SENT_BACK = "sent_back"
FAILED = "failed"
OPEN = (QUEUED, RUNNING)
FINAL = (RECORDED, SENT_BACK, FAILED)

NOT_YET = (
    "policy_fallback", "probability", "transfers_run", "explanation", "plan", "wake_at",
    "result", "failure", "decision",
)  # fmt: skip
"""Columns that a case gets when it has run."""
SUMMARY = [column for column in cases.c if column.name not in ("features", "explanation")]


class CursorError(ApiError, ValueError):
    """A list cursor that this server did not give."""


@dataclass(frozen=True, kw_only=True)
class CaseFilter:
    """Which cases to list."""

    status: Sequence[str] = ()
    policy: str | None = None
    min_urgency: float = 0.0


async def insert_case(connection: AsyncConnection, values: Mapping[str, Any]) -> None:
    """Write a new case."""
    await connection.execute(insert(cases).values(**values))


async def get_case(connection: AsyncConnection, case_id: str) -> Row[Any] | None:
    """One case with its decision and everything but its features; None if there is none."""
    columns = [column for column in cases.c if column.name != "features"]
    query = (
        select(*columns, decisions.c.decision)
        .outerjoin_from(cases, decisions, cases.c.id == decisions.c.case_id)
        .where(cases.c.id == case_id)
    )
    row: Row[Any] | None = (await connection.execute(query)).first()  # type: ignore[assignment]
    return row


async def get_status(connection: AsyncConnection, case_id: str) -> str | None:
    """The stored status of a case; None if there is no such case."""
    found = await connection.execute(select(cases.c.status).where(cases.c.id == case_id))
    status: str | None = found.scalar_one_or_none()
    return status


async def get_features(connection: AsyncConnection, case_id: str) -> dict[str, Any] | None:
    """The feature rows of a case."""
    found = await connection.execute(select(cases.c.features).where(cases.c.id == case_id))
    features: dict[str, Any] | None = found.scalar_one_or_none()
    return features


async def get_events(
    connection: AsyncConnection, case_id: str, after: int = -1
) -> list[dict[str, Any]]:
    """Steps of a case with a number above ``after``, in order."""
    rows = await connection.execute(
        select(events.c.seq, events.c.kind, events.c.time, events.c.data)
        .where(events.c.case_id == case_id, events.c.seq > after)
        .order_by(events.c.seq)
    )
    return [{**row, "time": row["time"].isoformat()} for row in rows.mappings()]


def encode_cursor(row: Row[Any]) -> str:
    """Where the next page starts: after this case."""
    text = f"{row.created_at.isoformat()}|{row.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Undo :func:`encode_cursor`.

    Raises:
        CursorError: if it is not a cursor of this server.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        created, _, case_id = text.partition("|")
        at = datetime.fromisoformat(created)
    except (ValueError, binascii.Error) as error:
        raise CursorError(
            "This cursor was not given by this server; use next_cursor as it came, or leave it out."
        ) from error
    if at.tzinfo is None or not case_id:
        raise CursorError("This cursor is cut short; use next_cursor as it came.")
    return at, case_id


async def list_cases(
    connection: AsyncConnection, chosen: CaseFilter, *, limit: int, cursor: str | None
) -> tuple[Sequence[Row[Any]], str | None]:
    """A page of cases, newest first, and the cursor of the next page if there is one."""
    query = select(*SUMMARY).order_by(cases.c.created_at.desc(), cases.c.id.desc())
    if chosen.status:
        query = query.where(cases.c.status.in_(chosen.status))
    if chosen.policy is not None:
        query = query.where(cases.c.policy == chosen.policy)
    if chosen.min_urgency > 0:
        query = query.where(cases.c.urgency >= chosen.min_urgency)
    if cursor is not None:
        at, case_id = decode_cursor(cursor)
        same_time = and_(cases.c.created_at == at, cases.c.id < case_id)
        query = query.where(or_(cases.c.created_at < at, same_time))
    rows = (await connection.execute(query.limit(limit + 1))).all()
    more = len(rows) > limit
    return rows[:limit], encode_cursor(rows[limit - 1]) if more else None


async def claim(
    connection: AsyncConnection, case_id: str, *, owner: str, now: datetime, lease_s: float
) -> Row[Any] | None:
    """Take the case's lease; returns the case as it was, or None if another has it or it ended.

    A server may take its own lease again: it keeps count of what it works on by itself.
    """
    row = await get_case(connection, case_id)
    taken = await connection.execute(
        update(cases)
        .where(
            cases.c.id == case_id,
            cases.c.status.not_in(FINAL),
            or_(
                cases.c.lease_owner.is_(None),
                cases.c.lease_owner == owner,
                cases.c.lease_until < now,
            ),
        )
        .values(lease_owner=owner, lease_until=now + timedelta(seconds=lease_s))
    )
    return row if taken.rowcount else None


async def update_case(connection: AsyncConnection, case_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a case."""
    await connection.execute(update(cases).where(cases.c.id == case_id).values(**values))


async def release_all(connection: AsyncConnection) -> None:
    """Drop every lease: for a server that alone holds the state folder."""
    await connection.execute(update(cases).values(lease_owner=None, lease_until=None))


async def unfinished(connection: AsyncConnection) -> list[str]:
    """Cases to take up again after a restart, oldest first.

    Those under way, and those whose decision was taken but not carried out yet.
    """
    decided = select(decisions.c.case_id)
    rows = await connection.execute(
        select(cases.c.id)
        .where(
            or_(
                cases.c.status.in_(OPEN),
                cases.c.id.in_(decided) & cases.c.status.not_in(FINAL),
            )
        )
        .order_by(cases.c.created_at)
    )
    return list(rows.scalars())


async def due(connection: AsyncConnection, now: datetime) -> list[str]:
    """Deferred cases whose hour has come."""
    rows = await connection.execute(
        select(cases.c.id)
        .where(cases.c.status == DEFERRED, cases.c.wake_at <= now)
        .order_by(cases.c.wake_at)
    )
    return list(rows.scalars())


async def counts(connection: AsyncConnection) -> dict[str, int]:
    """Number of cases by status."""
    rows = await connection.execute(select(cases.c.status, func.count()).group_by(cases.c.status))
    return {row[0]: int(row[1]) for row in rows}
