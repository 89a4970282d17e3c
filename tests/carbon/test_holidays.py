"""Public holidays by rule, on the grid's own clock."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest

from carbon.holidays import easter, holidays


@pytest.mark.parametrize(
    ("zone", "free", "worked"),
    [
        (
            "America/New_York",
            ["2021-07-05", "2021-11-25", "2021-11-26", "2021-12-24"],
            "2021-07-06",
        ),
        ("Europe/Berlin", ["2021-04-02", "2021-04-05", "2021-05-13", "2021-10-03"], "2021-04-06"),
    ],
)
def test_known_days(zone: str, free: list[str], worked: str):
    for day in free:
        assert holidays(pd.date_range(day, periods=24, freq="h", tz=zone), zone).all()
    assert not holidays(pd.date_range(worked, periods=24, freq="h", tz=zone), zone).any()


@pytest.mark.parametrize(
    ("year", "sunday"),
    [(2019, (4, 21)), (2020, (4, 12)), (2021, (4, 4)), (2024, (3, 31)), (2038, (4, 25))],
)
def test_easter(year: int, sunday: tuple[int, int]):
    assert easter(year) == date(year, *sunday)


def test_the_local_day_counts():
    hours = pd.date_range("2021-12-24T22:00", periods=4, freq="h", tz="UTC")
    assert holidays(hours.tz_convert("Europe/Berlin"), "Europe/Berlin").all()
    late = pd.date_range("2021-01-01T23:00", periods=2, freq="h", tz="Europe/Berlin")
    assert holidays(late, "Europe/Berlin").tolist() == [True, False]


def test_a_grid_without_a_calendar_has_none():
    hours = pd.date_range("2021-12-25", periods=24, freq="h", tz="UTC")
    assert not holidays(hours, "UTC").any()
