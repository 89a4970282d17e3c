"""``greenboard train``: a cohort folder becomes a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.carbon_aware import (
    AnnealOption,
    CarbonAware,
    CarbonBudget,
    Checkpoint,
    DeadlineH,
    Epochs,
    GridMinding,
    RateByIntensity,
    Resume,
    Temperature,
    fit_forecast,
    stopping_cleanly,
)
from api.cli.grid_options import TokenFile, Zone
from api.cli.waiting import (
    DEFAULT_DURATION_H,
    DEFAULT_SLACK_H,
    DryRun,
    DurationH,
    GridChoice,
    GridOption,
    SlackH,
    Timing,
    WaitForClean,
    WaitOptions,
    grid_config,
    wait_or_plan,
    waiting_line,
)

SHOWN = (
    "cohort", "synthetic", "n", "n_labels", "full", "single", "baselines", "best_baseline",
    "training",
)  # fmt: skip


def train(
    *,
    cohort: Annotated[Path, typer.Option(help="Cohort folder with cohort.toml.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder; an older bundle is replaced.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bundle.")] = 0,
    preset: Annotated[str, typer.Option(help="default, or quick for demonstrations.")] = "default",
    labels: Annotated[
        int | None,
        typer.Option(
            min=1, help="Labels to keep; the other patients teach unlabelled. Default: all."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Cores; 0: two, or the one there is.")] = 0,
    trace: Annotated[
        Path | None,
        typer.Option(help="Recorded grid trace to price training by; else a synthetic day."),
    ] = None,
    grid: GridOption = None,
    zone: Zone = None,
    token_file: TokenFile = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger to book the training in.")] = None,
    wait_for_clean: WaitForClean = False,
    slack_h: SlackH = DEFAULT_SLACK_H,
    duration_h: DurationH = DEFAULT_DURATION_H,
    dry_run: DryRun = False,
    carbon_aware: CarbonAware = False,
    epochs: Epochs = None,
    carbon_budget: CarbonBudget = None,
    deadline_h: DeadlineH = None,
    temperature: Temperature = 1.0,
    anneal: AnnealOption = "steps",
    rate_by_intensity: RateByIntensity = 0.0,
    checkpoint: Checkpoint = None,
    resume: Resume = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Train teachers, bridges and one student; write BUNDLE with its out-of-fold figures.

    Hospitals are never split: what is reported of a patient comes from models that have not seen
    the patient's fold.

    Examples:
      greenboard train --cohort cohort --out bundle --preset quick

      greenboard train --cohort ../shared/data/tcga_nsclc --out bundle --seed 1 --json

      greenboard train --cohort cohort --out bundle --labels 100

      greenboard train --cohort cohort --out bundle --grid neso --wait-for-clean --slack-h 12

      greenboard train --cohort cohort --out bundle --trace em_gb.csv.gz --carbon-aware

      greenboard train --cohort cohort --out bundle --grid neso --carbon-budget 0.5

      greenboard train --cohort cohort --out bundle --grid neso --carbon-budget 1 --resume
    """
    from agent.build import build_bundle
    from api.cli.progress import stage_bar
    from api.cli.targets import check_out_folder
    from carbon.monitor import build_monitor
    from distill.bundle import METRICS, check_target, read_json
    from distill.cohort import read_cohort
    from distill.config import TrainConfig

    chosen = GridChoice(grid=grid, trace=trace, zone=zone, token_file=token_file)
    minding = GridMinding(
        aware=carbon_aware, epochs=epochs, budget_g=carbon_budget, deadline_h=deadline_h,
        temperature=temperature, anneal=anneal, rate=rate_by_intensity, checkpoint=checkpoint,
        resume=resume,
    ).resolved()  # fmt: skip
    timing = minding.timing(Timing(), wait=wait_for_clean, chosen=chosen)
    carbon = minding.options(out, duration_h)
    options = minding.waiting(
        WaitOptions(wait=wait_for_clean, dry_run=dry_run, slack_h=slack_h, duration_h=duration_h)
    )
    config = replace(TrainConfig.preset(preset, seed=seed, threads=threads), labels=labels)
    config = minding.config(config)
    # Training and hours of waiting shall not end in an error that can be known before.
    check_target(out)
    check_out_folder(out, replaced=True)
    waits = options.planned or minding.deadline_h is not None
    if waits:
        read_cohort(cohort)
    monitor = build_monitor(
        grid_config(chosen, waits=waits),
        ledger=None if dry_run else ledger,
        clock=timing.clock,
    )
    waited = wait_or_plan(options, monitor, cores=config.n_threads, timing=timing, as_json=as_json)
    if minding.deadline_h is not None:
        fit_forecast(monitor)
    with stage_bar("train") as progress, stopping_cleanly(carbon):
        build_bundle(
            cohort,
            out,
            config=config,
            monitor=monitor,
            created=timing.clock(),
            progress=progress,
            waited=waited,
            carbon=carbon,
            clock=timing.clock,
            sleep=timing.sleep,
        )
    metrics = read_json(out / METRICS)
    if as_json:
        shown = {"bundle": str(out), **{key: metrics[key] for key in SHOWN}}
        typer.echo(json.dumps(shown, indent=1, ensure_ascii=False))
    else:
        _show(out, metrics)


def _show(out: Path, metrics: dict[str, Any]) -> None:
    from api.cli.figures import auc_line
    from distill.carbon_book import aware_line

    source = "SYNTHETIC patients" if metrics["synthetic"] else "patients"
    kept = f" ({metrics['n_labels']} labels)" if metrics["n_labels"] < metrics["n"] else ""
    typer.echo(f"{metrics['cohort']}: {metrics['n']} {source}{kept}, out of fold by hospital")
    typer.echo(auc_line("everything a patient has", metrics["full"]))
    for name, card in metrics["single"].items():
        typer.echo(auc_line(f"{name} alone", card))
    for name in dict.fromkeys(("late_fusion", metrics["best_baseline"])):
        typer.echo(auc_line(f"baseline {name}", metrics["baselines"][name]))
    training = metrics["training"]
    energy = training["energy_kwh"]
    spent = "unknown" if energy["value"] is None else f"{energy['value']:.5f} kWh"
    typer.echo(f"trained in {training['seconds']:.0f} s, {spent} ({energy['basis']})")
    if "waiting" in training:
        typer.echo(waiting_line(training["waiting"]))
    if "carbon_aware" in training:
        typer.echo(aware_line(training).strip())
    typer.echo(f"bundle: {out}")
