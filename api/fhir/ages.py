"""An age from a date of birth, as far as that date tells."""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from datetime import date
from typing import Any

from api.fhir.reading import Incoming

OLDEST = 130


def report_day(incoming: Incoming) -> date | None:
    """The day that the data are of: the latest report's, else the Bundle's; None if none says."""
    days = [
        day
        for report in incoming.of("DiagnosticReport")
        if (day := day_of(report.resource)) is not None
    ]
    return max(days) if days else _day(incoming.bundle.get("timestamp"))


def day_of(resource: Mapping[str, Any]) -> date | None:
    """When an Observation or a report is from; None if it does not say to the day."""
    period = resource.get("effectivePeriod") or {}
    for value in (
        resource.get("effectiveDateTime"), resource.get("effectiveInstant"),
        period.get("end", period.get("start")), resource.get("issued"),
    ):  # fmt: skip
        day = _day(value)
        if day is not None:
            return day
    return None


def _day(value: Any) -> date | None:
    return date.fromisoformat(value[:10]) if isinstance(value, str) and len(value) >= 10 else None


def completed_years(birth_date: str, on: date) -> int | None:
    """Age in completed years; None where a birth date without day or month leaves it open."""
    earliest, latest = _span(birth_date)
    oldest, youngest = _years(earliest, on), _years(latest, on)
    return oldest if oldest == youngest else None


def _span(text: str) -> tuple[date, date]:
    numbers = [int(part) for part in text.split("-")]
    if len(numbers) == 3:
        day = date(*numbers)
        return day, day
    if len(numbers) == 2:
        year, month = numbers
        return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])
    return date(numbers[0], 1, 1), date(numbers[0], 12, 31)


def _years(born: date, on: date) -> int:
    return on.year - born.year - ((on.month, on.day) < (born.month, born.day))
