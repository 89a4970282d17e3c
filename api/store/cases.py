"""Cases: create, look up, list, claim, and write down what a run of the graph brought."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Update, bindparam, func, insert, or_, select, update

from api.errors import ApiError
from api.store.tables import cases, events

QUEUED = "queued"
RUNNING = "running"
DEFERRED = "deferred"
AWAITING = "awaiting_clinician"
SECOND = "awaiting_second"
PARKED = "parked"
RECORDED = "recorded"
SENT_BACK = "sent_back"
OPEN = (QUEUED, RUNNING)
FINAL = (RECORDED, SENT_BACK)

NOT_YET = (
    "policy_fallback", "probability", "transfers_run", "explanation", "plan", "wake_at",
    "result", "failure", "uncertainty", "g_co2e", "suggestion", "second_review", "flags",
)  # fmt: skip
"""Columns that a case gets when it has run."""
SUMMARY = [column for column in cases.c if column.name not in ("features", "explanation")]

# Built once: putting a statement together takes longer than running it.
INSERT_CASE = insert(cases)
GET_CASE = select(*(column for column in cases.c if column.name != "features")).where(
    cases.c.id == bindparam("case_id")
)
GET_STATUS = select(cases.c.status).where(cases.c.id == bindparam("case_id"))
GET_FEATURES = select(cases.c.features).where(cases.c.id == bindparam("case_id"))
GET_EVENTS = (
    select(events.c.seq, events.c.kind, events.c.time, events.c.data)
    .where(events.c.case_id == bindparam("case_id"), events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
)
UPDATE_CASE = update(cases).where(cases.c.id == bindparam("case_id"))
CLAIM = (
    update(cases)
    .where(
        cases.c.id == bindparam("case_id"),
        cases.c.status.not_in(FINAL),
        or_(
            cases.c.lease_owner.is_(None),
            cases.c.lease_owner == bindparam("owner"),
            cases.c.lease_until < bindparam("now"),
        ),
    )
    .values(lease_owner=bindparam("owner"), lease_until=bindparam("until"))
)


class CursorError(ApiError, ValueError):
    """A list cursor that this server did not give."""


def insert_case(connection: Connection, values: Mapping[str, Any]) -> None:
    """Write a new case."""
    connection.execute(INSERT_CASE, dict(values))


def get_case(connection: Connection, case_id: str) -> Row[Any] | None:
    """One case with everything but its features; None if there is none."""
    return connection.execute(GET_CASE, {"case_id": case_id}).first()


def get_status(connection: Connection, case_id: str) -> str | None:
    """The stored status of a case; None if there is no such case."""
    status: str | None = connection.execute(GET_STATUS, {"case_id": case_id}).scalar_one_or_none()
    return status


def get_features(connection: Connection, case_id: str) -> dict[str, Any] | None:
    """The feature rows of a case."""
    found = connection.execute(GET_FEATURES, {"case_id": case_id})
    features: dict[str, Any] | None = found.scalar_one_or_none()
    return features


def get_events(connection: Connection, case_id: str, after: int = -1) -> list[dict[str, Any]]:
    """Steps of a case with a number above ``after``, in order."""
    rows = connection.execute(GET_EVENTS, {"case_id": case_id, "after": after})
    return [
        {"seq": row.seq, "kind": row.kind, "time": row.time.isoformat(), "data": row.data}
        for row in rows
    ]


def last_event(connection: Connection, case_id: str) -> dict[str, Any] | None:
    """The last step of a case that was written down; None before the first."""
    steps = get_events(connection, case_id)
    return steps[-1] if steps else None


def claim(
    connection: Connection, case_id: str, *, owner: str, now: datetime, lease_s: float
) -> Row[Any] | None:
    """Take the case's lease; returns the case as it was, or None if another has it or it ended.

    A server may take its own lease again: it keeps count of what it works on by itself.
    """
    row = get_case(connection, case_id)
    until = now + timedelta(seconds=lease_s)
    taken = connection.execute(
        CLAIM, {"case_id": case_id, "owner": owner, "now": now, "until": until}
    )
    return row if taken.rowcount else None


@lru_cache(maxsize=64)
def _update_of(names: tuple[str, ...]) -> Update:
    """The statement that changes these columns; there are few sets of them."""
    changed = {name: bindparam(f"new_{name}", type_=cases.c[name].type) for name in names}
    return UPDATE_CASE.values(version=cases.c.version + 1, **changed)


def update_case(connection: Connection, case_id: str, values: Mapping[str, Any]) -> None:
    """Change columns of a case; its version goes up by one."""
    given = {f"new_{name}": value for name, value in values.items()}
    connection.execute(_update_of(tuple(values)), {"case_id": case_id, **given})


def release_all(connection: Connection) -> None:
    """Drop every lease: for a server that alone holds the state folder."""
    connection.execute(update(cases).values(lease_owner=None, lease_until=None))


def unfinished(connection: Connection) -> list[str]:
    """Cases to take up again after a restart, oldest first.

    An action puts its case among them in the transaction that writes it down.
    """
    rows = connection.execute(
        select(cases.c.id).where(cases.c.status.in_(OPEN)).order_by(cases.c.created_at)
    )
    return list(rows.scalars())


def due(connection: Connection, now: datetime) -> list[str]:
    """Deferred cases whose hour has come."""
    rows = connection.execute(
        select(cases.c.id)
        .where(cases.c.status == DEFERRED, cases.c.wake_at <= now)
        .order_by(cases.c.wake_at)
    )
    return list(rows.scalars())


def counts(connection: Connection) -> dict[str, int]:
    """Number of cases by status."""
    rows = connection.execute(select(cases.c.status, func.count()).group_by(cases.c.status))
    return {row[0]: int(row[1]) for row in rows}
