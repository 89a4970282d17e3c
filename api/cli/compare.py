"""``greenboard compare``: which policy gains most for its carbon, on shared sessions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.progress import Lines

if TYPE_CHECKING:
    from agent.compare import Companions
    from agent.report.model import ComparisonReport
    from agent.sessions import SessionSource

ALL = "all"


def compare(
    *,
    bundle: Annotated[Path, typer.Option(help="Bundle that 'greenboard train' wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.json, policies/.")],
    policies: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between: never, always:<transfer>, always-everything, random, "
            "rule, myopic, price, feedback, dp, mpc, planner; ppo, maskable-ppo, ppo-lagrangian, "
            "cloned-ppo (trained here); or folders of policies. Default: all that need no "
            "training, and --algorithms."
        ),
    ] = None,
    algorithms: Annotated[
        str | None,
        typer.Option(
            help="Learned policies beside the default list, with commas between. "
            "[default: maskable-ppo,cloned-ppo]"
        ),
    ] = None,
    env: Annotated[
        str,
        typer.Option(
            help="Id: greenboard/CaseReviewOneShot-v1, greenboard/CaseReviewSequential-v1 or "
            "greenboard/CaseReview-v1."
        ),
    ] = "greenboard/CaseReview-v1",
    preset: Annotated[
        str | None, typer.Option(help="Settings of the sessions: default, hard, batched, swing.")
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Budget as a share of always processing everything, such as 0.2."),
    ] = None,
    fold: Annotated[
        str | None, typer.Option(help="Held-out fold, or 'all'; default: the last.")
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions on each fold.")] = 200,
    cases: Annotated[
        int | None,
        typer.Option(min=2, help="Patients in a session. Default: 64, or half of a smaller fold."),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="How often each learned policy is trained. Three are quick and say little about "
            "how trainings differ; take ten or more to conclude anything about learning.",
        ),
    ] = 3,
    ppo_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of each training. [default: the algorithm's]"),
    ] = None,
    warm_start: Annotated[
        str, typer.Option(help="Policy that cloned-ppo imitates first, such as price or planner.")
    ] = "none",
    trace: Annotated[
        list[Path] | None,
        typer.Option(help="Recorded grid trace; again for several. Else a synthetic grid."),
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="Also with other budgets, traces and hospitals, and more modalities missing.",
        ),
    ] = False,
    other_trace: Annotated[
        list[Path] | None,
        typer.Option(help="Trace that no policy is prepared on, for --robustness; repeatable."),
    ] = None,
    cohort: Annotated[
        Path | None,
        typer.Option(help="The bundle's cohort folder, for gain and carbon by group of patients."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same report.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    progress_lines: Lines = False,
) -> None:
    """Compare policies on held-out patients and hours; write OUT/report.html and OUT/report.json.

    Policies are calibrated and trained on the patients of the other folds and the first 70 % of
    each trace. All of them then review the same sessions.

    Examples:
      greenboard compare --bundle bundle --out report

      greenboard compare --bundle bundle --out report --env greenboard/CaseReview-v1
        --preset hard --policies rule,price,planner,cloned-ppo --seeds 10 --fold all
        --trace ../shared/data/carbon/em_gb.csv.gz --trace ../shared/data/carbon/cc_de.csv.gz
        --cohort ../shared/data/tcga_nsclc --robustness
    """
    from datetime import UTC, datetime

    from agent.compare import ALGORITHMS, CompareConfig, compare_policies
    from agent.report.render import write_report
    from api.cli.figures import note_smaller
    from api.cli.progress import stage_bar
    from api.cli.targets import check_out_folder

    check_out_folder(out)
    opened = _open(bundle, env=env, preset=preset, budget=budget, traces=trace)
    held_out = None if fold is None else _folds(fold, opened.folds)
    source = opened.fitted(held_out or opened.folds[-1:], cases)
    note_smaller(source, opened, cases)
    config = CompareConfig(
        policies=None if policies is None else _names(policies),
        algorithms=ALGORITHMS if algorithms is None else _names(algorithms),
        folds=held_out,
        sessions=sessions,
        training_seeds=seeds,
        ppo_steps=ppo_steps,
        warm_start=warm_start,
        seed=seed,
        cases=cases,
        robustness=robustness,
    )
    companions = _companions(source, cohort, other_trace, robustness=robustness)
    more = _words(env, preset, budget, cohort, other_trace)
    done: dict[str, int] = {}
    with stage_bar("compare", lines=progress_lines) as show:

        def progress(stage: str, n: int, total: int) -> None:
            done[stage] = done.get(stage, 0) + n
            show(done[stage], total, stage)

        report = compare_policies(
            source,
            config,
            out,
            command=config.command(bundle, trace, out, *more),
            created=datetime.now(UTC),
            progress=progress,
            companions=companions,
        )
    page, figures = write_report(report, out)
    if as_json:
        typer.echo(figures.read_text(encoding="utf-8"), nl=False)
    else:
        _show(report, page, figures)


def _open(
    bundle: Path,
    *,
    env: str,
    preset: str | None,
    budget: float | None,
    traces: list[Path] | None,
) -> SessionSource:
    from dataclasses import replace

    from agent.sessions import SessionSource

    source = SessionSource.open(bundle, trace=traces or None, env_id=env, preset=preset)
    if budget is None:
        return source
    return replace(source, config=replace(source.config, budget_fraction=budget))


def _companions(
    source: SessionSource,
    cohort: Path | None,
    other_traces: list[Path] | None,
    *,
    robustness: bool,
) -> Companions:
    """What the sections beyond the figures need, read before the long work begins."""
    from agent.compare import Companions
    from agent.equity import attributes_of
    from agent.errors import ComparisonError
    from carbon.intensity.recorded import load_trace
    from distill.cohort import read_cohort

    if other_traces and not robustness:
        raise ComparisonError("--other-trace is for --robustness; give both or neither.")
    attributes = None
    if cohort is not None:
        read = read_cohort(cohort)
        known = set(source.evidence.case_id) & set(read.case_id)
        if not known:
            raise ComparisonError(
                f"{cohort} has none of the patients of the bundle ({source.evidence.cohort!r}); "
                "give the cohort that it was trained on."
            )
        attributes = attributes_of(read.tables["clinical"], source.evidence.case_id)
    return Companions(
        attributes=attributes, other_traces=tuple(load_trace(p) for p in other_traces or ())
    )


def _words(
    env: str,
    preset: str | None,
    budget: float | None,
    cohort: Path | None,
    other_traces: list[Path] | None,
) -> tuple[str, ...]:
    """The options that choose the sessions, to be quoted in the report."""
    words = ["--env", env]
    for flag, value in (("--preset", preset), ("--budget", budget), ("--cohort", cohort)):
        if value is not None:
            words += [flag, str(value)]
    for trace in other_traces or ():
        words += ["--other-trace", str(trace)]
    return tuple(words)


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
