"""The stream of a case's steps: replay, then live, without a gap or a double."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import ServerSentEvent

from api.deps import Server
from api.store import cases as store

POLL_S = 5.0
"""The store is looked at this often at least, should another server work on the case."""


async def follow_case(
    server: Server, case_id: str, *, after: int, follow: bool
) -> AsyncIterator[ServerSentEvent]:
    """Yield steps above ``after``; a ``status`` event whenever the case comes to rest."""
    told = ""
    from_store = False
    while True:
        # Taken before looking: a change while looking is then never slept through.
        bell = server.hub.listen(case_id)
        steps, status = await look(server, case_id, after, from_store=from_store)
        for step in steps:
            after = step["seq"]
            yield ServerSentEvent(id=str(after), event=step["kind"], data=_json(step))
        resting = status not in store.OPEN
        if resting and status != told:
            told = status
            yield ServerSentEvent(event="status", data=_json({"status": status}))
        if not follow or status in store.FINAL:
            return
        from_store = not await _rung(bell)


async def look(
    server: Server, case_id: str, after: int, *, from_store: bool = False
) -> tuple[list[dict[str, Any]], str]:
    """New steps in order, and the status; from memory where this server works on the case.

    An unknown case has no steps and the status "".
    """
    live = server.hub.live(case_id)
    if live is not None and live.covers(after) and not from_store:
        return [step for step in live.steps if step["seq"] > after], live.status or store.QUEUED
    status, stored = await server.database.read(
        lambda c: (store.get_status(c, case_id), store.get_events(c, case_id, after))
    )
    if live is None or status is None:
        return stored, status or ""
    last = stored[-1]["seq"] if stored else after
    return stored + [step for step in live.steps if step["seq"] > last], live.status or store.QUEUED


async def _rung(bell: asyncio.Event) -> bool:
    waiter = asyncio.create_task(bell.wait())
    try:
        await asyncio.wait({waiter}, timeout=POLL_S)
    finally:
        waiter.cancel()
    return bell.is_set()


def _json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)
