"""What the carbon page shows: the grid, the budget, who waits for what, and the account."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, select

from api.account_schemas import AccountQuery
from api.problems import ProblemError
from api.routes.account import draw_account
from api.routes.carbon import budget_view
from api.schemas import BudgetView
from api.store import cases as store
from api.store import ledger
from api.store.tables import cases
from api.web.carbon_charts import Z95, Hour, burn_chart, forecast_chart
from api.web.guard import Visit
from api.web.svg import Chart
from carbon.account_report import AccountReport
from carbon.errors import CarbonError

AHEAD_H = 24
FIELDS = ("by", "heat", "heat_source", "heat_scope", "hardware", "hardware_source")
MOST_WAITING = 200


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid now and ahead; ``problem`` says what is not known of it."""

    now: Any = None
    hours: Sequence[Hour] = ()
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class CarbonPage:
    """The page's figures.

    Attributes:
        grid: now and ahead.
        forecast: its chart.
        burn: chart of the day's budget.
        budget: spent and left.
        limits: the operator's limits, in plain values.
        waiting: deferred cases with their plans.
        account: gross, SCI, avoided, net.
        asked: what the account was asked for with, as typed.
        errors: what is wrong with that, by the id of the field.
    """

    grid: Grid
    forecast: Chart | None
    burn: Chart
    budget: BudgetView
    limits: Sequence[Mapping[str, Any]]
    waiting: Sequence[Any]
    account: AccountReport | None
    asked: Mapping[str, str]
    errors: Mapping[str, str]


def _look(visited: Visit) -> Grid:
    """Ask the monitor; in a thread, since it may have to ask a provider."""
    monitor = visited.server.kit.monitor
    try:
        now = monitor.now()
    except CarbonError as error:
        return Grid(problem=str(error))
    first = _hour(now, visited.now)
    try:
        ahead = [_hour(reading) for reading in monitor.forecast(AHEAD_H)]
    except CarbonError as error:
        return Grid(now=now, hours=(first,), problem=str(error))
    return Grid(now=now, hours=(first, *ahead))


def _hour(reading: Any, at: datetime | None = None) -> Hour:
    low, high = None, None
    if reading.interval90_g_per_kwh is not None:
        low, high = reading.interval90_g_per_kwh
    elif reading.uncertainty_g_per_kwh is not None:
        reach = Z95 * reading.uncertainty_g_per_kwh
        low, high = max(reading.g_per_kwh - reach, 0.0), reading.g_per_kwh + reach
    return Hour(
        time=at or reading.time, g_per_kwh=reading.g_per_kwh, low=low, high=high, kind=reading.kind
    )


def _waiting(connection: Connection) -> Sequence[Any]:
    shown = (
        cases.c.id, cases.c.reference, cases.c.urgency, cases.c.deadline, cases.c.wake_at,
        cases.c.plan,
    )  # fmt: skip
    query = select(*shown).where(cases.c.status == store.DEFERRED).order_by(cases.c.wake_at)
    return connection.execute(query.limit(MOST_WAITING)).all()


async def build_carbon(visited: Visit, typed: Mapping[str, str]) -> CarbonPage:
    """Put the page together.

    Args:
        visited: who asks.
        typed: fields of the account's form, as they came with the address.
    """
    server, now = visited.server, visited.now
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    grid = await asyncio.to_thread(_look, visited)
    charges, waiting = await server.database.read(
        lambda connection: (
            ledger.charges_since(connection, midnight),
            _waiting(connection),
        )
    )
    asked, errors = _asked(typed)
    account = None
    try:
        account = await draw_account(server, asked)
    except ProblemError as error:
        errors = {"heat": error.detail, **errors}
        account = await draw_account(server, AccountQuery(by=asked.by))
    budget = budget_view(server)
    spent = sorted((row.time, row.g_co2e) for row in charges if row.g_co2e)
    wakes = [(row.wake_at, row.reference or row.id[:12]) for row in waiting if row.wake_at]
    return CarbonPage(
        grid=grid,
        forecast=forecast_chart(grid.hours, wakes, visited.zone) if len(grid.hours) > 1 else None,
        burn=burn_chart(spent, budget.g_co2e_per_day, now, visited.zone),
        budget=budget,
        limits=[status.as_dict() for status in server.kit.limits.status(now)],
        waiting=waiting,
        account=account,
        asked=typed,
        errors=errors,
    )


def _asked(typed: Mapping[str, str]) -> tuple[AccountQuery, dict[str, str]]:
    """The account's question; what cannot be read is left out and told beside its field."""
    given = {name: typed[name].strip() for name in FIELDS if typed.get(name, "").strip()}
    errors: dict[str, str] = {}
    while True:
        try:
            return AccountQuery.model_validate(given), errors
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            errors[name] = f"{name.replace('_', ' ').capitalize()}: {error.errors()[0]['msg']}."
            if given.pop(name, None) is None:
                return AccountQuery(), errors
