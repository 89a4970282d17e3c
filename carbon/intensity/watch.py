"""Hold what a live feed says against what it said before, and mark what is doubtful."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from carbon.errors import IntensityError
from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    IntensitySource,
    as_utc,
    floor_hour,
)
from carbon.intensity.trace import HOUR

KEPT = timedelta(days=16)
"""As much as :func:`carbon.quality.inspect_feed` looks back, and a little more."""
STALE_S = 2 * 3600.0
COARSE_REPEATS_H = 6
"""Rounded to whole grams, five recorded grids of two to four years (both bases) hold one value
for three hours 12 to 73 times a year, and for six hours at most 1.5 times."""
DAY_H = 24
REPEATING = {"repeated": 1, "stale day": DAY_H}


@runtime_checkable
class _Remembers(Protocol):
    def recent(self, at: datetime) -> tuple[IntensityReading, ...]: ...


class WatchedSource:
    """A live source whose readings are checked; doubtful ones say so and are not ``measured``.

    The checks of ``carbon/quality.py`` need a history: it is what this object has seen, and once
    an hour what the source publishes of its past day, where it does.

    Args:
        source: the live source.
        ask_past: whether to ask the source for its past day.
    """

    def __init__(self, source: IntensitySource, *, ask_past: bool = True) -> None:
        self._source = source
        self._ask_past = ask_past
        self._seen: dict[datetime, float] = {}
        self._asked_hour: datetime | None = None
        self._judged: tuple[IntensityReading, list[str]] | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The source's name."""
        return self._source.name

    @property
    def basis(self) -> Basis:
        """The source's basis."""
        return self._source.basis

    def now(self, at: datetime) -> IntensityReading:
        """The source's reading, marked if it is stale, or doubtful beside those before it.

        Raises:
            IntensityError: as the source.
        """
        moment = as_utc(at)
        reading = self._source.now(moment)
        if reading.kind == "fallback":
            # A kept answer repeats itself by design, and its note says how old it is.
            return reading
        self._learn_past(moment)
        doubts = [*_stale(reading), *self._defects(reading)]
        if not doubts:
            return reading
        kind = "estimated" if reading.kind == "measured" else reading.kind
        return reading.with_note(f"doubtful: {', '.join(doubts)}", kind=kind)

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """The source's forecast, as it is.

        Raises:
            IntensityError: as the source.
        """
        return self._source.forecast(at, hours)

    def recent(self, at: datetime) -> tuple[IntensityReading, ...]:
        """What the source published of its past day; nothing where it publishes none.

        Raises:
            IntensityError: as the source.
        """
        return self._source.recent(at) if isinstance(self._source, _Remembers) else ()

    def _learn_past(self, moment: datetime) -> None:
        hour = floor_hour(moment)
        with self._lock:
            if not self._ask_past or self._asked_hour == hour:
                return
            self._asked_hour = hour
        try:
            past = self.recent(moment)
        except IntensityError:
            # The present is known; only less can be checked.
            return
        with self._lock:
            for reading in past:
                self._remember(reading)

    def _defects(self, reading: IntensityReading) -> list[str]:
        """What is doubtful beside the history; judged once for each value that comes."""
        with self._lock:
            self._remember(reading)
            if self._judged is not None and _same(self._judged[0], reading):
                return self._judged[1]
            seen = dict(self._seen)
        found = _defects(seen, reading)
        with self._lock:
            self._judged = (reading, found)
        return found

    def _remember(self, reading: IntensityReading) -> None:
        if self._seen.get(reading.time) == reading.g_per_kwh:
            return
        self._judged = None
        self._seen[reading.time] = reading.g_per_kwh
        oldest = max(self._seen) - KEPT
        self._seen = {t: v for t, v in self._seen.items() if t >= oldest}


def _same(one: IntensityReading, other: IntensityReading) -> bool:
    return (one.time, one.g_per_kwh) == (other.time, other.g_per_kwh)


def _stale(reading: IntensityReading) -> list[str]:
    if reading.age_s <= STALE_S:
        return []
    return [f"stale, nothing newer for {reading.age_s / 3600:.1f} h"]


def _defects(seen: dict[datetime, float], reading: IntensityReading) -> list[str]:
    """Reasons that the quality checks give for the reading's hour, knowing nothing later."""
    # Loaded when something is there to be checked: whoever replays a trace needs none of it.
    from carbon.quality import REASONS, inspect_feed  # noqa: PLC0415

    known = {time: value for time, value in seen.items() if time <= reading.time}
    values, first_hour = _hourly(known)
    bits = int(inspect_feed(values, first_hour=first_hour).flags_at_once[-1])
    found = [name for name, bit in REASONS.items() if bits & bit]
    if all(value == round(value) for value in known.values()):
        found = [
            name
            for name in found
            if name not in REPEATING or _run(values, REPEATING[name]) >= COARSE_REPEATS_H
        ]
    return [
        f"{name} for {_run(values, REPEATING[name])} h" if name in REPEATING else name
        for name in found
    ]


def _hourly(known: dict[datetime, float]) -> tuple[Float64[np.ndarray, " hours"], int]:
    """Means by hour, NaN where there is none, and the first one's hour of the day."""
    first = floor_hour(min(known))
    length = (floor_hour(max(known)) - first) // HOUR + 1
    total, count = np.zeros(length), np.zeros(length)
    for time, value in known.items():
        row = (time - first) // HOUR
        total[row] += value
        count[row] += 1
    values = np.full(length, np.nan)
    np.divide(total, count, out=values, where=count > 0)
    return values, first.hour


def _run(values: Float64[np.ndarray, " hours"], lag: int) -> int:
    """Hours at the end of which each equals the one ``lag`` before; a repeat counts its first."""
    run = 0
    while run + lag < len(values) and values[-1 - run] == values[-1 - run - lag]:
        run += 1
    return run + 1 if lag == 1 else run
