"""A case's events as they come, over as many connections as it takes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from api.client.problems import AnswerError, UnreachableError
from api.client.retry import AGAIN, Retry
from api.client.wire import Call, CaseRef, case_path, check

STATUS = "status"
FINAL = ("recorded", "sent_back")
MOVING = ("queued", "running")


@dataclass(frozen=True, kw_only=True)
class CaseEvent:
    """One step of a case, or that it came to rest.

    Attributes:
        kind: of the step; "status" says that the case came to rest.
        data: the step as the server tells it.
        seq: number of the step; None of a "status".
    """

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    seq: int | None = None

    @property
    def status(self) -> str | None:
        """Where the case rests now; None of a step."""
        return self.data.get("status") if self.kind == STATUS else None


class Following:
    """Where one follower stands: what was seen, and whether to connect again. Sends nothing.

    Used as ``while not over: open, feed each line, closed or lost, then wait pause_s``.
    """

    def __init__(self, case: CaseRef, *, after: int | None, follow: bool, retry: Retry) -> None:
        """Begin after a step, or at the first one."""
        self._path = case_path(case, "events")
        self._seen = after
        self._follow = follow
        self._retry = retry
        self._failures = 0
        self._told: str | None = None
        self._fields: dict[str, str] = {}
        self.over = False
        self.pause_s = 0.0

    def call(self) -> Call[None]:
        """The request to open the stream with."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self._seen is not None:
            headers["Last-Event-ID"] = str(self._seen)
        params = {} if self._follow else {"follow": False}
        return Call(method="GET", path=self._path, read=_nothing, params=params, headers=headers)

    def refused(self, response: httpx.Response) -> bool:
        """Whether an answer brings no stream; its body must have been read.

        Raises:
            ApiProblemError: if asking again would not help.
        """
        if response.status_code == 204:
            self.over = True
            return True
        if response.is_success:
            return False
        if response.status_code in AGAIN and self._wait(response):
            return True
        check(response)
        raise AnswerError(f"The server answered {response.status_code} to a stream's request.")

    def feed(self, line: str) -> CaseEvent | None:
        """Take a line; gives an event when one is complete."""
        self._failures = 0
        if not line:
            fields, self._fields = self._fields, {}
            return self._event(fields) if "data" in fields else None
        name, _, value = line.partition(":")
        if name in ("id", "event", "data"):
            value = value.removeprefix(" ")
            before = self._fields.get("data") if name == "data" else None
            self._fields[name] = value if before is None else f"{before}\n{value}"
        return None

    def _event(self, fields: dict[str, str]) -> CaseEvent | None:
        kind = fields.get("event", "message")
        try:
            data = json.loads(fields["data"])
        except ValueError as error:
            raise AnswerError("An event of the stream is no JSON.") from error
        if kind == STATUS:
            return self._rest(CaseEvent(kind=kind, data=data))
        seq = int(fields["id"])
        if self._seen is not None and seq <= self._seen:
            return None
        self._seen, self._told = seq, None
        return CaseEvent(kind=kind, data=data, seq=seq)

    def _rest(self, event: CaseEvent) -> CaseEvent | None:
        """A status; one that was told before a lost connection is not told again."""
        if event.status in FINAL:
            self.over = True
        if event.status == self._told:
            return None
        self._told = event.status
        return event

    def closed(self) -> None:
        """The stream came to its end."""
        self._fields = {}
        if not self._follow:
            self.over = True
        if not self.over:
            self._lost(None)

    def lost(self, error: httpx.TransportError) -> None:
        """The connection broke.

        Raises:
            UnreachableError: if it broke too often without anything in between.
        """
        self._fields = {}
        self._lost(error)

    def _lost(self, error: httpx.TransportError | None) -> None:
        if not self._wait(None):
            raise UnreachableError(
                f"The events stopped and {self._failures} attempts to go on failed "
                f"({type(error).__name__ if error else 'closed by the server'})."
            ) from error

    def _wait(self, answer: httpx.Response | None) -> bool:
        self._failures += 1
        pause_s = self._retry.pause_s(self._failures, answer)
        self.pause_s = pause_s or 0.0
        return pause_s is not None


def _nothing(response: httpx.Response) -> None:
    """Streams are read line by line."""
