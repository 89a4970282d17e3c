"""What a server has spent, kept in memory from its ledger: the policies' budget and the limits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from agent.workflow.budget import DayBudget
from agent.workflow.limits import SpendLimits
from agent.workflow.state import Charge
from api.store.ledger import charges_since

LONGEST_PERIOD = timedelta(days=32)
A_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Spend:
    """Both tallies; a charge counts once in each, however often it comes.

    Attributes:
        budget: the day's carbon that policies plan with.
        limits: the operator's limits.
    """

    budget: DayBudget
    limits: SpendLimits

    def recover(self, connection: Connection, now: datetime) -> None:
        """Count what the ledger holds: after a crash the spend is what was written down.

        A session may have begun at any time, so a limit for sessions takes the whole ledger.
        """
        sessions = any(budget.period == "session" for budget in self.limits.budgets)
        since = None if sessions else now - LONGEST_PERIOD
        for row in charges_since(connection, since):
            if row.time >= now - A_DAY:
                self.budget.charge(row.case_id, row.stage, row.time, row.g_co2e)
            self.limits.charge(row.case_id, row.stage, row.time, row.g_co2e, session=row.session)

    def charge(self, case_id: str, charge: Charge, *, session: str | None) -> None:
        """Count one charge."""
        self.budget.charge(case_id, charge.stage, charge.time, charge.g_co2e)
        self.limits.charge(case_id, charge.stage, charge.time, charge.g_co2e, session=session)
