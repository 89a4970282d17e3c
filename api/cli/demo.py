"""``greenboard demo``: everything once, on made-up patients, in a few minutes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from api.cli.demo_steps import DemoPlan, DemoRun

HELD_OUT_SEED = 10_007
"""Added to the seed for the cohort of the reviewed case: nobody of it is trained on."""


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")],
    quick: Annotated[bool, typer.Option("--quick", help="Smaller still: to see that it runs.")] = (
        False
    ),
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same figures.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="demo.json on standard output.")] = False,
) -> None:
    """Synthetic cohort, bundle, policies, report, and one case reviewed through the real server.

    The patients are made up and no row is a person; the carbon grid is a synthetic day; energies
    of pipelines are modelled; the session in the report is simulated, and so is the clinician's
    decision at the end. What comes out shows that the parts work together, not that they help
    anyone. Ends by itself and stops what it started.

    Example: greenboard demo --out runs/demo
    """
    import json

    from api.cli.atomic import write_json
    from api.cli.demo_steps import DemoPlan, DemoRun
    from api.cli.targets import check_out_folder

    check_out_folder(out)
    plan = DemoPlan.quick(out, seed) if quick else DemoPlan.full(out, seed)
    run = DemoRun(plan, tell=(lambda line: typer.echo(line, err=as_json)))
    run.begin_books()
    for name, step in _steps(plan, run):
        run.step(name, step)
    facts = run.facts()
    write_json(out / "demo.json", facts)
    typer.echo(json.dumps(facts, indent=1) if as_json else "\n".join(_closing(facts)))


def _steps(plan: DemoPlan, run: DemoRun) -> list[tuple[str, Callable[[], Any]]]:
    cohort, bundle = str(plan.cohort), str(plan.bundle)
    ledger = str(plan.ledger)
    seed, held_out = str(plan.seed), str(plan.seed + HELD_OUT_SEED)
    synth = ("cohort", "synth", "--force", "--simulated", str(plan.simulated))
    return [
        (
            "synthetic cohort",
            lambda: run.command(
                *synth, "--out", cohort, "--patients", str(plan.patients), "--seed", seed
            ),
        ),
        (
            "held-out cohort",
            lambda: run.command(
                *synth, "--out", str(plan.held_out), "--patients", str(plan.held_out_patients),
                "--seed", held_out,
            ),
        ),
        ("cohort check", lambda: run.command("cohort", "check", cohort)),
        (
            "train",
            lambda: run.command(
                "train", "--cohort", cohort, "--out", bundle, "--preset", "quick", "--seed", seed,
                "--ledger", ledger,
            ),
        ),
        (
            "rl train",
            lambda: run.command(
                "rl", "train", "--bundle", bundle, "--out", str(plan.policy), "--steps",
                str(plan.steps), "--seed", seed, "--ledger", ledger,
            ),
        ),
        (
            "compare",
            lambda: run.command(
                "compare", "--bundle", bundle, "--out", str(plan.report), "--policies",
                f"{plan.policies},{plan.policy}/", "--sessions", str(plan.sessions), "--seed", seed,
            ),
        ),
        ("review", run.review),
        (
            "account",
            lambda: run.command("carbon", "account", ledger, "--page", str(plan.account)),
        ),
    ]  # fmt: skip


def _closing(facts: dict[str, Any]) -> list[str]:
    from api.cli.demo_steps import WHAT_IS_NOT_REAL

    case = facts["case"]
    lines = ["", f"{'step':20} {'seconds':>8}"]
    lines += [f"{step['name']:20} {step['seconds']:8.1f}" for step in facts["steps"]]
    lines += [f"{'all':20} {facts['seconds']:8.1f}", ""]
    auc = facts["full_auc"]
    lines += [
        f"student, everything a patient has: AUC {auc['value']:.3f} "
        f"[{auc['ci95'][0]:.3f}, {auc['ci95'][1]:.3f}], n {auc['n']}, out of fold by hospital; "
        f"best possible on these patients {facts['best_possible_auc']['value']:.3f}, "
        f"default late fusion {facts['late_fusion_auc']['value']:.3f}",
        f"reviewed case: {' + '.join(case['transfers_run']) or 'no transfer'}, probability "
        f"{case['probability']:.3f}, {case['g_co2e']:.3g} gCO2e, {case['status']} as "
        f"{case['result']} (simulated decision)",
        "",
        *WHAT_IS_NOT_REAL,
        "",
        *(f"{name:14} {path}" for name, path in facts["paths"].items()),
        f"serve it: greenboard serve --bundle {facts['paths']['bundle']}",
    ]
    return lines
