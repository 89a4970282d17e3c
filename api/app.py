"""The FastAPI application, put together from settings; importing it does nothing."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from zoneinfo import ZoneInfo

from fastapi import FastAPI
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from sqlalchemy import Connection

from agent.workflow.graph import build_graph, sqlite_saver
from agent.workflow.kit import ReviewKit
from agent.workflow.limits import SpendLimits
from agent.workflow.opening import open_kit
from api import state_lock
from api.auth import KeyRing
from api.bundle_folders import bundle_folders, bundle_to_open
from api.cds.cors import CdsCors
from api.cds.desk import open_desk
from api.deps import Server
from api.drift import DriftWatch
from api.errors import SettingsError
from api.examples import case_examples
from api.grid import grid_of
from api.hub import Hub
from api.inputs import CaseInputs
from api.job_plans import Sources
from api.jobs import JobLimits, Jobs
from api.kits import Kits, Loaded
from api.metrics import Metrics
from api.middleware import BodyLimit, Timing
from api.openapi import complete, recorded
from api.other_words import rephraser_of
from api.problems import install
from api.reviews import Reviews
from api.routes import (
    account,
    actions,
    audit,
    batch,
    bundles,
    carbon,
    cases,
    cds,
    exports,
    fhir,
    jobs,
    rephrase,
    server,
    web,
)
from api.settings import Settings, read_settings
from api.spend import Spend
from api.store.bundles import folders, record_start
from api.store.database import Database
from api.store.private import private_file
from api.worker import Limits, Workers
from carbon.monitor import build_monitor
from distill.cohort import read_cohort

SELDOM = (20_000, 20, 20)
"""How many objects come before a look for garbage; a review makes thousands that live briefly."""
DESCRIPTION = """
Case review for the molecular tumour board that spends carbon only where it changes the answer.
**Research use only**: it recommends, a person signs.

Post a case, follow its events until it waits for the clinician, submit the decision.
Every request takes an API key: `Authorization: Bearer KEY` or `X-API-Key: KEY`.
Errors are `application/problem+json` (RFC 9457).
"""


def utc_now() -> datetime:
    """The present."""
    return datetime.now(UTC)


def load_kit(settings: Settings) -> ReviewKit:
    """Open the bundle, the grid and the policies that the settings name.

    Raises:
        BundleError: if the bundle cannot be used.
        CarbonError: if the trace cannot be read, or a source lacks what it needs.
        SettingsError: if credentials cannot be read.
    """
    monitor = build_monitor(grid_of(settings))
    # Fitting takes a while; until it is through, the grid's own forecast answers.
    monitor.fit_in_background()
    return open_kit(
        settings.bundle,
        monitor=monitor,
        policy=settings.policy,
        budget_g_co2e_per_day=settings.budget_g_co2e_per_day,
        precision=settings.precision,
        shadow=settings.shadow,
    )


def create_app(
    settings: Settings | None = None,
    *,
    load: Callable[[Settings], ReviewKit] = load_kit,
    clock: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """The application.

    Args:
        settings: read from the environment if not given, so that
            ``uvicorn --factory api.app:create_app`` works.
        load: opens the bundle; tests hand in doubles.
        clock: the present.

    Raises:
        SettingsError: if settings are missing or wrong.
    """
    chosen = settings if settings is not None else read_settings({})
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            app.state.server = await _start(stack, chosen, metrics, load, clock)
            # What stands now stands until the end: no collection has to look through it again.
            gc.freeze()
            often = gc.get_threshold()
            gc.set_threshold(*SELDOM)
            try:
                yield
            finally:
                gc.set_threshold(*often)
                gc.unfreeze()
            app.state.server = None

    app = FastAPI(
        title="greenboard",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Asked at every request whether anybody traces it; /metrics is what there is to watch.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        license_info={"name": "Apache-2.0"},
    )
    install(app)
    # Before the case by its id, which would take their names for one.
    app.include_router(batch.router)
    app.include_router(exports.router)
    app.include_router(audit.router)
    app.include_router(cases.router)
    app.include_router(actions.router)
    app.include_router(rephrase.router)
    app.include_router(jobs.router)
    app.include_router(bundles.router)
    app.include_router(carbon.router)
    app.include_router(account.router)
    app.include_router(server.router)
    app.include_router(cds.router)
    app.include_router(fhir.router)
    app.include_router(web.router)
    app.add_middleware(BodyLimit, max_bytes=chosen.max_body_bytes)
    app.add_middleware(Timing, metrics=metrics)
    app.add_middleware(CdsCors, local=chosen.cds_open)
    _describe(app)
    return app


async def _start(
    stack: AsyncExitStack,
    settings: Settings,
    metrics: Metrics,
    load: Callable[[Settings], ReviewKit],
    clock: Callable[[], datetime],
) -> Server:
    # What can be wrong is opened first: a server that cannot start leaves nothing behind.
    limits = SpendLimits(settings.budgets, timezone=ZoneInfo(settings.timezone))
    settings = settings.model_copy(update={"bundle": bundle_to_open(settings)})
    rephraser = rephraser_of(settings)
    fhir.own_map(settings.fhir_map, settings.bundle)
    kit = load(settings)
    cohort = read_cohort(settings.cohort) if settings.cohort is not None else None
    stack.enter_context(state_lock.hold(settings.state))
    desk = open_desk(settings)
    metrics.watch_grid(kit.monitor.now, clock)
    database = Database(settings.store_url)
    stack.push_async_callback(database.close)
    await database.setup()
    past = await database.write(lambda c: _note_start(c, settings.bundle, kit, clock()))
    saver = await _open_checkpoints(stack, settings.state / "graph.sqlite")

    budget, monitor = kit.budget, kit.monitor

    def at_work(kit: ReviewKit, folder: Path) -> Loaded:
        # All bundles spend from the same limits and day, and look at the same grid.
        shared = replace(kit, limits=limits, budget=budget, monitor=monitor)
        # Some policies take a while to prepare: no case should have to wait for it.
        shared.policies.acting()
        inputs = CaseInputs(kit.student, database)
        services = shared.services(
            prepared=inputs.prepared,
            clock=clock,
            second_review_above=settings.second_review_above,
        )
        return Loaded(kit=shared, graph=build_graph(services, saver), inputs=inputs, folder=folder)

    kits = Kits(
        at_work(kit, settings.bundle),
        build=lambda folder: at_work(load(settings.model_copy(update={"bundle": folder})), folder),
        candidates=lambda: [*bundle_folders(settings), *past],
    )
    hub, drift = Hub(), DriftWatch()
    metrics.watch_drift(lambda: drift.of(kits.active.kit).gauges())
    workers = Workers(
        kits=kits,
        database=database,
        spend=Spend(budget=kit.budget, limits=limits),
        drift=drift,
        hub=hub,
        metrics=metrics,
        limits=Limits(
            queue=settings.queue_limit,
            workers=settings.workers,
            lease_s=settings.lease_s,
            wake_poll_s=settings.wake_poll_s,
        ),
        clock=clock,
    )
    await workers.start(alone=database.is_sqlite)
    stack.push_async_callback(workers.stop)
    background = Jobs(
        sources=Sources(database=database, kits=kits, settings=settings),
        folder=settings.state / "jobs",
        limits=JobLimits(
            queue=settings.jobs_queue, seconds=settings.job_limit_s, kept=settings.jobs_kept
        ),
        clock=clock,
    )
    await background.start()
    stack.push_async_callback(background.stop)
    return Server(
        settings=settings,
        kits=kits,
        database=database,
        reviews=Reviews(
            database=database, kits=kits, workers=workers, metrics=metrics, clock=clock
        ),
        jobs=background,
        workers=workers,
        hub=hub,
        metrics=metrics,
        keys=KeyRing(settings.keys),
        cohort=cohort,
        clock=clock,
        cds=desk,
        watchers=asyncio.Semaphore(settings.watchers),
        rephraser=rephraser,
    )


def _note_start(connection: Connection, opened: Path, kit: ReviewKit, now: datetime) -> list[Path]:
    """Write the bundle of this start down, if that is news; the folders of those before it."""
    record_start(connection, opened, kit.identity.version, now)
    return [Path(folder) for folder in folders(connection).values()]


async def _open_checkpoints(stack: AsyncExitStack, path: Path) -> AsyncSqliteSaver:
    """The graph's checkpoints, private like the store.

    Raises:
        SettingsError: if the file is no database, or cannot be written.
    """
    try:
        private_file(path)
        return await stack.enter_async_context(sqlite_saver(path))
    except (sqlite3.Error, OSError) as error:
        raise SettingsError(
            f"{path} cannot be used ({error}); give another --state, or put the file aside."
        ) from error


def _version() -> str:
    try:
        return version("greenboard")
    except PackageNotFoundError:
        return "0"


def _describe(app: FastAPI) -> None:
    """Complete the schema: the Problem that answers point to, and examples that work."""
    generate, examples = app.openapi, recorded()

    def openapi() -> dict[str, object]:
        running = getattr(app.state, "server", None)
        bodies = None
        if isinstance(running, Server):
            bodies = case_examples(running.kit.student.example(), running.clock())
        schema = complete(generate(), examples, bodies)
        if isinstance(running, Server):
            fhir.show_example(schema, running)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
