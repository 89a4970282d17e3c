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
        self._spent: dict[date, dict[tuple[str, str], float]] = {}

    def charge(self, case: str, stage: str, at: datetime, g_co2e: float | None) -> None:
        """Count one stage of one case; the same again changes nothing (None counts as unknown)."""
        day = at.astimezone(UTC).date()
        for old in [d for d in self._spent if d < day - timedelta(days=KEEP_DAYS)]:
            del self._spent[old]
        self._spent.setdefault(day, {}).setdefault((case, stage), g_co2e or 0.0)

    def spent_g_co2e(self, at: datetime) -> float:
        """Spent since midnight UTC, g CO2e."""
        return sum(self._spent.get(at.astimezone(UTC).date(), {}).values(), 0.0)

    def left_g_co2e(self, at: datetime) -> float:
        """Left until midnight UTC, g CO2e; negative when overspent."""
        return self.g_co2e_per_day - self.spent_g_co2e(at)

    def left_fraction(self, at: datetime) -> float:
        """Left as a share of the day's budget; 0 where the budget itself is 0."""
        return self.left_g_co2e(at) / self.g_co2e_per_day if self.g_co2e_per_day else 0.0

    def cases_left(self, at: datetime) -> int:
        """Cases that today's budget still has to serve, the present one included."""
        begun = {case for case, _ in self._spent.get(at.astimezone(UTC).date(), {})}
        return max(self.cases_per_day - len(begun) + 1, 1)
