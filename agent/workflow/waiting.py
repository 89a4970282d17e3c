"""When a case that waits for cleaner electricity is looked at again: the scheduler's plan for it.

The environments settle a deferral by their queue; a live case has a clock, a forecast and a limit,
so :func:`carbon.schedule.plan_job` chooses the moment. It plans the work that waiting is for, so
that this could still be over by the case's limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import repeat
from types import MappingProxyType
from typing import cast

from agent.workflow.state import CarbonView, Figure, Plan, Reading
from carbon.intensity.protocol import Basis, IntensityReading, as_utc, floor_hour
from carbon.schedule import Job, plan_job
from carbon.schedule import Plan as JobPlan

HOUR = timedelta(hours=1)
W_PER_KW = 1000.0


@dataclass(frozen=True, kw_only=True)
class OpenTransfer:
    """A transfer that a case could still run.

    Attributes:
        name: its name.
        predicted_auc_gain: what it is expected to add.
        energy_kwh: what it would take, with its source's pipeline.
        pipeline_h: how long that pipeline runs, hours; None where the bundle does not say.
    """

    name: str
    predicted_auc_gain: float
    energy_kwh: float
    pipeline_h: float | None


@dataclass(frozen=True, kw_only=True)
class WaitTerms:
    """What a wait is planned by.

    Attributes:
        limit: the latest moment at which the work may be over.
        g_per_auc: grams that one unit of AUC gain is worth; chooses among transfers.
        visit_h: length that is assumed of work whose duration is not declared, hours.
    """

    limit: datetime
    g_per_auc: float
    visit_h: float


def plan_wait(
    work: Sequence[OpenTransfer], carbon: CarbonView, at: datetime, terms: WaitTerms
) -> Plan | None:
    """The moment to look at the case again; None if no start before the limit is cleaner than now.

    Args:
        work: transfers with a pipeline that has not run; the one that would be worth most at the
            cleanest hour foreseen stands for what the case waits for.
        carbon: the grid, now and ahead.
        at: the present (aware).
        terms: limit, price and assumed duration.
    """
    at = as_utc(at)
    readings = _readings(carbon, at)
    chosen = _worth_most(work, readings, terms)
    if chosen is None or len(readings) < 2:
        return None
    duration_h = chosen.pipeline_h or terms.visit_h
    reach = floor_hour(at) + len(readings) * HOUR
    slack_h = (min(as_utc(terms.limit), reach) - at) / HOUR - duration_h
    if slack_h <= 0.0:
        return None
    job = Job(
        duration_h=duration_h,
        slack_h=slack_h,
        power_w=W_PER_KW * chosen.energy_kwh / duration_h,
    )
    planned = plan_job(job, readings, at)
    if planned.run_now or planned.saved_g_co2e <= 0.0:
        return None
    return _record(planned, chosen, readings, carbon, terms)


def _worth_most(
    work: Sequence[OpenTransfer], readings: Sequence[IntensityReading], terms: WaitTerms
) -> OpenTransfer | None:
    cleanest = min(reading.g_per_kwh for reading in readings)
    grams = terms.g_per_auc if terms.g_per_auc > 0 else float("inf")
    return max(
        work, key=lambda t: t.predicted_auc_gain - t.energy_kwh * cleanest / grams, default=None
    )


def _readings(carbon: CarbonView, at: datetime) -> tuple[IntensityReading, ...]:
    """The running clock hour, then each one after it for as long as the forecast has no gap."""
    ahead: Mapping[datetime, IntensityReading] = {}
    if carbon.forecast_from is not None:
        ahead = _ahead(
            floor_hour(carbon.forecast_from),
            carbon.forecast_g_per_kwh,
            carbon.forecast_se_g_per_kwh,
            (carbon.now.zone, carbon.now.basis, carbon.forecast_note or carbon.now.provider),
        )
    hour = floor_hour(at)
    # The grid may have been read in an earlier hour than the one that is planned in.
    known = [ahead.get(hour) or _as_read(carbon.now)]
    while (hour := hour + HOUR) in ahead:
        known.append(ahead[hour])
    return tuple(known)


@lru_cache(maxsize=8)
def _ahead(
    first: datetime,
    values: tuple[float, ...],
    errors: tuple[float | None, ...],
    source: tuple[str, str, str],
) -> Mapping[datetime, IntensityReading]:
    """The forecast by its hours; remembered, because a board's cases are told the same one."""
    zone, basis, provider = source
    readings = (
        IntensityReading(
            g_per_kwh=value,
            zone=zone,
            time=first + lead * HOUR,
            basis=cast(Basis, basis),
            provider=provider,
            kind="forecast",
            age_s=0.0,
            uncertainty_g_per_kwh=error,
        )
        for lead, (value, error) in enumerate(zip(values, errors or repeat(None)))
    )
    return MappingProxyType({reading.time: reading for reading in readings})


def _as_read(now: Reading) -> IntensityReading:
    return IntensityReading(
        g_per_kwh=now.g_per_kwh,
        zone=now.zone,
        time=as_utc(now.time),
        basis=cast(Basis, now.basis),
        provider=now.provider,
        kind=now.kind,
        age_s=now.age_s,
        uncertainty_g_per_kwh=now.uncertainty_g_per_kwh,
        note=now.note,
    )


def _record(
    planned: JobPlan,
    chosen: OpenTransfer,
    readings: Sequence[IntensityReading],
    carbon: CarbonView,
    terms: WaitTerms,
) -> Plan:
    at, job, start = planned.at, planned.job, planned.stretches[0].start
    latest = at + job.slack_h * HOUR
    figures = planned.as_dict()
    saved = Figure.model_validate(figures["saved_g_co2e"])
    then = readings[int((start - floor_hour(at)) / HOUR)]
    assumed = "" if chosen.pipeline_h else " (duration not declared: one visit assumed)"
    forecast = list(carbon.forecast_methods) or [carbon.forecast_note]
    why = (
        f"Of the starts up to {latest:%Y-%m-%d %H:%M} UTC that leave {job.duration_h:.3g} h for "
        f"{chosen.name}{assumed}, the one at {start:%Y-%m-%d %H:%M} UTC is foreseen to emit least: "
        f"{planned.planned_g_co2e:.4g} g CO2e for {job.energy_kwh:.3g} kWh, against "
        f"{planned.now_g_co2e:.4g} g now; saves {_with_interval(saved)} by the forecast of "
        f"{'; '.join(forecast)}."
    )
    return Plan(
        wake_at=start,
        wait_h=(start - at) / HOUR,
        intensity_now_g_per_kwh=readings[0].g_per_kwh,
        intensity_expected_g_per_kwh=then.g_per_kwh,
        transfer=chosen.name,
        duration_h=job.duration_h,
        duration_assumed=chosen.pipeline_h is None,
        energy_kwh=job.energy_kwh,
        latest_start=latest,
        limit=as_utc(terms.limit),
        now_g_co2e=Figure.model_validate(figures["now_g_co2e"]),
        planned_g_co2e=Figure.model_validate(figures["planned_g_co2e"]),
        saved_g_co2e=saved,
        forecast=forecast,
        why=why,
    )


def _with_interval(figure: Figure) -> str:
    if figure.ci95 is None:
        return f"{figure.value:.4g} g (error unknown)"
    return f"{figure.value:.4g} g (95 %: {figure.ci95[0]:.4g} to {figure.ci95[1]:.4g} g)"
