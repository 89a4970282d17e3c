"""How a budget was used up: what was left after each piece of work in its period."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from carbon.budget import Budget, BudgetStatus, SpendTally, period_key
from carbon.entries import LedgerEntry
from carbon.intensity.protocol import Basis, as_utc


@dataclass(frozen=True, kw_only=True)
class BurnDown:
    """One budget in one period.

    Attributes:
        status: where it stands at the end.
        times: when each piece of work was booked, UTC, in order.
        left_g_co2e: what was left up to the hard limit after each, gCO2e; below 0 when overspent.
    """

    status: BudgetStatus
    times: tuple[datetime, ...]
    left_g_co2e: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self.status.as_dict()


def burn_downs(
    entries: Iterable[LedgerEntry],
    budgets: Iterable[Budget],
    *,
    at: datetime,
    timezone: tzinfo,
    basis: Basis | None,
    session: str | None = None,
) -> tuple[BurnDown, ...]:
    """The course of each budget in the period that holds ``at``, in one pass.

    Args:
        entries: of the ledger.
        budgets: the limits.
        at: a moment in the periods to look at; what was booked after it is left out.
        timezone: where days and months begin.
        basis: the intensity basis that is counted; other entries count as unknown.
        session: the session that a session budget is for.
    """
    tally = SpendTally(budgets, timezone=timezone)
    keys = [period_key(b.period, at, timezone, session) for b in tally.budgets]
    spends: list[list[tuple[datetime, float]]] = [[] for _ in tally.budgets]
    for entry in entries:
        if entry.time > at:
            continue
        known = entry.g_co2e if entry.intensity_basis == basis else None
        tally.book(entry.time, known, session=entry.session)
        for budget, key, spend in zip(tally.budgets, keys, spends):
            here = period_key(budget.period, entry.time, timezone, entry.session)
            if known is not None and key is not None and here == key:
                spend.append((as_utc(entry.time), known))
    statuses = {s.budget.period: s for s in tally.status(at, session=session)}
    return tuple(
        _course(statuses[budget.period], spend)
        for budget, spend in zip(tally.budgets, spends)
        if budget.period in statuses
    )


def _course(status: BudgetStatus, spend: list[tuple[datetime, float]]) -> BurnDown:
    left = status.budget.hard_g_co2e
    times, course = [], []
    for at, g_co2e in sorted(spend):
        left -= g_co2e
        times.append(at)
        course.append(left)
    return BurnDown(status=status, times=tuple(times), left_g_co2e=tuple(course))
