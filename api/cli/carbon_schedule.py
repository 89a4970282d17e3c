"""``greenboard carbon schedule``: when to run a job within its deadline."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.errors import CommandError

if TYPE_CHECKING:
    from carbon.intensity.protocol import Scope
    from carbon.monitor import CarbonMonitor
    from carbon.schedule import Job, Plan

Method = Literal["auto", "learned", "profile"]
DurationH = Annotated[float, typer.Option(help="Hours of work.")]
PowerW = Annotated[float, typer.Option(help="Draw while it runs, W.")]
SlackH = Annotated[
    float | None, typer.Option(help="Hours that it may end later than if started now.  [12]")
]
Deadline = Annotated[
    str | None,
    typer.Option(help="Or: when it has to be over, ISO 8601 with time zone: 2024-06-01T18:00Z."),
]
Interruptible = Annotated[
    bool, typer.Option("--interruptible", help="May pause; the best hours are taken.")
]
MethodOption = Annotated[
    Method,
    typer.Option(
        "--method",
        help="learned: models of the recording's past choose (takes some seconds); profile: the "
        "source's own forecast, of a recording yesterday's; auto: learned where --trace has "
        "enough history.",
    ),
]
TimeZone = Annotated[
    str, typer.Option(help="Whose clock people there live by, for --method learned.")
]
DEFAULT_SLACK_H = 12.0


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The trace that the learned policy may learn from, and how to read it."""

    path: Path
    basis: Scope
    time_zone: str


def job_of(
    *,
    at: datetime,
    duration_h: float,
    power_w: float,
    slack_h: float | None,
    deadline: str | None,
    interruptible: bool,
) -> Job:
    """The job, by its slack or its deadline.

    Raises:
        CommandError: if both were given, or the deadline is no moment.
        UnitError: if a figure makes no sense or the deadline cannot be met.
    """
    from carbon.schedule import Job

    if deadline is None:
        slack = DEFAULT_SLACK_H if slack_h is None else slack_h
        return Job(
            duration_h=duration_h, slack_h=slack, power_w=power_w, interruptible=interruptible
        )
    if slack_h is not None:
        raise CommandError("--slack-h and --deadline say the same thing twice; give one of them.")
    try:
        due = datetime.fromisoformat(deadline)
    except ValueError:
        due = datetime.min
    if due.tzinfo is None:
        raise CommandError(
            f"--deadline {deadline!r} is not a moment with a time zone, such as 2024-06-01T18:00Z."
        )
    return Job.due(due, at, duration_h=duration_h, power_w=power_w, interruptible=interruptible)


def schedule(
    monitor: CarbonMonitor,
    job: Job,
    *,
    at: datetime,
    method: Method,
    recording: Recording | None,
    as_json: bool,
) -> None:
    """Plan one job and print the plan.

    Raises:
        CommandError: if the learned policy is asked for without a recording.
        UnitError: if it is asked for and the recording does not suffice.
    """
    from carbon.schedule import plan_with

    if method == "learned" and recording is None:
        raise CommandError("--method learned needs a recording to learn from: --trace FILE.")
    plan = plan_with(monitor, job, at)
    if method != "profile" and recording is not None:
        plan = _learned(plan, recording, must=method == "learned")
    if as_json:
        typer.echo(json.dumps(plan.as_dict(), indent=2))
        return
    _print(plan)


def _learned(plan: Plan, recording: Recording, *, must: bool) -> Plan:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from carbon.errors import UnitError
    from carbon.intensity.recorded import RecordedSource
    from carbon.schedule_features import load_schedule_data
    from carbon.schedule_learned import plan_learned

    try:
        ZoneInfo(recording.time_zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise CommandError(
            f"Unknown time zone {recording.time_zone!r}; give one such as Europe/London."
        ) from error
    data = load_schedule_data(recording.path, recording.basis, time_zone=recording.time_zone)
    recorded = RecordedSource(data.trace, align="replay").history_time(plan.at)
    try:
        return plan_learned(data, recorded, plan)
    except UnitError as error:
        if must:
            raise
        note = f"planned on the forecast; the learned policy was not used: {error}"
        return replace(plan, methods=(*plan.methods, note))


def _print(plan: Plan) -> None:
    typer.echo("run now" if plan.run_now else "wait; ask again each hour, forecasts change")
    for stretch in plan.stretches:
        typer.echo(f"  from {stretch.start:%Y-%m-%d %H:%M} UTC for {stretch.hours:g} h")
    figures = plan.as_dict()
    for key, label in (("now", "now"), ("planned", "planned"), ("saved", "saved")):
        figure = figures[f"{key}_g_co2e"]
        interval = figure["ci95"]
        band = "unknown" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"
        typer.echo(f"{label:<8}{figure['value']:>10.1f} gCO2e  (95 %: {band})")
    typer.echo(f"energy {plan.job.energy_kwh:g} kWh, basis {plan.basis}")
    for method in plan.methods:
        typer.echo(f"note: {method}")
