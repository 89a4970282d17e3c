"""``greenboard cohort select``: which columns of a modality to keep, by mutual information."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np

    from distill.cohort import Cohort
    from distill.selection.problem import Selection, SelectionProblem


def select(
    *,
    cohort: Annotated[Path, typer.Option(help="The cohort folder.")],
    modality: Annotated[str, typer.Option(help="Whose columns to choose from.")],
    k: Annotated[int, typer.Option("--k", "-k", help="How many columns to keep.")],
    solver: Annotated[
        str,
        typer.Option(help="greedy, l1, exact, anneal, qaoa, or random (a control)."),
    ] = "greedy",
    preselect: Annotated[
        int | None,
        typer.Option(
            help="Keep only so many columns first, by relevance alone; exact and qaoa take 20 at "
            "most."
        ),
    ] = None,
    trade_off: Annotated[
        float, typer.Option(help="Weight of mean redundancy against mean relevance; 0: none.")
    ] = 1.0,
    hold_out: Annotated[
        int | None,
        typer.Option(help="A fold whose hospitals must have no say, because they will be scored."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the solvers that draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the choice as JSON.")] = False,
) -> None:
    """Choose k columns of a modality that tell of the label and do not repeat each other.

    Maximises k x (mean relevance - trade-off x mean redundancy); both are mutual information as a
    share of entropy, 0 to 1, counted on the patients who have the modality. 'exact' finds the best
    choice there is; the others come close, 'anneal' with hundreds of columns too. 'anneal' and
    'qaoa' need: pip install 'greenboard[quantum]'. QAOA runs on a simulator and buys nothing at
    these sizes: it is there to be compared.

    A model that is scored on some hospitals must not use columns chosen with their labels: name
    their fold with --hold-out. Nothing is written.

    Examples:
      greenboard cohort select --cohort cohorts/lung --modality genomics --k 10
      greenboard cohort select --cohort cohorts/lung --modality pathology --k 6 --solver exact
      --preselect 16 --hold-out 0 --json
    """
    import numpy as np

    from distill.cohort import read_cohort
    from distill.selection.columns import column_problem
    from distill.selection.solvers import make_solver

    chooser = make_solver(solver)  # a wrong name is said before a long read
    patients = read_cohort(cohort)
    train = _training(patients, hold_out)
    problem = column_problem(
        patients, modality, k, train=train, preselect=preselect, trade_off=trade_off
    )
    start = time.perf_counter()
    found = chooser.solve(problem, np.random.default_rng(seed))
    report = _report(patients, problem, found, modality, trade_off)
    report |= {
        "held_out_fold": hold_out,
        "patients": int((train & patients.present(modality)).sum()),
        "seconds": time.perf_counter() - start,
    }
    typer.echo(json.dumps(report, indent=2) if as_json else "\n".join(_lines(report)))


def _training(cohort: Cohort, hold_out: int | None) -> np.ndarray:
    """Who may be looked at.

    Raises:
        SelectionError: if there is no such fold.
    """
    import numpy as np

    from distill.cohort_folds import with_folds
    from distill.selection.problem import SelectionError

    if hold_out is None:
        return np.ones(cohort.n_patients, dtype=bool)
    fold = np.asarray(with_folds(cohort).fold)
    if hold_out not in fold:
        known = ", ".join(str(f) for f in np.unique(fold))
        raise SelectionError(f"There is no fold {hold_out} to hold out; choose one of {known}.")
    return np.asarray(fold != hold_out)


def _report(
    cohort: Cohort, problem: SelectionProblem, found: Selection, modality: str, trade_off: float
) -> dict[str, Any]:
    chosen = list(found.chosen)
    shared = problem.redundancy[:, chosen].sum(axis=1) / max(len(chosen) - 1, 1)
    return {
        "cohort": cohort.name,
        "synthetic": cohort.synthetic,
        "modality": modality,
        "solver": found.solver,
        "variables": problem.n,
        "k": problem.k,
        "trade_off": trade_off,
        "objective": found.objective,
        "optimal": found.optimal,
        "evaluated": found.evaluated,
        "expectation": found.expectation,
        "chosen": [
            {
                "column": problem.names[i],
                "relevance": float(problem.relevance[i]),
                "mean_redundancy": float(shared[i]),
            }
            for i in chosen
        ],
    }


def _lines(report: dict[str, Any]) -> list[str]:
    kind = " (synthetic, no row is a patient)" if report["synthetic"] else ""
    scored = (
        "all hospitals had a say: score nothing on them with this choice"
        if report["held_out_fold"] is None
        else f"fold {report['held_out_fold']} had no say"
    )
    head = (
        f"{report['k']} of {report['variables']} columns of {report['modality']} in "
        f"{report['cohort']}{kind}, {report['patients']} patients; {scored}"
    )
    rows = sorted(report["chosen"], key=lambda row: -row["relevance"])
    width = max(len(row["column"]) for row in rows)
    table = [f"{'column':<{width}}  relevance  redundancy"]
    table += [
        f"{row['column']:<{width}}  {row['relevance']:9.3f}  {row['mean_redundancy']:10.3f}"
        for row in rows
    ]
    proof = "the best choice there is" if report["optimal"] else "not proved to be the best"
    tail = f"{report['solver']}: objective {report['objective']:.4f}, {proof}"
    if report["expectation"] is not None:
        tail += f"; a draw is worth {report['expectation']:.4f} on average"
    return [head, "", *table, "", f"{tail}; {report['seconds']:.2f} s"]
