"""Exports: one case with everything that its record holds, or many, a line each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import Connection

from api import audit
from api.auth import Principal
from api.case_query import CaseChoice
from api.deps import Parts, Reviewer, Server
from api.problems import documented
from api.record_schemas import ActionRow, CaseExport, ChargeRow, ShadowRow, StepRow
from api.records import collected
from api.reviews import case_not_found
from api.routes.audit import COMMON, CaseId, trail
from api.store import search
from api.views import case_view

PAGE = 25
JSON_LINES = "application/jsonl"
router = APIRouter(prefix="/v1/cases", tags=["cases"])


def exported(server: Server, caller: Principal, found: dict[str, Any]) -> CaseExport:
    """A whole record as it goes out."""
    row = found["row"]
    return CaseExport(
        exported_at=server.clock(),
        exported_by=caller.name,
        case=case_view(server, row, found["actions"]),
        features=found["features"],
        steps=[StepRow(**step) for step in found["steps"]],
        actions=[
            ActionRow(round=one.round, reviewer=one.reviewer, at=one.at, action=one.action)
            for one in found["actions"]
        ],
        ledger=[ChargeRow(**charge) for charge in found["ledger"]],
        shadow=[ShadowRow(**shadow) for shadow in found["shadow"]],
        audit=trail(row.id, found["audit"]),
    )


async def _note(server: Server, caller: Principal, subject: str, detail: dict[str, Any]) -> None:
    """Data that leave are written down before they do."""
    await server.database.write(
        lambda connection: audit.append(
            connection, time=server.clock(), actor=caller.name, action="case.exported",
            subject=subject, detail=detail,
        )
    )  # fmt: skip


@router.get(
    "/export.jsonl",
    summary="Export cases, one a line",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {JSON_LINES: {"schema": {"type": "string"}}},
            "description": "One `CaseExport` a line, in the order asked for.",
        },
        **documented(*COMMON, "not-ready"),
    },
)
async def export_cases(
    server: Parts, caller: Reviewer, asked: Annotated[CaseChoice, Query()]
) -> StreamingResponse:
    """Every case that the list would show for these filters, with its whole record.

    Streams, so that any number fits into memory. The export stands in the audit log with the
    names of the filters, not with their values.
    """
    filters = sorted(asked.model_fields_set - {"sort"})
    await _note(server, caller, "cases", {"filters": filters})
    return StreamingResponse(
        _lines(server, caller, asked),
        media_type=JSON_LINES,
        headers={"Content-Disposition": 'attachment; filename="cases.jsonl"'},
    )


async def _lines(server: Server, caller: Principal, asked: CaseChoice) -> AsyncIterator[bytes]:
    cursor, chosen = None, asked.chosen()
    while True:

        def page(
            connection: Connection, cursor: str | None = cursor
        ) -> tuple[list[dict[str, Any] | None], str | None]:
            rows, following = search.list_cases(
                connection, chosen, limit=PAGE, cursor=cursor, order=asked.sort
            )
            return [collected(connection, row.id) for row in rows], following

        records, cursor = await server.database.read(page)
        for found in records:
            if found is not None:
                yield exported(server, caller, found).model_dump_json().encode() + b"\n"
        if cursor is None:
            return


@router.get(
    "/{case_id}/export",
    summary="Export a case with its whole record",
    responses=documented(*COMMON, "case-not-found", "not-ready"),
)
async def export_case(
    server: Parts, caller: Reviewer, case_id: CaseId, response: Response
) -> CaseExport:
    """The case as it is read, its features as they were posted, steps, actions, ledger, audit rows.

    Reviewers only: features are the patient's. The export itself stands in the audit log.
    """

    def read(connection: Connection) -> dict[str, Any] | None:
        return collected(connection, case_id)

    if await server.database.read(read) is None:
        raise case_not_found()
    await _note(server, caller, case_id, {})
    found = await server.database.read(read)
    if found is None:
        raise case_not_found()
    response.headers["Content-Disposition"] = f'attachment; filename="case-{found["row"].id}.json"'
    return exported(server, caller, found)
