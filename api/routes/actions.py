"""What clinicians do to a case: decide, ask for more, distrust a modality, hurry, retry, wake."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import TypeAdapter

from agent.workflow.actions import Act, ClinicianAction
from api.admission import etag
from api.auth import Principal
from api.deps import IdempotencyKey, IfMatch, Parts, Reviewer, Server
from api.idempotency import Once
from api.problems import ProblemError, documented
from api.reviews import Asked
from api.routes.cases import COMMON, read_view
from api.schemas import (
    ACTION_EXAMPLES,
    DECISION_EXAMPLES,
    ActionRequest,
    CaseView,
    DecisionRequest,
)
from api.strict_json import StrictRoute
from api.views import case_view

router = APIRouter(prefix="/v1/cases", tags=["cases"], route_class=StrictRoute)
ACTION: TypeAdapter[Act] = TypeAdapter(ClinicianAction)
ETAG = re.compile(r'(?:W/)?"(\d{1,9})"')
REPLAYED: dict[int | str, dict[str, Any]] = {
    200: {"model": CaseView, "description": "The same request was made before: its case."}
}
CONFLICTS = (
    "case-not-found", "not-awaiting-clinician", "already-decided", "second-reviewer-needed",
    "stale", "if-match-needed", "idempotency-key-reused", "not-ready",
)  # fmt: skip


def seen_version(server: Server, if_match: str | None) -> int | None:
    """The version that a caller saw; None where they gave none, or said that any will do.

    Raises:
        ProblemError: 412 for what is no version of a case, 428 where one has to be given.
    """
    if if_match is None:
        if server.settings.require_if_match:
            raise ProblemError(
                "if-match-needed", "Send If-Match with the ETag of the case that you read."
            )
        return None
    if if_match.strip() == "*":
        return None
    match = ETAG.fullmatch(if_match.strip())
    if match is None:
        raise ProblemError("stale", "If-Match is no ETag of a case; read the case to get its own.")
    return int(match[1])


async def _carry_out(server: Server, case_id: str, asked: Asked, response: Response) -> CaseView:
    acted = await server.reviews.act(case_id, asked)
    if acted.row is not None:
        response.headers["ETag"] = etag(acted.row.version)
        return case_view(server, acted.row, acted.actions)
    if acted.replayed:
        response.status_code = 200
        response.headers["Idempotency-Replayed"] = "true"
    return await read_view(server, case_id, response)


def _action(server: Server, caller: Principal, given: dict[str, Any]) -> Act:
    known = {**given, "reviewer": caller.name, "decided_at": server.clock()}
    return ACTION.validate_python(known)


@router.post(
    "/{case_id}/decision",
    status_code=201,
    summary="Submit the clinician's decision",
    responses={**REPLAYED, **documented(*COMMON, *CONFLICTS)},
)
async def decide(
    *,
    server: Parts,
    caller: Reviewer,
    case_id: str,
    body: Annotated[DecisionRequest, Body(openapi_examples=DECISION_EXAMPLES)],
    response: Response,
    idempotency_key: IdempotencyKey = None,
    if_match: IfMatch = None,
) -> CaseView:
    """Accept the suggestion, override it with a coded reason, or send the case back.

    One decision a case: of two at once, one is answered 409. Where the case takes two reviewers,
    it is recorded when two different ones, one after the other, give the same result. The reviewer
    is whoever the key belongs to.
    """
    given = body.model_dump(mode="json")
    once = Once.of(caller, idempotency_key, f"decide:{case_id}", given)
    action, version = _action(server, caller, given), seen_version(server, if_match)
    asked = Asked(action=action, once=once, version=version)
    return await _carry_out(server, case_id, asked, response)


@router.post(
    "/{case_id}/actions",
    status_code=201,
    summary="Ask for a transfer, distrust a modality, raise the urgency, or retry",
    responses={
        **REPLAYED,
        **documented(*COMMON, *CONFLICTS, "unavailable-transfer", "unavailable-modality"),
    },
)
async def act(
    *,
    server: Parts,
    caller: Reviewer,
    case_id: str,
    body: Annotated[ActionRequest, Body(openapi_examples=ACTION_EXAMPLES)],
    response: Response,
    idempotency_key: IdempotencyKey = None,
    if_match: IfMatch = None,
) -> CaseView:
    """Have the case looked at again before a decision; nothing here decides it."""
    given = body.model_dump(mode="json")
    _check_names(server, given)
    once = Once.of(caller, idempotency_key, f"act:{case_id}", given)
    action, version = _action(server, caller, given), seen_version(server, if_match)
    asked = Asked(action=action, once=once, version=version)
    return await _carry_out(server, case_id, asked, response)


def _check_names(server: Server, given: dict[str, Any]) -> None:
    """Refuse what no bundle at work knows, before anything is written."""
    layout = server.kit.layout
    for field, known, slug in (
        ("transfer", layout.transfers, "unavailable-transfer"),
        ("modality", layout.modalities, "unavailable-modality"),
    ):
        if field in given and given[field] not in known:
            raise ProblemError(slug, f"body/{field}: unknown; there are {', '.join(known)}.")


@router.post(
    "/{case_id}/wake",
    summary="Wake a deferred case before its hour",
    responses=documented(
        *COMMON, "case-not-found", "not-deferred", "idempotency-key-reused", "not-ready"
    ),
)
async def wake(
    *,
    server: Parts,
    caller: Reviewer,
    case_id: str,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> CaseView:
    """Look at the case again now, at whatever the grid is."""
    once = Once.of(caller, idempotency_key, f"wake:{case_id}", {})
    if await server.reviews.wake(case_id, caller, once):
        response.headers["Idempotency-Replayed"] = "true"
    return await read_view(server, case_id, response)
