"""What the clients do, step by step, as generators that send nothing and wait for nothing.

A flow yields what is to be done and is sent what came of it. The blocking client and the one for
asyncio carry out the same flows, so that retries, pages and waiting exist once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx

from api.batch_schemas import BatchView
from api.client import calls, operations
from api.client.events import CaseEvent
from api.client.problems import JobFailedError, UnreachableError, WaitedTooLongError
from api.client.retry import AGAIN, Retry
from api.client.wire import Call, check
from api.job_requests import JobView
from api.schemas import CaseView

T = TypeVar("T")


class Paged(Protocol):
    """A page of a list."""

    @property
    def next_cursor(self) -> str | None:
        """Of the page after it."""


P = TypeVar("P", bound=Paged)
JOB_POLL_S = 0.5
FULL = 429
JOB_OVER = ("done", "failed", "cancelled")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Send this once; what comes back is the answer, or the error of the connection."""

    call: Call[Any]


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Rest:
    """Follow a case until it rests."""

    case_id: str
    past_deferral: bool

    def is_over(self, event: CaseEvent) -> bool:
        """Whether the case rests for good with this event."""
        waits = self.past_deferral and event.status == "deferred"
        return event.status is not None and not waits


Outcome = httpx.Response | httpx.TransportError | None
Flow = Generator[Attempt | Pause | Rest, Outcome, T]


def send(call: Call[T], retry: Retry) -> Flow[T]:
    """Send a request until it is answered, and read the answer.

    A POST goes out under one Idempotency-Key however often it is sent, so that a second one after
    a lost answer changes nothing.

    Raises:
        ApiProblemError: the class of what the server says.
        UnreachableError: if there was no answer.
        AnswerError: if the answer cannot be read.
    """
    failures = 0
    while True:
        outcome = yield Attempt(call=call)
        answer = outcome if isinstance(outcome, httpx.Response) else None
        if answer is not None and not (call.again and answer.status_code in AGAIN):
            break
        failures += 1
        pause_s = retry.pause_s(failures, answer)
        if pause_s is None:
            break
        yield Pause(seconds=pause_s)
    if answer is None:
        error = outcome if isinstance(outcome, httpx.TransportError) else None
        raise UnreachableError(
            f"No answer to {call.method} {call.path} after {failures} attempts "
            f"({type(error).__name__}); does the server run at this address?"
        ) from error
    check(answer)
    return call.read(answer)


def review(call: Call[CaseView], retry: Retry, *, past_deferral: bool) -> Flow[CaseView]:
    """Post a case and follow it until somebody is needed."""
    case = yield from send(call, retry)
    yield Rest(case_id=case.id, past_deferral=past_deferral)
    return (yield from send(calls.read_case(case.id), retry))


def take_on(call: Call[BatchView], retry: Retry) -> Flow[BatchView]:
    """Post several cases; those that found the queue full are posted again, the others are not.

    The whole batch goes out again under its key: for a case that was taken on, that is a repeat.
    """
    failures = 0
    while True:
        found = yield from send(call, retry)
        failures += 1
        pause_s = retry.pause_s(failures, None)
        if pause_s is None or not any(item.status == FULL for item in found.items):
            return found
        yield Pause(seconds=pause_s)


def after(build: Callable[[str | None], Call[P]], retry: Retry, page: P | None) -> Flow[P | None]:
    """The page after ``page``, the first one after None; None after the last."""
    cursor = None if page is None else page.next_cursor
    if page is not None and cursor is None:
        return None
    return (yield from send(build(cursor), retry))


def job_over(
    job: JobView | str,
    retry: Retry,
    *,
    timeout_s: float | None,
    poll_s: float,
    on_progress: Callable[[JobView], object] | None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Flow[JobView]:
    """Look at a job until it is over.

    Raises:
        JobFailedError: if it ended without a result.
        WaitedTooLongError: if it was not over in time.
    """
    until = None if timeout_s is None else monotonic() + timeout_s
    seen: tuple[object, ...] = ()
    while True:
        found = yield from send(operations.read_job(job), retry)
        news = (found.status, found.progress, found.message)
        if on_progress is not None and news != seen:
            on_progress(found)
        seen = news
        if found.status in JOB_OVER:
            break
        if until is not None and monotonic() >= until:
            raise WaitedTooLongError(
                f"Job {found.id} is still {found.status} after {timeout_s:g} s; it goes on."
            )
        yield Pause(seconds=poll_s)
    if found.status != "done":
        raise JobFailedError(
            f"Job {found.id} ended as {found.status}: {found.failure or 'no reason'}."
        )
    return found
