"""Several sources, asked in order: the first that answers wins, and the answer says why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from carbon.errors import IntensityError, UnitError
from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    IntensitySource,
    as_utc,
    require_horizon,
    require_one_basis,
)

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class _Failure:
    at_s: float
    reason: str


class ChainSource:
    """A fallback chain; refuses sources on different bases from the start.

    A source that failed is left alone for a while, so that one that hangs does not slow every
    reading; the note says that too.

    Args:
        sources: in order of preference, at least one.
        retry_after_s: how long a failed source is left alone.
        monotonic: clock for that.

    Raises:
        BasisError: if the sources differ in basis.
        IntensityError: if there are none.
    """

    def __init__(
        self,
        sources: Sequence[IntensitySource],
        *,
        retry_after_s: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not sources:
            raise IntensityError("A fallback chain needs at least one source; it got none.")
        names = " > ".join(source.name for source in sources)
        self._basis: Basis = require_one_basis(
            (source.basis for source in sources), what=f"The chain {names}"
        )
        self._sources = tuple(sources)
        self._retry_after_s = retry_after_s
        self._monotonic = monotonic
        self._failures: dict[tuple[str, int], _Failure] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The sources' names in order."""
        return " > ".join(source.name for source in self._sources)

    @property
    def sources(self) -> tuple[IntensitySource, ...]:
        """The sources in order of preference."""
        return self._sources

    @property
    def basis(self) -> Basis:
        """The basis that all of them share."""
        return self._basis

    def now(self, at: datetime) -> IntensityReading:
        """The first reading that a source can give.

        Raises:
            IntensityError: if none can; lists each one's reason.
        """
        moment = as_utc(at)
        reading, note = self._first("now", lambda source: source.now(moment))
        return self._marked(reading, note)

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """The first forecast that a source can give.

        Raises:
            IntensityError: if none can; lists each one's reason.
        """
        # What the caller gets wrong must not count as a source's failure and put it to rest.
        moment, length = as_utc(at), require_horizon(hours)
        readings, note = self._first("forecast", lambda source: source.forecast(moment, length))
        return tuple(self._marked(reading, note) for reading in readings)

    def _first(self, what: str, ask: Callable[[IntensitySource], Answer]) -> tuple[Answer, str]:
        reasons: list[str] = []
        for i, source in enumerate(self._sources):
            resting = self._resting(what, i)
            if resting:
                reasons.append(f"{source.name} {resting}")
                continue
            try:
                answer = ask(source)
            except (IntensityError, UnitError) as error:
                self._remember(what, i, str(error))
                reasons.append(f"{source.name} failed: {error}")
                continue
            note = f"fell back to {source.name} because {'; '.join(reasons)}" if reasons else ""
            return answer, note
        raise IntensityError(f"No source could give the carbon intensity: {'; '.join(reasons)}")

    def _resting(self, what: str, i: int) -> str:
        # The last resort is always asked: there is nothing to wait for behind it.
        with self._lock:
            failure = self._failures.get((what, i))
        if failure is None or i == len(self._sources) - 1:
            return ""
        since_s = self._monotonic() - failure.at_s
        if since_s >= self._retry_after_s:
            return ""
        return f"failed {since_s:.0f} s ago and is left alone: {failure.reason}"

    def _remember(self, what: str, i: int, reason: str) -> None:
        with self._lock:
            self._failures[what, i] = _Failure(at_s=self._monotonic(), reason=reason)

    def _marked(self, reading: IntensityReading, note: str) -> IntensityReading:
        require_one_basis((self._basis, reading.basis), what=f"The chain {self.name}")
        if not note:
            return reading
        return reading.with_note(f"{note} (itself {reading.kind})", kind="fallback")
