"""What can be asked of a server: one function a request. Both clients offer all of them.

``case`` is a case that was read, or its id. A case that was read says which version was seen: if it
has changed since, an action on it is refused (:class:`api.client.StaleError`). ``key`` is an
Idempotency-Key of one's own; one is made up for each call otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from pydantic import TypeAdapter

from api.account_schemas import AccountView, By, LimitsView
from api.batch_schemas import BatchView
from api.bundle_schemas import ActivationsView, ActivationView, BundlesView
from api.client.wire import (
    Call,
    CaseRef,
    bytes_of,
    case_path,
    get,
    json_lines,
    model,
    post,
    text_of,
    under,
)
from api.job_requests import (
    ComparisonRequest,
    JobKind,
    JobPage,
    JobStatus,
    JobView,
    ReportRequest,
)
from api.record_schemas import AuditTrail, CaseExport
from api.schemas import (
    ActionRequest,
    AuditView,
    CasePage,
    CaseRequest,
    CaseView,
    Cell,
    DecisionRequest,
    ForecastView,
    Health,
    LedgerView,
    PoliciesView,
    Readiness,
    ReadingView,
    Status,
)

Features = Mapping[str, Mapping[str, Cell] | None]
DECISION: TypeAdapter[DecisionRequest] = TypeAdapter(DecisionRequest)
ACTION: TypeAdapter[ActionRequest] = TypeAdapter(ActionRequest)
REPORT: TypeAdapter[ReportRequest] = TypeAdapter(ReportRequest)
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


def policies() -> Call[PoliciesView]:
    """What can decide."""
    return get("/v1/policies", model(PoliciesView))


def bundles() -> Call[BundlesView]:
    """Which bundles there are, and which one new cases get."""
    return get("/v1/bundles", model(BundlesView))


def activations() -> Call[ActivationsView]:
    """Which bundle was active when."""
    return get("/v1/bundles/activations", model(ActivationsView))


def activate_bundle(version: str, *, key: str | None = None) -> Call[ActivationView]:
    """Let new cases get another bundle; for administrators."""
    body = {"version": version}
    return post("/v1/bundles/activations", model(ActivationView), body, key=key)


def roll_back_bundle(*, key: str | None = None) -> Call[ActivationView]:
    """Let new cases get the bundle before this one again; for administrators."""
    return post("/v1/bundles/rollback", model(ActivationView), key=key)


def start_comparison(
    *, key: str | None = None, request: ComparisonRequest | None = None
) -> Call[JobView]:
    """Compare policies in the background; see :meth:`wait_for_job`."""
    body = (request or ComparisonRequest()).model_dump(mode="json")
    return post("/v1/comparisons", model(JobView), body, key=key)


def start_report(
    kind: JobKind, *, key: str | None = None, options: Mapping[str, Any] | None = None
) -> Call[JobView]:
    """Write a report in the background; ``options`` as the schema of its kind has them."""
    asked = REPORT.validate_python({"kind": kind, **(options or {})})
    return post("/v1/reports", model(JobView), asked.model_dump(mode="json"), key=key)


def list_jobs(
    *,
    status: Sequence[JobStatus] = (),
    kind: JobKind | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Call[JobPage]:
    """A page of jobs, newest first."""
    params = {"status": list(status), "kind": kind, "limit": limit, "cursor": cursor}
    return get("/v1/jobs", model(JobPage), params)


def page_of_jobs(limit: int, cursor: str | None) -> Call[JobPage]:
    """One page of jobs, for going through all of them."""
    return list_jobs(limit=limit, cursor=cursor)


def _job_path(job: JobView | str, *more: str) -> str:
    return under("/v1/jobs", job if isinstance(job, str) else job.id, *more)


def read_job(job: JobView | str) -> Call[JobView]:
    """How far a job is."""
    return get(_job_path(job), model(JobView))


def cancel_job(job: JobView | str, *, key: str | None = None) -> Call[JobView]:
    """End a job."""
    return post(_job_path(job, "cancel"), model(JobView), key=key)


def job_file(job: JobView | str, name: str) -> Call[bytes]:
    """A file that a job left."""
    return get(_job_path(job, "files", name), bytes_of)


def carbon_now() -> Call[ReadingView]:
    """The grid's intensity with its provenance."""
    return get("/v1/carbon/now", model(ReadingView))


def carbon_forecast(hours: int = 24) -> Call[ForecastView]:
    """The hours ahead."""
    return get("/v1/carbon/forecast", model(ForecastView), {"hours": hours})


def carbon_ledger(
    *,
    by: Literal["stage", "case"] = "stage",
    since: datetime | None = None,
    case: CaseRef | None = None,
) -> Call[LedgerView]:
    """Energy and carbon so far, measured and modelled apart."""
    name = case.id if case is not None and not isinstance(case, str) else case
    return get("/v1/carbon/ledger", model(LedgerView), {"by": by, "since": since, "case": name})


def ledger_lines(*, since: datetime | None = None, until: datetime | None = None) -> Call[str]:
    """Every entry of the ledger as JSON Lines: a file for ``greenboard carbon account``."""
    return get("/v1/carbon/ledger.jsonl", text_of, {"since": since, "until": until})


def carbon_account(
    *,
    by: By = "stage",
    heat: str | None = None,
    hardware: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    **more: str | int,
) -> Call[AccountView]:
    """Gross, SCI, avoided by recovered heat, and net; ``more`` as the API has it."""
    params = {"by": by, "heat": heat, "hardware": hardware, "since": since, "until": until, **more}
    return get("/v1/carbon/account", model(AccountView), params)


def carbon_limits(*, session: str | None = None) -> Call[LimitsView]:
    """Where the operator's limits stand."""
    return get("/v1/carbon/limits", model(LimitsView), {"session": session})


def check_audit() -> Call[AuditView]:
    """Whether the audit log holds together; for administrators."""
    return get("/v1/audit", model(AuditView))


def health() -> Call[Health]:
    """Whether the server answers."""
    return get("/healthz", model(Health))


def readiness() -> Call[Readiness]:
    """Whether cases can be reviewed, and with what."""
    return get("/readyz", model(Readiness))


def metrics() -> Call[str]:
    """Prometheus metrics."""
    return get("/metrics", text_of)
