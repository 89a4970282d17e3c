"""``greenboard fhir``: what a patient's FHIR R4 Bundle has to look like, and whether one does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.errors import CommandError

if TYPE_CHECKING:
    from api.fhir.intake import Intake
    from api.fhir.mapping import MapFile

app = typer.Typer(help="FHIR R4 Bundles of patients.", no_args_is_help=True)

BundleOption = Annotated[Path, typer.Option(help="Bundle that 'greenboard train' wrote.")]
MapOption = Annotated[
    Path | None,
    typer.Option("--map", help="TOML map of codes; BUNDLE.fhir.toml beside it if it is there."),
]


@app.command()
def example(
    *,
    bundle: BundleOption,
    out: Annotated[Path, typer.Option(help="FHIR file to write.")],
    case: Annotated[
        Path | None,
        typer.Option(help="Case file as 'greenboard review' takes it; by default a made-up one."),
    ] = None,
    feature_map: MapOption = None,
) -> None:
    """Write a case as the FHIR Bundle that POST /v1/fhir/Bundle reads back to the same features.

    Without --case the values are training medians and known words: nobody's. It is marked so.

    Examples:
      greenboard fhir example --bundle runs/demo/bundle --out bundle.json

      greenboard fhir example --bundle runs/demo/bundle --case case.json --out bundle.json
    """
    from api.cli.atomic import write_json
    from api.cli.casefile import read_case
    from api.fhir.writing import bundle_from_features
    from distill.runtime import StudentRuntime

    student = StudentRuntime.open(bundle)
    features: Any = student.example() if case is None else read_case(case).features
    student.prepare(features)
    made = bundle_from_features(
        features,
        student,
        feature_map=_map(bundle, feature_map),
        reference="example",
        synthetic=case is None or student.synthetic,
    )
    write_json(out, made)
    typer.echo(f"{out}: {len(made['entry'])} entries. Research use only.")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="FHIR R4 Bundle, JSON.")],
    *,
    bundle: BundleOption,
    feature_map: MapOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Say what a Bundle would become, without posting it: features, what is left out, problems.

    Exits with 2 if it would be refused. No value of the Bundle is printed unless with --json.

    Examples:
      greenboard fhir check bundle.json --bundle runs/demo/bundle
    """
    import json

    from api.fhir.intake import features_from_bundle
    from api.fhir.issues import MAX_ISSUES, FhirError
    from distill.runtime import StudentRuntime

    student = StudentRuntime.open(bundle)
    try:
        data = file.read_bytes()
        intake = features_from_bundle(data, student, _map(bundle, feature_map))
        student.prepare(intake.features)
    except FhirError as problem:
        for issue in problem.issues[:MAX_ISSUES]:
            typer.echo(f"error: {issue.where}: {issue.message}", err=True)
        if len(problem.issues) > MAX_ISSUES:
            typer.echo(f"error: and {len(problem.issues) - MAX_ISSUES} more", err=True)
        raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps(_as_json(intake), indent=1, ensure_ascii=False))
        return
    for modality, row in intake.features.items():
        known = sum(value is not None for value in row.values())
        typer.echo(f"{modality}: {known} features")
    for issue in (*intake.unmapped, *intake.notes):
        typer.echo(f"{issue.severity}: {issue.where}: {issue.message}")


def _as_json(intake: Intake) -> dict[str, Any]:
    def told(issues: Any) -> list[dict[str, str]]:
        return [{"where": issue.where, "message": issue.message} for issue in issues]

    return {
        "features": intake.features,
        "urgency": intake.urgency,
        "unmapped": told(intake.unmapped),
        "notes": told(intake.notes),
    }


def _map(bundle: Path, chosen: Path | None) -> MapFile | None:
    from api.fhir.mapping import map_beside, read_map

    if chosen is None and not map_beside(bundle).is_file():
        return None
    if chosen is not None and not chosen.is_file():
        raise CommandError(f"There is no map at {chosen}; name a TOML file, or leave --map out.")
    return read_map(chosen or map_beside(bundle))
