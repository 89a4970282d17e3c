"""Who is signed in to the page: sessions in memory, and a brake on guessing keys.

A session's token is random and leaves the server once, in a cookie; only its SHA-256 sum is kept,
so that a dump of the memory's tables opens nothing. A restart signs everybody out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from api.auth import Principal

TOKEN_BYTES = 32


@dataclass(kw_only=True)
class PageSession:
    """One sign-in: who, since when, last seen when, and the secret that its forms carry."""

    principal: Principal
    csrf: str
    began: datetime
    seen: datetime


@dataclass(frozen=True, kw_only=True)
class SessionLimits:
    """How long a sign-in lasts, and how many are kept.

    Attributes:
        idle: without a request for this long it ends.
        longest: it ends after this long, whatever happens.
        most: the one that was idle longest gives way when there are more.
    """

    idle: timedelta = timedelta(minutes=30)
    longest: timedelta = timedelta(hours=12)
    most: int = 500


def token_sum(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Sessions:
    """The page's sessions, by the sum of their token."""

    def __init__(self, limits: SessionLimits | None = None) -> None:
        """Nobody is signed in."""
        self.limits = limits or SessionLimits()
        self._kept: OrderedDict[str, PageSession] = OrderedDict()

    def open(self, principal: Principal, now: datetime) -> tuple[str, PageSession]:
        """Sign somebody in; returns the token, to be given to the browser and forgotten."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        session = PageSession(
            principal=principal, csrf=secrets.token_urlsafe(TOKEN_BYTES), began=now, seen=now
        )
        self._kept[token_sum(token)] = session
        while len(self._kept) > self.limits.most:
            self._kept.popitem(last=False)
        return token, session

    def find(self, token: str | None, now: datetime, *, touch: bool = True) -> PageSession | None:
        """The session of a token, if it still lasts.

        Args:
            token: from the cookie.
            now: the present.
            touch: whether this counts as use; an open event stream does not.
        """
        if not token:
            return None
        key = token_sum(token)
        session = self._kept.get(key)
        if session is None:
            return None
        if now - session.began >= self.limits.longest or now - session.seen >= self.limits.idle:
            del self._kept[key]
            return None
        if touch:
            session.seen = now
            self._kept.move_to_end(key)
        return session

    def close(self, token: str | None) -> None:
        """Sign out; a token that is not known is no error."""
        self._kept.pop(token_sum(token or ""), None)


def same(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


@dataclass(kw_only=True)
class Attempts:
    """Failed sign-ins by address: after too many in a while, the address has to wait.

    Attributes:
        allowed: failures within the window before the address waits.
        window: how long a failure counts.
        most: addresses that are kept; the oldest give way.
    """

    allowed: int = 5
    window: timedelta = timedelta(minutes=5)
    most: int = 10_000
    _failed: OrderedDict[str, deque[datetime]] = field(default_factory=OrderedDict)

    def wait_s(self, address: str, now: datetime) -> int:
        """Seconds until the address may try again; 0 if it may now."""
        failures = self._failed.get(address)
        if failures is None:
            return 0
        while failures and now - failures[0] >= self.window:
            failures.popleft()
        if len(failures) < self.allowed:
            return 0
        return max(1, round((failures[0] + self.window - now).total_seconds()))

    def failed(self, address: str, now: datetime) -> None:
        """Count a failure."""
        self._failed.setdefault(address, deque(maxlen=self.allowed)).append(now)
        self._failed.move_to_end(address)
        while len(self._failed) > self.most:
            self._failed.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the address's failures."""
        self._failed.pop(address, None)
