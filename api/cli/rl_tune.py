"""``greenboard rl tune``: better training settings, by validation patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.rl_options import Algorithm, BundleFolder, EnvId, SessionPreset, Settings, Traces


def tune(
    *,
    bundle: BundleFolder,
    out: Annotated[Path, typer.Option(help="Folder of the study; the same one goes on with it.")],
    env: EnvId = "greenboard/CaseReview-v1",
    preset: SessionPreset = None,
    trace: Traces = None,
    algorithm: Algorithm = "maskable-ppo",
    settings: Settings = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials that the study has in the end.")] = 20,
    rotations: Annotated[
        int, typer.Option(min=1, help="Training folds that each trial is looked at on, in turn.")
    ] = 2,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Environment steps of each training.")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(help="Fold that is never read; default: the last.")
    ] = None,
    cases: Annotated[
        int | None, typer.Option(min=2, help="Patients in a session. Default: the preset's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed tries the same settings.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Search training settings; print the best as TOML, for 'rl train --settings FILE'.

    Each trial trains on the training patients but one fold, and is judged by its best reward on
    that fold; --rotations takes several such folds in turn. The held-out fold is never read. The
    study is kept in OUT/study.sqlite; run the same command again to go on after a kill, or with
    more --trials. Needs optuna: pip install 'greenboard[tune]'.

    Examples:
      greenboard rl tune --bundle bundle --out studies/ppo --trials 20 > best.toml

      greenboard rl train --bundle bundle --out policies/ppo --settings best.toml
    """
    import json
    from dataclasses import asdict, replace

    from agent.algorithms import to_toml
    from api.cli.progress import stage_bar
    from api.cli.rl_options import chosen_settings, open_source
    from api.cli.targets import check_out_folder
    from api.errors import CommandError

    check_out_folder(out)
    try:
        from agent.tuning import TuningPlan
        from agent.tuning import tune as search
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise CommandError(
            "'greenboard rl tune' needs optuna: pip install 'greenboard[tune]'."
        ) from error
    base = chosen_settings(algorithm, settings, steps=steps)
    base = base if base.eval_every else replace(base, eval_every=1)
    source, (held_out,) = open_source(
        bundle, env=env, preset=preset, traces=trace, folds=None if fold is None else (fold,),
        cases=cases,
    )  # fmt: skip
    plan = TuningPlan(
        source=source, held_out=held_out, base=base, trials=trials, rotations=rotations, seed=seed
    )
    with stage_bar("rl tune") as show:
        found = search(plan, out, progress=lambda n, total: show(n, total, "trials"))
    if as_json:
        facts = {
            "validation_reward": found.reward, "validation_rewards": list(found.rewards),
            "trials": found.trials, "settings": asdict(found.config),
        }  # fmt: skip
        typer.echo(json.dumps(facts, indent=1))
        return
    said = (
        f"best of {found.trials} trials: validation reward {found.reward:.5f}, mean of "
        f"{len(found.rewards)} training folds; the best of many is flattered by luck"
    )
    typer.echo(to_toml(found.config, said), nl=False)
