"""The stream of a case's steps: replay from the store, then live, without a gap or a double."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import ServerSentEvent

from api.deps import Server
from api.store import cases as store

POLL_S = 5.0
"""Looked at least this often, should another server work on the case."""


async def follow_case(
    server: Server, case_id: str, *, after: int, follow: bool
) -> AsyncIterator[ServerSentEvent]:
    """Yield steps above ``after``; a ``status`` event whenever the case comes to rest."""
    told = ""
    while True:
        # Taken before looking: a change while looking is then never slept through.
        bell = server.hub.listen(case_id)
        steps, status = await _look(server, case_id, after)
        for step in steps:
            after = step["seq"]
            yield ServerSentEvent(id=str(after), event=step["kind"], data=_json(step))
        resting = status not in store.OPEN
        if resting and status != told:
            told = status
            yield ServerSentEvent(event="status", data=_json({"status": status}))
        if not follow or status in store.FINAL:
            return
        if not steps:
            await _wait(bell)


async def _look(server: Server, case_id: str, after: int) -> tuple[list[dict[str, Any]], str]:
    """New steps in order, from the store and from the run under way, and the status."""
    fresh = server.hub.fresh(case_id, after)
    async with server.database.read() as connection:
        row = await store.get_case(connection, case_id)
        stored = await store.get_events(connection, case_id, after)
    seen = {step["seq"] for step in stored}
    steps = stored + [step for step in fresh if step["seq"] not in seen]
    return sorted(steps, key=lambda step: int(step["seq"])), row.status if row else store.FAILED


async def _wait(bell: asyncio.Event) -> None:
    waiter = asyncio.create_task(bell.wait())
    try:
        await asyncio.wait({waiter}, timeout=POLL_S)
    finally:
        waiter.cancel()


def _json(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)
