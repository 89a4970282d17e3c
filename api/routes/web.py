"""The reviewer's page: sign in, the worklist, and what every page needs."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection

from api.deps import Parts, Server
from api.problems import ProblemError
from api.routes import web_cases, web_pages
from api.sse import EventStream
from api.store import cases as store
from api.web import worklist as lists
from api.web.guard import (
    THEME_COOKIE,
    THEMES,
    Form,
    PageState,
    Visit,
    Visitor,
    check_origin,
    cookie_name,
    is_secure,
    local_path,
    read_form,
    sign_in_sum,
)
from api.web.live import changes
from api.web.render import PageRoute, page, page_text, plain_page
from api.web.session import same

NONCE_COOKIE = "greenboard_sign_in"
NONCE_S = 3600
THEME_S = 365 * 24 * 3600
ROWS = 100
router = APIRouter(route_class=PageRoute, include_in_schema=False)
router.include_router(web_cases.router)
router.include_router(web_pages.router)


@router.get("/static/{path}")
async def static(
    web: PageState, path: str, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """A style sheet, script or icon; its name changes with its content."""
    asset = next((kept for kept in web.assets.values() if kept.path == path), None)
    if asset is None:
        raise ProblemError("not-found", "There is no such file.")
    headers = {"ETag": asset.etag, "Cache-Control": "public, max-age=31536000, immutable"}
    if if_none_match and asset.etag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)


@router.get("/login")
async def login_form(
    request: Request,
    server: Parts,
    after: Annotated[str | None, Query(alias="next", max_length=2000)] = None,
    said: Annotated[str | None, Query(max_length=20)] = None,
) -> Response:
    """The sign-in form."""
    messages = {"out": "You are signed out.", "over": "Your session is over. Sign in again."}
    return _login_page(request, server, after=after, message=messages.get(said or ""))


def _login_page(
    request: Request,
    server: Server,
    *,
    after: str | None,
    message: str | None = None,
    error: str | None = None,
    status: int = 200,
) -> Response:
    nonce = secrets.token_urlsafe(16)
    response = plain_page(
        request, server, "login.html", status=status, next=local_path(after), message=message,
        errors={"api-key": error} if error else {}, form_sum=sign_in_sum(server.web, nonce),
    )  # fmt: skip
    response.set_cookie(
        NONCE_COOKIE, nonce, max_age=NONCE_S, path="/login", httponly=True, samesite="strict",
        secure=is_secure(request, server),
    )  # fmt: skip
    return response


@router.post("/login")
async def login(request: Request, server: Parts, web: PageState) -> Response:
    """Exchange a key for a session."""
    check_origin(request, server)
    fields = await read_form(request)
    after, now = fields.get("next"), server.clock()
    nonce = request.cookies.get(NONCE_COOKIE, "")
    if not nonce or not same(fields.get("csrf", ""), sign_in_sum(web, nonce)):
        error = "The form had grown old. Send it again."
        return _login_page(request, server, after=after, error=error, status=403)
    address = request.client.host if request.client is not None else ""
    wait_s = web.attempts.wait_s(address, now)
    if wait_s:
        error = f"Too many failed attempts. Try again in {wait_s} s."
        response = _login_page(request, server, after=after, error=error, status=429)
        response.headers["Retry-After"] = str(wait_s)
        return response
    principal = server.keys.principal(fields.get("key", "").strip())
    if principal is None:
        web.attempts.failed(address, now)
        error = "This key is not known. Check it, or ask whoever runs the server."
        return _login_page(request, server, after=after, error=error, status=401)
    web.attempts.succeeded(address)
    name, secure = cookie_name(request, server), is_secure(request, server)
    # A session that the browser brings along is not gone on with: the token is new each time.
    web.sessions.close(request.cookies.get(name))
    token, _ = web.sessions.open(principal, now)
    response = RedirectResponse(local_path(after), status_code=303)
    response.set_cookie(name, token, path="/", httponly=True, samesite="strict", secure=secure)
    response.delete_cookie(NONCE_COOKIE, path="/login")
    return response


@router.post("/logout")
async def logout(form: Form) -> Response:
    """End the session."""
    visited = form.visit
    visited.server.web.sessions.close(visited.token)
    response = RedirectResponse("/login?said=out", status_code=303)
    response.delete_cookie(cookie_name(visited.request, visited.server), path="/")
    return response


@router.post("/theme")
async def theme(request: Request, server: Parts) -> Response:
    """Light, dark, or as the browser has it: kept in a cookie, for this browser."""
    check_origin(request, server)
    fields = await read_form(request)
    chosen = fields.get("theme")
    if chosen not in THEMES:
        raise ProblemError("invalid-request", "The appearance is auto, light or dark.")
    response = RedirectResponse(local_path(fields.get("back")), status_code=303)
    response.set_cookie(
        THEME_COOKIE, str(chosen), max_age=THEME_S, path="/", httponly=True, samesite="lax",
        secure=is_secure(request, server),
    )  # fmt: skip
    return response


@router.get("/")
async def worklist(visited: Visitor, asked: Annotated[lists.Asked, Query()]) -> Response:
    """The cases, those that need a person first."""

    def read(connection: Connection) -> dict[str, Any]:
        return {
            "rows": lists.find_cases(connection, asked, visited.now),
            "counts": store.counts(connection),
            "policies": lists.policies_in_use(connection),
        }

    found = await visited.server.database.read(read)
    running = _running(visited, found["rows"])
    text = await asyncio.to_thread(partial(_worklist_text, visited, asked, found, running))
    return HTMLResponse(text)


def _running(visited: Visit, rows: Any) -> frozenset[str]:
    workers = visited.server.workers
    return frozenset(row.id for row in rows if workers.is_running(row.id))


def _lines(visited: Visit, rows: Any, running: frozenset[str]) -> list[lists.Line]:
    identity = visited.server.kit.identity
    view = lists.ListView(
        now=visited.now,
        zone=visited.zone,
        classes={"negative": identity.negative, "positive": identity.positive},
        running=running,
    )
    return [lists.line_of(row, view) for row in rows[: lists.MOST]]


def _worklist_text(
    visited: Visit, asked: lists.Asked, found: dict[str, Any], running: frozenset[str]
) -> str:
    counts = found["counts"]
    return page_text(
        visited,
        "worklist.html",
        asked=asked,
        lines=_lines(visited, found["rows"], running),
        more=len(found["rows"]) > lists.MOST,
        total=sum(counts.values()),
        group_counts={
            group: sum(counts.get(status, 0) for status in statuses)
            for group, statuses in lists.GROUPS.items()
        },
        group_words=lists.GROUP_WORDS,
        sort_words=lists.SORT_WORDS,
        policies=found["policies"],
        cleared=lists.Asked(show=asked.show).address(),
        said=None,
    )


@router.get("/rows")
async def rows(
    visited: Visitor,
    asked: Annotated[lists.Asked, Query()],
    ids: Annotated[str, Query(alias="id", max_length=ROWS * 33)],
) -> Response:
    """Rows of some cases, as the list shows them; those that the filters leave out are missing."""
    wanted = ids.split(",")[:ROWS]
    found = await visited.server.database.read(
        lambda connection: lists.find_cases(connection, asked, visited.now, wanted)
    )
    lines = _lines(visited, found, _running(visited, found))
    return await page(visited, "rows_only.html", lines=lines)


@router.get("/changes")
async def follow_changes(
    visited: Visitor,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=60)] = None,
    after: Annotated[str | None, Query(max_length=60)] = None,
) -> Response:
    """Which cases changed, as it happens; ``after`` is where the page stood when it was read."""
    stream = changes(visited, last_event_id or after)
    return EventStream(stream, visited.server.watchers)
