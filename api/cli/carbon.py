"""``greenboard carbon``: the grid now, the hours ahead, and what the ledger adds up to."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli import carbon_forecast, carbon_schedule, grid_options
from api.cli.carbon_account import account
from api.cli.carbon_backtest import backtest
from api.cli.carbon_books import budget, export_codecarbon, import_codecarbon
from api.cli.carbon_metrics import metrics

if TYPE_CHECKING:
    from carbon.entries import LedgerTotal
    from carbon.intensity.protocol import IntensityReading
    from carbon.learned_source import ForecastOptions
    from carbon.monitor import CarbonMonitor

app = typer.Typer(
    help=(
        "What the grid emits, now and ahead, and what was booked.\n\n"
        "Every figure names its zone, time, basis, provider, age, and whether it was measured, "
        "forecast, estimated, or a fallback and why.\n\n"
        "  greenboard carbon now                      Great Britain, from NESO\n\n"
        "  greenboard carbon now --postcode RG10      one part of it, forecast only\n\n"
        "  greenboard carbon now --source electricity-maps --zone DE --basis life "
        "--token-file em.token\n\n"
        "  greenboard carbon forecast --source watttime --zone CAISO_NORTH "
        "--token-file wt.login\n\n"
        "  greenboard carbon now --trace em_gb.csv.gz --basis life --at 2024-06-01T12:00Z\n\n"
        "  greenboard carbon forecast --hours 12 --json\n\n"
        "  greenboard carbon forecast --trace cc_de.csv.gz --at 2021-10-01T07:00Z --plot de.png"
        "\n\n"
        "  greenboard carbon ledger runs/demo/ledger.jsonl --by case\n\n"
        "  greenboard carbon account runs/demo/ledger.jsonl --heat 0.6:0.9:203"
    ),
    no_args_is_help=True,
)

Source = Annotated[
    list[str] | None,
    typer.Option(
        help="neso, electricity-maps, watttime, trace, synthetic or fixed; repeat it for a "
        "fallback chain, best first, all on one basis. "
        "Without it: --trace or --g-per-kwh if given, else neso; then synthetic."
    ),
]
TraceFile = Annotated[
    Path | None,
    typer.Option(
        help="Recorded trace (.csv, .csv.gz, .parquet) with time_utc and ci_direct or ci_life; "
        "replayed where its dates have passed."
    ),
]
Scope = Literal["direct", "life"]
Accounting = Literal["production", "consumption", "unstated"]
BasisOption = Annotated[Scope, typer.Option("--basis", help="Direct, or life for life-cycle.")]
AccountingOption = Annotated[
    Accounting, typer.Option("--accounting", help="What figures count; must agree in a chain.")
]
Figure = Annotated[float | None, typer.Option("--g-per-kwh", help="A fixed figure, gCO2e/kWh.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the synthetic grid.")]
At = Annotated[
    str | None,
    typer.Option(help="Another time than now, ISO 8601 with time zone: 2024-06-01T12:00Z."),
]
CacheDir = Annotated[
    Path | None, typer.Option(help="Folder for provider answers; memory only without it.")
]
NesoUrl = Annotated[str | None, typer.Option(help="Another address that speaks NESO's shape.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


@app.command("now")
def now(
    *,
    source: Source = None,
    trace: TraceFile = None,
    zone: grid_options.Zone = None,
    region: grid_options.Region = None,
    postcode: grid_options.Postcode = None,
    token_file: grid_options.TokenFile = None,
    basis: BasisOption = "direct",
    accounting: AccountingOption = "unstated",
    g_per_kwh: Figure = None,
    seed: Seed = 0,
    at: At = None,
    cache_dir: CacheDir = None,
    neso_url: NesoUrl = None,
    as_json: AsJson = False,
) -> None:
    """Carbon intensity of the grid at present, with its provenance."""
    monitor = _monitor(
        source=source, trace=trace, zone=zone, basis=basis, accounting=accounting,
        g_per_kwh=g_per_kwh, seed=seed, at=at, cache_dir=cache_dir, neso_url=neso_url,
        region=region, postcode=postcode, token_file=token_file,
    )  # fmt: skip
    reading = monitor.now()
    if as_json:
        typer.echo(json.dumps(carbon_forecast.as_row(reading), indent=2))
        return
    typer.echo(f"{reading.g_per_kwh:.1f} gCO2e/kWh  ({reading.kind}, {reading.basis})")
    typer.echo(f"zone {reading.zone}, from {reading.time:%Y-%m-%d %H:%M} UTC, {_age(reading)}")
    typer.echo(f"provider {reading.provider}")
    if reading.note:
        typer.echo(f"note: {reading.note}")


@app.command("forecast")
def forecast(
    *,
    hours: Annotated[int, typer.Option(min=1, max=168, help="How many hours ahead.")] = 24,
    source: Source = None,
    trace: TraceFile = None,
    zone: grid_options.Zone = None,
    region: grid_options.Region = None,
    postcode: grid_options.Postcode = None,
    token_file: grid_options.TokenFile = None,
    basis: BasisOption = "direct",
    accounting: AccountingOption = "unstated",
    g_per_kwh: Figure = None,
    seed: Seed = 0,
    at: At = None,
    cache_dir: CacheDir = None,
    neso_url: NesoUrl = None,
    method: carbon_forecast.Method = "learned",
    delay_min: carbon_forecast.DelayMin = 0,
    history: carbon_forecast.History = None,
    quick: carbon_forecast.Quick = False,
    plot: carbon_forecast.Plot = None,
    as_json: AsJson = False,
) -> None:
    """Carbon intensity of the coming clock hours, with 90 % intervals and the method.

    Example: greenboard carbon forecast --trace cc_de.csv.gz --at 2021-10-01T07:00Z --plot ahead.png
    """
    from carbon.learned_source import ForecastOptions

    monitor = _monitor(
        source=source, trace=trace, zone=zone, basis=basis, accounting=accounting,
        g_per_kwh=g_per_kwh, seed=seed, at=at, cache_dir=cache_dir, neso_url=neso_url,
        region=region, postcode=postcode, token_file=token_file,
        forecast=ForecastOptions(method=method, delay_min=delay_min, history=history, quick=quick),
    )  # fmt: skip
    carbon_forecast.forecast(monitor, hours, as_json=as_json, plot=plot)


@app.command("schedule")
def schedule(
    *,
    duration_h: carbon_schedule.DurationH,
    power_w: carbon_schedule.PowerW,
    slack_h: carbon_schedule.SlackH = None,
    deadline: carbon_schedule.Deadline = None,
    interruptible: carbon_schedule.Interruptible = False,
    method: carbon_schedule.MethodOption = "auto",
    time_zone: carbon_schedule.TimeZone = "UTC",
    source: Source = None,
    trace: TraceFile = None,
    zone: grid_options.Zone = None,
    region: grid_options.Region = None,
    postcode: grid_options.Postcode = None,
    token_file: grid_options.TokenFile = None,
    basis: BasisOption = "direct",
    accounting: AccountingOption = "unstated",
    g_per_kwh: Figure = None,
    seed: Seed = 0,
    at: At = None,
    cache_dir: CacheDir = None,
    neso_url: NesoUrl = None,
    as_json: AsJson = False,
) -> None:
    """When to run a job within its deadline, and the gCO2e expected now and then.

    It plans; it starts nothing. Ask again each hour until it says 'run now': forecasts change.
    Shares of what perfect foresight saves are in carbon/README.md.

    Examples:
      greenboard carbon schedule --duration-h 4 --slack-h 12 --power-w 300

      greenboard carbon schedule --duration-h 2.5 --power-w 150 --interruptible
        --deadline 2030-06-01T18:00Z

      greenboard carbon schedule --duration-h 4 --power-w 300 --method learned
        --trace em_gb.csv.gz --time-zone Europe/London --at 2024-06-01T05:00Z
    """
    moment = _clock(at)()
    job = carbon_schedule.job_of(
        at=moment, duration_h=duration_h, power_w=power_w, slack_h=slack_h, deadline=deadline,
        interruptible=interruptible,
    )  # fmt: skip
    monitor = _monitor(
        source=source, trace=trace, zone=zone, basis=basis, accounting=accounting,
        g_per_kwh=g_per_kwh, seed=seed, at=moment.isoformat(), cache_dir=cache_dir,
        neso_url=neso_url,
        region=region, postcode=postcode, token_file=token_file,
    )  # fmt: skip
    recording = None
    if trace is not None and (not source or "trace" in ",".join(source).split(",")):
        recording = carbon_schedule.Recording(path=trace, basis=basis, time_zone=time_zone)
    carbon_schedule.schedule(
        monitor, job, at=moment, method=method, recording=recording, as_json=as_json
    )


app.command("backtest")(backtest)
app.command("metrics")(metrics)
app.command("account")(account)
app.command("budget")(budget)
app.command("import-codecarbon")(import_codecarbon)
app.command("export-codecarbon")(export_codecarbon)


@app.command("ledger")
def ledger(
    path: Annotated[Path, typer.Argument(help="The ledger (JSONL).")],
    by: Annotated[
        Literal["stage", "case", "all"], typer.Option(help="One row for each.")
    ] = "stage",
    recount: Annotated[
        bool, typer.Option("--recount", help="Read every line; believe no sums kept beside it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Energy and gross emissions booked so far; figures on different bases stay apart."""
    from carbon.ledger import ledger_totals

    warnings: list[str] = []
    totals = ledger_totals(path, by, use_index=not recount, on_unfinished=warnings.append)
    if as_json:
        body = {
            "ledger": str(path),
            "by": by,
            "totals": [_total_json(row) for row in totals],
            "warnings": warnings,
        }
        typer.echo(json.dumps(body, indent=2))
        return
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    _print_totals(totals, by)


def _print_totals(totals: tuple[LedgerTotal, ...], by: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Ledger by {by} (gross, no heat recovery)")
    headings = (by, "entries", "measured kWh", "modelled kWh", "gCO2e", "basis", "not counted")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if 0 < i < 5 else "left", overflow="fold")
    for row in totals:
        table.add_row(
            row.key, str(row.entries), f"{row.measured_kwh:.6g}", f"{row.modelled_kwh:.6g}",
            f"{row.g_co2e:.6g}", row.intensity_basis or "no intensity", _not_counted(row),
        )  # fmt: skip
    Console().print(table)


def _not_counted(row: LedgerTotal) -> str:
    parts = []
    if row.unmeasured:
        parts.append(f"{row.unmeasured} without energy")
    if row.without_g_co2e:
        parts.append(f"{row.without_g_co2e} without gCO2e")
    return ", ".join(parts)


def _monitor(
    *,
    source: list[str] | None,
    trace: Path | None,
    zone: str | None,
    basis: Scope,
    accounting: Accounting,
    g_per_kwh: float | None,
    seed: int,
    at: str | None,
    cache_dir: Path | None,
    neso_url: str | None,
    region: int | None,
    postcode: str | None,
    token_file: Path | None,
    forecast: ForecastOptions | None = None,
) -> CarbonMonitor:
    from api.settings import read_access
    from carbon.intensity.build import NESO_URL, GridConfig
    from carbon.monitor import build_monitor

    names = tuple(name for item in source or () for name in item.split(",") if name)
    config = GridConfig(
        sources=names,
        trace=trace,
        basis=basis,
        accounting=accounting,
        zone=zone,
        fixed_g_per_kwh=g_per_kwh,
        fixed_origin="the command line",
        seed=seed,
        cache_dir=cache_dir,
        neso_url=neso_url if neso_url is not None else NESO_URL,
        neso_region=region,
        neso_postcode=postcode,
        access=read_access(token_file, ",".join(names)),
    )
    return build_monitor(config, forecast=forecast, meter="null", clock=_clock(at))


def _clock(at: str | None) -> Callable[[], datetime]:
    if at is None:
        return lambda: datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as error:
        raise typer.BadParameter(
            f"{at!r} is not a time; write for example 2024-06-01T12:00Z.", param_hint="--at"
        ) from error
    if moment.utcoffset() is None:
        raise typer.BadParameter(
            f"{at!r} lacks a time zone; add Z for UTC: {at}Z.", param_hint="--at"
        )
    return lambda: moment


def _total_json(row: LedgerTotal) -> dict[str, Any]:
    # Sums of booked figures carry no sampling error: the interval is null, n counts the entries.
    counted = row.entries - row.unmeasured
    return {
        "key": row.key,
        "intensity_basis": row.intensity_basis,
        "entries": row.entries,
        "energy_kwh": {"value": row.energy_kwh, "ci95": None, "n": counted},
        "measured_kwh": row.measured_kwh,
        "modelled_kwh": row.modelled_kwh,
        "g_co2e": {"value": row.g_co2e, "ci95": None, "n": row.entries - row.without_g_co2e},
        "unmeasured": row.unmeasured,
        "without_g_co2e": row.without_g_co2e,
    }


def _age(reading: IntensityReading) -> str:
    if reading.age_s < 3600:
        return f"{reading.age_s / 60:.0f} min old"
    if reading.age_s < 2 * 86_400:
        return f"{reading.age_s / 3600:.1f} h old"
    return f"{reading.age_s / 86_400:.0f} days old"
