"""``--wait-for-clean`` of the commands that train: plan, say so, wait, go."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.errors import CommandError

if TYPE_CHECKING:
    from carbon.intensity.build import GridConfig
    from carbon.monitor import CarbonMonitor
    from carbon.schedule import Job, Plan
    from carbon.schedule_wait import Waited

INTERRUPTED = 130
RL_STAGE = "rl train"
DEFAULT_SLACK_H = 12.0
DEFAULT_DURATION_H = 1.0

Grid = Literal["neso", "electricity-maps", "watttime", "trace", "synthetic"]
WaitForClean = Annotated[
    bool,
    typer.Option(
        "--wait-for-clean",
        help="Start when the grid is foreseen to be cleanest, --slack-h from now at the latest.",
    ),
]
SlackH = Annotated[float, typer.Option(help="Hours that the start may wait.")]
DurationH = Annotated[
    float, typer.Option(help="Expected hours of training, for the plan and its gCO2e.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print when it would start, and do nothing else.")
]
GridOption = Annotated[
    Grid | None,
    typer.Option(
        "--grid",
        help="Whose electricity: neso (Great Britain, live), electricity-maps or watttime (live, "
        "with --zone), trace (a recording), or synthetic.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class WaitOptions:
    """What was asked for: whether to wait, how long at most, for how much work."""

    wait: bool
    dry_run: bool
    slack_h: float
    duration_h: float

    @property
    def planned(self) -> bool:
        """Whether there is anything to plan."""
        return self.wait or self.dry_run


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The clock and the sleep; tests hand in their own."""

    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, kw_only=True)
class GridChoice:
    """Whose electricity the training takes, as the options say."""

    grid: Grid | None
    trace: Path | None
    zone: str | None = None
    token_file: Path | None = None


def grid_config(chosen: GridChoice, *, waits: bool) -> GridConfig:
    """The grid that a training is priced by, and waits for.

    Raises:
        CommandError: if it is to wait and nobody said for which grid, or a file is missing.
    """
    from api.settings import read_access
    from carbon.intensity.build import GridConfig

    if chosen.grid is None and chosen.trace is None and waits:
        raise CommandError(
            "Waiting needs a grid to wait for, and none was named. Give --grid neso (Great "
            "Britain, live), another provider with --zone, or a recording, which is replayed; "
            "--grid synthetic only tries it out."
        )
    name = chosen.grid or ("synthetic" if chosen.trace is None else "trace")
    if name == "trace" and chosen.trace is None:
        raise CommandError("--grid trace needs the recording; give its file.")
    return GridConfig(
        sources=(name,),
        trace=chosen.trace if name == "trace" else None,
        zone=chosen.zone,
        access=read_access(chosen.token_file, name),
    )


def training_job(options: WaitOptions, cores: int) -> Job:
    """The training as a job: one that runs through, at the modelled power of its cores.

    Raises:
        UnitError: if a figure makes no sense.
    """
    from carbon.pipeline import PipelineAssumptions
    from carbon.schedule import Job

    watts = PipelineAssumptions().w_per_core * cores
    return Job(duration_h=options.duration_h, slack_h=options.slack_h, power_w=watts)


def wait_or_plan(
    options: WaitOptions,
    monitor: CarbonMonitor | None,
    *,
    cores: int,
    timing: Timing,
    as_json: bool,
) -> Waited | None:
    """Do what was asked for about waiting; None if nothing was.

    Raises:
        Exit: with 0 after a dry run, with 130 after Ctrl-C; nothing was written by then.
    """
    if not options.planned or monitor is None:
        return None
    from api.cli.progress import stage_bar
    from carbon.schedule import plan_with
    from carbon.schedule_wait import wait_for_clean

    job = training_job(options, cores)
    with stage_bar("fit the forecast") as show:
        # Where there is a history to learn from; the forecast's notes say what was used.
        monitor.fit(show)
    if options.dry_run:
        plan = plan_with(monitor, job, timing.clock())
        typer.echo(json.dumps(plan.as_dict(), indent=1) if as_json else described(plan))
        raise typer.Exit(0)
    try:
        with _waiting_bar() as nap:
            return wait_for_clean(
                monitor, job, clock=timing.clock, sleep=timing.sleep, tell=_tell, nap=nap
            )
    except KeyboardInterrupt:
        typer.echo("stopped while waiting: nothing was run or written", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def metered_training(
    monitor: CarbonMonitor | None, waited: Waited | None, out: Path
) -> Iterator[dict[str, Any]]:
    """Book what happens inside, and keep the wait before it in ``OUT/waiting.json``.

    Args:
        monitor: measures and books; None does neither.
        waited: the wait, if there was one.
        out: the folder that the training leaves.

    Yields:
        What is to be told: empty, or ``waiting`` from the end of the block on.
    """
    record: dict[str, Any] = {}
    if monitor is None:
        yield record
        return
    with monitor.window(RL_STAGE) as window:
        yield record
    if waited is not None:
        from api.cli.atomic import write_json
        from carbon.schedule_wait import wait_record

        record["waiting"] = wait_record(monitor, waited, window.entry, stage=RL_STAGE)
        write_json(out / "waiting.json", record["waiting"])


def described(plan: Plan) -> str:
    """The plan in a few lines."""
    figures = plan.as_dict()
    start = plan.stretches[0].start
    when = "now" if plan.run_now else f"{start:%Y-%m-%d %H:%M} UTC"
    lines = [
        f"start: {when} (asked at {plan.at:%Y-%m-%d %H:%M} UTC, may wait {plan.job.slack_h:g} h)"
    ]
    for key, label in (("now", "started now"), ("planned", "as planned"), ("saved", "saved")):
        lines.append(f"{label:<12} {_grams(figures[f'{key}_g_co2e'])}")
    work = f"{plan.job.duration_h:g} h at {plan.job.power_w:g} W (modelled)"
    lines.append(f"expected for {work}, {plan.basis}; by forecast, an estimate")
    lines += [f"forecast: {method}" for method in plan.methods]
    return "\n".join(lines)


def waiting_line(record: dict[str, Any]) -> str:
    """What a wait that is over is estimated to have saved."""
    saved = record["saved_g_co2e"]
    grams = "an unknown amount" if saved["value"] is None else _grams(saved)
    return f"waited {record['waited_h']:.1f} h; saved {grams}, by estimate"


def _grams(figure: dict[str, Any]) -> str:
    interval = figure["ci95"]
    band = "unknown" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}"
    return f"{figure['value']:.3g} gCO2e (95 %: {band})"


def _tell(plan: Plan) -> None:
    # Standard error: standard output is for the result, which may be JSON.
    typer.echo(described(plan), err=True)


@contextmanager
def _waiting_bar() -> Iterator[Callable[[float, float], None]]:
    from api.cli.progress import stage_bar

    with stage_bar("waiting") as show:

        def nap(waited_s: float, left_s: float) -> None:
            minutes = max(1, round((waited_s + left_s) / 60))
            show(int(waited_s // 60), minutes, f"{left_s / 3600:.1f} h to the planned start")

        yield nap
