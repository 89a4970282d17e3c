"""Cases: post, list, read, follow."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from agent.workflow.errors import WorkflowError
from api.admission import etag
from api.deps import IdempotencyKey, Parts, Reviewer, Server, Viewer
from api.idempotency import Once
from api.inputs import cohort_features, times_of
from api.problems import ProblemError, documented
from api.reviews import NewCase, case_not_found
from api.schemas import (
    CasePage,
    CaseRequest,
    CaseView,
    Status,
)
from api.sse import EventStream, follow_case, look
from api.store import actions as actions_of
from api.store import cases as store
from api.views import case_view, summary

COMMON = ("malformed-request", "unauthorized", "forbidden", "invalid-request", "internal-error")
router = APIRouter(prefix="/v1/cases", tags=["cases"])


async def read_view(server: Server, case_id: str, response: Response) -> CaseView:
    """The case as it is now; its version goes into the answer's ETag.

    Raises:
        ProblemError: if there is none.
    """
    row, actions = await server.database.read(
        lambda c: (store.get_case(c, case_id), actions_of.of_case(c, case_id))
    )
    if row is None:
        raise case_not_found()
    response.headers["ETag"] = etag(row.version)
    return case_view(server, row, actions)


def _new_case(server: Server, body: CaseRequest) -> NewCase:
    policies = server.kit.policies
    try:
        policy = policies.check(body.policy) if body.policy else policies.configured
    except WorkflowError as error:
        raise ProblemError("unknown-policy", str(error)) from error
    features: Any = body.features
    seen = None
    if body.case_id is not None:
        features = _from_cohort(server, body.case_id)
        seen = server.kit.seen_in_training(body.case_id)
    return NewCase(
        features=features,
        reference=body.reference if body.reference is not None else body.case_id,
        unit=body.unit,
        session=body.session,
        urgency=body.urgency,
        deadline=body.deadline.astimezone(UTC) if body.deadline else None,
        policy=policy,
        seen_in_training=seen,
    )


def _from_cohort(server: Server, case_id: str) -> dict[str, Any]:
    features = None
    if server.cohort is not None:
        features = cohort_features(
            server.cohort, case_id, server.kit.layout.modalities, times_of(server.kit.student)
        )
    if features is None:
        reason = (
            "No cohort is loaded; start the server with --cohort DIR, or send the features."
            if server.cohort is None
            else "The loaded cohort has no case with this id; check it, or send the features."
        )
        raise ProblemError("unknown-cohort-case", reason)
    return features


@router.post(
    "",
    status_code=202,
    summary="Post a case for review",
    responses={
        200: {"model": CaseView, "description": "The same request was made before: its case."},
        **documented(
            *COMMON, "body-too-large", "invalid-features", "unknown-policy",
            "unknown-cohort-case", "idempotency-key-reused", "queue-full", "not-ready",
        ),
    },
)  # fmt: skip
async def create_case(
    server: Parts,
    caller: Reviewer,
    body: CaseRequest,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> CaseView:
    """Take a case on. Follow its events until it waits for the clinician.

    Send feature rows by modality, or the id of a case of the cohort that the server was started
    with. Only clinical data are looked at to begin with; the policy decides what else is worth it.
    """
    once = Once.of(caller, idempotency_key, "create", body.model_dump(mode="json"))
    case_id, row = await server.reviews.create(_new_case(server, body), caller, once)
    response.headers["Location"] = f"/v1/cases/{case_id}"
    if row is not None:
        response.headers["ETag"] = etag(row.version)
        return case_view(server, row)
    response.status_code = 200
    response.headers["Idempotency-Replayed"] = "true"
    return await read_view(server, case_id, response)


@router.get("", summary="List cases, newest first", responses=documented(*COMMON))
async def list_cases(
    *,
    server: Parts,
    caller: Viewer,
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    policy: Annotated[str | None, Query(max_length=200)] = None,
    min_urgency: Annotated[float, Query(ge=0, le=1)] = 0.0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=300)] = None,
) -> CasePage:
    """A page of cases; pass ``next_cursor`` back as ``cursor`` for the next one."""
    wanted = list(status or ())
    if store.RUNNING in wanted:
        # A case that runs is stored as queued until it rests.
        wanted.append(store.QUEUED)  # type: ignore[arg-type]
    chosen = store.CaseFilter(status=wanted, policy=policy, min_urgency=min_urgency)
    rows, following = await server.database.read(
        lambda connection: store.list_cases(connection, chosen, limit=limit, cursor=cursor)
    )
    return CasePage(cases=[summary(server, row) for row in rows], next_cursor=following)


@router.get("/{case_id}", summary="Read a case", responses=documented(*COMMON, "case-not-found"))
async def read_case(server: Parts, caller: Viewer, case_id: str, response: Response) -> CaseView:
    """The case with its explanation, plan and decision; its ``ETag`` names the version."""
    return await read_view(server, case_id, response)


@router.get(
    "/{case_id}/events",
    summary="Follow the steps of a case (server-sent events)",
    response_class=EventStream,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Steps, then what follows."},
        204: {"description": "The review is over and every step was seen."},
        **documented(*COMMON, "case-not-found"),
    },
)
async def read_events(
    *,
    server: Parts,
    caller: Viewer,
    case_id: str,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
    follow: Annotated[bool, Query(description="False: end after what there is now.")] = True,
) -> Response:
    """Every step so far, then each new one as it happens; ``id`` is the step's number.

    ``event: status`` says that the case came to rest. Reconnect with ``Last-Event-ID`` to go on
    after the last step that was seen.
    """
    seen = last_event_id or ""
    after = int(seen) if seen.isascii() and seen.isdecimal() else -1
    unseen, status = await look(server, case_id, after)
    if not status:
        raise case_not_found()
    if status in store.FINAL and last_event_id is not None and not unseen:
        return Response(status_code=204)
    return EventStream(follow_case(server, case_id, after=after, follow=follow))
