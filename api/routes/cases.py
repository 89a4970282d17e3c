"""Cases: post, list, read, follow."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from agent.workflow.errors import WorkflowError
from api.admission import etag
from api.case_query import CaseQuery
from api.deps import IdempotencyKey, Parts, Reviewer, Server, Viewer
from api.idempotency import Once
from api.inputs import cohort_features, times_of
from api.problems import ProblemError, documented
from api.reviews import NewCase, case_not_found
from api.schemas import (
    CasePage,
    CaseRequest,
    CaseView,
)
from api.sse import EventStream, follow_case, look
from api.store import actions as actions_of
from api.store import cases as store
from api.store import search
from api.strict_json import StrictRoute
from api.views import case_view, summary

COMMON = ("malformed-request", "unauthorized", "forbidden", "invalid-request", "internal-error")
router = APIRouter(prefix="/v1/cases", tags=["cases"], route_class=StrictRoute)
WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])", re.IGNORECASE)
MAX_WAIT_S = 30.0
Prefer = Annotated[
    str | None,
    Header(
        max_length=200,
        description="`wait=N`: answer when the review rests, after N seconds (30 at most) at last.",
        examples=["wait=10"],
    ),
]


def seconds_to_wait(prefer: str | None) -> float:
    """How long a caller is willing to wait for the result, seconds; 0 where they do not say."""
    match = WAIT.search(prefer or "")
    return min(float(match[1]), MAX_WAIT_S) if match else 0.0


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


def new_case(server: Server, body: CaseRequest) -> NewCase:
    """What is asked for, checked against what this server has.

    Raises:
        ProblemError: if it has no such policy or cohort case.
    """
    policies = server.kit.policies
    try:
        policy = policies.check(body.policy) if body.policy else policies.configured
    except WorkflowError as error:
        offered = ", ".join(policies.names)
        raise ProblemError(
            "unknown-policy", f"body/policy: unknown; there are {offered}."
        ) from error
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
    *,
    server: Parts,
    caller: Reviewer,
    body: CaseRequest,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> CaseView:
    """Take a case on. Follow its events until it waits for the clinician.

    Or send ``Prefer: wait=10`` (RFC 7240): the answer then comes when the case waits for the
    clinician or for a cleaner hour, at the latest after so many seconds.

    Send feature rows by modality, or the id of a case of the cohort that the server was started
    with. Only clinical data are looked at to begin with; the policy decides what else is worth it.
    """
    once = Once.of(caller, idempotency_key, "create", body.model_dump(mode="json"))
    wait_s = seconds_to_wait(prefer)
    new = new_case(server, body)
    case_id, row = await server.reviews.create(new, caller, once, wait_s=wait_s)
    if wait_s > 0:
        response.headers["Preference-Applied"] = f"wait={wait_s:g}"
    response.headers["Location"] = f"/v1/cases/{case_id}"
    if row is not None:
        response.headers["ETag"] = etag(row.version)
        return case_view(server, row)
    response.status_code = 200
    response.headers["Idempotency-Replayed"] = "true"
    return await read_view(server, case_id, response)


@router.get("", summary="List cases", responses=documented(*COMMON, "not-ready"))
async def list_cases(
    server: Parts, caller: Viewer, asked: Annotated[CaseQuery, Query()]
) -> CasePage:
    """A page of cases, newest first by default; ``next_cursor`` as ``cursor`` gives the next one.

    Turning pages shows each case once, also while others are posted.
    """
    chosen = asked.chosen()
    rows, following = await server.database.read(
        lambda connection: search.list_cases(
            connection, chosen, limit=asked.limit, cursor=asked.cursor, order=asked.sort
        )
    )
    return CasePage(cases=[summary(server, row) for row in rows], next_cursor=following)


@router.get("/{case_id}", summary="Read a case", responses=documented(*COMMON, "case-not-found"))
async def read_case(server: Parts, caller: Viewer, case_id: str, response: Response) -> CaseView:
    """The case with its explanation, plan and decision; its ``ETag`` names the version."""
    return await read_view(server, case_id, response)


@router.get(
    "/{case_id}/events",
    summary="Follow the steps of a case (server-sent events)",
    status_code=200,  # the schema would look for it in the class, which has no say in it
    response_class=EventStream,
    responses={
        200: {"content": {"text/event-stream": {}}, "description": "Steps, then what follows."},
        204: {"description": "The review is over and every step was seen."},
        **documented(*COMMON, "case-not-found", "too-many-watchers"),
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
    return EventStream(follow_case(server, case_id, after=after, follow=follow), server.watchers)
