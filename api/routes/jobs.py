"""Background jobs: start a comparison or a report, see how far it is, fetch what it left."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Path, Query, Response
from fastapi.responses import FileResponse

from agent.workflow.policybook import FOLDER
from api.deps import IdempotencyKey, Parts, Reviewer, Server, Viewer
from api.idempotency import Once
from api.job_requests import (
    COMPARISON_EXAMPLES,
    REPORT_EXAMPLES,
    ComparisonReport,
    ComparisonRequest,
    JobFile,
    JobKind,
    JobPage,
    JobStatus,
    JobView,
    ReportRequest,
)
from api.jobs import job_not_found
from api.problems import ProblemError, documented
from api.store import jobs as store

COMMON = ("malformed-request", "unauthorized", "forbidden", "invalid-request", "internal-error")
NEW = (*COMMON, "body-too-large", "idempotency-key-reused", "too-many-jobs", "not-ready")
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""What a report's page may do in a browser: show itself, and nothing else."""
STARTED: dict[int | str, dict[str, Any]] = {
    200: {"model": JobView, "description": "The same request was made before: its job."}
}
router = APIRouter(prefix="/v1", tags=["jobs"])
JobId = Annotated[str, Path(max_length=64, description="As the job was answered with.")]


def job_view(row: Any) -> JobView:
    """A job as callers see it."""
    base, result = f"/v1/jobs/{row.id}", row.result or {}
    files = [
        JobFile(
            name=file["name"], media_type=file["media_type"], bytes=file["bytes"],
            sha256=file["sha256"], href=f"{base}/files/{file['name']}",
        )
        for file in result.get("files", ())
    ]  # fmt: skip
    links = {"self": base}
    if row.status not in store.OVER:
        links["cancel"] = f"{base}/cancel"
    return JobView(
        id=row.id,
        kind=row.kind,
        status=row.status,
        progress=row.progress,
        message=row.message,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=row.created_by,
        request=row.request,
        bundle=result.get("bundle"),
        synthetic=result.get("synthetic"),
        failure=row.failure,
        files=files,
        links=links,
    )


async def _row(server: Server, job_id: str) -> Any:
    row = await server.database.read(lambda connection: store.get_job(connection, job_id))
    if row is None:
        raise job_not_found()
    return row


async def _start(
    server: Server, kind: str, request: dict[str, Any], caller: Reviewer, once: Once
) -> tuple[JobView, dict[str, str]]:
    job_id, before = await server.jobs.submit(kind, request, caller, once)
    headers = {"Location": f"/v1/jobs/{job_id}"}
    if before:
        headers["Idempotency-Replayed"] = "true"
    return job_view(await _row(server, job_id)), headers


def _check_policies(server: Server, names: list[str]) -> None:
    """Only what the active bundle offers, and no path: a caller names, the operator places."""
    book = server.kit.policies
    unknown = [name for name in names if name not in book.names]
    if unknown:
        offered = ", ".join(name for name in book.names if not name.startswith(FOLDER))
        raise ProblemError("unknown-policy", f"body/policies: unknown; there are {offered}.")


@router.post(
    "/comparisons",
    status_code=202,
    summary="Compare policies on the active bundle",
    responses={**STARTED, **documented(*NEW, "unknown-policy")},
)
async def compare(
    *,
    server: Parts,
    caller: Reviewer,
    body: Annotated[ComparisonRequest, Body(openapi_examples=COMPARISON_EXAMPLES)],
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Start ``greenboard compare`` in the background; its page and figures are files of the job.

    The sessions are of the bundle's held-out patients, and of the server's recorded trace if it
    has one. One job runs at a time, below the reviews' priority.
    """
    _check_policies(server, body.policies)
    request = body.model_dump(mode="json")
    once = Once.of(caller, idempotency_key, "comparison", request)
    view, headers = await _start(server, "comparison", request, caller, once)
    return _answered(view, headers, response)


@router.post(
    "/reports",
    status_code=202,
    summary="Write a report",
    responses={**STARTED, **documented(*NEW, "unknown-policy")},
)
async def report(
    *,
    server: Parts,
    caller: Reviewer,
    body: Annotated[ReportRequest, Body(openapi_examples=REPORT_EXAMPLES)],
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Start a report in the background: a comparison, the carbon account, or the shadow policies.

    Each leaves a page for people and JSON for programs.
    """
    if isinstance(body, ComparisonReport):
        _check_policies(server, body.policies)
    request = body.model_dump(mode="json")
    once = Once.of(caller, idempotency_key, "report", request)
    view, headers = await _start(server, body.kind, request, caller, once)
    return _answered(view, headers, response)


def _answered(view: JobView, headers: dict[str, str], response: Response) -> JobView:
    response.headers.update(headers)
    if "Idempotency-Replayed" in headers:
        response.status_code = 200
    return view


@router.get("/jobs", summary="List jobs, newest first", responses=documented(*COMMON, "not-ready"))
async def list_jobs(
    *,
    server: Parts,
    caller: Viewer,
    status: Annotated[
        list[JobStatus] | None, Query(description="Any of these.", max_length=5)
    ] = None,
    kind: Annotated[JobKind | None, Query(description="Of this kind only.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs on a page.")] = 50,
    cursor: Annotated[
        str | None,
        Query(pattern=r"^[0-9a-f]{32}$", description="``next_cursor`` of the page before."),
    ] = None,
) -> JobPage:
    """A page of jobs; pass ``next_cursor`` back as ``cursor`` for the next one."""
    rows, following = await server.database.read(
        lambda connection: store.list_jobs(
            connection, status=status or (), kind=kind, limit=limit, after=cursor
        )
    )
    return JobPage(jobs=[job_view(row) for row in rows], next_cursor=following)


@router.get(
    "/jobs/{job_id}",
    summary="Read a job",
    responses=documented(*COMMON, "job-not-found", "not-ready"),
)
async def read_job(server: Parts, caller: Viewer, job_id: JobId) -> JobView:
    """How far it is, and where its files are once it is done. Ask again about every second."""
    return job_view(await _row(server, job_id))


@router.post(
    "/jobs/{job_id}/cancel",
    summary="Cancel a job",
    responses=documented(
        *COMMON, "job-not-found", "job-over", "idempotency-key-reused", "not-ready"
    ),
)
async def cancel(
    *,
    server: Parts,
    caller: Reviewer,
    job_id: JobId,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """End it at once, or take it out of the queue; nothing of it is kept but this record."""
    once = Once.of(caller, idempotency_key, f"cancel:{job_id}", {})
    if await server.jobs.cancel(job_id, caller, once):
        response.headers["Idempotency-Replayed"] = "true"
    return job_view(await _row(server, job_id))


@router.get(
    "/jobs/{job_id}/files/{name}",
    summary="Fetch a file of a job",
    response_class=FileResponse,
    responses={
        200: {
            "content": {
                "text/html": {"schema": {"type": "string"}},
                "application/json": {"schema": {"type": "object"}, "example": {"policies": {}}},
                "application/jsonl": {"schema": {"type": "string"}, "example": "{}\n"},
            },
            "description": "The file, as it was written; its ETag is its SHA-256.",
        },
        304: {"description": "It is the one that If-None-Match names."},
        **documented(*COMMON, "job-not-found", "job-file-not-found", "not-ready"),
    },
)
async def read_file(
    *,
    server: Parts,
    caller: Viewer,
    job_id: JobId,
    name: Annotated[str, Path(max_length=100, description="As the job names it.")],
    if_none_match: Annotated[
        str | None, Header(max_length=300, description="ETag of the copy that you have.")
    ] = None,
) -> Response:
    """A page may be shown by a browser: it holds no script, and may load nothing."""
    row = await _row(server, job_id)
    listed = {file["name"]: file for file in (row.result or {}).get("files", ())}
    file = listed.get(name)
    path = server.jobs.path(row.id, file["path"]) if file else None
    if file is None or path is None:
        raise ProblemError(
            "job-file-not-found",
            "The job has no such file (any more); read the job to see which there are.",
        )
    tag = f'"{file["sha256"]}"'
    headers = {
        "ETag": tag, "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": PAGE_POLICY,
    }  # fmt: skip
    if if_none_match is not None and tag in if_none_match:
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=file["media_type"], headers=headers)
