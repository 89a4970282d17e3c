"""``greenboard carbon budget``, ``import-codecarbon`` and ``export-codecarbon``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.carbon_account import Limits, Session, Timezone, moment_of, zone_of

if TYPE_CHECKING:
    from carbon.entries import LedgerEntry

LedgerFile = Annotated[Path, typer.Argument(help="The ledger (JSONL).")]


def budget(
    path: LedgerFile,
    *,
    limits: Limits = None,
    timezone: Timezone = "UTC",
    session: Session = None,
    cost: Annotated[float, typer.Option(min=0, help="gCO2e of work that is about to start.")] = 0.0,
    at: Annotated[str | None, typer.Option(help="Another time than now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Where budgets stand by a ledger, and what happens to work that is started now.

    Exits with 3 where the work would be refused, so that a script can stop; with 4 where it is to
    wait for the next period. Spend is what the ledger holds: a crash loses an unfinished last line
    at most, and that is said.

      greenboard carbon budget runs/ledger.jsonl --budget day:500:800 --timezone Europe/London

      greenboard carbon budget runs/ledger.jsonl --budget month:8e3:1e4:warn:defer --cost 120
    """
    from carbon.budget import parse_budget, strictest
    from carbon.budget_keeper import BudgetKeeper

    if not limits:
        raise typer.BadParameter(
            "give at least one, for example day:500:800.", param_hint="--budget"
        )
    moment = datetime.now(UTC) if at is None else moment_of(at)
    keeper = BudgetKeeper(
        path, [parse_budget(text) for text in limits], timezone=zone_of(timezone),
        clock=lambda: moment, session=session,
    )  # fmt: skip
    found = keeper.would(cost)
    action = strictest(found)
    for warning in keeper.dropped:
        typer.echo(f"warning: {warning}", err=True)
    if as_json:
        body = {
            "action": action, "cost_g_co2e": cost, "warnings": keeper.dropped,
            "budgets": [status.as_dict() for status in found],
        }  # fmt: skip
        typer.echo(json.dumps(body, indent=2))
    else:
        for status in found:
            typer.echo(
                f"{status.budget.period} {status.key}: {status.spent_g_co2e:.6g} of "
                f"{status.budget.hard_g_co2e:g} gCO2e spent (soft {status.budget.soft_g_co2e:g}), "
                f"{status.left_g_co2e:.6g} left, {status.unknown} entries of unknown emissions; "
                f"{status.action}: {status.meaning}"
            )
    if action in ("refuse", "defer"):
        raise typer.Exit(3 if action == "refuse" else 4)


def import_codecarbon(
    path: Annotated[Path, typer.Argument(help="CodeCarbon's emissions.csv.")],
    ledger: Annotated[Path, typer.Argument(help="The ledger (JSONL) to add to.")],
    *,
    timezone: Annotated[
        str, typer.Option(help="Of the file's timestamps, which do not say: UTC, Europe/London.")
    ],
    basis: Annotated[
        Literal["direct", "life"],
        typer.Option(help="What CodeCarbon's intensities count, which its file does not say."),
    ],
    accounting: Annotated[
        Literal["production", "consumption", "unstated"], typer.Option(help="The same.")
    ] = "unstated",
    run_is_case: Annotated[
        bool, typer.Option("--run-is-case", help="run_id names the case, as in our own exports.")
    ] = False,
) -> None:
    """Add CodeCarbon's runs to a ledger, as modelled energy; runs that it holds are left out.

    The whole file is read and checked before the first line is written.

      greenboard carbon import-codecarbon emissions.csv ledger.jsonl --timezone UTC --basis life
    """
    from carbon.codecarbon import import_csv
    from carbon.intensity.protocol import make_basis
    from carbon.ledger import Ledger

    chosen = make_basis("average", basis, accounting)
    runs = list(
        import_csv(path, timezone=zone_of(timezone), basis=chosen, run_id_is_case=run_is_case)
    )
    with Ledger(ledger) as books:
        if books.recovery is not None:
            typer.echo(f"warning: {books.recovery.message}", err=True)
        there = {_line(entry) for entry in books.entries()}
        fresh = [entry for entry in runs if _line(entry) not in there]
        for entry in fresh:
            books.append(entry)
    typer.echo(f"{len(fresh)} runs added, {len(runs) - len(fresh)} were there; ledger: {ledger}")


def _warn(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)


def _line(entry: LedgerEntry) -> str:
    return json.dumps(entry.as_dict(), sort_keys=True)


def export_codecarbon(
    path: LedgerFile,
    out: Annotated[Path, typer.Argument(help="The emissions.csv to write.")],
) -> None:
    """Write a ledger as CodeCarbon's emissions.csv (UTC, kg, kWh); unknown cells stay empty.

    What has no column there is left out: intensity provenance, basis, policy and unit.

      greenboard carbon export-codecarbon runs/ledger.jsonl emissions.csv
    """
    from api.cli.atomic import write_bytes
    from carbon.codecarbon import export_csv
    from carbon.ledger import read_ledger

    counted = 0

    def entries() -> Iterator[LedgerEntry]:
        nonlocal counted
        for entry in read_ledger(path, on_unfinished=_warn):
            counted += 1
            yield entry

    write_bytes(out, "".join(export_csv(entries())).encode())
    typer.echo(f"{counted} entries written; file: {out}")
