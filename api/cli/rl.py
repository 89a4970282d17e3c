"""``greenboard rl``: policies that learn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli import rl_ope, rl_sweep, rl_tune
from api.cli.grid_options import TokenFile, Zone
from api.cli.rl_options import (
    Algorithm,
    EnvId,
    EvalEvery,
    Patience,
    SessionPreset,
    Settings,
    Traces,
)
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
    metered_training,
    wait_or_plan,
    waiting_line,
)

app = typer.Typer(help="Train policies on the review environments.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Train policies on the review environments."""


@app.command("train")
def train(
    *,
    bundle: Annotated[Path, typer.Option(help="Bundle that 'greenboard train' wrote.")],
    out: Annotated[Path, typer.Option(help="The policy's folder; kept when training is killed.")],
    env: EnvId = "greenboard/CaseReview-v1",
    preset: SessionPreset = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same policy.")] = 0,
    algorithm: Algorithm = "maskable-ppo",
    settings: Settings = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Environment steps, 20,000 a second and more. [default: preset's]"
        ),
    ] = None,
    fold: Annotated[
        int | None, typer.Option(help="Fold whose patients are held out; default: the last.")
    ] = None,
    cases: Annotated[
        int | None,
        typer.Option(min=2, help="Patients in a session. Default: 64, or half of a smaller fold."),
    ] = None,
    trace: Traces = None,
    warm_start: Annotated[
        str,
        typer.Option(help="Policy that is imitated first, such as price or planner, or none."),
    ] = "none",
    eval_every: EvalEvery = None,
    patience: Patience = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in OUT.")
    ] = False,
    grid: GridOption = None,
    zone: Zone = None,
    token_file: TokenFile = None,
    grid_trace: Annotated[
        Path | None, typer.Option(help="Recording of the grid to wait for, replayed.")
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="Ledger to book the training in.")] = None,
    wait_for_clean: WaitForClean = False,
    slack_h: SlackH = DEFAULT_SLACK_H,
    duration_h: DurationH = DEFAULT_DURATION_H,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Train a policy on the patients of all folds but one; write POLICY.

    Hours come from the first 70 % of each trace. With --eval-every, one of the training folds and
    the last hours of that period are kept for looking: the best network is exported, and training
    ends when --patience looks brought nothing better. A killed run goes on with --resume and the
    same arguments, and ends with the same bytes. Watch it with: tensorboard --logdir POLICY.

    Examples:
      greenboard rl train --bundle bundle --out policies/ppo

      greenboard rl train --bundle bundle --out policies/hard --env greenboard/CaseReview-v1
        --preset hard --algorithm cloned-ppo --eval-every 1 --patience 4

      greenboard rl train --bundle bundle --out policies/long --steps 3000000 --seed 1
        --fold 4 --trace carbon/em_gb.csv.gz --trace carbon/em_ciso.csv.gz

      greenboard rl train --bundle bundle --out policies/ppo --grid neso --wait-for-clean
    """
    import json

    from agent.compare import CompareConfig
    from agent.training import check_out, train_ppo
    from agent.training_task import training_task
    from api.cli.progress import stage_bar
    from api.cli.rl_options import chosen_settings, open_source
    from api.cli.targets import check_out_folder
    from carbon.monitor import build_monitor

    check_out(out, resume)
    check_out_folder(out)
    config = chosen_settings(
        algorithm, settings, warm_start=warm_start,
        steps=steps, seed=seed, eval_every=eval_every, patience=patience,
    )  # fmt: skip
    source, (held_out,) = open_source(
        bundle, env=env, preset=preset, traces=trace, folds=None if fold is None else (fold,),
        cases=cases,
    )  # fmt: skip
    task = training_task(source, held_out, config)
    options = WaitOptions(
        wait=wait_for_clean, dry_run=dry_run, slack_h=slack_h, duration_h=duration_h
    )
    timing = Timing()
    monitor = None
    if options.planned or ledger is not None:
        named = GridChoice(grid=grid, trace=grid_trace, zone=zone, token_file=token_file)
        chosen = grid_config(named, waits=options.planned)
        books = None if dry_run else ledger
        monitor = build_monitor(chosen, ledger=books, clock=timing.clock)
    waited = wait_or_plan(options, monitor, cores=1, timing=timing, as_json=as_json)
    with metered_training(monitor, waited, out) as record, stage_bar("rl train") as show:
        done = 0

        def progress(n: int) -> None:
            nonlocal done
            done += n
            show(done, config.total_steps, f"seed {seed}, fold {held_out} held out")

        train_ppo(task, config, out, resume=resume, progress=progress)
    facts = {"policy": str(out), "steps": config.total_steps, "seed": seed, "fold": held_out}
    if as_json:
        typer.echo(json.dumps({**facts, **record}, indent=1))
        return
    typer.echo(f"trained {config.algorithm}, fold {held_out} held out")
    if "waiting" in record:
        typer.echo(waiting_line(record["waiting"]))
    typer.echo(f"policy: {out}")
    again = CompareConfig(policies=("rule", "planner", f"{out}/"), folds=(held_out,), cases=cases)
    rules = ("--env", env, *(("--preset", preset) if preset else ()))
    typer.echo(f"compare it: {again.command(bundle, trace, 'report', *rules)}")


app.command("tune")(rl_tune.tune)
app.command("sweep")(rl_sweep.sweep)
app.command("log")(rl_ope.log)
app.command("ope")(rl_ope.ope)
