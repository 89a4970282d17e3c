"""A plan by the learned policy: how the hours ahead will differ from now, learnt from a recording.

The monitor's forecast gives the level of the present hours; the models of
:mod:`carbon.schedule_backtest` give what waiting changes, and so the moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from jaxtyping import Float64, Int64

from carbon.errors import UnitError
from carbon.intensity.protocol import as_utc, floor_hour
from carbon.intensity.trace import HOUR
from carbon.schedule import Job, Plan, Stretch
from carbon.schedule_backtest import WEEK_H, WaitingConfig, learned_changes
from carbon.schedule_features import DAY_H, WARM_UP_H, ScheduleData, shifted, window_means

CHECK_H = 28 * 24
"""Hours before the present over which the models' error is taken, and between two fits."""
LONGEST_H = 2 * 366 * 24
"""Hours of history that are learnt from: what is older costs time and says little."""

Offsets = Float64[np.ndarray, " offsets"]


@dataclass(frozen=True, kw_only=True)
class Foreseen:
    """What the models say at one hour.

    Attributes:
        change: expected change of a window's mean intensity by waiting k hours, gCO2e/kWh.
        weights: what the chosen hours take of each offset, less what running now takes.
        error: root mean square error of ``weights @ change`` over the past four weeks.
        hours: how many hours of history were learnt from.
    """

    change: Offsets
    weights: Offsets
    error: float
    hours: int


def plan_learned(data: ScheduleData, recorded: datetime, reference: Plan) -> Plan:
    """Choose the moment by the learned policy.

    Args:
        data: the recording.
        recorded: the recorded hour that stands for the present.
        reference: the same job planned on a forecast; gives the level of running now.

    Raises:
        UnitError: if the job has no whole hours, or too little is on record before ``recorded``.
    """
    job = reference.job
    config = _config(job)
    row = _row(data, recorded, config)
    first = max(0, row - LONGEST_H)
    seen = foresee(_from_row(data, first), row - first, config, pausing=job.interruptible)
    chosen = seen.weights.copy()
    duration = config.duration_h
    if job.interruptible:
        chosen[:duration] += 1.0 / duration
    else:
        chosen[0] += 1.0
    stretches = _stretches(np.flatnonzero(chosen > 0), job, reference.at)
    kwh = job.energy_kwh
    planned = max(0.0, reference.now_g_co2e + kwh * float(seen.weights @ seen.change))
    note = (
        f"learned: {config.slack_h} h of waiting judged by LightGBM on {seen.hours} h of the "
        f"recording {data.trace.name} up to {recorded:%Y-%m-%d %H:%M} UTC; error of the saving "
        "from the same models, fitted four weeks earlier, over those weeks"
    )
    return replace(
        reference,
        stretches=stretches,
        planned_g_co2e=planned,
        planned_se_g_co2e=None if seen.weights.any() else reference.now_se_g_co2e,
        saved_se_g_co2e=seen.error * kwh,
        methods=(*reference.methods, note),
    )


def foresee(data: ScheduleData, row: int, config: WaitingConfig, *, pausing: bool) -> Foreseen:
    """Fit twice, four weeks ago and now; choose at ``row`` what looks cleanest, earliest first.

    Raises:
        UnitError: if there is too little before ``row``.
    """
    asked = config.hourly if pausing else config
    asked = replace(asked, refit_h=CHECK_H)
    start = row - CHECK_H
    changes = learned_changes(data, asked, start, row + 1)
    now = changes[row]
    weights = np.zeros(len(now))
    if pausing:
        cleanest = np.argsort(now, kind="stable")[: config.duration_h]
        weights[cleanest] += 1.0 / config.duration_h
        weights[: config.duration_h] -= 1.0 / config.duration_h
    else:
        weights[int(np.argmin(now))] += 1.0
        weights[0] -= 1.0
    # Windows that were over by now, and no other.
    judged = np.arange(start, row - asked.slack_h - asked.duration_h + 1, dtype=np.int64)
    error = _error(data, asked, changes, weights, judged)
    return Foreseen(change=now, weights=weights, error=error, hours=row)


def _error(
    data: ScheduleData,
    asked: WaitingConfig,
    changes: Float64[np.ndarray, "hours offsets"],
    weights: Offsets,
    rows: Int64[np.ndarray, " rows"],
) -> float:
    windows = window_means(data.trace.g_per_kwh, asked.duration_h)
    came = np.stack([shifted(windows, k) - windows for k in range(len(weights))], axis=1)
    missed = (changes[rows] - came[rows]) @ weights
    return float(np.sqrt(np.mean(missed**2)))


def _config(job: Job) -> WaitingConfig:
    duration, slack = round(job.duration_h), int(job.slack_h + 1e-9)
    if abs(job.duration_h - duration) > 1e-9 or duration < 1:
        raise UnitError(f"The learned policy plans whole hours, not {job.duration_h:g} h of work.")
    if slack < 1:
        raise UnitError(f"{job.slack_h:g} h of slack leave no later hour to start in.")
    return WaitingConfig(duration_h=duration, slack_h=slack)


def _row(data: ScheduleData, recorded: datetime, config: WaitingConfig) -> int:
    hour = np.datetime64(floor_hour(as_utc(recorded)).replace(tzinfo=None), "h")
    row = int((hour - data.trace.time_utc[0]).astype(np.int64))
    if not 0 <= row < len(data.trace):
        raise UnitError(f"{recorded:%Y-%m-%d %H:%M} UTC is not in the recording.")
    # Learning needs its own warm-up, four weeks of jobs that are over, and four to check it on.
    need = WARM_UP_H + 4 * WEEK_H + CHECK_H + config.slack_h + config.duration_h
    if row < need:
        raise UnitError(
            f"{row} hours of history are too few to learn from; {need} are needed, "
            f"{need / DAY_H:.0f} days."
        )
    return row


def _from_row(data: ScheduleData, first: int) -> ScheduleData:
    def cut(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: values[first:] for name, values in columns.items()}

    trace = replace(
        data.trace,
        time_utc=data.trace.time_utc[first:],
        g_per_kwh=data.trace.g_per_kwh[first:],
        estimated=data.trace.estimated[first:],
    )
    return replace(data, trace=trace, observed=cut(data.observed), foretold=cut(data.foretold))


def _stretches(
    offsets: Int64[np.ndarray, " chosen"], job: Job, at: datetime
) -> tuple[Stretch, ...]:
    if not job.interruptible:
        k = int(offsets[0])
        return (Stretch(start=floor_hour(at) + k * HOUR if k else at, hours=job.duration_h),)
    found: list[Stretch] = []
    for k in offsets:
        start, hours = at + int(k) * HOUR, 1.0
        if found and found[-1].start + found[-1].hours * HOUR == start:
            hours += found[-1].hours
            start = found.pop().start
        found.append(Stretch(start=start, hours=hours))
    return tuple(found)
