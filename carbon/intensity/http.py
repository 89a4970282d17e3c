"""Fetch JSON from a provider: bounded in time, size and number of tries."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from carbon.errors import IntensityError

if TYPE_CHECKING:
    import requests

TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500
CHUNK_BYTES = 65_536


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """How long and how often a provider is tried.

    Attributes:
        timeout_s: longest silence while connecting or reading.
        deadline_s: longest time for one call altogether, retries and pauses included.
        retries: tries after the first one, for answers that may pass (5xx, 429, no connection).
        backoff_s: pause before the first retry; doubles each time.
        max_bytes: largest answer that is read.
    """

    timeout_s: float = 3.0
    deadline_s: float = 8.0
    retries: int = 2
    backoff_s: float = 0.5
    max_bytes: int = 4_000_000


class _TryAgainError(Exception):
    """This try failed in a way that may pass; the pause is what the provider asked for."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s


@runtime_checkable
class TextClient(Protocol):
    """Anything that fetches a text from an address."""

    def get_text(self, url: str, headers: Mapping[str, str]) -> str:
        """The body of a successful answer.

        Raises:
            IntensityError: if there was none; says why.
        """
        ...


class RecordedClient:
    """A double that answers from a table, for tests and for replaying what a provider said.

    Args:
        answers: body by the end of the address; the longest end that fits wins.
    """

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = dict(answers)

    def get_text(self, url: str, headers: Mapping[str, str]) -> str:
        """The recorded body.

        Raises:
            IntensityError: if nothing was recorded for this address.
        """
        fitting = [end for end in self._answers if url.endswith(end)]
        if not fitting:
            raise IntensityError(f"Nothing was recorded for {url}.")
        return self._answers[max(fitting, key=len)]


class HttpClient:
    """GET with a deadline over everything, since a slow body defeats a per-read timeout.

    Args:
        limits: how long and how often.
        monotonic: clock for the deadline.
        sleep: how to pause between tries.
    """

    def __init__(
        self,
        limits: HttpLimits | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.limits = limits if limits is not None else HttpLimits()
        self._monotonic = monotonic
        self._sleep = sleep

    def get_text(self, url: str, headers: Mapping[str, str]) -> str:
        """The body of a successful answer.

        Raises:
            IntensityError: if there was none in time; says what the last try met.
        """
        end = self._monotonic() + self.limits.deadline_s
        pause_s = self.limits.backoff_s
        for attempt in range(self.limits.retries + 1):
            try:
                return self._get_once(url, headers, end)
            except _TryAgainError as problem:
                wait_s = max(pause_s, problem.pause_s)
                last = attempt == self.limits.retries
                if last or self._monotonic() + wait_s >= end:
                    raise IntensityError(
                        f"{url} gave no usable answer in {attempt + 1} tries: {problem}"
                    ) from problem
                self._sleep(wait_s)
                pause_s *= 2
        raise AssertionError("unreachable: the last try returns or raises")

    def _get_once(self, url: str, headers: Mapping[str, str], end: float) -> str:
        # requests takes a tenth of a second to import: only those who go online pay for it.
        import requests  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        remaining_s = max(0.05, end - self._monotonic())
        timeout_s = min(self.limits.timeout_s, remaining_s)
        try:
            with requests.get(url, headers=dict(headers), timeout=timeout_s, stream=True) as answer:
                body = self._read(answer, end)
                _raise_for_status(answer, body)
                return body
        except (requests.exceptions.RequestException, HTTPError) as error:
            raise _TryAgainError(_plain(error, timeout_s)) from error

    def _read(self, answer: requests.Response, end: float) -> str:
        content = b""
        # read1 hands over what has arrived; iter_content would wait until a whole chunk is full,
        # and a body that trickles would outlast the deadline.
        while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=True):
            content += chunk
            if len(content) > self.limits.max_bytes:
                raise IntensityError(
                    f"The provider's answer is larger than {self.limits.max_bytes} bytes."
                )
            if self._monotonic() > end:
                raise _TryAgainError(f"the body was not complete in {self.limits.deadline_s:g} s")
        return content.decode("utf-8", errors="replace")


def _raise_for_status(answer: requests.Response, body: str) -> None:
    status = int(answer.status_code)
    short = " ".join(body.split())[:200]
    if status == TOO_MANY_REQUESTS or status >= SERVER_ERROR:
        after = answer.headers.get("Retry-After", "")
        pause_s = float(after) if after.isdigit() else 0.0
        raise _TryAgainError(f"HTTP {status} {short}", pause_s)
    if not 200 <= status < 300:
        raise IntensityError(f"The provider answered HTTP {status}: {short or 'no body'}")


def _plain(error: Exception, timeout_s: float) -> str:
    """What happened, without the address and the library's inner life."""
    cause: BaseException = error
    while isinstance(inner := _inner(cause), BaseException):
        cause = inner
    name = type(cause).__name__
    if "Timeout" in name:
        return f"silent for {timeout_s:.2g} s"
    return f"no connection ({name})" if "Connection" in type(error).__name__ else f"broke ({name})"


def _inner(error: BaseException) -> object:
    reason = getattr(error, "reason", None)
    return reason if reason is not None else next(iter(error.args), None)
