"""What can be asked of a server beside its cases: bundles, jobs, carbon, and the server itself.

One function a request, as in :mod:`api.client.calls`; both clients offer all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import TypeAdapter

from api.account_schemas import AccountView, By, DayBudgetView, LimitsView
from api.bundle_schemas import ActivationsView, ActivationView, BundlesView
from api.client.wire import Call, CaseRef, bytes_of, get, model, post, text_of, under
from api.job_requests import ComparisonRequest, JobKind, JobPage, JobStatus, JobView, ReportRequest
from api.schemas import (
    AuditView,
    ForecastView,
    Health,
    LedgerView,
    PoliciesView,
    Readiness,
    ReadingView,
)

REPORT: TypeAdapter[ReportRequest] = TypeAdapter(ReportRequest)


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


def carbon_budget() -> Call[DayBudgetView]:
    """What of the day's carbon is left, and how it went."""
    return get("/v1/carbon/budget", model(DayBudgetView))


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
