"""Feed defects: planted ones are found in time, sound feeds pass, nothing looks ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carbon.forecast_data import load_forecast_data
from carbon.quality import REASONS, hold, inspect_feed, settle

DAYS = 60


def feed(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hour = np.arange(DAYS * 24)
    wind = np.cumsum(rng.normal(0, 0.03, len(hour)))
    return np.asarray(250 * np.exp(0.2 * np.sin(2 * np.pi * hour / 24) + wind - wind.mean()))


def test_a_sound_feed_is_not_flagged():
    assert inspect_feed(feed()).counts() == {}


def test_gaps_repeats_and_a_stale_day_are_flagged_from_the_row_that_shows_them():
    values = feed()
    values[500] = np.nan
    values[601:604] = values[600]
    values[700:708] = values[676:684]
    quality = inspect_feed(values)
    assert quality.note(500) == "doubtful: gap"
    assert [quality.note(i) for i in (601, 602)] == ["", "doubtful: repeated"]
    assert [bool(quality.at_once[i]) for i in (701, 702, 707, 708)] == [False, True, True, False]


def test_a_spike_is_settled_an_hour_later_and_an_absurd_one_at_once():
    values = feed()
    values[600] *= 3
    values[800] *= 20
    quality = inspect_feed(values)
    assert quality.counts() == {"spike": 2}
    assert not quality.at_once[600]
    assert quality.at_once[800]
    assert not quality.at_once[801]


def test_rows_after_the_present_come_from_the_future():
    quality = inspect_feed(feed(), now_row=1000)
    assert quality.at_once[1001:].all()
    assert not quality.at_once[:1001].any()


@pytest.mark.parametrize(
    ("shift", "reason"), [(24, "value of 24 h later"), (-24, "value of 24 h earlier")]
)
def test_another_days_value_at_one_hour_is_found_within_two_weeks(shift: int, reason: str):
    values = feed()
    rows = np.arange(30 * 24, (DAYS - 2) * 24, 24)
    values[rows] = feed()[rows + shift]
    found = np.flatnonzero(inspect_feed(values).flags_at_once & REASONS[reason])
    assert set(found % 24) == {0}
    assert found[0] - rows[0] <= 14 * 24
    assert len(found) >= len(rows) - 14


def test_verdicts_do_not_depend_on_what_comes_later():
    values = feed()
    values[np.arange(30 * 24, 58 * 24, 24)] *= 1.5
    cut = 55 * 24 + 1
    short, whole = inspect_feed(values[:cut]), inspect_feed(values)
    np.testing.assert_array_equal(short.flags_at_once, whole.flags_at_once[:cut])
    np.testing.assert_array_equal(short.flags_settled[:-1], whole.flags_settled[: cut - 1])


def test_doubtful_rows_are_held_at_once_and_interpolated_once_settled():
    values = np.array([1.0, 9.0, 3.0, 9.0, 9.0, 6.0])
    doubtful = np.array([False, True, False, True, True, False])
    np.testing.assert_array_equal(hold(values, doubtful), [1, 1, 3, 3, 3, 6])
    np.testing.assert_array_equal(settle(values, doubtful), [1, 2, 3, 3, 3, 6])


@pytest.mark.shared_data
def test_the_german_midnight_row_of_july_2021_is_found_within_eleven_days(shared_data: Path):
    data = load_forecast_data(shared_data / "carbon" / "cc_de.csv.gz")
    quality = inspect_feed(data.g_per_kwh, first_hour=data.first_hour)
    later = (quality.flags_at_once & REASONS["value of 24 h later"]) > 0
    found = data.time_utc[later]
    assert np.datetime64("2021-07-05", "h") < found[0] <= np.datetime64("2021-07-12", "h")
    assert {str(t)[-2:] for t in found} == {"00"}
    assert later.sum() >= 165
