"""The page's stream: which cases changed. What they changed to, the page asks for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from sse_starlette import ServerSentEvent

from api.web.guard import Visit

GATHER_S = 0.2
"""Changes that come within this belong to one event."""
LOOK_S = 10.0
"""The sign-in is looked at this often at least."""
RETRY_MS = 2000
MOST_IDS = 100


async def changes(visited: Visit, last_event_id: str | None) -> AsyncIterator[ServerSentEvent]:
    """Yield ``cases`` events; ``all`` where too much was missed; ``over`` when the sign-in is.

    Each event's id names the run of the server and how many changes were seen, so that a page that
    lost its connection asks for what it missed and for nothing else.
    """
    hub = visited.server.hub
    seen = _seen(last_event_id, hub.run)
    if seen is None:
        missed = last_event_id is not None
        seen = hub.changed
        yield ServerSentEvent(
            event="all" if missed else "hello",
            id=f"{hub.run}-{seen}",
            data="{}",
            retry=RETRY_MS,
        )
    else:
        yield ServerSentEvent(event="hello", id=f"{hub.run}-{seen}", data="{}", retry=RETRY_MS)
    while _signed_in(visited):
        bell = hub.listen_all()
        if hub.changed != seen:
            ids, seen = hub.changes(seen), hub.changed
            whole = ids is None or len(ids) > MOST_IDS
            yield ServerSentEvent(
                event="all" if whole else "cases",
                id=f"{hub.run}-{seen}",
                data=json.dumps({"ids": [] if whole else ids}, separators=(",", ":")),
            )
            continue
        if await _rung(bell):
            await asyncio.sleep(GATHER_S)
    yield ServerSentEvent(event="over", data="{}")


def _signed_in(visited: Visit) -> bool:
    server = visited.server
    return server.web.sessions.find(visited.token, server.clock(), touch=False) is not None


def _seen(last_event_id: str | None, run: str) -> int | None:
    """How many changes of this run of the server the page has seen; None if of another run."""
    name, _, number = (last_event_id or "").rpartition("-")
    return int(number) if name == run and number.isascii() and number.isdecimal() else None


async def _rung(bell: asyncio.Event) -> bool:
    waiter = asyncio.create_task(bell.wait())
    try:
        await asyncio.wait({waiter}, timeout=LOOK_S)
    finally:
        waiter.cancel()
    return bell.is_set()
