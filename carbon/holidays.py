"""Public holidays of the grids whose local clock is known: days on which load looks like Sunday's.

Nationwide ones only, by rule and not by list, so that years to come are covered. Grids elsewhere
have none here, and their forecasts do without.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pandas as pd
from jaxtyping import Bool
from pandas.tseries.holiday import USFederalHolidayCalendar

GERMAN_FIXED = ((1, 1), (5, 1), (10, 3), (12, 24), (12, 25), (12, 26), (12, 31))
"""Month and day; 24 and 31 December are no holidays by law, but quiet."""
GERMAN_FROM_EASTER = (-2, 1, 39, 50)
"""Days after Easter Sunday: Good Friday, Easter Monday, Ascension, Whit Monday."""


def holidays(local: pd.DatetimeIndex, time_zone: str) -> Bool[np.ndarray, " hours"]:
    """Whether each hour, on the grid's own clock, falls on a public holiday."""
    first, last = local[0].date(), local[-1].date()
    if time_zone.startswith("America/"):
        free = _american(first, last)
    elif time_zone == "Europe/Berlin":
        free = _german(first, last)
    else:
        free = set()
    days = np.asarray(local.tz_localize(None), dtype="datetime64[D]")
    return np.isin(days, np.array(sorted(free), dtype="datetime64[D]"))


def _american(first: date, last: date) -> set[date]:
    """Federal holidays, the Friday after Thanksgiving, and Christmas Eve."""
    week = timedelta(days=7)
    named = USFederalHolidayCalendar().holidays(first - week, last + week, return_name=True)
    days = pd.DatetimeIndex(named.index)
    found = {stamp.date() for stamp in days}
    found |= {s.date() + timedelta(days=1) for s in days[named == "Thanksgiving Day"]}
    return found | {date(year, 12, 24) for year in range(first.year, last.year + 1)}


def _german(first: date, last: date) -> set[date]:
    found: set[date] = set()
    for year in range(first.year, last.year + 1):
        found |= {date(year, month, day) for month, day in GERMAN_FIXED}
        found |= {easter(year) + timedelta(days=n) for n in GERMAN_FROM_EASTER}
    return found


def easter(year: int) -> date:
    """Easter Sunday of the Gregorian calendar (Meeus, Astronomical Algorithms, chapter 8)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)
