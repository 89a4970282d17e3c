"""Carbon, policies and the model's own page."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import FileResponse, RedirectResponse

from api.deps import Parts
from api.idempotency import Once
from api.jobs import job_not_found
from api.routes.jobs import PAGE_POLICY
from api.store import jobs as store
from api.web.about_page import build_about
from api.web.carbon_page import FIELDS, build_carbon
from api.web.guard import Form, Visit, Visitor
from api.web.policies_page import build_policies, comparison_of, gone, job_file
from api.web.render import PageRoute, page

router = APIRouter(route_class=PageRoute, include_in_schema=False)
TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json", ".csv": "text/csv"}
LONGEST = 300


@router.get("/carbon")
async def carbon(request: Request, visited: Visitor) -> Response:
    """The grid, the budget, who waits for what, and the account."""
    typed = {
        name: request.query_params[name][:LONGEST]
        for name in FIELDS
        if request.query_params.get(name)
    }
    return await page(visited, "carbon.html", carbon=await build_carbon(visited, typed))


@router.get("/policies")
async def policies(visited: Visitor) -> Response:
    """Who decides, who would decide otherwise, and the comparisons."""
    return await _policies(visited)


async def _policies(visited: Visit, errors: dict[str, str] | None = None) -> Response:
    return await page(
        visited,
        "policies.html",
        status=422 if errors else 200,
        policies=await build_policies(visited),
        errors=errors or {},
        nonce=secrets.token_urlsafe(16),
    )


@router.post("/policies/comparisons")
async def compare(form: Form) -> Response:
    """Start a comparison in the background."""
    visited = form.visit
    visited.require("reviewer")
    server, principal = visited.server, visited.session.principal
    request, errors = comparison_of(form.fields, server.kit.policies.names)
    if errors:
        return await _policies(visited, errors)
    nonce = form.fields.get("nonce", "")[:64]
    once = Once.of(principal, f"page:{nonce}" if nonce else None, "comparison", request)
    await server.jobs.submit("comparison", request, principal, once)
    return RedirectResponse("/policies#jobs", status_code=303)


@router.post("/policies/jobs/{job_id}/cancel")
async def cancel(form: Form, job_id: Annotated[str, Path(max_length=64)]) -> Response:
    """End a job, or take it out of the queue."""
    visited = form.visit
    visited.require("reviewer")
    principal, nonce = visited.session.principal, form.fields.get("nonce", "")[:64]
    once = Once.of(principal, f"page:{nonce}" if nonce else None, f"cancel:{job_id}", {})
    await visited.server.jobs.cancel(job_id, principal, once)
    return RedirectResponse("/policies#jobs", status_code=303)


@router.get("/policies/jobs/{job_id}/{name}")
async def job_page(
    visited: Visitor,
    job_id: Annotated[str, Path(max_length=64)],
    name: Annotated[str, Path(max_length=100)],
) -> Response:
    """A report of a job: it is shown apart from the page, without script and without a network."""
    server = visited.server
    row = await server.database.read(lambda connection: store.get_job(connection, job_id))
    if row is None:
        raise job_not_found()
    path = job_file(server, row, name)
    if path is None:
        raise gone()
    media_type = TYPES.get(path.suffix, "application/octet-stream")
    return FileResponse(
        path, media_type=media_type, headers={"Content-Security-Policy": PAGE_POLICY}
    )


@router.get("/about")
async def about(visited: Visitor, server: Parts) -> Response:
    """What it is for, and how the model did in validation."""
    return await page(visited, "about.html", about=await build_about(server))
