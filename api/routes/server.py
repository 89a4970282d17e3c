"""The server itself: health, readiness, metrics, policies, audit."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy.exc import SQLAlchemyError

from api import audit
from api.deps import Admin, Parts, Server, Viewer
from api.errors import AuditError
from api.problems import ProblemError, documented
from api.routes.carbon import reading_view
from api.schemas import AuditView, Health, PoliciesView, Readiness
from api.store import cases as store
from api.views import model_view, policy_view
from carbon.prometheus import BudgetGauge

router = APIRouter()
PLAN, LIMITS = "plan", "limits"
COMMON = ("unauthorized", "forbidden", "internal-error", "not-ready")


@router.get("/healthz", tags=["server"], summary="Is the process alive?")
async def healthz() -> Health:
    """Answers as long as the process does; says nothing about what it works with."""
    return Health(status="alive")


@router.get(
    "/readyz",
    tags=["server"],
    summary="Can cases be reviewed?",
    responses=documented("not-ready", "carbon-unavailable"),
)
async def readyz(server: Parts) -> Readiness:
    """The store answers, the workers work and the grid is known; says who decides and why."""
    if not server.workers.alive:
        raise ProblemError("not-ready", "A worker has stopped; restart the server.")
    try:
        counts = await server.database.read(store.counts)
    except SQLAlchemyError as error:
        raise ProblemError(
            "not-ready", f"The store does not answer ({type(error).__name__})."
        ) from error
    return Readiness(
        status="ready",
        model=model_view(server.kit.identity),
        policy=policy_view(server.kit.policies),
        carbon=reading_view(await asyncio.to_thread(server.kit.monitor.now)),
        cases=counts,
        queue_length=server.workers.waiting,
    )


@router.get(
    "/metrics",
    tags=["server"],
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "Prometheus text format."},
        **documented(*COMMON),
    },
)
async def metrics(server: Parts, caller: Viewer) -> Response:
    """Requests, cases, decisions, energy, grid and budgets; takes a key like everything else.

    The grid is the last known value with its age: a provider that is slow or down delays nothing.
    """
    fallback = server.kit.policies.acting().fallback_reason is not None
    server.metrics.policy_fallback.set(float(fallback))
    server.metrics.budgets = budget_gauges(server)
    text = await asyncio.to_thread(server.metrics.text)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def budget_gauges(server: Server) -> tuple[BudgetGauge, ...]:
    """The day's budget that policies plan with, and the operator's hard limits but a session's."""
    now, day = server.clock(), server.kit.budget
    plan = BudgetGauge(
        name=PLAN,
        period="day",
        limit_g_co2e=day.g_co2e_per_day,
        left_g_co2e=day.left_g_co2e(now),
    )
    limits = (
        BudgetGauge(
            name=LIMITS,
            period=status.budget.period,
            limit_g_co2e=status.budget.hard_g_co2e,
            left_g_co2e=status.left_g_co2e,
        )
        # There are as many sessions as boards meet: no time series for each.
        for status in server.kit.limits.status(now)
        if status.budget.period != "session"
    )
    return (plan, *limits)


@router.get(
    "/v1/policies", tags=["policies"], summary="What can decide", responses=documented(*COMMON)
)
async def policies(server: Parts, caller: Viewer) -> PoliciesView:
    """The configured policy, the one that acts, its shadows, and what a case may ask for."""
    book, insight = server.kit.policies, server.kit.insight
    acting = book.acting()
    return PoliciesView(
        configured=book.configured,
        acting=acting.policy.name,
        fallback_reason=acting.fallback_reason,
        names=list(book.names),
        shadow=[policy.name for policy in insight.shadows] if insight is not None else [],
        seed=book.seed,
    )


@router.get(
    "/v1/audit", tags=["server"], summary="Check the audit log", responses=documented(*COMMON)
)
async def check_audit(server: Parts, caller: Admin) -> AuditView:
    """Walk the hash chain from its start; ``intact`` is false from the first row that broke."""
    entries = await server.database.read(audit.read_log)
    problem = None
    try:
        audit.verify(entries)
    except AuditError as error:
        problem = str(error)
    return AuditView(
        intact=problem is None,
        entries=len(entries),
        head=entries[-1].hash if entries else audit.GENESIS,
        problem=problem,
    )
