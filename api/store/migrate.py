"""Bring a store of an earlier version up to date: tables and columns that came later."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Column, Connection, DefaultClause, Table, inspect, text

from api.store.tables import actions, metadata

OLD_DECISIONS = "decisions"


def bring_up_to_date(connection: Connection) -> None:
    """Create what is missing, in a transaction of the caller's; nothing that is there is lost."""
    before = set(inspect(connection).get_table_names())
    metadata.create_all(connection)
    for table in metadata.sorted_tables:
        if table.name in before:
            _add_columns(connection, table)
    # What had failed was final; now a person may have it retried, or send it back.
    connection.execute(text("UPDATE cases SET status = 'parked' WHERE status = 'failed'"))
    if "idempotency" in before:
        _keep_idempotency(connection)
    if OLD_DECISIONS in before and actions.name not in before:
        _keep_decisions(connection)


def _add_columns(connection: Connection, table: Table) -> None:
    there = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            connection.execute(
                text(f"ALTER TABLE {table.name} ADD COLUMN {_declared(connection, column)}")
            )


def _declared(connection: Connection, column: Column[Any]) -> str:
    kind = column.type.compile(connection.dialect)
    default = column.server_default
    if not isinstance(default, DefaultClause):
        return f"{column.name} {kind}"
    return f"{column.name} {kind} NOT NULL DEFAULT {default.arg}"


def _keep_idempotency(connection: Connection) -> None:
    """What a key had made was called its case."""
    there = {column["name"] for column in inspect(connection).get_columns("idempotency")}
    if "case_id" in there:
        connection.execute(text("UPDATE idempotency SET resource = case_id WHERE resource IS NULL"))
        connection.execute(text("ALTER TABLE idempotency DROP COLUMN case_id"))


def _keep_decisions(connection: Connection) -> None:
    """A case had one decision; now it is the action of its first round."""
    rows = connection.execute(
        text(f"SELECT case_id, decision, reviewer, decided_at FROM {OLD_DECISIONS}")  # noqa: S608
    )
    for row in rows.all():
        stored = row.decision
        action = json.loads(stored) if isinstance(stored, str) else stored
        connection.execute(
            text(
                "INSERT INTO actions (case_id, round, action, reviewer, at) "
                "VALUES (:case_id, 0, :action, :reviewer, :at)"
            ),
            {
                "case_id": row.case_id,
                "action": json.dumps({**action, "round": 0}),
                "reviewer": row.reviewer,
                "at": row.decided_at,
            },
        )
