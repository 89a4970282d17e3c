"""The carbon that reviews may spend in one UTC day, and what is left of it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from agent.workflow.errors import WorkflowError

KEEP_DAYS = 2


class DayBudget:
    """Counts each charge once, by case and stage; yesterday's do not weigh on today.

    Attributes:
        g_co2e_per_day: what may be spent between two midnights UTC, g CO2e.
        cases_per_day: cases that the budget is meant for.
    """

    def __init__(self, *, g_co2e_per_day: float, cases_per_day: int) -> None:
        """Start with nothing spent.

        Raises:
            WorkflowError: if the budget is negative or meant for no case.
        """
        if not g_co2e_per_day >= 0 or cases_per_day < 1:
            raise WorkflowError(
                f"A day's budget of {g_co2e_per_day!r} g CO2e for {cases_per_day!r} cases cannot "
                "be kept; the budget must be 0 or more, the cases at least 1."
            )
        self.g_co2e_per_day = g_co2e_per_day
        self.cases_per_day = cases_per_day
        self._days: dict[date, _Day] = {}

    def charge(self, case: str, stage: str, at: datetime, g_co2e: float | None) -> None:
        """Count one stage of one case; the same again changes nothing (None counts as unknown)."""
        date_ = at.astimezone(UTC).date()
        day = self._days.get(date_)
        if day is None:
            kept = {d: day for d, day in self._days.items() if d >= date_ - timedelta(KEEP_DAYS)}
            self._days = kept | {date_: (day := _Day())}
        day.count(case, stage, g_co2e or 0.0)

    def spent_g_co2e(self, at: datetime) -> float:
        """Spent since midnight UTC, g CO2e."""
        return self._day(at).g_co2e

    def left_g_co2e(self, at: datetime) -> float:
        """Left until midnight UTC, g CO2e; negative when overspent."""
        return self.g_co2e_per_day - self.spent_g_co2e(at)

    def left_fraction(self, at: datetime) -> float:
        """Left as a share of the day's budget; 0 where the budget itself is 0."""
        return self.left_g_co2e(at) / self.g_co2e_per_day if self.g_co2e_per_day else 0.0

    def cases_left(self, at: datetime) -> int:
        """Cases that today's budget still has to serve, the present one included."""
        return max(self.cases_per_day - len(self._day(at).cases) + 1, 1)

    def _day(self, at: datetime) -> _Day:
        return self._days.get(at.astimezone(UTC).date()) or _Day()


class _Day:
    """What one day has seen; sums run along, so that asking costs the same all day."""

    def __init__(self) -> None:
        self.g_co2e = 0.0
        self.cases: set[str] = set()
        self._counted: set[tuple[str, str]] = set()

    def count(self, case: str, stage: str, g_co2e: float) -> None:
        if (case, stage) in self._counted:
            return
        self._counted.add((case, stage))
        self.cases.add(case)
        self.g_co2e += g_co2e
