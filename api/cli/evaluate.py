"""``greenboard evaluate``: a bundle's figures on a cohort that it has not seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    *,
    bundle: Annotated[Path, typer.Option(help="A bundle that 'greenboard train' wrote.")],
    cohort: Annotated[Path, typer.Option(help="Cohort folder with the same modalities.")],
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap intervals.")] = 0,
) -> None:
    """Score an unseen cohort: full input, every evidence set, every modality alone.

    Columns may stand in another order; unknown ones are ignored with a note, missing ones are an
    error that names them. With one class only there is no AUC, and the reason is given.

    Examples:
      greenboard evaluate --bundle bundle --cohort other_hospitals --json figures.json
    """
    from api.cli.atomic import write_json
    from api.cli.figures import auc_line
    from api.cli.targets import check_out_file
    from distill.cohort import read_cohort
    from distill.evaluate import evaluate_bundle
    from distill.runtime import StudentRuntime

    if json is not None:
        check_out_file(json)
    runtime = StudentRuntime.open(bundle)
    figures = evaluate_bundle(runtime, read_cohort(cohort), seed=seed)
    if json is not None:
        write_json(json, figures)
    source = "SYNTHETIC patients" if figures["synthetic"] else "patients"
    typer.echo(f"{figures['cohort']}: {figures['n']} {source}, bundle {figures['bundle']}")
    typer.echo(auc_line("everything a patient has", figures["full"]))
    for name, card in figures["single"].items():
        typer.echo(auc_line(f"{name} alone", card))
    for note in figures["notes"]:
        typer.echo(f"note: {note}", err=True)
    if json is not None:
        typer.echo(f"figures: {json}")
    else:
        typer.echo("every evidence set: add --json FILE")
