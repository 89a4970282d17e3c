"""The grid now and ahead, and the ledger."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from api.account_schemas import DayBudgetView, FigureView, SpentBy
from api.deps import Parts, Server, Viewer
from api.problems import documented
from api.schemas import BudgetView, ForecastView, LedgerLine, LedgerView, ReadingView
from api.store import ledger
from api.when import When
from carbon.ledger import ledger_line

COMMON = ("unauthorized", "forbidden", "invalid-request", "internal-error", "not-ready")
JSON_LINES = "application/jsonl"
Bound = Annotated[When | None, Query(description="With a time zone.")]
router = APIRouter(prefix="/v1/carbon", tags=["carbon"])


def reading_view(reading: Any) -> ReadingView:
    """A reading as callers see it."""
    return ReadingView(
        g_per_kwh=reading.g_per_kwh,
        zone=reading.zone,
        time=reading.time,
        basis=reading.basis,
        provider=reading.provider,
        kind=reading.kind,
        age_s=reading.age_s,
        uncertainty_g_per_kwh=reading.uncertainty_g_per_kwh,
        interval90_g_per_kwh=reading.interval90_g_per_kwh,
        note=reading.note,
    )


def budget_view(server: Server) -> BudgetView:
    """What today's reviews may still emit."""
    budget, now = server.kit.budget, server.clock()
    return BudgetView(
        g_co2e_per_day=budget.g_co2e_per_day,
        spent_g_co2e=budget.spent_g_co2e(now),
        left_g_co2e=budget.left_g_co2e(now),
    )


@router.get(
    "/now", summary="Carbon intensity now", responses=documented(*COMMON, "carbon-unavailable")
)
async def now(server: Parts, caller: Viewer) -> ReadingView:
    """The grid's intensity with its provenance; ``kind`` says when it is a fallback."""
    # A provider may have to be asked: not on the event loop.
    return reading_view(await asyncio.to_thread(server.kit.monitor.now))


@router.get(
    "/forecast",
    summary="Carbon intensity ahead",
    responses=documented(*COMMON, "carbon-unavailable"),
)
async def forecast(
    server: Parts, caller: Viewer, hours: Annotated[int, Query(ge=1, le=48)] = 24
) -> ForecastView:
    """One reading an hour, the next clock hour first."""
    readings = await asyncio.to_thread(server.kit.monitor.forecast, hours)
    return ForecastView(readings=[reading_view(reading) for reading in readings])


@router.get("/budget", summary="What of the day's carbon is left", responses=documented(*COMMON))
async def budget(server: Parts, caller: Viewer) -> DayBudgetView:
    """The day's budget, what was spent of it hour by hour, and what is left.

    It is what policies plan with, and no limit: those are at ``/v1/carbon/limits``.
    """
    now, day = server.clock().astimezone(UTC), server.kit.budget
    starts = now.replace(hour=0, minute=0, second=0, microsecond=0)
    charges = await server.database.read(lambda c: ledger.times_since(c, starts))
    known = [(time, g) for time, g in charges if g is not None]
    hours = [starts + timedelta(hours=h + 1) for h in range(now.hour)]
    return DayBudgetView(
        starts=starts,
        ends=starts + timedelta(days=1),
        g_co2e_per_day=day.g_co2e_per_day,
        spent_g_co2e=FigureView(value=day.spent_g_co2e(now), ci95=None, n=len(known)),
        left_g_co2e=day.left_g_co2e(now),
        left_fraction=day.left_fraction(now),
        cases_per_day=day.cases_per_day,
        unknown_entries=len(charges) - len(known),
        course=[
            SpentBy(until=until, spent_g_co2e=sum(g for time, g in known if time < until))
            for until in (*hours, now)
        ],
    )


@router.get("/ledger", summary="Energy and carbon so far", responses=documented(*COMMON))
async def totals(
    server: Parts,
    caller: Viewer,
    by: Annotated[Literal["stage", "case"], Query()] = "stage",
    since: Bound = None,
    case: Annotated[str | None, Query(max_length=64)] = None,
) -> LedgerView:
    """Sums by stage or case, measured and modelled apart. Nothing here is called avoided."""
    lines = await server.database.read(
        lambda connection: ledger.totals(connection, by=by, since=since, case_id=case)
    )
    return LedgerView(
        by=by,
        since=since,
        totals=[LedgerLine(**line) for line in lines],
        budget=budget_view(server),
    )


@router.get(
    "/ledger.jsonl",
    summary="Every entry of the ledger",
    response_class=Response,
    responses={
        200: {"content": {JSON_LINES: {"schema": {"type": "string"}}}, "description": "Entries."},
        **documented(*COMMON),
    },
)
async def export(
    server: Parts, caller: Viewer, since: Bound = None, until: Bound = None
) -> Response:
    """One entry a line, oldest first: a ledger file for ``greenboard carbon account`` and others.

    ``since`` is included, ``until`` is not, so that exports of following days neither overlap
    nor leave anything out.
    """
    entries = await server.database.read(
        lambda connection: ledger.entries(connection, since=since, until=until)
    )

    def lines() -> bytes:
        return b"".join(ledger_line(Path("ledger.jsonl"), entry) for entry in entries)

    return Response(await asyncio.to_thread(lines), media_type=JSON_LINES)
