"""A case's page, and what a person does on it."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import TypeAdapter

from agent.workflow.actions import Act, ClinicianAction
from api.idempotency import Once
from api.problems import ProblemError
from api.reviews import Asked, case_not_found
from api.routes.rephrase import rephrase
from api.web import words
from api.web.case_page import CasePage, build_case, read_case, with_live
from api.web.forms import Filled, fill
from api.web.guard import Form, Visit, Visitor
from api.web.render import PageRoute, page_text

router = APIRouter(route_class=PageRoute, include_in_schema=False)
ACTION: TypeAdapter[Act] = TypeAdapter(ClinicianAction)
DONE = {
    "accept": "Your decision is signed.",
    "override": "Your decision is signed.",
    "send_back": "The case went back.",
    "request_transfer": "The transfer was asked for.",
    "mark_unreliable": "The case was assessed again without it.",
    "raise_urgency": "The urgency is raised.",
    "retry": "The agent was asked to try again.",
    "wake": "The case was woken.",
}
CONFLICTS = ("stale", "already-decided", "not-awaiting-clinician", "second-reviewer-needed")
CONFLICT_WORDS = {
    "stale": "Somebody, or the agent, went on with the case after you had opened it.",
    "already-decided": "A decision was recorded before yours.",
    "not-awaiting-clinician": "The case does not wait for this any more.",
}
BY_FIELD = {
    "unavailable-transfer": "request_transfer-transfer",
    "unavailable-modality": "mark_unreliable-modality",
}


@router.get("/cases/{case_id}")
async def read_page(
    visited: Visitor, case_id: str, done: Annotated[str | None, Query(max_length=20)] = None
) -> Response:
    """A case: its evidence, its steps, and the decision."""
    return await _show(visited, case_id, said=DONE.get(done or ""))


async def _case(visited: Visit, case_id: str) -> CasePage:
    stored = await visited.server.database.read(lambda connection: read_case(connection, case_id))
    if stored is None:
        raise case_not_found()
    stored = with_live(stored, visited.server.hub.live(case_id))
    return await asyncio.to_thread(build_case, visited, stored)


async def _render(visited: Visit, template: str, status: int, **shown: Any) -> Response:
    text = await asyncio.to_thread(partial(page_text, visited, template, **shown))
    return HTMLResponse(text, status_code=status)


async def _show(
    visited: Visit,
    case_id: str,
    *,
    said: str | None = None,
    filled: Filled | None = None,
    errors: dict[str, str] | None = None,
    **more: Any,
) -> Response:
    return await _render(
        visited,
        "case.html",
        422 if errors else 200,
        case=await _case(visited, case_id),
        said=said,
        errors=errors or {},
        doing=filled.action if filled is not None else "",
        typed=filled.values if filled is not None else {},
        nonce=secrets.token_urlsafe(16),
        zone=visited.server.settings.timezone,
        can_reword=visited.server.rephraser is not None and visited.may("reviewer"),
        **{"reworded": None, "not_reworded": "", **more},
    )


@router.post("/cases/{case_id}/act")
async def act(form: Form, case_id: str) -> Response:
    """Do what the form says; decisions are shown once more before they are signed."""
    visited = form.visit
    visited.require("reviewer")
    case = await _case(visited, case_id)
    filled = fill(form.fields, case.view.urgency)
    if not filled.action:
        raise ProblemError("invalid-request", "The form names no action that there is.")
    if filled.errors:
        return await _show(visited, case_id, filled=filled, errors=filled.errors)
    stale = filled.version is not None and filled.version != case.view.version
    if filled.decides and not filled.confirmed and not stale:
        return await _render(visited, "confirm.html", 200, case=case, filled=filled)
    try:
        await visited.server.reviews.act(case_id, _asked(visited, case_id, filled))
    except ProblemError as error:
        return await _refused(visited, case_id, filled, error)
    return RedirectResponse(f"/cases/{case_id}?done={filled.action}", status_code=303)


def _asked(visited: Visit, case_id: str, filled: Filled) -> Asked:
    principal = visited.session.principal
    known = {
        **filled.given,
        "reviewer": principal.name,
        "decided_at": visited.server.clock(),
    }
    key = f"page:{filled.nonce}" if filled.nonce else None
    return Asked(
        action=ACTION.validate_python(known),
        once=Once.of(principal, key, f"page:{case_id}", filled.given),
        version=filled.version,
    )


async def _refused(visited: Visit, case_id: str, filled: Filled, error: ProblemError) -> Response:
    """Say beside the field what is wrong with it, or what has changed meanwhile."""
    field = BY_FIELD.get(error.kind.slug)
    if field is not None:
        words_ = error.detail.partition(": ")[2] or error.detail
        return await _show(
            visited, case_id, filled=filled, errors={field: words_[:1].upper() + words_[1:]}
        )
    if error.kind.slug not in CONFLICTS:
        raise error
    case = await _case(visited, case_id)
    return await _render(
        visited,
        "conflict.html",
        error.kind.status,
        case=case,
        filled=filled,
        title=error.kind.title,
        detail=CONFLICT_WORDS.get(error.kind.slug, error.detail),
        since=[step for step in case.steps if step.seq > filled.seq],
        action_words=words.action_word(filled.action),
    )


@router.post("/cases/{case_id}/wake")
async def wake(form: Form, case_id: str) -> Response:
    """Wake a deferred case before its hour."""
    visited = form.visit
    visited.require("reviewer")
    principal, nonce = visited.session.principal, form.fields.get("nonce", "")[:64]
    once = Once.of(principal, f"page:{nonce}" if nonce else None, f"page-wake:{case_id}", {})
    await visited.server.reviews.wake(case_id, principal, once)
    return RedirectResponse(f"/cases/{case_id}?done=wake", status_code=303)


@router.post("/cases/{case_id}/words")
async def reword(form: Form, case_id: str) -> Response:
    """Show the explanation in a language model's words, marked as such; nothing is kept."""
    visited = form.visit
    visited.require("reviewer")
    try:
        found = await rephrase(
            server=visited.server, caller=visited.session.principal, case_id=case_id
        )
    except ProblemError as error:
        if error.kind.slug != "not-rephrased":
            raise
        return await _show(visited, case_id, not_reworded=error.detail)
    return await _show(visited, case_id, reworded=found)
