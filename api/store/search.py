"""Finding cases: filters, four orders, and cursors that stay where they are.

A cursor holds the place of the last case of a page (its value in the chosen order, its age, its
id), not a number of rows. Cases that come or go while somebody turns pages therefore shift
nothing: each case that was there all along, and whose value did not change, is seen exactly once.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, and_, or_, select

from api.store.cases import SUMMARY, CursorError
from api.store.tables import cases

Order = Literal["created", "urgency", "deadline", "uncertainty"]
ESCAPE = "\\"
SEARCHED = (cases.c.reference, cases.c.unit, cases.c.session)


@dataclass(frozen=True, kw_only=True)
class CaseFilter:
    """Which cases to list; what is None or empty lets every case pass.

    Attributes:
        status: any of these.
        policy: that was asked for.
        reference: exactly.
        unit: exactly.
        session: exactly.
        text: somewhere in reference, unit or session, whatever the case of its letters.
        min_urgency: at least.
        above_uncertainty: entropy of the probability, bits; cases without one do not pass.
        second_review: whether two reviewers have to agree.
        since: posted then or later.
        until: posted before.
    """

    status: Sequence[str] = ()
    policy: str | None = None
    reference: str | None = None
    unit: str | None = None
    session: str | None = None
    text: str | None = None
    min_urgency: float = 0.0
    above_uncertainty: float | None = None
    second_review: bool | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As the database takes them."""
        found: list[ColumnElement[bool]] = []
        if self.status:
            found.append(cases.c.status.in_(self.status))
        for column in (cases.c.policy, cases.c.reference, cases.c.unit, cases.c.session):
            wanted = getattr(self, column.name)
            if wanted is not None:
                found.append(column == wanted)
        return found + self._ranges() + self._words()

    def _ranges(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.min_urgency > 0:
            found.append(cases.c.urgency >= self.min_urgency)
        if self.above_uncertainty is not None:
            found.append(cases.c.uncertainty > self.above_uncertainty)
        if self.since is not None:
            found.append(cases.c.created_at >= self.since)
        if self.until is not None:
            found.append(cases.c.created_at < self.until)
        return found

    def _words(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.second_review is not None:
            needed = cases.c.second_review.is_(True)
            found.append(needed if self.second_review else or_(~needed, _unknown()))
        if self.text:
            found.append(
                or_(*(c.icontains(self.text, autoescape=True, escape=ESCAPE) for c in SEARCHED))
            )
        return found


def _unknown() -> ColumnElement[bool]:
    return cases.c.second_review.is_(None)


@dataclass(frozen=True, kw_only=True)
class _Sorting:
    """One order: the column that leads it, if any, and then age.

    ``newest`` breaks ties by the newest case first, else by the oldest. Cases without a value
    come last.
    """

    column: Column[Any] | None
    descending: bool
    newest: bool


SORTINGS: dict[Order, _Sorting] = {
    "created": _Sorting(column=None, descending=True, newest=True),
    "urgency": _Sorting(column=cases.c.urgency, descending=True, newest=False),
    "deadline": _Sorting(column=cases.c.deadline, descending=False, newest=False),
    "uncertainty": _Sorting(column=cases.c.uncertainty, descending=True, newest=True),
}


def list_cases(
    connection: Connection,
    chosen: CaseFilter,
    *,
    limit: int,
    cursor: str | None,
    order: Order = "created",
) -> tuple[Sequence[Row[Any]], str | None]:
    """A page of cases, and the cursor of the next page if there is one.

    Args:
        connection: of a reading transaction.
        chosen: which cases.
        limit: how many.
        cursor: where the page before ended; None for the first page.
        order: ``created`` newest first, ``urgency`` most urgent first, ``deadline`` nearest
            first, ``uncertainty`` most uncertain first.

    Raises:
        CursorError: if the cursor is none of this server's, or of another order.
    """
    sorting = SORTINGS[order]
    query: Select[Any] = select(*SUMMARY).where(*chosen.conditions())
    if cursor is not None:
        query = query.where(_after(sorting, *_read(cursor, order)))
    rows = connection.execute(query.order_by(*_directions(sorting)).limit(limit + 1)).all()
    more = len(rows) > limit
    return rows[:limit], _cursor(rows[limit - 1], order) if more else None


def _directions(sorting: _Sorting) -> list[ColumnElement[Any]]:
    column = sorting.column
    leading: list[ColumnElement[Any]] = []
    if column is not None:
        # Not "NULLS LAST": older databases lack it, and false sorts before true in all of them.
        value = column.desc() if sorting.descending else column.asc()
        leading = [column.is_(None), value]
    age = (cases.c.created_at, cases.c.id)
    return [*leading, *(c.desc() if sorting.newest else c.asc() for c in age)]


def _after(sorting: _Sorting, value: Any, at: datetime, case_id: str) -> ColumnElement[bool]:
    """Everything behind this place."""
    created, key = cases.c.created_at, cases.c.id
    if sorting.newest:
        tied = or_(created < at, and_(created == at, key < case_id))
    else:
        tied = or_(created > at, and_(created == at, key > case_id))
    column = sorting.column
    if column is None:
        return tied
    if value is None:
        return and_(column.is_(None), tied)
    further = column < value if sorting.descending else column > value
    return or_(further, column.is_(None), and_(column == value, tied))


def _cursor(row: Row[Any], order: Order) -> str:
    column = SORTINGS[order].column
    value = None if column is None else getattr(row, column.name)
    if isinstance(value, datetime):
        value = value.isoformat()
    text = json.dumps([order, value, row.created_at.isoformat(), row.id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read(cursor: str, order: Order) -> tuple[Any, datetime, str]:
    """Value, age and id of the place.

    Raises:
        CursorError: if it is not a cursor of this server, or of another order.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        kind, value, created, case_id = json.loads(text)
        at = _moment(created)
        if order == "deadline" and value is not None:
            value = _moment(value)
        elif value is not None:
            value = float(value)
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
        raise CursorError(
            "This cursor was not given by this server; use next_cursor as it came, or leave it out."
        ) from error
    if kind != order or not isinstance(case_id, str):
        raise CursorError(
            f"This cursor is not of the order {order!r}; turn pages in the order of the first."
        )
    return value, at, case_id


def _moment(text: Any) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time without a zone")
    return at.astimezone(UTC)
