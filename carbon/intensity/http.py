"""Fetch JSON from a provider: bounded in time, size and number of tries.

Credentials travel in headers only, and what a server repeats of them is blanked before anything
else sees the answer. Redirects are not followed: one could take a token along, and the body of a
redirect would be read without the bounds that hold here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from urllib.parse import urlsplit

from carbon.errors import IntensityError
from carbon.intensity.secret import LOOPBACK, blank, credentials_in

if TYPE_CHECKING:
    import numpy as np
    import requests

TOO_MANY_REQUESTS = 429
SERVER_ERROR = 500
LONGEST_REST_S = 86_400.0
"""However long a provider asks to be left alone, it is asked again after a day."""
CHUNK_BYTES = 65_536


class HttpStatusError(IntensityError):
    """The provider answered, but not with success.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """How long and how often a provider is tried.

    Attributes:
        timeout_s: longest silence while connecting or reading.
        deadline_s: longest time for one call altogether, retries and pauses included.
        retries: tries after the first one, for answers that may pass (5xx, 429, no connection).
        backoff_s: pause before the first retry; doubles each time.
        jitter: the pause is drawn up to this fraction longer, where there is a generator, so that
            many clients that failed together do not return together.
        rest_s: how long a provider is left alone that said 429 to the end and not for how long.
        max_bytes: largest answer that is read.
    """

    timeout_s: float = 3.0
    deadline_s: float = 8.0
    retries: int = 2
    backoff_s: float = 0.5
    jitter: float = 0.5
    rest_s: float = 60.0
    max_bytes: int = 4_000_000


class _TryAgainError(Exception):
    """This try failed in a way that may pass; the pause is what the provider asked for."""

    def __init__(
        self, message: str, pause_s: float | None = None, *, limited: bool = False
    ) -> None:
        super().__init__(message)
        self.pause_s = pause_s
        self.limited = limited


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

    A provider that limits the rate, or that asks to be left alone (``Retry-After``, seconds or a
    date, with 429 or 5xx), is: until the time that it named, other calls to it fail at once.

    Args:
        limits: how long and how often.
        monotonic: clock for the deadline and for the rest.
        sleep: how to pause between tries.
        rng: draws the jitter of the pauses; none without it.
        clock: the present (aware), to read a ``Retry-After`` that is a date.
    """

    def __init__(
        self,
        limits: HttpLimits | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        rng: np.random.Generator | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.limits = limits if limits is not None else HttpLimits()
        self._monotonic = monotonic
        self._sleep = sleep
        self._rng = rng
        self._clock = clock
        self._rest_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def get_text(self, url: str, headers: Mapping[str, str]) -> str:
        """The body of a successful answer.

        Raises:
            IntensityError: if there was none in time; says what the last try met.
        """
        host = urlsplit(url).netloc
        self._require_rested(host)
        end = self._monotonic() + self.limits.deadline_s
        pause_s = self.limits.backoff_s
        for attempt in range(self.limits.retries + 1):
            try:
                body = self._get_once(url, headers, end)
            except _TryAgainError as problem:
                if problem.limited:
                    self._rest(host, problem.pause_s)
                wait_s = self._pause(pause_s, problem.pause_s)
                last = attempt == self.limits.retries
                if last or self._monotonic() + wait_s >= end:
                    raise IntensityError(
                        f"{url} gave no usable answer in {attempt + 1} tries: {problem}"
                    ) from problem
                self._sleep(wait_s)
                pause_s *= 2
            else:
                with self._lock:
                    self._rest_until.pop(host, None)
                return body
        raise AssertionError("unreachable: the last try returns or raises")

    def _pause(self, backoff_s: float, asked_s: float | None) -> float:
        """Seconds until the next try: never less than the provider asked for."""
        if self._rng is not None:
            with self._lock:
                backoff_s *= 1 + self.limits.jitter * float(self._rng.random())
        return max(backoff_s, asked_s if asked_s is not None else 0.0)

    def _rest(self, host: str, asked_s: float | None) -> None:
        rest_s = asked_s if asked_s is not None else self.limits.rest_s
        with self._lock:
            self._rest_until[host] = self._monotonic() + rest_s

    def _require_rested(self, host: str) -> None:
        with self._lock:
            left_s = self._rest_until.get(host, 0.0) - self._monotonic()
        if host in self._rest_until and left_s > 0:
            raise IntensityError(
                f"{host} limits the rate or asked for a pause, and is left alone for "
                f"{left_s:.0f} s more."
            )

    def _get_once(self, url: str, headers: Mapping[str, str], end: float) -> str:
        # requests takes a tenth of a second to import: only those who go online pay for it.
        import requests  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        hidden = credentials_in(headers)
        remaining_s = max(0.05, end - self._monotonic())
        timeout_s = min(self.limits.timeout_s, remaining_s)
        try:
            with requests.get(
                url,
                headers=dict(headers),
                timeout=timeout_s,
                stream=True,
                allow_redirects=False,
                # What stays on this machine must not leave it by way of a proxy.
                proxies=_past_proxies(url),
                # Without this, an entry in ~/.netrc replaces the header that was asked for.
                auth=_as_it_is,
            ) as answer:
                body = blank(self._read(answer, end), hidden)
                self._raise_for_status(answer, body)
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

    def _raise_for_status(self, answer: requests.Response, body: str) -> None:
        status = int(answer.status_code)
        short = " ".join(body.split())[:200]
        if status == TOO_MANY_REQUESTS or status >= SERVER_ERROR:
            pause_s = _retry_after_s(answer.headers.get("Retry-After", ""), self._clock)
            raise _TryAgainError(
                f"HTTP {status} {short}",
                pause_s,
                limited=status == TOO_MANY_REQUESTS or pause_s is not None,
            )
        if answer.is_redirect:
            raise HttpStatusError(
                f"The provider answered HTTP {status}: it points elsewhere, which is not followed. "
                "Give the new address instead, if it is to be trusted.",
                status=status,
            )
        if not 200 <= status < 300:
            raise HttpStatusError(
                f"The provider answered HTTP {status}: {short or 'no body'}", status=status
            )


def _past_proxies(url: str) -> dict[str, str] | None:
    host = urlsplit(url).hostname
    return {"no_proxy": host} if host in LOOPBACK else None


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _retry_after_s(value: str, clock: Callable[[], datetime]) -> float | None:
    """Seconds that ``Retry-After`` asks for (a number or an HTTP date); None if it says nothing."""
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_REST_S)
    try:
        until = parsedate_to_datetime(value)
        if until.utcoffset() is None:
            until = until.replace(tzinfo=UTC)
        return min(max(0.0, (until - clock()).total_seconds()), LONGEST_REST_S)
    except (TypeError, ValueError, OverflowError):
        return None


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
