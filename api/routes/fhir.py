"""FHIR R4: a patient's Bundle in, a case's Bundle out."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy import Connection

from api.admission import etag
from api.deps import IdempotencyKey, Parts, Reviewer, Server, Viewer
from api.fhir.capabilities import capabilities
from api.fhir.intake import Intake, features_from_bundle
from api.fhir.issues import MAX_ISSUES, FhirError, Issue, operation_outcome
from api.fhir.mapping import MapFile, map_beside, read_map
from api.fhir.output import case_bundle
from api.fhir.schemas import IntakeView, IssueView
from api.fhir.writing import bundle_from_features
from api.idempotency import Once
from api.problems import TYPES, ProblemError, documented, problem_response
from api.records import audit_rows
from api.reviews import NewCase, case_not_found
from api.routes.cases import Prefer, new_case, read_view, seconds_to_wait
from api.schemas import CaseRequest, CaseView, Moment, Name
from api.store import actions as actions_of
from api.store import cases as store
from api.views import case_view

COMMON = ("malformed-request", "unauthorized", "forbidden", "invalid-request", "internal-error")
FHIR = "application/fhir+json"
JSON = "application/json"
ANSWER = FHIR + "; fhirVersion=4.0"
ANY_RESOURCE = {"type": "object", "required": ["resourceType"], "additionalProperties": True}
RESOURCE = {"content": {FHIR: {"schema": ANY_RESOURCE}}}
BODY = {
    "requestBody": {
        "required": True,
        "description": "A FHIR R4 Bundle about one Patient. One of type transaction or batch is "
        "read; its resources are not stored.",
        "content": {FHIR: {"schema": ANY_RESOURCE}, JSON: {"schema": ANY_RESOURCE}},
    }
}
router = APIRouter(prefix="/v1", tags=["fhir"])


def show_example(schema: dict[str, Any], server: Server) -> None:
    """Put a Bundle into the schema that this server takes as it stands; nobody's values."""
    student = server.kit.student
    made = bundle_from_features(
        student.example(),
        student,
        feature_map=_own_map(server),
        reference="example",
        synthetic=True,
    )
    shown = {"made-up": {"summary": "Training medians and known words", "value": made}}
    body = schema["paths"][f"{router.prefix}/fhir/Bundle"]["post"]["requestBody"]
    for media in body["content"].values():
        media["examples"] = shown


def _wants_fhir(request: Request) -> bool:
    return FHIR in request.headers.get("accept", "")


async def _body(request: Request) -> bytes:
    """The Bundle as it came.

    Raises:
        ProblemError: 415 if it does not say that it is JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (FHIR, JSON):
        raise ProblemError("unsupported-media-type", f"Send {FHIR} or {JSON}.")
    return await request.body()


def own_map(chosen: FilePath | None, bundle: FilePath) -> MapFile | None:
    """The deployment's map: what the settings name, or what lies beside the bundle.

    Raises:
        SettingsError: if it cannot be used.
    """
    beside = map_beside(bundle)
    if chosen is None and not beside.is_file():
        return None
    return read_map(chosen or beside)


def _own_map(server: Server) -> MapFile | None:
    return own_map(server.settings.fhir_map, server.kits.active.folder)


def read_for(server: Server, data: bytes) -> Intake:
    """Read a Bundle for the bundle that is served, by this deployment's map.

    Raises:
        FhirError: see :func:`api.fhir.intake.features_from_bundle`.
    """
    return features_from_bundle(data, server.kit.student, _own_map(server))


def _new_case(server: Server, intake: Intake, asked: dict[str, Any]) -> NewCase:
    urgency = asked.pop("urgency")
    try:
        body = CaseRequest(
            features={modality: dict(row) for modality, row in intake.features.items()},
            reference=intake.reference,
            urgency=urgency if urgency is not None else intake.urgency or 0.0,
            **asked,
        )
    except ValidationError as problem:
        place = problem.errors()[0]["loc"][0]
        raise ProblemError(
            "invalid-request", f"{place}: POST /v1/cases would not take it either."
        ) from None
    parts = intake.subject
    subject = server.cds.subjects.of(parts.system, parts.patient) if parts is not None else None
    return replace(new_case(server, body), subject=subject)


def _refused(request: Request, problem: FhirError) -> JSONResponse:
    """What is wrong with a Bundle, as the caller wants to read it."""
    kind = TYPES["invalid-fhir"]
    if _wants_fhir(request):
        outcome = operation_outcome(problem.issues)
        return JSONResponse(outcome, status_code=kind.status, media_type=ANSWER)
    found = [
        {"where": issue.where, "message": issue.message} for issue in problem.issues[:MAX_ISSUES]
    ]
    return problem_response(kind, str(problem), request.url.path, errors=found)


@router.get(
    "/fhir/metadata",
    summary="What of FHIR this server has",
    response_class=Response,
    responses={
        200: {**RESOURCE, "description": "A CapabilityStatement."},
        **documented("internal-error"),
    },
)
async def metadata(request: Request) -> Response:
    """A CapabilityStatement, for everybody; like ``/openapi.json`` it says nothing of cases."""
    return JSONResponse(capabilities(request.app.version), media_type=ANSWER)


@router.post(
    "/fhir/Bundle",
    status_code=202,
    summary="Post a patient's FHIR R4 Bundle for review",
    openapi_extra=BODY,
    response_model=IntakeView,
    responses={
        202: {"content": {FHIR: {"schema": ANY_RESOURCE}}},
        200: {"model": IntakeView, "description": "The same request was made before: its case."},
        **documented(
            *COMMON, "body-too-large", "unsupported-media-type", "invalid-fhir",
            "invalid-features", "unknown-policy", "idempotency-key-reused", "queue-full",
            "not-ready",
        ),
    },
)  # fmt: skip
async def post_bundle(
    *,
    server: Parts,
    caller: Reviewer,
    request: Request,
    response: Response,
    urgency: Annotated[
        float | None, Query(ge=0, le=1, description="Goes before a ServiceRequest's priority.")
    ] = None,
    deadline: Annotated[Moment | None, Query(description="As in POST /v1/cases.")] = None,
    unit: Annotated[Name | None, Query()] = None,
    session: Annotated[Name | None, Query()] = None,
    policy: Annotated[Name | None, Query()] = None,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Any:
    """Take a case on from Patient, Condition, Observation, DiagnosticReport and ServiceRequest.

    Nothing is imputed; a gene that no report names as tested is not known. An unknown unit or code
    of what is looked for refuses the Bundle, with its place; what no feature comes from is listed.
    Of the patient's identity a keyed sum is kept. ``Accept: application/fhir+json`` gets an
    OperationOutcome.
    """
    data = await _body(request)
    try:
        intake = await asyncio.to_thread(read_for, server, data)
    except FhirError as problem:
        return _refused(request, problem)
    asked = {
        "urgency": urgency, "deadline": deadline, "unit": unit, "session": session,
        "policy": policy,
    }  # fmt: skip
    once = Once.of(caller, idempotency_key, "fhir", [data.decode(), *map(str, asked.values())])
    case_id, row = await server.reviews.create(
        _new_case(server, intake, asked), caller, once, wait_s=seconds_to_wait(prefer)
    )
    response.headers["Location"] = f"/v1/cases/{case_id}"
    response.status_code = 202
    if row is not None:
        return _answer(request, response, case_view(server, row), intake)
    response.status_code = 200
    response.headers["Idempotency-Replayed"] = "true"
    return _answer(request, response, await read_view(server, case_id, response), intake)


def _issue_view(issue: Issue) -> IssueView:
    """An issue as callers see it."""
    return IssueView(
        severity=issue.severity, code=issue.code, where=issue.where, message=issue.message
    )


def _intake_view(case: CaseView, intake: Intake) -> IntakeView:
    """What a Bundle became."""
    known = {
        modality: sum(value is not None for value in row.values())
        for modality, row in intake.features.items()
    }
    return IntakeView(
        case=case,
        mapped=known,
        unmapped=[_issue_view(issue) for issue in intake.unmapped],
        notes=[_issue_view(issue) for issue in intake.notes],
    )


def _answer(request: Request, response: Response, case: CaseView, intake: Intake) -> Any:
    if not _wants_fhir(request):
        return _intake_view(case, intake)
    outcome = operation_outcome([*intake.unmapped, *intake.notes])
    headers = {
        name: response.headers[name]
        for name in ("Location", "ETag", "Idempotency-Replayed")
        if name in response.headers
    }
    return JSONResponse(
        outcome, status_code=response.status_code or 202, headers=headers, media_type=ANSWER
    )


@router.get(
    "/cases/{case_id}/fhir",
    summary="A case as a FHIR R4 Bundle",
    response_class=Response,
    responses={
        200: {**RESOURCE, "description": "A Bundle of type collection."},
        **documented(*COMMON, "case-not-found", "not-ready"),
    },
)
async def case_as_fhir(
    server: Parts,
    caller: Viewer,
    request: Request,
    case_id: Annotated[str, Path(max_length=64)],
) -> Response:
    """RiskAssessment with its evidence, the clinician's result, Provenance and AuditEvents.

    Preliminary until a clinician has decided, then final; a case that was sent back is cancelled
    or entered in error. What the model said is marked AIAST, what a clinician said CLINAST.
    """

    def read(connection: Connection) -> tuple[Any, Any, Any]:
        return (
            store.get_case(connection, case_id),
            actions_of.of_case(connection, case_id),
            audit_rows(connection, case_id),
        )

    row, actions, trail = await server.database.read(read)
    if row is None:
        raise case_not_found()
    case = case_view(server, row, actions)
    bundle = case_bundle(case, trail, software=request.app.version)
    headers = {"ETag": etag(row.version), "Cache-Control": "no-store"}
    return JSONResponse(bundle, media_type=ANSWER, headers=headers)
