"""CDS Hooks 2.0: discovery, the service at a patient's chart, and feedback on its cards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Body, Depends, Header, Request, Response
from sqlalchemy import Connection

from api import audit
from api.auth import Principal
from api.cds import intake
from api.cds.cards import Shown, card_id, card_of
from api.cds.desk import CdsCaller, replayed
from api.cds.schemas import (
    COMMENT_CHARS,
    FEEDBACK_EXAMPLES,
    HOOK_EXAMPLES,
    Cards,
    Feedback,
    FeedbackRequest,
    HookRequest,
    Service,
    Services,
)
from api.deps import Parts, Server
from api.idempotency import Once
from api.problems import ProblemError, documented
from api.reviews import NewCase
from api.store import cases as store
from api.store import cds as shown_store
from api.strict_json import StrictRoute
from api.views import case_view
from distill.errors import FeatureError

SERVICE = "greenboard-case-review"
HERE = f"/cds-services/{SERVICE}"
COMMON = ("malformed-request", "unauthorized", "forbidden", "invalid-request", "body-too-large",
          "internal-error", "keys-unavailable", "not-ready")  # fmt: skip
router = APIRouter(prefix="/cds-services", tags=["cds-hooks"], route_class=StrictRoute)
Authorization = Annotated[str | None, Header(description="Bearer and a JSON Web Token.")]


async def _caller(server: Parts, authorization: Authorization = None) -> CdsCaller:
    return await server.cds.admit(authorization, (HERE,), server.clock())


async def _feedback_caller(server: Parts, authorization: Authorization = None) -> CdsCaller:
    return await server.cds.admit(authorization, (f"{HERE}/feedback", HERE), server.clock())


Caller = Annotated[CdsCaller, Depends(_caller)]
FeedbackCaller = Annotated[CdsCaller, Depends(_feedback_caller)]
Hook = Annotated[HookRequest, Body(openapi_examples=HOOK_EXAMPLES)]
FeedbackBody = Annotated[FeedbackRequest, Body(openapi_examples=FEEDBACK_EXAMPLES)]


@router.get("", summary="Which CDS services there are")
async def discover() -> Services:
    """Open to everybody; the services themselves take a token."""
    return Services(
        services=[
            Service(
                id=SERVICE,
                title="Tumour board case review (research use only)",
                description="Where the case review of this patient stands, and a link to the page "
                "where a person decides. Research use only: it recommends, a person signs.",
                prefetch=intake.PREFETCH,
                usage_requirements="Calls carry a JSON Web Token (ES384 or RS384) of an issuer "
                "that this server was told to trust.",
            )
        ]
    )


@dataclass(frozen=True, kw_only=True)
class _Visit:
    """One call: who, for which patient, now."""

    server: Server
    caller: CdsCaller
    hook: HookRequest
    subject: str
    now: datetime
    base: str

    def shown(self, row: Any) -> Shown:
        return Shown(
            case=case_view(self.server, row),
            issuer=self.caller.issuer,
            service=SERVICE,
            patient=self.hook.context.patient_id,
            base=self.base,
            now=self.now,
        )

    def note(self, connection: Connection, row: Any) -> None:
        """Remember which card is shown, so that feedback on it is known."""
        name = card_id(row.id, row.version, issuer=self.caller.issuer, service=SERVICE)
        card = {"card": name, "service": SERVICE, "case_id": row.id, "version": row.version,
                "issuer": self.caller.issuer, "time": self.now}  # fmt: skip
        shown_store.note_card(connection, card)


@router.post(
    f"/{SERVICE}",
    summary="The case review of the patient whose chart was opened",
    response_model_exclude_none=True,
    responses=documented(*COMMON, "prefetch-missing", "queue-full"),
)
async def patient_view(
    *,
    server: Parts,
    caller: Caller,
    body: Hook,
    request: Request,
    response: Response,
    afterwards: BackgroundTasks,
) -> Cards:
    """Answers from what is known: the graph is never run in a call.

    Without a case, what the call brings (``prefetch``) starts one where its issuer may do that and
    it holds what the review needs; if it lacks what discovery asks for, 412.
    """
    visit = _Visit(
        server=server,
        caller=caller,
        hook=body,
        subject=server.cds.subjects.of(caller.system(body.fhir_server), body.context.patient_id),
        now=server.clock(),
        base=server.cds.base(str(request.base_url)),
    )
    response.headers["Cache-Control"] = "no-store"
    # One transaction: the token is used up, the case is found, and its card is remembered.
    row = await server.database.write(lambda c: _look(c, visit), rebuildable=True)
    if row is None:
        row = await _start(visit)
        if row is not None:
            # The review has begun: what is not needed for the answer comes after it.
            afterwards.add_task(_note, visit, row)
    return Cards(cards=[] if row is None else [card_of(visit.shown(row))])


async def _note(visit: _Visit, row: Any) -> None:
    await visit.server.database.write(lambda c: visit.note(c, row), rebuildable=True)


def _look(connection: Connection, visit: _Visit) -> Any:
    _claim(connection, visit.caller, visit.now)
    row = shown_store.latest_of(connection, visit.subject)
    if row is not None:
        visit.note(connection, row)
    return row


def _claim(connection: Connection, caller: CdsCaller, now: datetime) -> None:
    """Use the token up.

    Raises:
        ProblemError: 401 if it was used before.
    """
    proof = caller.proof
    if proof is None:
        return
    if not shown_store.claim_token(connection, proof.number, until=proof.until, now=now):
        raise replayed()


async def _start(visit: _Visit) -> Any:
    """Post a case from what the call brings; None if there is nothing to review in it."""
    if not visit.caller.may_start:
        return None
    server = visit.server
    features = await intake.features_of(visit.hook, server)
    if features is None:
        return None
    new = NewCase(
        features=features,
        reference=None,
        urgency=0.0,
        deadline=None,
        policy=server.kit.policies.configured,
        seen_in_training=None,
        unit=None,
        session=None,
        subject=visit.subject,
    )
    # Charts are opened twice at once: the patient is the key, so that there is one case.
    caller = Principal(name=f"cds:{visit.caller.issuer}"[:100], role="reviewer")
    once = Once.of(caller, f"cds-{visit.subject}", "cds:start", {"subject": visit.subject})
    try:
        case_id, row = await server.reviews.create(new, caller, once)
    except FeatureError:
        return None
    if row is None:
        return await server.database.read(lambda c: store.get_case(c, case_id))
    return row


@router.post(
    f"/{SERVICE}/feedback",
    summary="What clinicians did with cards",
    response_class=Response,
    responses={
        200: {"description": "Taken note of."},
        **documented(*COMMON, "card-not-found"),
    },
)
async def feedback(
    server: Parts,
    caller: FeedbackCaller,
    body: FeedbackBody,
) -> Response:
    """Recorded once for each card and outcome; repeats change nothing.

    Feedback never decides a case: that takes a reviewer's key and the case's own page.
    """
    now = server.clock()
    # Apart, so that a token is used up whatever comes of the rest.
    await server.database.write(lambda c: _claim(c, caller, now), rebuildable=True)
    await server.database.write(lambda c: _record(c, caller, body.feedback, now))
    return Response(status_code=200)


def _record(
    connection: Connection, caller: CdsCaller, items: list[Feedback], now: datetime
) -> None:
    """Write all of it or nothing."""
    for item in items:
        card = shown_store.find_card(
            connection, item.card.lower(), service=SERVICE, issuer=caller.issuer
        )
        if card is None:
            raise ProblemError(
                "card-not-found",
                "A card of this feedback was not shown to this client; nothing was recorded.",
            )
        row = {"service": SERVICE, "card": card.card, "outcome": item.outcome,
               "case_id": card.case_id, "issuer": caller.issuer, "data": _kept(item),
               "time": now}  # fmt: skip
        if shown_store.add_feedback(connection, row):
            audit.append(
                connection,
                time=now,
                actor=f"cds:{caller.issuer}"[:100],
                action=f"cds.{item.outcome}",
                subject=card.case_id,
                detail={"card": card.card, "version": card.version},
            )


def _kept(item: Feedback) -> dict[str, Any]:
    """What is kept of feedback: codes, times, and a comment cut short."""
    reason = item.override_reason
    code = reason.reason if reason is not None else None
    return {
        "at": item.outcome_timestamp.isoformat(),
        "suggestions": [taken.id.lower() for taken in item.accepted_suggestions],
        "reason_code": code.code if code is not None else None,
        "reason_system": code.system if code is not None else None,
        "comment": (reason.user_comment or "")[:COMMENT_CHARS] if reason is not None else "",
    }
