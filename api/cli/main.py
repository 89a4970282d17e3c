"""The ``greenboard`` command: its sub-commands, and one clear line for every bad input."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from agent.errors import AgentError
from api.cli import (
    batch,
    carbon,
    cohort,
    compare,
    demo,
    evaluate,
    fhir,
    review,
    rl,
    serve,
    shadow,
    train,
)
from api.errors import ApiError
from carbon.errors import CarbonError
from distill.errors import DistillError
from envs.errors import EnvsError

BAD_INPUT = 2
INTERRUPTED = 130


class Interruptible(TyperGroup):
    """Says so when Ctrl-C stops a command; typer by itself would end without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="greenboard",
    cls=Interruptible,
    help=(
        "Case review for the molecular tumour board that spends carbon only where it changes "
        "the answer. Research use only: it recommends, a person signs.\n\n"
        "Start with 'greenboard demo --out runs/demo'."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.add_typer(cohort.app, name="cohort")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(rl.app, name="rl")
app.command("compare")(compare.compare)
app.command("review")(review.review)
app.command("batch")(batch.batch)
app.command("serve")(serve.serve)
app.command("shadow")(shadow.shadow)
app.add_typer(fhir.app, name="fhir")
app.add_typer(carbon.app, name="carbon")


def main() -> None:
    """Entry point: errors raised on purpose, or by the file system, are one line and exit code 2.

    A file that is missing, full disks and forbidden folders are the caller's to mend, whichever
    command met them; any other error is a fault of greenboard and shows where it is.
    """
    try:
        app()
    except (CarbonError, DistillError, EnvsError, AgentError, ApiError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)
    except OSError as error:
        typer.echo(f"error: {os_error_line(error)}", err=True)
        sys.exit(BAD_INPUT)


def os_error_line(error: OSError) -> str:
    """What the operating system refused, and where."""
    what = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return f"{what}."
    return f"{error.filename}: {what}. Check the path, its permissions and the space on its disk."
