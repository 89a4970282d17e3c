"""``greenboard carbon account``: what a ledger adds up to, recovered heat on a line of its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from carbon.account import AccountRow
    from carbon.account_report import AccountReport, BudgetPlan
    from carbon.declared import Declared
    from carbon.entries import LedgerEntry
    from carbon.intensity.protocol import IntensityReading
    from carbon.intensity.trace import Trace

Scope = Literal["direct", "life"]
By = Literal["stage", "case", "policy", "unit", "session", "all"]
HeatOption = Annotated[
    str | None,
    typer.Option(
        "--heat",
        help="Recovered heat r:u:h: recovered share, used share, gCO2e per kWh of displaced heat. "
        "r:u takes a gas boiler's 203.",
    ),
]
HeatSource = Annotated[
    str | None, typer.Option(help="Where h comes from; needed where it is not the gas boiler's.")
]
HeatScope = Annotated[Scope, typer.Option(help="Whether h counts combustion, or the life cycle.")]
Hardware = Annotated[
    str | None,
    typer.Option(
        help="Embodied carbon KG:HOURS or KG:HOURS:RESERVED:TOTAL, for example 1300:35064:8:64."
    ),
]
HardwareSource = Annotated[str | None, typer.Option(help="Where the kilograms come from.")]
DeclaredFile = Annotated[
    Path | None, typer.Option("--declared", help="TOML file with [heat] and [hardware] instead.")
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="PERIOD:SOFT:HARD[:SOFT_ACTION:HARD_ACTION] in gCO2e; period session, day or month; "
        "actions warn|defer and refuse|defer. Repeat it.",
    ),
]
Timezone = Annotated[str, typer.Option(help="Where days and months begin: Europe/London.")]
Session = Annotated[str | None, typer.Option(help="The session that a session budget is for.")]
At = Annotated[
    str | None, typer.Option(help="A moment in the budgets' periods; the last entry if not given.")
]


def account(
    path: Annotated[Path, typer.Argument(help="The ledger (JSONL).")],
    *,
    by: Annotated[By, typer.Option(help="One row for each.")] = "stage",
    heat: HeatOption = None,
    heat_source: HeatSource = None,
    heat_scope: HeatScope = "direct",
    hardware: Hardware = None,
    hardware_source: HardwareSource = None,
    declared: DeclaredFile = None,
    trace: Annotated[
        Path | None,
        typer.Option(help="A recorded grid: for net < 0 over its year, and for the plots."),
    ] = None,
    basis: Annotated[
        Scope | None, typer.Option(help="Which of its figures; the ledger's own if not given.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Name of the trace's grid.")] = None,
    year: Annotated[int | None, typer.Option(help="Which year; the last whole one.")] = None,
    budget: Limits = None,
    timezone: Timezone = "UTC",
    session: Session = None,
    at: At = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV on standard output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    page: Annotated[Path | None, typer.Option(help="Write a self-contained HTML page.")] = None,
) -> None:
    """Gross, SCI a case, avoided by recovered heat, net, break-even intensity and hours below it.

    Gross is what the ledger booked. Avoided stands on a line of its own and lowers neither gross
    nor SCI. A recovered fraction above 1 is refused. Net < 0 over a year is computed on --trace,
    never assumed.

      greenboard carbon account runs/demo/ledger.jsonl --by case --heat 0.6:0.9:203

      greenboard carbon account runs/ledger.jsonl --heat 0.6:0.9 --hardware 1300:35064:8:64
      --hardware-source "maker's footprint" --trace em_gb.csv.gz --budget day:500:800
      --page account.html
    """
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json both write to standard output; choose one.")
    given = declared_from(
        {
            "heat": heat, "heat_source": heat_source, "heat_scope": heat_scope,
            "hardware": hardware, "hardware_source": hardware_source,
        },
        declared,
    )  # fmt: skip
    report = _report(
        path, by, given, plan=plan_from(budget, timezone, session, at),
        trace=trace, scope=basis, zone=zone, year=year,
    )  # fmt: skip
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if page is not None:
        _write_page(report, page)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    elif as_csv:
        from carbon.account_views import account_csv

        typer.echo(account_csv(report.account.rows), nl=False)
    else:
        _print(report)


def declared_from(options: Mapping[str, str | None], file: Path | None) -> Declared:
    """What is declared; the options (heat, heat_source, ...) go before the file.

    Raises:
        HeatError: if the heat makes no sense.
        AccountError: if the hardware or the file makes none.
    """
    from carbon.declared import Declared, parse_hardware, parse_heat, read_declared

    kept = read_declared(file) if file is not None else Declared()
    heat, hardware = options["heat"], options["hardware"]
    scope: Scope = "life" if options["heat_scope"] == "life" else "direct"
    return Declared(
        heat=(
            kept.heat
            if heat is None
            else parse_heat(heat, source=options["heat_source"], scope=scope)
        ),
        hardware=(
            kept.hardware
            if hardware is None
            else parse_hardware(hardware, source=options["hardware_source"])
        ),
    )


def plan_from(
    limits: list[str] | None, timezone: str, session: str | None, at: str | None
) -> BudgetPlan | None:
    """The budgets that the options name; None without any.

    Raises:
        BudgetError: if one makes no sense.
    """
    from carbon.account_report import BudgetPlan
    from carbon.budget import parse_budget

    if not limits:
        return None
    return BudgetPlan(
        budgets=tuple(parse_budget(text) for text in limits),
        timezone=zone_of(timezone),
        session=session,
        at=None if at is None else moment_of(at),
    )


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise typer.BadParameter(
            f"{name!r} is no time zone; write for example Europe/London.", param_hint="--timezone"
        ) from error


def moment_of(text: str) -> datetime:
    """An aware time from ISO 8601."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a time; write for example 2024-06-01T12:00Z.", param_hint="--at"
        ) from error
    if moment.utcoffset() is None:
        raise typer.BadParameter(f"{text!r} lacks a time zone; add Z for UTC.", param_hint="--at")
    return moment


def _report(
    path: Path,
    by: By,
    declared: Declared,
    *,
    plan: BudgetPlan | None,
    trace: Path | None,
    scope: Scope | None,
    zone: str | None,
    year: int | None,
) -> AccountReport:
    from carbon.account_report import build_report
    from carbon.ledger import read_ledger

    warnings: list[str] = []

    def read() -> Iterable[LedgerEntry]:
        return read_ledger(path, on_unfinished=warnings.append)

    recorded = None
    if trace is not None:
        recorded = _load(trace, scope if scope is not None else _scope(read()), zone)

    def ahead(at: datetime) -> tuple[IntensityReading, ...]:
        return _forecast(recorded, at) if recorded is not None else ()

    return build_report(
        read, ledger=path.name, by=by, declared=declared, year_trace=recorded, year=year,
        forecast=ahead, plan=plan, warnings=warnings,
    )  # fmt: skip


def _scope(entries: Iterable[LedgerEntry]) -> Scope:
    """The scope of the first intensity in the ledger; direct without any."""
    basis = next((e.intensity_basis for e in entries if e.intensity_basis is not None), None)
    return "life" if basis is not None and "-life-" in basis else "direct"


def _load(path: Path, scope: Scope, zone: str | None) -> Trace:
    from carbon.intensity.recorded import load_trace

    return load_trace(path, scope, zone=zone)


def _forecast(trace: Trace, at: datetime) -> tuple[IntensityReading, ...]:
    from carbon.intensity.build import GridConfig
    from carbon.monitor import build_monitor

    scope: Scope = "life" if "-life-" in trace.basis else "direct"
    config = GridConfig(sources=("trace",), trace=trace, basis=scope)
    return build_monitor(config, meter="null", clock=lambda: at).forecast(24)


def _write_page(report: AccountReport, page: Path) -> None:
    from agent.report.carbon_page import write_account
    from api.cli.atomic import OutputError

    try:
        write_account(report, page)
    except OSError as error:
        raise OutputError(f"{page} cannot be written: {error.strerror or error}.") from error
    typer.echo(f"page: {page}", err=True)


def _print(report: AccountReport) -> None:
    from rich.console import Console
    from rich.table import Table

    account = report.account
    rows = account.rows if account.by == "all" else (*account.rows, *account.totals)
    bases = [row.intensity_basis or "no intensity" for row in rows]
    one = len(set(bases)) == 1
    table = Table(title=f"Account by {account.by}" + (f", {bases[0]}" if one else ""))
    columns = (account.by, *(() if one else ("basis",)), "entries", "kWh", "gross gCO2e",
               "avoided gCO2e", "net gCO2e", "SCI gCO2e/case")  # fmt: skip
    for heading in columns:
        words = heading in (account.by, "basis")
        table.add_column(heading, justify="left" if words else "right", overflow="fold")
    for row, basis in zip(rows, bases):
        table.add_row(row.key, *(() if one else (basis,)), *_cells(row))
    Console().print(table)
    for line in _lines(report):
        typer.echo(line)


def _cells(row: AccountRow) -> list[str]:
    figures = (row.known_kwh, row.gross_g_co2e, row.avoided_g_co2e, row.net_g_co2e,
               row.sci_g_co2e_per_case)  # fmt: skip
    return [str(row.entries), *map(_text, figures)]


def _text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _lines(report: AccountReport) -> list[str]:
    from carbon.intensity.synthetic import ZONE

    account = report.account
    lines = [
        f"energy: {row.measured_kwh:.5g} kWh measured, {row.modelled_kwh:.5g} kWh modelled; "
        f"{row.unmeasured} entries without energy and {row.without_g_co2e} without gCO2e are not "
        "in the sums"
        for row in account.totals
    ]
    if account.zones:
        made_up = " (synthetic: a made-up grid)" if ZONE in account.zones else ""
        lines.append(f"grid: {', '.join(account.zones)}{made_up}")
    lines += [f"SCI: {row.sci_remark}" for row in account.totals if row.sci_remark]
    lines += [f"heat: {row.heat_remark}" for row in account.totals if row.heat_remark]
    if account.heat is not None:
        lines.append(
            f"break-even {account.heat.break_even_g_per_kwh:.1f} gCO2e/kWh (r x u x h; h from "
            f"{account.heat.source})"
        )
        below = account.hours_below(report.basis)
        if below is not None and below.hours:
            lines.append(f"hours worked below it: {below.below} of {below.hours}")
    if report.deployment is not None:
        found = report.deployment
        verdict = "below 0" if found.negative else "not below 0"
        lines.append(
            f"over {found.zone}, {found.period}: {found.share_below:.1%} of the hours below; net "
            f"{found.net_g_per_kwh:.1f} gCO2e/kWh, {verdict} ({found.weighting})"
        )
        lines += [f"  must hold: {condition}" for condition in found.conditions]
    for course in report.budgets:
        status = course.status
        lines.append(
            f"budget of the {status.budget.period} {status.key}: {status.spent_g_co2e:.6g} of "
            f"{status.budget.hard_g_co2e:g} gCO2e spent; {status.action}: {status.meaning}"
        )
    return list(dict.fromkeys(lines))
