"""Around every request of the page: who it is, whether a form may be trusted, and the headers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from fastapi import Depends, Request, Response
from markupsafe import Markup
from starlette.datastructures import FormData, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse

from api.auth import Role
from api.deps import Parts, Server
from api.problems import ProblemError
from api.web.session import PageSession, same
from api.web.state import Web

COOKIE, SECURE_COOKIE = "greenboard_session", "__Host-greenboard_session"
THEME_COOKIE = "greenboard_theme"
THEMES = ("auto", "light", "dark")
MAX_FIELDS = 100
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
}


class SignInNeeded(Exception):  # noqa: N818  # it is no error: it leads to the sign-in form
    """Nobody is signed in, or no longer."""


@dataclass(frozen=True)
class Visit:
    """One request of somebody who is signed in.

    ``at`` is where the stream of changes stood before anything was read, so that a page misses
    nothing between being read and listening.
    """

    request: Request
    server: Server
    session: PageSession
    token: str
    at: str

    @cached_property
    def now(self) -> datetime:
        """The present, one for the whole page."""
        return self.server.clock()

    @cached_property
    def zone(self) -> ZoneInfo:
        """Where times are shown."""
        return ZoneInfo(self.server.settings.timezone)

    def may(self, role: Role) -> bool:
        """Whether the role includes ``role``."""
        return self.session.principal.may(role)

    def require(self, role: Role) -> None:
        """Refuse whoever lacks the role.

        Raises:
            ProblemError: 403.
        """
        if not self.may(role):
            mine = self.session.principal.role
            raise ProblemError("forbidden", f"This takes the role {role!r}; yours is {mine!r}.")


async def web_of(server: Parts) -> Web:
    """The page's own state."""
    return server.web


def is_secure(request: Request, server: Server) -> bool:
    """Whether the browser speaks https, to this server or to the proxy before it."""
    public = str(getattr(server.settings, "public_url", None) or "")
    return request.url.scheme == "https" or public.startswith("https://")


def cookie_name(request: Request, server: Server) -> str:
    """The session's cookie; over https its name binds it to this host."""
    return SECURE_COOKIE if is_secure(request, server) else COOKIE


async def visit(request: Request, server: Parts) -> Visit:
    """Who asks for a page.

    Raises:
        SignInNeeded: without a session that still lasts.
    """
    token = request.cookies.get(cookie_name(request, server))
    session = server.web.sessions.find(token, server.clock())
    if session is None or token is None:
        raise SignInNeeded
    request.state.caller = session.principal.name
    return Visit(request, server, session, token, f"{server.hub.run}-{server.hub.changed}")


def check_origin(request: Request, server: Server) -> None:
    """Refuse a form that was not sent by a page of ours.

    A page that sends no referrer sends the origin "null" with its forms; then the browser's own
    word on where the request comes from decides, which it gives over https and on loopback.

    Raises:
        ProblemError: 403.
    """
    origin = request.headers.get("origin")
    if origin in (None, "null"):
        site = request.headers.get("sec-fetch-site")
        trusted = site == "same-origin" or (origin is None and site is None)
    else:
        public = urlsplit(str(getattr(server.settings, "public_url", None) or "")).netloc
        hosts = {request.headers.get("host", ""), public} - {""}
        trusted = urlsplit(origin).netloc in hosts
    if not trusted:
        raise ProblemError(
            "forbidden",
            "This form did not come from a page of this server. Open the page again, over https "
            "or on the machine itself, and send it from there.",
        )


def form_fields(form: FormData) -> dict[str, str]:
    """The fields of a form; each once, and no files.

    Raises:
        ProblemError: 422 if a field comes twice or is a file.
    """
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) or name in fields:
            raise ProblemError("invalid-request", "The form has a field twice, or a file.")
        fields[name] = value
    return fields


async def read_form(request: Request) -> dict[str, str]:
    """What the form says."""
    async with request.form(max_files=0, max_fields=MAX_FIELDS) as form:
        return form_fields(form)


@dataclass(frozen=True)
class Posted:
    """A form that may be trusted: the session's own, from a page of ours."""

    visit: Visit
    fields: Mapping[str, str]


async def posted(request: Request, visited: Annotated[Visit, Depends(visit)]) -> Posted:
    """A form of somebody who is signed in.

    Raises:
        ProblemError: 403 if it did not come from a page of this session.
    """
    check_origin(request, visited.server)
    fields = await read_form(request)
    if not same(fields.pop("csrf", ""), visited.session.csrf):
        raise ProblemError(
            "forbidden", "The form belongs to another sign-in. Open the page again, then send it."
        )
    return Posted(visited, fields)


def sign_in_sum(web: Web, nonce: str) -> str:
    """What the sign-in form carries for the nonce in its cookie."""
    return hmac.new(web.secret, nonce.encode(), hashlib.sha256).hexdigest()


def theme_of(request: Request) -> str:
    """Light, dark, or as the browser has it."""
    theme = request.cookies.get(THEME_COOKIE, "auto")
    return theme if theme in THEMES else "auto"


def sign_in_address(request: Request) -> str:
    """The sign-in form, which leads back here; other sites are never led to."""
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    here = request.method == "GET" and path != "/"
    return f"/login?next={quote(path, safe='')}" if here else "/login"


def local_path(text: str | None) -> str:
    """Where to go after the sign-in: a path of this server, or the worklist."""
    if not text or not text.startswith("/") or text.startswith(("//", "/\\")):
        return "/"
    parts = urlsplit(text)
    safe = not parts.scheme and not parts.netloc and "\\" not in text and text.isprintable()
    return text if safe else "/"


def protect(response: Response) -> Response:
    """Add the headers that every answer of the page carries; one's own are kept."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def to_sign_in(request: Request) -> Response:
    """Lead to the sign-in form; a script is told so instead.

    Whoever follows a link from another site comes without the cookie, signed in or not: they are
    sent on by a page of ours, which the browser gives the cookie to.
    """
    if request.headers.get("x-fragment"):
        return Response(status_code=401)
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        here = Markup('<meta http-equiv="refresh" content="0;url={0}"><a href="{0}">Go on</a>')
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return HTMLResponse(
            "<!doctype html><title>greenboard</title>" + here.format(local_path(path))
        )
    return RedirectResponse(sign_in_address(request), status_code=303)


Visitor = Annotated[Visit, Depends(visit)]
Form = Annotated[Posted, Depends(posted)]
PageState = Annotated[Web, Depends(web_of)]
