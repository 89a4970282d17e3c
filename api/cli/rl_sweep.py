"""``greenboard rl sweep``: seeds, folds and algorithms, trained side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.rl_options import (
    BundleFolder,
    EnvId,
    EvalEvery,
    Patience,
    SessionPreset,
    Settings,
    Traces,
)

FAILED = 1


def sweep(
    *,
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option(help="Folder for the policies and sweep.json.")],
    algorithms: Annotated[
        str, typer.Option(help="Names with commas between: ppo, maskable-ppo, cloned-ppo, ...")
    ] = "maskable-ppo",
    folds: Annotated[
        str | None, typer.Option(help="Held-out folds with commas between; default: all.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each, with seeds 0, 1, ...")] = 3,
    env: EnvId = "greenboard/CaseReview-v1",
    preset: SessionPreset = None,
    trace: Traces = None,
    settings: Settings = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Environment steps of each training.")
    ] = None,
    eval_every: EvalEvery = None,
    patience: Patience = None,
    cases: Annotated[
        int | None, typer.Option(min=2, help="Patients in a session. Default: the preset's.")
    ] = None,
    sessions: Annotated[
        int, typer.Option(min=1, help="Held-out sessions to report each policy on.")
    ] = 64,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time, one core each.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Train many policies, each in a process of its own; write OUT/sweep.json.

    A training that fails is reported and the others go on; the command then exits with 1. Run it
    again to go on after a kill: what is trained already is not trained again.

    Examples:
      greenboard rl sweep --bundle bundle --out sweep --algorithms ppo,maskable-ppo --jobs 2

      greenboard rl sweep --bundle bundle --out sweep --env greenboard/CaseReview-v1
        --preset hard --algorithms cloned-ppo --seeds 10 --folds 0,1,2,3,4
    """
    import json

    from agent.sweep import SUMMARY_FILE, SweepPlan
    from agent.sweep import sweep as run
    from api.cli.progress import stage_bar
    from api.cli.rl_options import open_source, settings_in
    from api.cli.targets import check_out_folder

    check_out_folder(out)
    options = {"steps": steps, "eval_every": eval_every, "patience": patience}
    given = {name: value for name, value in options.items() if value is not None}
    wanted = None if folds is None else _numbers(folds)
    opened, _ = open_source(
        bundle, env=env, preset=preset, traces=trace, folds=wanted, cases=cases
    )  # fmt: skip
    plan = SweepPlan(
        bundle=bundle, out=out, env_id=env, preset=preset, traces=tuple(trace or ()), cases=cases,
        algorithms=tuple(name.strip() for name in algorithms.split(",") if name.strip()),
        folds=wanted or opened.folds, seeds=tuple(range(seeds)), sessions=sessions,
        overrides={**settings_in(settings), **given},
    )  # fmt: skip
    with stage_bar("rl sweep") as show:
        summary = run(plan, jobs=jobs, progress=show)
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        _show(summary)
        typer.echo(f"summary: {out / SUMMARY_FILE}")
    if summary["failed"]:
        raise typer.Exit(FAILED)


def _numbers(folds: str) -> tuple[int, ...]:
    from agent.errors import ComparisonError

    names = [name.strip() for name in folds.split(",") if name.strip()]
    if not names or not all(name.isdecimal() for name in names):
        raise ComparisonError(f"--folds {folds!r}: give numbers with commas between, as in 0,1,2.")
    return tuple(int(name) for name in names)


def _show(summary: dict[str, Any]) -> None:
    for name, figures in summary["algorithms"].items():
        for key, figure in figures.items():
            low, high = figure["ci95"]
            typer.echo(
                f"{name:16}{key:20}{figure['value']:10.4f} [{low:.4f}, {high:.4f}] "
                f"n={figure['n']} trainings"
            )
    for run in summary["runs"]:
        if run["status"] == "failed":
            typer.echo(f"failed: {run['algorithm']}, fold {run['fold']}, seed {run['seed']}: "
                       f"{run['error']}", err=True)  # fmt: skip
