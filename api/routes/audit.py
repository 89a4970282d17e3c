"""The audit trail of one case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy import Connection

from api.audit import AuditEntry
from api.deps import Parts, Viewer
from api.problems import documented
from api.record_schemas import AuditRow, AuditTrail
from api.records import audit_rows, is_whole
from api.reviews import case_not_found
from api.store import cases as store

COMMON = ("malformed-request", "unauthorized", "forbidden", "invalid-request", "internal-error")
router = APIRouter(prefix="/v1/cases", tags=["cases"])
CaseId = Annotated[str, Path(max_length=64, description="As the case was answered with.")]


def trail(case_id: str, entries: Sequence[AuditEntry]) -> AuditTrail:
    """Rows as callers see them."""
    rows = [
        AuditRow(
            seq=entry.seq, time=entry.time, actor=entry.actor, action=entry.action,
            detail=dict(entry.detail), previous=entry.previous, hash=entry.hash,
            intact=is_whole(entry),
        )
        for entry in entries
    ]  # fmt: skip
    return AuditTrail(case=case_id, rows=rows, intact=all(row.intact for row in rows))


@router.get(
    "/{case_id}/audit",
    summary="Who did what to a case",
    responses=documented(*COMMON, "case-not-found", "not-ready"),
)
async def case_audit(server: Parts, caller: Viewer, case_id: CaseId) -> AuditTrail:
    """The case's rows of the append-only log, oldest first, with their hashes."""

    def read(connection: Connection) -> tuple[str | None, list[AuditEntry]]:
        return store.get_status(connection, case_id), audit_rows(connection, case_id)

    status, entries = await server.database.read(read)
    if status is None:
        raise case_not_found()
    return trail(case_id, entries)
