"""``greenboard carbon metrics``: a Prometheus endpoint over a ledger, its budgets and a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli import grid_options

if TYPE_CHECKING:
    from carbon.intensity.build import GridConfig
    from carbon.prometheus import BudgetGauge, CarbonCollector

LIMITS = "limits"


def metrics(
    *,
    ledger: Annotated[
        Path | None, typer.Option(help="The ledger (JSONL) that work is booked in.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="day:SOFT:HARD or month:SOFT:HARD, gCO2e, against the ledger; repeat."),
    ] = None,
    timezone: Annotated[
        str, typer.Option(help="Where days and months begin, for example Europe/Berlin.")
    ] = "UTC",
    trace: Annotated[
        Path | None, typer.Option(help="Recorded carbon trace instead of the live source.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="Carbon sources in order, for example neso,synthetic.")
    ] = "",
    zone: grid_options.Zone = None,
    basis: grid_options.Basis = "direct",
    region: grid_options.Region = None,
    postcode: grid_options.Postcode = None,
    token_file: grid_options.TokenFile = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Folder for provider answers; memory only without it.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 9464,
    port_file: Annotated[
        Path | None, typer.Option(help="Write the port here once it is taken.")
    ] = None,
) -> None:
    """Let Prometheus pull the grid's intensity, energy and emissions by stage, and budgets.

    For work that runs without a server, such as training; 'greenboard serve' has its own /metrics.
    Nobody is asked for a key: what is shown holds no case and no person, but listens on this
    machine only unless --host says otherwise. Stop it with Ctrl-C.

      greenboard carbon metrics --ledger runs/demo/ledger.jsonl

      greenboard carbon metrics --ledger l.jsonl --limit day:500:800 --timezone Europe/London
    """
    import threading

    from prometheus_client import CollectorRegistry, start_http_server

    from api.errors import CommandError
    from api.grid import grid_config

    collector = _collector(
        grid_config(
            trace, source, cache_dir, zone=zone, basis=basis, region=region, postcode=postcode,
            token_file=token_file,
        ),
        ledger, limit or [], timezone,
    )  # fmt: skip
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise CommandError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}. Choose another."
        ) from error
    if port_file is not None:
        port_file.write_text(f"{server.server_port}\n")
    typer.echo(f"Prometheus metrics on http://{host}:{server.server_port}/metrics")
    try:
        threading.Event().wait()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _collector(
    grid: GridConfig, ledger: Path | None, limits: list[str], timezone: str
) -> CarbonCollector:
    from carbon.intensity.build import build_source
    from carbon.intensity.protocol import utc_now
    from carbon.ledger import ledger_totals
    from carbon.prometheus import CarbonCollector

    source = build_source(grid)
    return CarbonCollector(
        lambda: source.now(utc_now()),
        totals=None if ledger is None else lambda: ledger_totals(ledger),
        budgets=_budgets(ledger, limits, timezone) if limits else None,
    )


def _budgets(
    ledger: Path | None, limits: list[str], timezone: str
) -> Callable[[], Iterable[BudgetGauge]]:
    from zoneinfo import ZoneInfo

    from api.errors import CommandError
    from api.settings import known_timezone
    from carbon.budget import parse_budget
    from carbon.budget_keeper import BudgetKeeper
    from carbon.intensity.protocol import utc_now
    from carbon.prometheus import BudgetGauge

    if ledger is None:
        raise CommandError("A limit needs the ledger that it is held against; give --ledger.")
    try:
        place = ZoneInfo(known_timezone(timezone))
    except ValueError as error:
        raise CommandError(f"{error}.") from error
    keeper = BudgetKeeper(
        ledger, [parse_budget(text) for text in limits], timezone=place, clock=utc_now
    )

    def gauges() -> Iterable[BudgetGauge]:
        return [
            BudgetGauge(
                name=LIMITS,
                period=status.budget.period,
                limit_g_co2e=status.budget.hard_g_co2e,
                left_g_co2e=status.left_g_co2e,
            )
            for status in keeper.status()
        ]

    return gauges
