"""What can be asked of a server: one function a request. Both clients offer all of them.

``case`` is a case that was read, or its id. A case that was read says which version was seen: if it
has changed since, an action on it is refused (:class:`api.client.StaleError`). ``key`` is an
Idempotency-Key of one's own; one is made up for each call otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from pydantic import TypeAdapter

from api.batch_schemas import BatchView
from api.client.wire import (
    Call,
    CaseRef,
    case_path,
    get,
    json_lines,
    json_of,
    model,
    post,
)
from api.fhir.schemas import IntakeView
from api.record_schemas import AuditTrail, CaseExport
from api.schemas import (
    ActionRequest,
    CasePage,
    CaseRequest,
    CaseView,
    Cell,
    DecisionRequest,
    RephrasedView,
    Status,
)

Features = Mapping[str, Mapping[str, Cell] | None]
DECISION: TypeAdapter[DecisionRequest] = TypeAdapter(DecisionRequest)
ACTION: TypeAdapter[ActionRequest] = TypeAdapter(ActionRequest)
Reason = Literal[
    "clinical_judgement", "new_information", "data_quality", "outside_scope",
    "missing_data", "wrong_data", "other",
]  # fmt: skip


class CaseOptions(TypedDict, total=False):
    """What a new case may say of itself beside its data; see :class:`api.schemas.CaseRequest`."""

    case_id: str | None
    reference: str | None
    urgency: float
    deadline: datetime | None
    unit: str | None
    session: str | None
    policy: str | None


class Filters(TypedDict, total=False):
    """Which cases, and in which order."""

    status: Sequence[Status] | Status
    policy: str | None
    reference: str | None
    unit: str | None
    session: str | None
    q: str | None
    min_urgency: float
    above_uncertainty: float | None
    second_review: bool | None
    created_since: datetime | None
    created_until: datetime | None
    sort: Literal["created", "urgency", "deadline", "uncertainty"]


def case_request(features: Features | None, options: CaseOptions) -> CaseRequest:
    """A new case, checked before it is sent.

    Raises:
        pydantic.ValidationError: if it does not fit the schema.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if features is not None:
        given["features"] = {m: None if row is None else dict(row) for m, row in features.items()}
    if isinstance(given.get("deadline"), datetime):
        given["deadline"] = given["deadline"].isoformat()
    return CaseRequest.model_validate(given)


def create_case(
    features: Features | None = None,
    *,
    wait_s: float = 0,
    key: str | None = None,
    **options: Unpack[CaseOptions],
) -> Call[CaseView]:
    """Post a case for review.

    Args:
        features: feature rows by modality; or give ``case_id``, of the server's cohort.
        wait_s: the answer may wait so long, 30 s at most, for the review to rest.
        key: an Idempotency-Key of one's own.
        options: what else the case says of itself.
    """
    body = case_request(features, options).model_dump(mode="json", exclude_unset=True)
    headers = {"Prefer": f"wait={round(wait_s)}"} if wait_s >= 1 else {}
    return post("/v1/cases", model(CaseView), body, key=key, headers=headers)


def create_cases(cases: Sequence[CaseRequest], *, key: str | None = None) -> Call[BatchView]:
    """Post up to 100 cases; what came of each stands in the answer."""
    bodies = [case.model_dump(mode="json", exclude_unset=True) for case in cases]
    return post("/v1/cases/batch", model(BatchView), {"cases": bodies}, key=key)


def post_bundle(
    bundle: Mapping[str, Any],
    *,
    urgency: float | None = None,
    deadline: datetime | None = None,
    unit: str | None = None,
    session: str | None = None,
    policy: str | None = None,
    key: str | None = None,
) -> Call[IntakeView]:
    """Post a patient's FHIR R4 Bundle for review; what of it was understood stands beside it."""
    params = {"urgency": urgency, "deadline": deadline, "unit": unit, "session": session,
              "policy": policy}  # fmt: skip
    call = post("/v1/fhir/Bundle", model(IntakeView), dict(bundle), key=key)
    return replace(call, params=params)


def case_bundle(case: CaseRef) -> Call[dict[str, Any]]:
    """A case as a FHIR R4 Bundle."""
    return get(case_path(case, "fhir"), json_of)


def read_case(case: CaseRef) -> Call[CaseView]:
    """A case as it is now."""
    return get(case_path(case), model(CaseView))


def list_cases(
    *, limit: int = 50, cursor: str | None = None, **filters: Unpack[Filters]
) -> Call[CasePage]:
    """One page of cases; ``iter_cases`` goes through all of them."""
    return get("/v1/cases", model(CasePage), {**filters, "limit": limit, "cursor": cursor})


def page_of_cases(filters: Filters, limit: int, cursor: str | None) -> Call[CasePage]:
    """One page of cases, for going through all of them."""
    return list_cases(limit=limit, cursor=cursor, **filters)


def _decide(case: CaseRef, given: Mapping[str, Any], key: str | None) -> Call[CaseView]:
    body = DECISION.validate_python(given).model_dump(mode="json")
    return post(case_path(case, "decision"), model(CaseView), body, key=key, seen=case)


def _act(case: CaseRef, given: Mapping[str, Any], key: str | None) -> Call[CaseView]:
    body = ACTION.validate_python(given).model_dump(mode="json")
    return post(case_path(case, "actions"), model(CaseView), body, key=key, seen=case)


def accept(case: CaseRef, *, comment: str = "", key: str | None = None) -> Call[CaseView]:
    """Agree with the suggestion."""
    return _decide(case, {"action": "accept", "comment": comment}, key)


def override(
    case: CaseRef,
    result: Literal["negative", "positive"],
    reason_code: Reason,
    *,
    comment: str = "",
    key: str | None = None,
) -> Call[CaseView]:
    """Decide otherwise, and say why."""
    given = {"action": "override", "result": result, "reason_code": reason_code}
    return _decide(case, {**given, "comment": comment}, key)


def send_back(
    case: CaseRef, reason_code: Reason, *, comment: str = "", key: str | None = None
) -> Call[CaseView]:
    """Send the case back to whoever posted it, without a result."""
    given = {"action": "send_back", "reason_code": reason_code, "comment": comment}
    return _decide(case, given, key)


def request_transfer(
    case: CaseRef,
    transfer: str,
    reason_code: Reason = "clinical_judgement",
    *,
    comment: str = "",
    key: str | None = None,
) -> Call[CaseView]:
    """Ask for a transfer that the agent skipped."""
    given = {"action": "request_transfer", "transfer": transfer, "reason_code": reason_code}
    return _act(case, {**given, "comment": comment}, key)


def mark_unreliable(
    case: CaseRef,
    modality: str,
    reason_code: Reason = "data_quality",
    *,
    comment: str = "",
    key: str | None = None,
) -> Call[CaseView]:
    """Have the case assessed again without a modality's data."""
    given = {"action": "mark_unreliable", "modality": modality, "reason_code": reason_code}
    return _act(case, {**given, "comment": comment}, key)


def raise_urgency(
    case: CaseRef, urgency: float, *, comment: str = "", key: str | None = None
) -> Call[CaseView]:
    """Say that the case is more urgent than was thought; a deferred one is woken."""
    given = {"action": "raise_urgency", "urgency": float(urgency), "comment": comment}
    return _act(case, given, key)


def retry_case(case: CaseRef, *, comment: str = "", key: str | None = None) -> Call[CaseView]:
    """Let a parked case go on at the step that failed."""
    return _act(case, {"action": "retry", "comment": comment}, key)


def wake(case: CaseRef, *, key: str | None = None) -> Call[CaseView]:
    """Wake a deferred case before its hour."""
    return post(case_path(case, "wake"), model(CaseView), key=key)


def case_audit(case: CaseRef) -> Call[AuditTrail]:
    """Who did what to a case."""
    return get(case_path(case, "audit"), model(AuditTrail))


def export_case(case: CaseRef) -> Call[CaseExport]:
    """Everything that the record of a case holds, the patient's features too."""
    return get(case_path(case, "export"), model(CaseExport))


def export_cases(**filters: Unpack[Filters]) -> Call[list[CaseExport]]:
    """The records of many cases, in one answer."""
    return get("/v1/cases/export.jsonl", json_lines(CaseExport), filters)


def rephrase(case: CaseRef, *, key: str | None = None) -> Call[RephrasedView]:
    """A case's explanation in a language model's words, where the server has one; asked once."""
    call = post(case_path(case, "rephrase"), model(RephrasedView), key=key)
    return replace(call, again=False)
