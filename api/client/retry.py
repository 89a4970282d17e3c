"""When and after how long a request is sent again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import SystemRandom

import httpx

AGAIN = frozenset({429, 502, 503, 504})
"""Answers that say: not now. A 500 says that something is wrong, and says so again."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often and how patiently; ``Retry(attempts=1)`` never sends twice.

    The pause doubles from ``first_s`` up to ``most_s``; a random part of up to half of it is taken
    off, so that clients that failed together do not come back together. A server's ``Retry-After``
    counts instead, if it is longer; one beyond ``patience_s`` ends the trying.

    Attributes:
        attempts: times that a request is sent at most.
        first_s: pause before the second one.
        most_s: longest pause of our own.
        patience_s: longest pause that a server may ask for.
        draw: a number from 0 to 1.
    """

    attempts: int = 8
    first_s: float = 0.25
    most_s: float = 10.0
    patience_s: float = 60.0
    draw: Callable[[], float] = SystemRandom().random

    def pause_s(self, failures: int, answer: httpx.Response | None) -> float | None:
        """Seconds until the next try; None if there is none.

        Args:
            failures: how often it was tried.
            answer: what came, if anything did.
        """
        if failures >= self.attempts:
            return None
        own = min(self.most_s, self.first_s * 2.0 ** (failures - 1)) * (1 - self.draw() / 2)
        asked = _asked_s(answer) if answer is not None else 0.0
        return None if asked > self.patience_s else max(own, asked)


def _asked_s(answer: httpx.Response) -> float:
    """What ``Retry-After`` asks for, as seconds; 0 if it is not there or means nothing."""
    text = answer.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
