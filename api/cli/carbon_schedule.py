"""``greenboard carbon schedule``: when to run a job within its deadline."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from carbon.monitor import CarbonMonitor
    from carbon.schedule import Plan


def schedule(
    monitor: CarbonMonitor,
    *,
    at: datetime,
    duration_h: float,
    slack_h: float,
    power_w: float,
    interruptible: bool,
    as_json: bool,
) -> None:
    """Plan one job and print the plan."""
    from carbon.schedule import Job, plan_with

    job = Job(duration_h=duration_h, slack_h=slack_h, power_w=power_w, interruptible=interruptible)
    plan = plan_with(monitor, job, at)
    if as_json:
        typer.echo(json.dumps(plan.as_dict(), indent=2))
        return
    _print(plan)


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
