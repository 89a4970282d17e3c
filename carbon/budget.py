"""Carbon budgets for a session, a day or a month: what was spent, and what happens at a limit.

Spend is what the append-only ledger says, so it survives a crash as the ledger does; see
:mod:`carbon.budget_keeper`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any, Literal, cast, get_args

from carbon.errors import BudgetError
from carbon.intensity.protocol import as_utc

Period = Literal["session", "day", "month"]
SoftAction = Literal["warn", "defer"]
HardAction = Literal["refuse", "defer"]
Action = Literal["proceed", "warn", "defer", "refuse"]

MEANING: dict[Action, str] = {
    "proceed": "work goes on",
    "warn": "work goes on and is flagged as over the soft limit",
    "defer": "work that can wait waits for the next period; urgent work goes on, flagged",
    "refuse": "nothing more is started until the next period or a higher limit",
}
SEVERITY: tuple[Action, ...] = ("proceed", "warn", "defer", "refuse")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on gross emissions in one kind of period.

    Attributes:
        period: session, calendar day, or calendar month.
        soft_g_co2e: from this spend on, ``soft_action`` applies, gCO2e.
        hard_g_co2e: work that would bring the spend above this meets ``hard_action``, gCO2e.
        soft_action: warn, or defer.
        hard_action: refuse, or defer.
    """

    period: Period
    soft_g_co2e: float
    hard_g_co2e: float
    soft_action: SoftAction = "warn"
    hard_action: HardAction = "refuse"

    def __post_init__(self) -> None:
        if not 0 <= self.soft_g_co2e <= self.hard_g_co2e < math.inf or self.hard_g_co2e == 0:
            raise BudgetError(
                f"Budget of a {self.period}: soft {self.soft_g_co2e:g} and hard "
                f"{self.hard_g_co2e:g} gCO2e; it takes 0 <= soft <= hard, and hard above 0."
            )
        if self.period == "session" and "defer" in (self.soft_action, self.hard_action):
            raise BudgetError(
                "A session has no next period to wait for: its budget takes warn and refuse."
            )


@dataclass(frozen=True, kw_only=True)
class BudgetStatus:
    """Where one budget stands.

    Attributes:
        budget: its limits.
        key: which session, day (2024-03-01) or month (2024-03).
        starts: start of the period, in the budget's time zone; None for a session.
        ends: its end, when spend starts at 0 again; None for a session.
        spent_g_co2e: gross emissions booked in it.
        entries: how many entries these are.
        unknown: entries in it whose emissions nobody knows; they are not in the sum.
        action: what happens to work that is started now.
    """

    budget: Budget
    key: str
    starts: datetime | None
    ends: datetime | None
    spent_g_co2e: float
    entries: int
    unknown: int
    action: Action

    @property
    def left_g_co2e(self) -> float:
        """What is left up to the hard limit; 0 where it is passed."""
        return max(0.0, self.budget.hard_g_co2e - self.spent_g_co2e)

    @property
    def level(self) -> Literal["within", "soft", "hard"]:
        """Which limit has been reached."""
        if self.spent_g_co2e >= self.budget.hard_g_co2e:
            return "hard"
        return "soft" if self.spent_g_co2e >= self.budget.soft_g_co2e else "within"

    @property
    def meaning(self) -> str:
        """What its action means, in words."""
        return MEANING[self.action]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; every sum with its count, units in the keys."""
        return {
            "period": self.budget.period,
            "key": self.key,
            "starts": None if self.starts is None else self.starts.isoformat(),
            "ends": None if self.ends is None else self.ends.isoformat(),
            "soft_g_co2e": self.budget.soft_g_co2e,
            "hard_g_co2e": self.budget.hard_g_co2e,
            "spent_g_co2e": {"value": self.spent_g_co2e, "ci95": None, "n": self.entries},
            "left_g_co2e": {"value": self.left_g_co2e, "ci95": None, "n": self.entries},
            "unknown_entries": self.unknown,
            "level": self.level,
            "action": self.action,
            "meaning": self.meaning,
        }


@dataclass(kw_only=True)
class _Spend:
    g_co2e: float = 0.0
    entries: int = 0
    unknown: int = 0


class SpendTally:
    """Adds up spend by period; holds nothing durable, so it is filled from a ledger.

    Args:
        budgets: the limits, at most one for each kind of period.
        timezone: where days and months begin; never guessed from the machine.

    Raises:
        BudgetError: if two budgets are for one kind of period.
    """

    def __init__(self, budgets: Iterable[Budget], *, timezone: tzinfo) -> None:
        self.budgets = tuple(budgets)
        self.timezone = timezone
        periods = [budget.period for budget in self.budgets]
        if len(set(periods)) != len(periods):
            raise BudgetError(f"One budget for each kind of period, not {', '.join(periods)}.")
        self._spend: dict[tuple[Period, str], _Spend] = {}
        self._seen: set[Hashable] = set()

    def book(
        self,
        at: datetime,
        g_co2e: float | None,
        *,
        session: str | None = None,
        once: Hashable | None = None,
    ) -> None:
        """Count one piece of work.

        Args:
            at: when it ended (aware).
            g_co2e: gross emissions; None where unknown, which is counted apart.
            session: the session that it belongs to.
            once: names the work; the same name again changes nothing.
        """
        if once is not None:
            if once in self._seen:
                return
            self._seen.add(once)
        for budget in self.budgets:
            key = period_key(budget.period, at, self.timezone, session)
            if key is None:
                continue
            spend = self._spend.setdefault((budget.period, key), _Spend())
            spend.entries += 1
            spend.unknown += g_co2e is None
            spend.g_co2e += g_co2e or 0.0

    def status(
        self, at: datetime, *, session: str | None = None, cost_g_co2e: float = 0.0
    ) -> tuple[BudgetStatus, ...]:
        """Every budget, with the action that work of this cost would meet if started at ``at``.

        A session budget says nothing of work outside any session and is then left out.

        Raises:
            BudgetError: if the cost is negative or not finite.
        """
        if not math.isfinite(cost_g_co2e) or cost_g_co2e < 0:
            raise BudgetError(f"A cost of {cost_g_co2e} gCO2e; it must be finite, not negative.")
        return tuple(
            self._status(budget, key, at, cost_g_co2e)
            for budget in self.budgets
            if (key := period_key(budget.period, at, self.timezone, session)) is not None
        )

    def clear(self) -> None:
        """Forget all spend."""
        self._spend.clear()
        self._seen.clear()

    def _status(self, budget: Budget, key: str, at: datetime, cost: float) -> BudgetStatus:
        spend = self._spend.get((budget.period, key), _Spend())
        starts, ends = period_bounds(budget.period, at, self.timezone)
        return BudgetStatus(
            budget=budget,
            key=key,
            starts=starts,
            ends=ends,
            spent_g_co2e=spend.g_co2e,
            entries=spend.entries,
            unknown=spend.unknown,
            action=action_at(budget, spend.g_co2e, cost),
        )


def strictest(statuses: Iterable[BudgetStatus]) -> Action:
    """The strictest action of several budgets; ``proceed`` where there are none."""
    return max((status.action for status in statuses), key=SEVERITY.index, default="proceed")


def period_key(
    period: Period, at: datetime, timezone: tzinfo, session: str | None = None
) -> str | None:
    """The name of the period that a moment falls into; None for work outside any session."""
    local = as_utc(at).astimezone(timezone)
    if period == "session":
        return session
    return f"{local:%Y-%m-%d}" if period == "day" else f"{local:%Y-%m}"


def period_bounds(
    period: Period, at: datetime, timezone: tzinfo
) -> tuple[datetime | None, datetime | None]:
    """Start and end of the day or month that a moment falls into, by the wall clock there."""
    if period == "session":
        return None, None
    starts = (
        as_utc(at).astimezone(timezone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    )
    if period == "day":
        # Wall-clock arithmetic: a day on which clocks change has 23 or 25 hours.
        return starts, starts + timedelta(days=1)
    starts = starts.replace(day=1)
    return starts, (starts + timedelta(days=32)).replace(day=1)


def action_at(budget: Budget, spent_g_co2e: float, cost_g_co2e: float = 0.0) -> Action:
    """What happens to work of this cost after this spend; see :data:`MEANING`."""
    after = spent_g_co2e + cost_g_co2e
    if after > budget.hard_g_co2e or spent_g_co2e >= budget.hard_g_co2e:
        return budget.hard_action
    return budget.soft_action if after >= budget.soft_g_co2e else "proceed"


def parse_budget(text: str) -> Budget:
    """Read ``day:500:800`` or ``month:1e4:2e4:defer:refuse`` (soft, hard, actions; gCO2e).

    Raises:
        BudgetError: if it is not that.
    """
    parts = text.split(":")
    if len(parts) not in (3, 5):
        raise BudgetError(
            f"{text!r} is no budget; write PERIOD:SOFT:HARD, for example day:500:800 (gCO2e), or "
            "PERIOD:SOFT:HARD:SOFT_ACTION:HARD_ACTION, for example day:500:800:defer:refuse."
        )
    try:
        soft, hard = float(parts[1]), float(parts[2])
    except ValueError as error:
        raise BudgetError(f"{text!r}: {parts[1]!r} and {parts[2]!r} are to be numbers.") from error
    soft_action, hard_action = parts[3:] if len(parts) == 5 else ("warn", "refuse")
    for what, value, allowed in (
        ("period", parts[0], get_args(Period)),
        ("soft action", soft_action, get_args(SoftAction)),
        ("hard action", hard_action, get_args(HardAction)),
    ):
        if value not in allowed:
            raise BudgetError(f"Unknown {what} {value!r}. Allowed: {', '.join(allowed)}.")
    return Budget(
        period=cast(Period, parts[0]),
        soft_g_co2e=soft,
        hard_g_co2e=hard,
        soft_action=cast(SoftAction, soft_action),
        hard_action=cast(HardAction, hard_action),
    )
