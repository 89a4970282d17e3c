"""``greenboard cohort``: check a cohort folder, write the synthetic one, choose columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.cohort_select import select

if TYPE_CHECKING:
    from distill.cohort_check import CohortReport, GroupRow, ModalityRow
    from distill.synthetic_truth import BestAuc, Truth

NOT_CLEAN = 2
TOP_HOSPITALS = 12
MAX_SHOWN = 40

app = typer.Typer(
    help="Check cohort folders, write the synthetic one, choose columns.", no_args_is_help=True
)
app.command("select")(select)


@app.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="The cohort folder: cohort.toml and its tables.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what a cohort folder holds, and list everything that must be corrected.

    Exit code 0 if the cohort can be used, 2 if there are problems. Each problem names the file,
    the line as an editor shows it, the column, and what to do. Nothing is written.

    Example: greenboard cohort check cohorts/lung
    """
    from distill.cohort_check import check_cohort

    report = check_cohort(folder)
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        typer.echo("\n".join(_report_lines(report)))
    if not report.clean:
        raise typer.Exit(NOT_CLEAN)


@app.command("synth")
def synth(
    *,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    patients: Annotated[int, typer.Option(help="How many patients to draw.")] = 2000,
    seed: Annotated[int, typer.Option(help="Another seed draws other patients and hospitals.")] = 0,
    privileged: Annotated[
        str, typer.Option(help="Modalities that only teach, separated by commas; '' for none.")
    ] = "proteomics",
    simulated: Annotated[
        int, typer.Option(help="Simulated patients behind truth.json; more, and it is sharper.")
    ] = 200_000,
    force: Annotated[bool, typer.Option("--force", help="Replace a cohort folder.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON.")
    ] = False,
) -> None:
    """Write the synthetic cohort: five modalities, and the best AUC that any model can reach.

    No row is a patient. The same seed gives the same bytes. The best possible AUC of every set of
    modalities stands in truth.json beside the tables.

    Example: greenboard cohort synth --out cohorts/synthetic --patients 2000 --seed 0
    """
    from api.cli.targets import check_out_folder
    from distill.cohort_write import check_target, write_cohort
    from distill.synthetic import SyntheticConfig, make_synthetic
    from distill.synthetic_truth import TRUTH

    check_target(out, force)  # before the work, not after it
    check_out_folder(out, replaced=True)
    names = tuple(name.strip() for name in privileged.split(",") if name.strip())
    cohort, truth = make_synthetic(
        SyntheticConfig(n_patients=patients, seed=seed, privileged=names, n_simulated=simulated)
    )
    text = json.dumps(truth.to_json(), indent=2) + "\n"
    write_cohort(cohort, out, extra={TRUTH: text}, force=force)
    if as_json:
        typer.echo(json.dumps({"path": str(out), **truth.to_json()}, indent=2))
        return
    head = f"Synthetic cohort of {patients} patients (seed {seed}; no row is a patient): {out}"
    lines = _truth_lines(truth, cohort.modalities("inference"))
    typer.echo("\n".join([head, *lines, f"All sets, with intervals: {out / TRUTH}"]))


def _truth_lines(truth: Truth, inference: Sequence[str]) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("best possible AUC with", "new patients", "these patients", "n")
    ]
    for k in range(len(inference)):
        rows.append(_truth_row(" + ".join(inference[: k + 1]), truth, inference[: k + 1]))
    rows.append(_best_row("whatever each patient has", truth.full))
    return _table(rows)


def _truth_row(name: str, truth: Truth, modalities: Sequence[str]) -> tuple[str, ...]:
    from distill.synthetic_truth import set_name

    return _best_row(name, truth.best[set_name(modalities)])


def _best_row(name: str, best: BestAuc) -> tuple[str, ...]:
    here = "none" if best.auc_here.value is None else f"{best.auc_here.value:.3f}"
    return name, f"{best.auc.value:.3f}", here, str(best.auc_here.n)


def _report_lines(report: CohortReport) -> list[str]:
    kind = " (synthetic, no row is a patient)" if report.synthetic else ""
    lines = [f"{report.name or 'cohort folder'}{kind} in {report.path}"]
    if report.patients is not None and report.classes is not None:
        negative, positive = report.classes
        lines.append(
            f"{report.patients.patients} patients: {report.patients.negative} {negative}, "
            f"{report.patients.positive} {positive}"
        )
    if report.modalities:
        lines += ["", *_table([_MODALITY_HEAD, *map(_modality_row, report.modalities)])]
    if report.hospitals:
        lines += ["", *_hospital_lines(report)]
    if report.folds:
        lines += ["", *_fold_lines(report)]
    if report.warnings:
        lines += ["", *(f"warning: {text}" for text in report.warnings)]
    return [*lines, "", *_problem_lines(report)]


_MODALITY_HEAD = (
    "modality", "role", "patients", "columns", "patients lacking %", "cells missing %",
    "core-h", "GPU-h", "GB",
)  # fmt: skip


def _modality_row(row: ModalityRow) -> tuple[str, ...]:
    return (
        row.name,
        row.role,
        _or_dash(row.patients, "d"),
        _or_dash(row.columns, "d"),
        _or_dash(row.missing_patients_pct, ".1f"),
        _or_dash(row.missing_cells_pct, ".1f"),
        _or_dash(row.core_hours, "g"),
        _or_dash(row.gpu_hours, "g"),
        _or_dash(row.memory_gb, "g"),
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _hospital_lines(report: CohortReport) -> list[str]:
    shown = report.hospitals[:TOP_HOSPITALS]
    rows = [("hospital", "patients", *_class_names(report)), *map(_group_row, shown)]
    rest = report.hospitals[TOP_HOSPITALS:]
    if rest:
        rows.append(
            (
                f"{len(rest)} more",
                str(sum(h.patients for h in rest)),
                str(sum(h.negative for h in rest)),
                str(sum(h.positive for h in rest)),
            )
        )
    return [f"{len(report.hospitals)} hospitals, the largest first", *_table(rows)]


def _fold_lines(report: CohortReport) -> list[str]:
    head = ("fold", "patients", *_class_names(report), "hospitals")
    count = str if report.has_hospitals else (lambda _: "-")
    return _table([head, *((*_group_row(f), count(f.hospitals)) for f in report.folds)])


def _class_names(report: CohortReport) -> tuple[str, str]:
    return report.classes or ("negative", "positive")


def _group_row(row: GroupRow) -> tuple[str, ...]:
    return row.name, str(row.patients), str(row.negative), str(row.positive)


def _problem_lines(report: CohortReport) -> list[str]:
    if report.clean:
        return ["No problems."]
    shown = report.problems[:MAX_SHOWN]
    rest = report.n_problems - len(shown)
    lines = [f"problem: {problem}" for problem in shown]
    if rest:
        lines.append(f"... and {rest} more.")
    noun = "problem" if report.n_problems == 1 else "problems"
    return [*lines, f"{report.n_problems} {noun}: the cohort cannot be used until corrected."]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to one width: names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [all(_is_number(row[i]) for row in rows[1:]) for i in range(len(widths))]
    return [
        "  ".join(
            cell.rjust(width) if right and i else cell.ljust(width)
            for i, (cell, width, right) in enumerate(zip(row, widths, numeric, strict=True))
        ).rstrip()
        for row in rows
    ]


def _is_number(cell: str) -> bool:
    return cell in ("-", "none") or cell.replace(".", "", 1).isdigit()
