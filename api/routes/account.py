"""The account of what was reviewed, and where the limits stand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Response

from api.account_schemas import AccountQuery, AccountView, LimitsView, LimitView
from api.deps import Parts, Server, Viewer
from api.problems import ProblemError, documented
from api.settings import Settings
from api.store import ledger
from carbon.account_report import AccountReport, BudgetPlan, build_report
from carbon.account_views import account_csv
from carbon.entries import LedgerEntry
from carbon.errors import AccountError, BasisError, HeatError
from carbon.intensity.protocol import IntensityReading
from carbon.intensity.recorded import load_trace
from carbon.intensity.trace import Trace

COMMON = ("unauthorized", "forbidden", "invalid-request", "internal-error", "not-ready")
CSV = "text/csv; charset=utf-8"
FORECAST_H = 24
router = APIRouter(prefix="/v1/carbon", tags=["carbon"])


@dataclass(frozen=True, kw_only=True)
class _Extras:
    """What a page shows beside the account: the hours ahead, and the limits' course."""

    forecast: Callable[[datetime], tuple[IntensityReading, ...]] | None = None
    plan: BudgetPlan | None = None


async def draw_account(
    server: Server, asked: AccountQuery, extras: _Extras | None = None
) -> AccountReport:
    """Draw the account up, off the event loop.

    Raises:
        ProblemError: 422 if what was declared makes no sense.
    """
    entries = await server.database.read(
        lambda connection: ledger.entries(connection, since=asked.since, until=asked.until)
    )

    def draw() -> AccountReport:
        declared = asked.declared()
        trace = _trace(server.settings) if declared.heat is not None else None
        return _report(entries, asked, trace, extras or _Extras())

    try:
        return await asyncio.to_thread(draw)
    except (HeatError, AccountError) as error:
        raise ProblemError("invalid-request", str(error)) from error


def _report(
    entries: list[LedgerEntry], asked: AccountQuery, trace: Trace | None, extras: _Extras
) -> AccountReport:
    """The account; without the recorded year where that is on another basis, and saying so."""
    warnings: list[str] = []
    while True:
        try:
            return build_report(
                lambda: entries,
                ledger="server",
                by=asked.by,
                declared=asked.declared(),
                year_trace=trace,
                year=asked.year,
                forecast=extras.forecast,
                plan=extras.plan,
                warnings=warnings,
            )
        except BasisError as error:
            if trace is None:
                raise
            warnings, trace = [str(error)], None


def _extras(server: Server) -> _Extras:
    """The limits of this day and month, and the hours ahead as the server's grid foresees them."""

    def ahead(_: datetime) -> tuple[IntensityReading, ...]:
        readings = server.kit.monitor.forecast(FORECAST_H)
        return tuple(r for r in readings if isinstance(r, IntensityReading))

    limits = server.kit.limits.budgets
    plan = None
    if limits:
        zone = ZoneInfo(server.settings.timezone)
        plan = BudgetPlan(budgets=limits, timezone=zone, at=server.clock())
    return _Extras(forecast=ahead, plan=plan)


def _trace(settings: Settings) -> Trace | None:
    if settings.trace is None:
        return None
    return load_trace(settings.trace, settings.basis, zone=settings.zone)


@router.get(
    "/account",
    summary="Gross, SCI, avoided by recovered heat, and net",
    responses=documented(*COMMON, "carbon-unavailable"),
)
async def account(
    server: Parts, caller: Viewer, asked: Annotated[AccountQuery, Query()]
) -> AccountView:
    """The account as ``greenboard carbon account --json`` gives it.

    Gross is what was booked. Avoided stands on a line of its own and lowers neither gross nor SCI;
    a recovered fraction above 1 is refused. Where the server has a recorded trace, what must hold
    for a net below 0 is computed on it.
    """
    report = await draw_account(server, asked)
    return AccountView.model_validate(report.as_dict())


@router.get(
    "/account.csv",
    summary="The account's rows as CSV",
    response_class=Response,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "The rows."},
        **documented(*COMMON, "carbon-unavailable"),
    },
)
async def account_as_csv(
    server: Parts, caller: Viewer, asked: Annotated[AccountQuery, Query()]
) -> Response:
    """One line a row, units in the headings; an empty cell is unknown, never 0."""
    report = await draw_account(server, asked)
    return Response(account_csv(report.account.rows), media_type=CSV)


@router.get(
    "/account.html",
    summary="The account as a page",
    response_class=Response,
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "The page."},
        **documented(*COMMON, "carbon-unavailable"),
    },
)
async def account_as_page(
    server: Parts, caller: Viewer, asked: Annotated[AccountQuery, Query()]
) -> Response:
    """One file with the plots: the grid and the hours ahead, what ran when, the limits' course."""
    # Only who asks for a page waits for matplotlib.
    from agent.report.carbon_page import render_account  # noqa: PLC0415

    report = await draw_account(server, asked, _extras(server))
    async with server.drawing:
        page = await asyncio.to_thread(render_account, report)
    return Response(page, media_type="text/html; charset=utf-8")


@router.get("/limits", summary="Where the limits stand", responses=documented(*COMMON))
async def limits(
    server: Parts,
    caller: Viewer,
    session: Annotated[
        str | None, Query(min_length=1, max_length=200, description="For a session's limit.")
    ] = None,
) -> LimitsView:
    """Spent and left in the present day and month and in a session, and what happens at present."""
    found = server.kit.limits.status(server.clock(), session=session)
    return LimitsView(
        timezone=server.settings.timezone,
        session=session,
        limits=[LimitView.model_validate(status.as_dict()) for status in found],
    )
