"""From a template and what it shows to an answer; errors are pages too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from api.deps import Server
from api.problems import ProblemError
from api.web import words
from api.web.guard import SignInNeeded, Visit, protect, theme_of, to_sign_in
from api.web.state import Web

TITLES = {
    403: "That is not allowed",
    404: "There is nothing here",
    409: "The case is not open to that",
    412: "The case has changed",
    422: "The form cannot be taken",
    429: "Too many requests",
    503: "Not ready",
}


def frame(request: Request, server: Server | None, visited: Visit | None) -> dict[str, Any]:
    """What the frame of every page shows: who is signed in, the model, the theme."""
    identity = server.kit.identity if server is not None else None
    session = visited.session if visited is not None else None
    return {
        "theme": theme_of(request),
        "here": request.url.path,
        "back": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "principal": session.principal if session is not None else None,
        "at": visited.at if visited is not None else "",
        "csrf": session.csrf if session is not None else "",
        "identity": identity,
        "now": server.clock() if server is not None else None,
    }


def page_text(visited: Visit, template: str, **shown: Any) -> str:
    """Render one of the pages behind the sign-in; call it in a thread where the page is long."""
    now, zone = visited.now, visited.zone
    context = {
        **frame(visited.request, visited.server, visited),
        "visit": visited,
        "clock": partial(words.clock_time, zone=zone, now=now),
        "full_clock": partial(words.clock_time, zone=zone),
        "seconds": partial(words.to_the_second, zone=zone, now=now),
        "age": partial(words.age, zone=zone),
        "ago": partial(words.ago, now=now),
        "due": partial(words.due, now=now),
        "errors": {},
        **shown,
    }
    return visited.server.web.templates.get_template(template).render(context)


async def page(visited: Visit, template: str, *, status: int = 200, **shown: Any) -> Response:
    """One of the pages behind the sign-in, rendered off the event loop."""
    text = await asyncio.to_thread(partial(page_text, visited, template, **shown))
    return HTMLResponse(text, status_code=status)


def plain_page(
    request: Request, server: Server, template: str, *, status: int = 200, **shown: Any
) -> Response:
    """A page for whoever is not signed in."""
    context = {**frame(request, server, None), **shown}
    return HTMLResponse(server.web.templates.get_template(template).render(context), status)


def error_page(request: Request, status: int, detail: str) -> Response:
    """Say what is wrong and where to go on."""
    server = getattr(request.app.state, "server", None)
    web = server.web if isinstance(server, Server) else Web()
    shown = {"status": status, "title": TITLES.get(status, "That did not work"), "detail": detail}
    context = {**frame(request, server if isinstance(server, Server) else None, None), **shown}
    return HTMLResponse(web.templates.get_template("error.html").render(context), status)


class PageRoute(APIRoute):
    """A route whose errors are pages, and whose every answer carries the page's headers."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's own handler."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            return protect(await _answer(handle, request))

        return guarded


async def _answer(
    handle: Callable[[Request], Coroutine[Any, Any, Response]], request: Request
) -> Response:
    try:
        return await handle(request)
    except SignInNeeded:
        return to_sign_in(request)
    except ProblemError as error:
        response = error_page(request, error.kind.status, error.detail)
        response.headers.update(error.headers)
        return response
    except RequestValidationError:
        detail = "An option in the address is not one that this page knows. Start from the list."
        return error_page(request, 422, detail)
    except HTTPException as error:
        return error_page(request, error.status_code, str(error.detail))
