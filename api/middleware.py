"""ASGI layers around the app: a limit on bodies, and the timing of requests."""

from __future__ import annotations

import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import Metrics
from api.problems import TYPES, problem_response

UNMATCHED = "(none)"


class BodyLimit:
    """Refuses request bodies above a size, also those that do not say their length."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        """Wrap ``app``."""
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                # The one kind of error that FastAPI passes on as it is while it reads a body.
                raise HTTPException(413, self._detail)
            return message

        await self._app(scope, counted, send)

    @property
    def _detail(self) -> str:
        return f"A body may have {self._max_bytes} bytes; send fewer features."

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem_response(TYPES["body-too-large"], self._detail, scope["path"])
        await response(scope, receive, send)


class Timing:
    """Times each request by route (never by address: that would hold case ids)."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        """Wrap ``app``."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note how long it took to begin the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.monotonic()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", UNMATCHED)
                labels = (scope["method"], route, str(message["status"]))
                self._metrics.request_of(*labels).observe(time.monotonic() - began_s)
            await send(message)

        await self._app(scope, receive, noted)
