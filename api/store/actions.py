"""What clinicians did to cases, one row a case and round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select

from api.store.tables import actions

OPINIONS = ("accept", "override", "send_back")
"""Actions that say what the result should be, or that there is none."""
INSERT = insert(actions)
OF_CASE = select(actions).where(actions.c.case_id == bindparam("of_case")).order_by(actions.c.round)
ROUNDS = select(func.count()).where(actions.c.case_id == bindparam("of_case"))


def rounds(connection: Connection, case_id: str) -> int:
    """How many actions the case has seen: the number of the next one."""
    return int(connection.execute(ROUNDS, {"of_case": case_id}).scalar_one())


def insert_action(
    connection: Connection,
    case_id: str,
    number: int,
    *,
    action: Mapping[str, Any],
    reviewer: str,
    at: datetime,
) -> None:
    """Write an action down; the database refuses a second one of the same round."""
    connection.execute(
        INSERT,
        {
            "case_id": case_id,
            "round": number,
            "action": dict(action),
            "reviewer": reviewer,
            "at": at,
        },
    )


def of_case(connection: Connection, case_id: str) -> Sequence[Row[Any]]:
    """The case's actions in order."""
    return connection.execute(OF_CASE, {"of_case": case_id}).all()


def opinions(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Those that say what the result should be, in order."""
    return [dict(row.action) for row in rows if row.action["action"] in OPINIONS]
