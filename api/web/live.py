"""The page's stream: which cases changed. What they changed to, the page asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from api.sse import PING, sse_event
from api.web.guard import Visit

GATHER_S = 0.2
"""Changes that come within this belong to one event."""
LOOK_S = 10.0
"""The sign-in is looked at this often at least."""
MOST_IDS = 100


async def changes(visited: Visit, last_event_id: str | None) -> AsyncIterator[bytes]:
    """Yield ``cases`` events; ``all`` where too much was missed; ``over`` when the sign-in is.

    Each event's id names the run of the server and how many changes were seen, so that a page that
    lost its connection asks for what it missed and for nothing else.
    """
    hub = visited.server.hub
    seen = _seen(last_event_id, hub.run)
    missed = seen is None and last_event_id is not None
    seen = hub.changed if seen is None else seen
    yield _event("all" if missed else "hello", f"{hub.run}-{seen}", [])
    pause_s = min(LOOK_S, visited.server.settings.ping_s)
    while not hub.closing:
        bell = hub.listen_all()
        if hub.changed != seen:
            ids, seen = hub.changes(seen), hub.changed
            whole = ids is None or len(ids) > MOST_IDS
            name = "all" if whole else "cases"
            yield _event(name, f"{hub.run}-{seen}", [] if whole or ids is None else ids)
        elif await _rung(bell, pause_s):
            await asyncio.sleep(GATHER_S)
        elif _signed_in(visited):
            yield PING
        else:
            yield sse_event("over", {})
            return


def _event(name: str, number: str, ids: list[str]) -> bytes:
    return f"id: {number}\r\n".encode() + sse_event(name, {"ids": ids})


def _signed_in(visited: Visit) -> bool:
    server = visited.server
    return server.web.sessions.find(visited.token, server.clock(), touch=False) is not None


def _seen(last_event_id: str | None, run: str) -> int | None:
    """How many changes of this run of the server the page has seen; None if of another run."""
    name, _, number = (last_event_id or "").rpartition("-")
    return int(number) if name == run and number.isascii() and number.isdecimal() else None


async def _rung(bell: asyncio.Event, pause_s: float) -> bool:
    try:
        async with asyncio.timeout(pause_s):
            await bell.wait()
    except TimeoutError:
        return False
    return True
