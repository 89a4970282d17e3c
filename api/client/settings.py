"""How a client reaches its server; the same for both clients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from api.client.retry import Retry
from api.client.wire import Call

STREAM_SILENCE_S = 60.0
"""A stream gives a sign of life every 15 s; one that is silent for so long is dead."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Address, key and patience.

    Attributes:
        url: of the server, without a path.
        key: an API key; None asks without one.
        retry: when requests are sent again.
        timeout_s: for one answer.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    retry: Retry = field(default_factory=Retry)
    timeout_s: float = 45.0

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        known = {"Accept": "application/json", "User-Agent": "greenboard-client"}
        return known if self.key is None else {**known, "Authorization": f"Bearer {self.key}"}

    def stream_timeout(self) -> httpx.Timeout:
        """For streams, which may be silent for a while."""
        return httpx.Timeout(self.timeout_s, read=STREAM_SILENCE_S)

    def request(self, http: httpx.Client | httpx.AsyncClient, call: Call[Any]) -> httpx.Request:
        """The request of a call."""
        return http.build_request(
            call.method,
            call.path,
            params=call.query() or None,
            json=call.body,
            headers=dict(call.headers),
        )
