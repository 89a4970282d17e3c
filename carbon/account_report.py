"""All that a page or a file says about a ledger: account, recorded year, forecast, budgets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from carbon.account import Account, AccountBy, draw_up
from carbon.account_views import account_json
from carbon.budget import Budget
from carbon.burn_down import BurnDown, burn_downs
from carbon.declared import Declared
from carbon.deployment import CarbonNegativeDeployment, deployment_over_year
from carbon.entries import LedgerEntry
from carbon.errors import BasisError, IntensityError
from carbon.intensity.protocol import Basis, IntensityReading, floor_hour
from carbon.intensity.trace import HOUR, Trace

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class BudgetPlan:
    """Which budgets to hold a ledger against.

    Attributes:
        budgets: the limits.
        timezone: where days and months begin.
        session: the session that a session budget is for.
        at: a moment in the periods; the ledger's last entry where not given.
    """

    budgets: tuple[Budget, ...]
    timezone: tzinfo
    session: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class AccountReport:
    """A ledger's account with everything that belongs to it.

    Attributes:
        ledger: its name.
        account: the account.
        basis: the basis of most of the energy, which plots and budgets are on; None without any.
        deployment: the recorded year; None without a trace or without heat recovery.
        year: the trace that it was computed on.
        recorded: the part of that trace that covers the ledger's period, where it does.
        forecast: of the hours after the ledger's last entry.
        budgets: their course.
        warnings: what the reader of the ledger had to say.
    """

    ledger: str
    account: Account
    basis: Basis | None
    deployment: CarbonNegativeDeployment | None
    year: Trace | None
    recorded: Trace | None
    forecast: tuple[IntensityReading, ...]
    budgets: tuple[BurnDown, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The contents of the JSON file."""
        deployment = None if self.deployment is None else self.deployment.as_dict()
        return {
            "format": FORMAT,
            "ledger": self.ledger,
            **account_json(self.account),
            "carbon_negative_deployment": deployment,
            "budgets": [course.as_dict() for course in self.budgets],
            "warnings": list(self.warnings),
        }


def build_report(
    read: Callable[[], Iterable[LedgerEntry]],
    *,
    ledger: str,
    by: AccountBy = "stage",
    declared: Declared | None = None,
    year_trace: Trace | None = None,
    year: int | None = None,
    forecast: Callable[[datetime], tuple[IntensityReading, ...]] | None = None,
    plan: BudgetPlan | None = None,
    warnings: list[str] | None = None,
) -> AccountReport:
    """Draw up the account and hold it against the recorded year and the budgets.

    Args:
        read: gives the ledger's entries; called a second time where there are budgets.
        ledger: its name.
        by: one row for each.
        declared: heat recovery and hardware.
        year_trace: a recorded grid, for the deployment and for the plot of the period.
        year: which year of it.
        forecast: gives the hours after a moment.
        plan: budgets.
        warnings: what ``read`` puts its warnings into.

    Raises:
        CarbonError: as :func:`draw_up` and :func:`deployment_over_year`.
        BasisError: if the trace is on another basis than the ledger's energy.
    """
    said = warnings if warnings is not None else []
    given = declared or Declared()
    account = draw_up(read(), by, heat=given.heat, hardware=given.hardware)
    basis = _main_basis(account)
    deployment = None
    if year_trace is not None and given.heat is not None:
        profile = account.kwh_by_hour_of_day()
        deployment = deployment_over_year(
            year_trace, given.heat, year=year, kwh_by_hour_of_day=profile
        )
    if year_trace is not None and basis is not None:
        _require_like(year_trace, basis)
    ahead: tuple[IntensityReading, ...] = ()
    if forecast is not None and account.last is not None:
        try:
            ahead = forecast(account.last)
        except IntensityError as error:
            said.append(f"no forecast: {error}")
    return AccountReport(
        ledger=ledger,
        account=account,
        basis=basis,
        deployment=deployment,
        year=year_trace,
        recorded=_recorded(year_trace, account),
        forecast=ahead,
        budgets=_courses(read, plan, account, basis),
        warnings=tuple(dict.fromkeys(said)),
    )


def _main_basis(account: Account) -> Basis | None:
    known = [row for row in account.totals if row.intensity_basis is not None]
    if not known:
        return None
    return max(known, key=lambda row: row.energy_kwh).intensity_basis


def _require_like(trace: Trace, basis: Basis) -> None:
    """Average or marginal, direct or life-cycle: these may not differ; 'unstated' may."""
    ours, theirs = basis.split("-"), trace.basis.split("-")
    if ours[:2] != theirs[:2] or ("unstated" not in (ours[2], theirs[2]) and ours[2] != theirs[2]):
        raise BasisError(
            f"The ledger's energy is on {basis} and the trace {trace.name} on {trace.basis}; read "
            "the trace on the ledger's basis (--basis direct or life), or leave it out."
        )


def _recorded(trace: Trace | None, account: Account) -> Trace | None:
    if trace is None or account.first is None or account.last is None:
        return None
    start, end = floor_hour(account.first), floor_hour(account.last) + HOUR
    if start < trace.start or end > trace.end:
        return None
    return trace.between(start, end)


def _courses(
    read: Callable[[], Iterable[LedgerEntry]],
    plan: BudgetPlan | None,
    account: Account,
    basis: Basis | None,
) -> tuple[BurnDown, ...]:
    if plan is None:
        return ()
    at = plan.at if plan.at is not None else account.last
    if at is None:
        return ()
    entries: Iterator[LedgerEntry] = iter(read())
    return burn_downs(
        entries, plan.budgets, at=at, timezone=plan.timezone, basis=basis, session=plan.session
    )
