"""Bodies in which a name stands twice are refused: which of its two values was meant?"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class StrictRequest(Request):
    """A request whose JSON has each name of an object once."""

    async def json(self) -> Any:
        """The body.

        Raises:
            JSONDecodeError: if it is no JSON, or a name stands twice in an object.
        """
        return json.loads(await self.body(), object_pairs_hook=_each_once)


class StrictRoute(APIRoute):
    """A route that reads its body as :class:`StrictRequest` does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, given a stricter request."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise json.JSONDecodeError("a name stands twice in an object", "", 0)
    return found
