"""The stream of a case's steps: replay, then live, without a gap or a double."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.deps import Server
from api.problems import ProblemError
from api.store import cases as store

POLL_S = 5.0
"""The store is looked at this often at least, should another server work on the case."""
LAST = 2**31
"""No case has as many steps; a reader may claim to have seen more than a database can count."""
PING = b": still here\r\n\r\n"


class EventStream(Response):
    """Server-sent events: one task that sends, one that notices when the reader has left."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncIterator[bytes], places: asyncio.Semaphore) -> None:
        """Stream ``chunks``; nothing is kept on the way.

        Raises:
            ProblemError: 429 if no place is free.
        """
        if places.locked():
            raise ProblemError(
                "too-many-watchers",
                "All places for event streams are taken; read the case instead, or try again.",
                headers={"Retry-After": "5"},
            )
        self._places = places
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the chunks end or the reader leaves."""
        async with self._places:
            await self._stream(receive, send)

    async def _stream(self, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send_all(self, send: Send) -> None:
        body = "http.response.body"
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for chunk in self._chunks:
            await send({"type": body, "body": chunk, "more_body": True})
        await send({"type": body, "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def sse_event(event: str, data: Any, *, number: int | None = None) -> bytes:
    """One event as it goes over the wire."""
    head = b"" if number is None else b"id: %d\r\n" % number
    return head + b"event: %b\r\ndata: %b\r\n\r\n" % (event.encode(), orjson.dumps(data))


async def follow_case(
    server: Server, case_id: str, *, after: int, follow: bool
) -> AsyncIterator[bytes]:
    """Yield steps above ``after``; a ``status`` event whenever the case comes to rest.

    A comment is sent whenever nothing else was for a while, so that proxies and readers know that
    the stream lives.
    """
    told, quiet_s = "", 0.0
    pause_s = min(POLL_S, server.settings.ping_s)
    from_store = False
    while True:
        # Taken before looking: a change while looking is then never slept through.
        bell = server.hub.listen(case_id)
        steps, status = await look(server, case_id, after, from_store=from_store)
        chunk = [sse_event(step["kind"], step, number=step["seq"]) for step in steps]
        if steps:
            # After new steps the same rest is news.
            after, told = steps[-1]["seq"], ""
        resting = status not in store.OPEN
        if resting and status != told:
            told = status
            chunk.append(sse_event("status", {"status": status}))
        if not chunk and quiet_s >= server.settings.ping_s:
            chunk.append(PING)
        if chunk:
            quiet_s = 0.0
            yield b"".join(chunk)
        if not follow or status in store.FINAL or server.hub.closing:
            return
        from_store = not await _rung(bell, pause_s)
        quiet_s += pause_s if from_store else 0.0


async def look(
    server: Server, case_id: str, after: int, *, from_store: bool = False
) -> tuple[list[dict[str, Any]], str]:
    """New steps in order, and the status; from memory where this server works on the case.

    An unknown case has no steps and the status "".
    """
    after = min(after, LAST)
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


async def _rung(bell: asyncio.Event, pause_s: float) -> bool:
    try:
        async with asyncio.timeout(pause_s):
            await bell.wait()
    except TimeoutError:
        return False
    return True
