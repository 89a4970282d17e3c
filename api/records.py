"""Everything that the record of a case holds, read in one view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from api.audit import AuditEntry, entry_hash
from api.store import actions as actions_of
from api.store import cases as store
from api.store.tables import audit, ledger, shadow

NOT_TOLD = ("id", "case_id")


def audit_rows(connection: Connection, case_id: str) -> list[AuditEntry]:
    """Rows of the audit log about one case, in order."""
    rows = connection.execute(select(audit).where(audit.c.subject == case_id).order_by(audit.c.seq))
    return [AuditEntry(**row) for row in rows.mappings()]


def is_whole(entry: AuditEntry) -> bool:
    """Whether a row is as it was written; the chain from row to row is another matter."""
    content = {name: value for name, value in vars(entry).items() if name != "hash"}
    return entry_hash(**content) == entry.hash


def collected(connection: Connection, case_id: str) -> dict[str, Any] | None:
    """The case's row and all that hangs on it; None if there is no such case.

    ``row`` and ``actions`` are rows, the others plain values.
    """
    row = store.get_case(connection, case_id)
    if row is None:
        return None
    actions: Sequence[Row[Any]] = actions_of.of_case(connection, case_id)
    return {
        "row": row,
        "actions": actions,
        "features": store.get_features(connection, case_id),
        "steps": store.get_events(connection, case_id),
        "ledger": _plain(connection, ledger, case_id),
        "shadow": _plain(connection, shadow, case_id),
        "audit": audit_rows(connection, case_id),
    }


def _plain(connection: Connection, table: Table, case_id: str) -> list[dict[str, Any]]:
    columns = [column for column in table.c if column.name not in NOT_TOLD]
    order = table.c.id if "id" in table.c else table.c.seq
    rows = connection.execute(select(*columns).where(table.c.case_id == case_id).order_by(order))
    return [dict(row) for row in rows.mappings()]
