"""Cross-origin calls for the CDS services and nothing else: browsers' test tools call them."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

PREFIX = "/cds-services"


class CdsCors:
    """Adds CORS below ``/cds-services``.

    Any page may ask, since no cookie and nothing else that a browser would add by itself opens
    anything here: a call needs a token of its own.
    """

    def __init__(self, app: ASGIApp, *, local: bool) -> None:
        """Wrap ``app``.

        Args:
            app: the application.
            local: whether public pages may reach this machine, for tries on it.
        """
        self._app = app
        self._shared = CORSMiddleware(
            app,
            allow_origins=("*",),
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type", "Accept"),
            allow_private_network=local,
            max_age=600,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with CORS where it belongs."""
        path = scope.get("path", "")
        shared = scope["type"] == "http" and (path == PREFIX or path.startswith(PREFIX + "/"))
        await (self._shared if shared else self._app)(scope, receive, send)
