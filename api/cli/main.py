"""The ``greenboard`` command: its sub-commands, and one clear line for every bad input."""

from __future__ import annotations

import sys

import typer

from agent.errors import AgentError
from api.cli import batch, carbon, cohort, compare, demo, evaluate, review, rl, serve, train
from api.errors import ApiError
from carbon.errors import CarbonError
from distill.errors import DistillError
from envs.errors import EnvsError

BAD_INPUT = 2

app = typer.Typer(
    name="greenboard",
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
app.add_typer(carbon.app, name="carbon")


def main() -> None:
    """Entry point: errors that a package raised on purpose become one line and exit code 2."""
    try:
        app()
    except (CarbonError, DistillError, EnvsError, AgentError, ApiError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(130)
