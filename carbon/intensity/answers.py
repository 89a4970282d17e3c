"""Read what a provider answered: strict about numbers and times, indulgent about new fields."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol, TypeVar, runtime_checkable

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from carbon.errors import IntensityError
from carbon.intensity.protocol import floor_hour
from carbon.intensity.recorded import HIGHEST_G_PER_KWH
from carbon.intensity.trace import HOUR

LONGEST_QUOTE = 200
MOST_AHEAD = timedelta(hours=1)
"""A value from further in the future than clocks or summer time explain is not taken at all."""
FIRST_YEAR, LAST_YEAR = 2000, 2200


class Answer(BaseModel):
    """Base of every answer's shape."""

    # A provider may add fields on any day: unknown ones are none of our business.
    model_config = ConfigDict(extra="ignore", frozen=True)


Shape = TypeVar("Shape", bound=BaseModel)


def _sensible(time: datetime) -> datetime:
    if not FIRST_YEAR <= time.year <= LAST_YEAR:
        raise ValueError(f"the year is not between {FIRST_YEAR} and {LAST_YEAR}")
    return time.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_sensible)]
"""An aware time of our age, in UTC."""

GramsPerKwh = Annotated[float, Field(strict=True, ge=0, le=HIGHEST_G_PER_KWH, allow_inf_nan=False)]
"""A number (no text, no truth value) that some grid could have."""


def read_answer(shape: type[Shape], url: str, body: str, *, who: str) -> Shape:
    """The body as that shape.

    Args:
        shape: what it must look like.
        url: where it came from, for the message.
        body: JSON, or anything that came instead.
        who: the provider's name, for the message.

    Raises:
        IntensityError: if it does not look like that; says where it first differs.
    """
    try:
        return shape.model_validate_json(body.encode("utf-8", errors="replace"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        message = f"{url}: not {who}'s shape at {quote(where)}: {quote(first['msg'])}"
        # Without its cause: that would repeat the whole body in a traceback.
        raise IntensityError(message) from None


def quote(text: object) -> str:
    """What a provider said, on one line and short enough for a note."""
    line = " ".join(str(text).split())
    return line if len(line) <= LONGEST_QUOTE else line[: LONGEST_QUOTE - 3] + "..."


def hours_ahead(
    points: Iterable[tuple[datetime, float | None]], moment: datetime, hours: int, *, per_hour: int
) -> tuple[tuple[datetime, float], ...]:
    """Means of the clock hours after that of ``moment``, up to the first hour that is not known.

    Hours after a hole would have the wrong lead for who reads by position, so a hole is the end.

    Args:
        points: start and value of each period; of two at one time the later one counts.
        moment: the present.
        hours: how many hours are wanted.
        per_hour: how many periods make an hour; half of them must be known.
    """
    first = floor_hour(moment) + HOUR
    known = {time: value for time, value in points if value is not None}
    buckets: dict[int, list[float]] = {}
    for time, value in known.items():
        buckets.setdefault((time - first) // HOUR, []).append(value)
    means: list[tuple[datetime, float]] = []
    for lead in range(hours):
        values = buckets.get(lead, [])
        if len(values) * 2 < per_hour:
            break
        means.append((first + lead * HOUR, math.fsum(values) / len(values)))
    return tuple(means)


@runtime_checkable
class TimedValue(Protocol):
    """A period of an answer: its start, and its value where it is known."""

    @property
    def time(self) -> datetime:
        """Start, UTC."""
        ...

    @property
    def g_per_kwh(self) -> float | None:
        """gCO2e/kWh."""
        ...


Timed = TypeVar("Timed", bound=TimedValue)


def period_for(
    points: Sequence[Timed], moment: datetime, *, length: timedelta, oldest_s: float
) -> Timed | None:
    """The known period that holds a moment, else the one that may best stand for it.

    That is the latest before it, if its end is at most ``oldest_s`` ago; else the first within
    :data:`MOST_AHEAD` after it, which :func:`doubts` then marks; else None.
    """
    known = [point for point in points if point.g_per_kwh is not None]
    for point in known:
        if point.time <= moment < point.time + length:
            return point
    past = max((p for p in known if p.time <= moment), key=lambda p: p.time, default=None)
    if past is not None and (moment - past.time - length).total_seconds() <= oldest_s:
        return past
    ahead = [p for p in known if timedelta(0) < p.time - moment <= MOST_AHEAD]
    return min(ahead, key=lambda p: p.time, default=None)


def doubts(start: datetime, moment: datetime) -> str:
    """What is wrong with a value for the present that begins after it; empty if it does not."""
    ahead_s = (start - moment).total_seconds()
    return f"doubtful: from the future, by {ahead_s:.0f} s" if ahead_s > 0 else ""
