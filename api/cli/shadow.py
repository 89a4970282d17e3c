"""``greenboard shadow``: policies that decided silently, set beside the one that acted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agent.workflow.shadow import ShadowReport

DATABASE = "cases.sqlite"


def shadow(
    log: Annotated[
        Path | None, typer.Argument(help="A shadow log (JSONL), as the server's jobs write it.")
    ] = None,
    *,
    state: Annotated[
        Path | None, typer.Option(help="A server's state folder, read instead of a log.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write shadow.html and shadow.json into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the redraws of cases.")] = 0,
) -> None:
    """How often silent policies agree with the acting one, and what a step would differ by.

    A server that was started with GREENBOARD_SHADOW (names of policies, commas between) asks them
    at every decision and shows their answers nowhere but here. They never met what their own
    choices would have led to, and the figures are predictions: the report says so.

      greenboard shadow --state runs/serve

      greenboard shadow --state runs/serve --out runs/shadow

      greenboard shadow shadows.jsonl --json
    """
    from agent.report.shadow_page import write_shadow
    from agent.workflow.shadow import compare_shadow

    report = compare_shadow(_rows(log, state), seed=seed)
    written = write_shadow(report, out) if out is not None else ()
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2, allow_nan=False))
    else:
        _show(report)
        for path in written:
            typer.echo(f"wrote {path}")


def _rows(log: Path | None, state: Path | None) -> Iterator[dict[str, Any]]:
    from api.errors import CommandError

    if (log is None) == (state is None):
        raise CommandError("Give a shadow log or a server's --state folder, one of the two.")
    lines = _log_lines(log) if log is not None else _stored_lines(state or Path())
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            # The line itself is not repeated: it is a record of a case.
            raise CommandError(f"Line {number} of the shadow log is not a JSON object.")
        yield row


def _log_lines(log: Path) -> Iterator[bytes]:
    with log.open("rb") as file:
        yield from (line for line in file if line.strip())


def _stored_lines(state: Path) -> Iterator[bytes]:
    """The rows of a server's store, which may be running; nothing is written."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    from api.errors import CommandError
    from api.store import shadows

    path = (state / DATABASE).resolve()
    if not path.is_file():
        raise CommandError(
            f"{state} holds no {DATABASE}; name the folder that 'greenboard serve --state' uses."
        )
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    try:
        with engine.connect() as connection:
            lines = shadows.lines(connection, since=None, until=None)
    except SQLAlchemyError as error:
        raise CommandError(
            f"{path} cannot be read as a store of this version ({type(error).__name__}); start "
            "the server once with this version, which brings it up to date."
        ) from None
    finally:
        engine.dispose()
    yield from lines


def _show(report: ShadowReport) -> None:
    from agent.report.shadow_page import headline

    for sentence in headline(report):
        typer.echo(sentence)
    for pair in report.pairs:
        other = {done: n for done, n in pair.actions.items() if done[0] != done[1]}
        for (acting, own), n in list(other.items())[:5]:
            typer.echo(f"  {n} times {pair.acting} did {acting}, {pair.policy} would have {own}")
    for remark in report.remarks:
        typer.echo(f"note: {remark}")
