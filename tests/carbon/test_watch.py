from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.errors import IntensityError
from carbon.intensity.fixed import FixedSource
from carbon.intensity.protocol import Basis, IntensityReading, make_basis
from carbon.intensity.watch import WatchedSource

START = datetime(2024, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Feed:
    """A live feed by hour; its past is what came before."""

    name = "feed"
    basis: Basis = make_basis()

    def __init__(self, values: list[float], *, remembers: bool = True, late_h: int = 0) -> None:
        self.values = values
        self.late_h = late_h
        self.remembers = remembers
        self.asked_past = 0

    def reading(self, hour: int, at: datetime) -> IntensityReading:
        time = START + hour * HOUR
        made = FixedSource(self.values[hour], zone="X", basis=self.basis, origin="feed").now(time)
        return replace(made, kind="measured", note="", age_s=(at - time).total_seconds())

    def now(self, at: datetime) -> IntensityReading:
        return self.reading(min((at - START) // HOUR, len(self.values) - 1) - self.late_h, at)

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        return (self.now(at),) * hours

    def recent(self, at: datetime) -> tuple[IntensityReading, ...]:
        self.asked_past += 1
        if not self.remembers:
            raise IntensityError("no past for you")
        hour = (at - START) // HOUR
        return tuple(self.reading(h, at) for h in range(max(0, hour - 24), hour))


def moving(hours: int) -> list[float]:
    return [200.0 + 10.3 * (h % 24) + 0.7 * h for h in range(hours)]


def test_a_sound_reading_is_left_as_it_is() -> None:
    feed = Feed(moving(40))
    at = START + 30 * HOUR
    assert WatchedSource(feed).now(at) == feed.now(at)
    assert WatchedSource(feed).forecast(at, 2) == feed.forecast(at, 2)


def test_a_value_repeated_for_hours_is_not_called_measured() -> None:
    values = moving(30)
    values[28:] = [values[27]] * 2
    reading = WatchedSource(Feed(values)).now(START + 29 * HOUR)
    assert reading.kind == "estimated"
    assert reading.note == "doubtful: repeated for 3 h"
    assert WatchedSource(Feed(values)).now(START + 28 * HOUR).kind == "measured"


@pytest.mark.parametrize(("hours", "kind"), [(5, "measured"), (6, "estimated")])
def test_whole_grams_may_repeat_a_little_longer(hours: int, kind: str) -> None:
    values = [float(round(value)) for value in moving(40)]
    values[40 - hours :] = [values[40 - hours]] * hours
    assert WatchedSource(Feed(values)).now(START + 39 * HOUR).kind == kind


def test_yesterday_again_is_seen() -> None:
    values = moving(60)
    values[44:60] = values[20:36]
    reading = WatchedSource(Feed(values)).now(START + 46 * HOUR)
    # Only what the source itself tells of the past 24 hours is known: not enough to see it.
    assert reading.kind == "measured"
    watched = WatchedSource(Feed(values))
    for hour in range(47):
        reading = watched.now(START + hour * HOUR)
    assert (reading.kind, reading.note) == ("estimated", "doubtful: stale day for 3 h")


def test_an_absurd_jump_and_a_standing_feed_are_seen() -> None:
    values = moving(40)
    values[39] *= 12
    assert "spike" in WatchedSource(Feed(values)).now(START + 39 * HOUR).note
    late = WatchedSource(Feed(moving(40), late_h=3)).now(START + 39 * HOUR)
    assert (late.kind, late.note) == ("estimated", "doubtful: stale, nothing newer for 3.0 h")


def test_nothing_later_than_the_reading_counts() -> None:
    values = moving(60)
    watched = WatchedSource(Feed(values))
    later = watched.now(START + 50 * HOUR)
    values[30] *= 12
    earlier = watched.now(START + 20 * HOUR)
    assert (later.note, earlier.note) == ("", "")


def test_the_past_is_asked_for_once_an_hour_and_may_be_refused() -> None:
    feed = Feed(moving(40), remembers=False)
    watched = WatchedSource(feed)
    for minutes in (0, 10, 50, 70):
        assert watched.now(START + 30 * HOUR + timedelta(minutes=minutes)).note == ""
    assert feed.asked_past == 2
    quiet = Feed(moving(40))
    WatchedSource(quiet, ask_past=False).now(START + 3 * HOUR)
    assert quiet.asked_past == 0


def test_a_fallback_keeps_its_own_words() -> None:
    class Kept(Feed):
        def now(self, at: datetime) -> IntensityReading:
            return replace(super().now(at), kind="fallback", note="kept answer", age_s=9e4)

    reading = WatchedSource(Kept([7.0] * 40)).now(START + 30 * HOUR)
    assert (reading.kind, reading.note) == ("fallback", "kept answer")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1e-9, 27.0, 27.4, 300.0, 3000.0]), min_size=1, max_size=60),
    st.integers(min_value=0, max_value=3),
)
def test_any_history_gives_the_value_as_it_came(values: list[float], late_h: int) -> None:
    feed = Feed(values, late_h=late_h)
    watched = WatchedSource(feed)
    for hour in range(late_h, len(values)):
        at = START + hour * HOUR
        reading = watched.now(at)
        assert reading.g_per_kwh == feed.now(at).g_per_kwh
        assert (reading.kind == "measured") == (reading.note == "")
        assert watched.now(at) == reading


def test_what_was_judged_is_judged_again_when_more_is_known() -> None:
    values = moving(30)
    values[28:] = [values[27]] * 2
    watched = WatchedSource(Feed(values, remembers=False))
    at = START + 29 * HOUR
    assert watched.now(at).kind == "measured"
    for hour in (27, 28):
        watched.now(START + hour * HOUR)
    assert watched.now(at).kind == "estimated"
