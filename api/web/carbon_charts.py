"""The charts of the carbon page: the grid and the hours ahead, and what is left of the day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.web.svg import Chart, Scale, area, drawing, path, tag, ticks
from api.web.words import number

SIZE = (760, 260)
LEFT, RIGHT, TOP, BOTTOM = 52.0, 738.0, 26.0, 222.0
HOUR = timedelta(hours=1)
Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Hour:
    """One hour of the grid.

    Attributes:
        time: its beginning.
        g_per_kwh: intensity.
        low: lower end of the interval; None where no error is known.
        high: its upper end.
        kind: measured, forecast, estimated or fallback.
    """

    time: datetime
    g_per_kwh: float
    low: float | None
    high: float | None
    kind: str


def _frame(x: Scale, y: Scale, times: Sequence[tuple[datetime, str]], unit: str) -> list[Markup]:
    marks = [tag("text", unit, x=0, y=10)]
    for value in ticks(min(y.low, y.high), max(y.low, y.high)):
        marks.append(tag("line", x1=LEFT, x2=RIGHT, y1=y(value), y2=y(value), class_="rule"))
        marks.append(tag("text", number(value, 4), x=LEFT - 8, y=y(value) + 4, class_="end"))
    for time, word in times:
        at = x(time.timestamp())
        marks.append(tag("line", x1=at, x2=at, y1=BOTTOM, y2=BOTTOM + 4, class_="axis"))
        marks.append(tag("text", word, x=at, y=BOTTOM + 20, class_="mid"))
    marks.append(tag("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="axis"))
    return marks


def _hours(
    first: datetime, last: datetime, zone: ZoneInfo, step: int
) -> list[tuple[datetime, str]]:
    """Every so many hours, as the clock of the place has it."""
    at = first.astimezone(zone).replace(minute=0, second=0, microsecond=0)
    found = []
    while at <= last:
        if at >= first and at.hour % step == 0:
            found.append((at, f"{at:%H:%M}"))
        at += HOUR
    return found


def forecast_chart(
    hours: Sequence[Hour], wakes: Sequence[tuple[datetime, str]], zone: ZoneInfo
) -> Chart:
    """Intensity now and ahead with its interval, and when deferred cases wake.

    Args:
        hours: now, then the hours ahead.
        wakes: moment and name of each deferred case's plan.
        zone: whose clock is shown.
    """
    first, last = hours[0].time, hours[-1].time + HOUR
    tops = [h.high if h.high is not None else h.g_per_kwh for h in hours]
    x = Scale(low=first.timestamp(), high=last.timestamp(), start=LEFT, end=RIGHT)
    y = Scale(low=0.0, high=1.08 * max(tops), start=BOTTOM, end=TOP)
    marks = _band(hours, x, y)
    marks += _frame(x, y, _hours(first, last, zone, 3), "gCO2e/kWh")
    line = [(x(h.time.timestamp()), y(h.g_per_kwh)) for h in hours]
    marks.append(path(line, class_="line-blue"))
    marks.append(tag("circle", cx=line[0][0], cy=line[0][1], r=5, class_="dot fill-blue"))
    marks += _wakes(wakes, x)
    least = min(hours, key=lambda h: h.g_per_kwh)
    caption = "Carbon intensity now and ahead"
    describe = (
        f"{number(hours[0].g_per_kwh)} gCO2e/kWh now; lowest {number(least.g_per_kwh)} at "
        f"{least.time.astimezone(zone):%H:%M}; {len(hours) - 1} hours ahead; "
        f"{len(wakes)} deferred cases."
    )
    legend = [("blue thin", "intensity"), ("band", "interval: 95 %, or 90 % where so given")]
    if wakes:
        legend.append(("orange thin", "a deferred case wakes"))
    return Chart(
        id="chart-forecast",
        caption=caption,
        svg=drawing("chart-forecast", SIZE, caption, describe, marks),
        legend=tuple(legend),
        heads=("Hour", "gCO2e/kWh", "Interval", "Kind"),
        table=tuple(_hour_row(h, zone) for h in hours),
    )


def _hour_row(hour: Hour, zone: ZoneInfo) -> tuple[str, ...]:
    known = hour.low is not None and hour.high is not None
    return (
        f"{hour.time.astimezone(zone):%d %b %H:%M}",
        number(hour.g_per_kwh),
        f"{number(hour.low)} to {number(hour.high)}" if known else "unknown",
        hour.kind,
    )


def _wakes(wakes: Sequence[tuple[datetime, str]], x: Scale) -> list[Markup]:
    """A line and a mark at each hour at which a case wakes, as far as the chart goes."""
    marks = []
    for at, name in wakes:
        if not x.low <= at.timestamp() <= x.high:
            continue
        mark = x(at.timestamp())
        title = Markup("<title>{}</title>").format(name)
        marks += [
            tag("line", x1=mark, x2=mark, y1=TOP, y2=BOTTOM, class_="line-orange dash"),
            tag("path", title, d=f"M{mark:.1f} {BOTTOM:.1f}l-5 9h10z", class_="fill-orange"),
        ]
    return marks


def _band(hours: Sequence[Hour], x: Scale, y: Scale) -> list[Markup]:
    known = [h for h in hours if h.low is not None and h.high is not None]
    if len(known) < 2:
        return []
    upper = [(x(h.time.timestamp()), y(h.high or 0.0)) for h in known]
    lower = [(x(h.time.timestamp()), y(max(h.low or 0.0, 0.0))) for h in known]
    return [area(upper, lower, class_="band")]


def burn_chart(
    spent: Sequence[tuple[datetime, float]], budget_g: float, now: datetime, zone: ZoneInfo
) -> Chart:
    """What is left of the day's budget after each charge, against spending it evenly.

    Args:
        spent: moment and g CO2e of each charge of the day (midnight to midnight UTC), in order.
        budget_g: the day's budget.
        now: the present.
        zone: whose clock is shown.
    """
    start = now.astimezone(zone_utc()).replace(hour=0, minute=0, second=0, microsecond=0)
    end = start + timedelta(days=1)
    course, left = [(start, budget_g)], budget_g
    for at, grams in spent:
        course += [(at, left), (at, left - grams)]
        left -= grams
    course.append((now, left))
    x = Scale(low=start.timestamp(), high=end.timestamp(), start=LEFT, end=RIGHT)
    y = Scale(low=min(0.0, left), high=max(1.05 * budget_g, 1e-9), start=BOTTOM, end=TOP)
    marks = _frame(x, y, _hours(start, end, zone, 3), "gCO2e left")
    marks.append(path([(LEFT, y(budget_g)), (RIGHT, y(0.0))], class_="line-grey dash"))
    marks.append(path([(x(at.timestamp()), y(g)) for at, g in course], class_="line-blue"))
    marks.append(tag("circle", cx=x(now.timestamp()), cy=y(left), r=5, class_="dot fill-blue"))
    caption = "The day's carbon budget: what is left"
    describe = (
        f"{number(left)} of {number(budget_g)} gCO2e are left after {len(spent)} charges since "
        "midnight UTC."
    )
    return Chart(
        id="chart-burndown",
        caption=caption,
        svg=drawing("chart-burndown", SIZE, caption, describe, marks),
        legend=(("blue thin", "left"), ("thin", "if it were spent evenly")),
        heads=("Hour, UTC", "Spent, gCO2e", "Left at its end"),
        table=tuple(_by_hour(spent, budget_g, start, now)),
    )


def zone_utc() -> ZoneInfo:
    """UTC, which the day's budget goes by."""
    return ZoneInfo("UTC")


def _by_hour(
    spent: Sequence[tuple[datetime, float]], budget_g: float, start: datetime, now: datetime
) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    left, hour = budget_g, start
    while hour <= now:
        grams = sum(g for at, g in spent if hour <= at < hour + HOUR)
        left -= grams
        if grams:
            rows.append((f"{hour:%H:%M}", number(grams), number(left)))
        hour += HOUR
    return rows or [("so far", "0", number(budget_g))]
