"""What policies that decide nothing would have done, read for the report about them."""

from __future__ import annotations

import json
from datetime import datetime

from sqlalchemy import Connection, select

from api.store.tables import cases
from api.store.tables import shadow as table

OF_CASE = (
    cases.c.created_at, cases.c.bundle, cases.c.probability, cases.c.result, cases.c.g_co2e,
)  # fmt: skip


def lines(connection: Connection, *, since: datetime | None, until: datetime | None) -> list[bytes]:
    """One JSON object a line, oldest case first: a log for ``greenboard shadow``.

    Args:
        connection: of a reading transaction.
        since: cases that were posted then or later.
        until: cases that were posted before.
    """
    query = (
        select(table, *OF_CASE)
        .join_from(table, cases, table.c.case_id == cases.c.id)
        .order_by(cases.c.created_at, cases.c.id, table.c.seq, table.c.policy)
    )
    if since is not None:
        query = query.where(cases.c.created_at >= since)
    if until is not None:
        query = query.where(cases.c.created_at < until)
    rows = connection.execute(query).mappings()
    return [
        json.dumps({**row, "created_at": row["created_at"].isoformat()}).encode() + b"\n"
        for row in rows
    ]
