"""Ask a provider, or take a kept answer: fresh ones at once, older ones if it does not answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, cast

from carbon.errors import IntensityError
from carbon.intensity.cache import CachedBody, ResponseCache
from carbon.intensity.protocol import as_utc

Parsed = TypeVar("Parsed")
MOST_READ = 16


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """How old an answer may be.

    Attributes:
        fresh_s: a cached answer younger than this is used without asking again.
        stale_s: when the provider does not answer, a cached answer up to this old is used, and
            says so.
        latest_s: how long after its end a published period may still stand for the present.
    """

    fresh_s: float = 300.0
    stale_s: float = 2 * 3600.0
    latest_s: float = 2 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Fetched(Generic[Parsed]):
    """What an answer holds.

    Attributes:
        value: the answer, read.
        stale_note: how old it is and why it was taken; empty for one that came just now.
    """

    value: Parsed
    stale_note: str


class KeptAnswers:
    """Answers by address, with their age.

    Args:
        cache: where answers are kept; in memory where not given.
        freshness: how old an answer may be.
        clock: the present (aware).
    """

    def __init__(
        self,
        *,
        cache: ResponseCache | None = None,
        freshness: Freshness | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cache = cache if cache is not None else ResponseCache()
        self.freshness = freshness if freshness is not None else Freshness()
        self._clock = clock
        self._read: dict[str, tuple[CachedBody, Any]] = {}

    def now(self) -> datetime:
        """The present, UTC."""
        return as_utc(self._clock())

    def fetch(
        self,
        url: str,
        get: Callable[[str], str],
        parse: Callable[[str, str], Parsed],
        worth_keeping: Callable[[Parsed], bool] = bool,
    ) -> Fetched[Parsed]:
        """The answer under this address.

        Args:
            url: address; also the key, so it must hold no secret.
            get: asks the provider.
            parse: reads a body; gets the address for its messages.
            worth_keeping: false for an empty answer, which would hide a good older one.

        Raises:
            IntensityError: if there is no answer, neither a new one nor one young enough.
        """
        now = self.now()
        old, age_s = self._kept(url, parse, now)
        if old is not None and age_s < self.freshness.fresh_s:
            return Fetched(value=old, stale_note="")
        try:
            body = get(url)
            value = parse(url, body)
        except IntensityError as error:
            if old is None or age_s > self.freshness.stale_s:
                raise
            return Fetched(
                value=old, stale_note=f"kept answer of {age_s:.0f} s ago, because {error}"
            )
        if worth_keeping(value):
            self._cache.put(url, body, now)
        return Fetched(value=value, stale_note="")

    def _kept(
        self, url: str, parse: Callable[[str, str], Parsed], now: datetime
    ) -> tuple[Parsed | None, float]:
        """Content and age of the kept answer; no content if there is none to be trusted."""
        cached = self._cache.get(url)
        if cached is None or (cached.fetched_at - now).total_seconds() > self.freshness.fresh_s:
            # One from the future would count as fresh until then; the clock was wrong once.
            return None, 0.0
        try:
            return self._parsed(url, parse, cached), cached.age_s(now)
        except IntensityError:
            # A file that was damaged, or kept by another version, is as good as none.
            return None, 0.0

    def _parsed(self, url: str, parse: Callable[[str, str], Parsed], cached: CachedBody) -> Parsed:
        """What a kept body says; read once, since every reading asks for it again."""
        held = self._read.get(url)
        if held is not None and held[0] is cached:
            return cast(Parsed, held[1])
        value = parse(url, cached.body)
        # One assignment each: another thread sees the old ones or the new ones.
        if len(self._read) >= MOST_READ:
            self._read = {}
        self._read[url] = (cached, value)
        return value
