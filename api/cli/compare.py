"""``greenboard compare``: which policy gains most for its carbon, on shared sessions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agent.report.model import ComparisonReport

ALL = "all"


def compare(
    *,
    bundle: Annotated[Path, typer.Option(help="Bundle that 'greenboard train' wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json, policies/.")],
    policies: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between: never, always:<transfer>, always-everything, random, "
            "rule, price, ppo (trained here), or folders of policies. Default: all of them."
        ),
    ] = None,
    fold: Annotated[
        str | None, typer.Option(help="Held-out fold, or 'all'; default: the last.")
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions on each fold.")] = 200,
    cases: Annotated[
        int | None,
        typer.Option(min=2, help="Patients in a session. Default: 64, or half of a smaller fold."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often ppo is trained.")] = 3,
    ppo_steps: Annotated[int, typer.Option(min=1, help="Steps of each training.")] = 400_000,
    warm_start: Annotated[
        str, typer.Option(help="none, or price: ppo imitates the price policy first.")
    ] = "none",
    trace: Annotated[
        Path | None, typer.Option(help="Recorded grid trace; else a synthetic grid.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same report.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Compare policies on held-out patients and hours; write OUT/report.html and OUT/report.json.

    Policies are calibrated and trained on the patients of the other folds and the first 70 % of
    the trace. All of them then review the same sessions.

    Examples:
      greenboard compare --bundle bundle --out report

      greenboard compare --bundle bundle --out report --policies rule,price,ppo --fold all
        --trace ../shared/data/carbon/em_gb.csv.gz
    """
    from datetime import UTC, datetime

    from agent.compare import CompareConfig, compare_policies
    from agent.report.render import write_report
    from agent.sessions import SessionSource
    from api.cli.figures import note_smaller
    from api.cli.progress import stage_bar
    from api.cli.targets import check_out_folder

    check_out_folder(out)
    opened = SessionSource.open(bundle, trace=trace)
    held_out = None if fold is None else _folds(fold, opened.folds)
    source = opened.fitted(held_out or opened.folds[-1:], cases)
    note_smaller(source, opened, cases)
    config = CompareConfig(
        policies=None if policies is None else _names(policies),
        folds=held_out,
        sessions=sessions,
        training_seeds=seeds,
        ppo_steps=ppo_steps,
        warm_start=warm_start,
        seed=seed,
        cases=cases,
    )
    done: dict[str, int] = {}
    with stage_bar("compare") as show:

        def progress(stage: str, n: int, total: int) -> None:
            done[stage] = done.get(stage, 0) + n
            show(done[stage], total, stage)

        report = compare_policies(
            source,
            config,
            out,
            command=config.command(bundle, trace, out),
            created=datetime.now(UTC),
            progress=progress,
        )
    page, figures = write_report(report, out)
    if as_json:
        typer.echo(figures.read_text(encoding="utf-8"), nl=False)
    else:
        _show(report, page, figures)


def _names(policies: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in policies.split(",") if name.strip())


def _folds(fold: str, known: tuple[int, ...]) -> tuple[int, ...]:
    from agent.errors import ComparisonError

    if fold == ALL:
        return known
    if not fold.isdecimal() or int(fold) not in known:
        raise ComparisonError(
            f"Unknown fold {fold!r}; choose {', '.join(map(str, known))}, or {ALL}."
        )
    return (int(fold),)


def _show(report: ComparisonReport, page: Path, figures: Path) -> None:
    from agent.report.headline import headline

    width = max(len(policy.name) for policy in report.policies)
    typer.echo(f"{'policy':{width}}  AUC gain [95 %]           gCO2e  of everything  reward")
    for policy in report.policies:
        gain, reward = policy.figures["auc_gain"], policy.figures["reward"]
        typer.echo(
            f"{policy.name:{width}}  {gain.value:6.3f} [{gain.low:6.3f}, {gain.high:6.3f}] "
            f"{policy.figures['g_co2e'].value:9.0f} {policy.figures['carbon_share'].value:13.0%} "
            f"{reward.value:8.3f}{'  dominated' if policy.dominated_by else ''}"
        )
    for name, bound in report.bounds.items():
        typer.echo(f"{name:{width}}  {bound.auc_gain.value:6.3f}")
    for sentence in headline(report):
        typer.echo(sentence)
    typer.echo(f"report: {page}\nfigures: {figures}")
