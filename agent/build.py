"""Cohort folder to bundle: training wrapped in a carbon monitor's window, pipelines priced.

``distill`` knows nothing of energy and ``carbon`` nothing of models; here they meet.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.carbon_training import (
    CarbonOptions,
    Deferral,
    HourlyTally,
    SimulatedClock,
    fingerprint,
    hours_record,
)
from carbon.entries import LedgerEntry
from carbon.intensity.protocol import utc_now
from carbon.monitor import CarbonMonitor
from carbon.pipeline import DeclaredPipeline, PipelineAssumptions, pipeline_energy_kwh
from carbon.schedule_wait import Waited, wait_record
from distill.bundle import check_target
from distill.carbon_aware import CarbonRun, no_wait
from distill.cohort import Cohort, read_cohort
from distill.config import TrainConfig
from distill.train import Progress, Trained, fit, no_progress
from distill.write import write_bundle

STAGE = "train"
INFERENCE_BUDGET_S = 0.005
"""Core time that one bridge and student inference is priced at: the bound that benchmarks hold it
to. A measured time would make two runs of the same seed differ."""
INFERENCE_MEMORY_GB = 0.5
S_PER_H = 3600.0


def pipeline_energies_kwh(
    cohort: Cohort, assumptions: PipelineAssumptions | None = None
) -> dict[str, float]:
    """Modelled energy of processing each inference modality once, kWh.

    Raises:
        CohortError: if a modality declares no pipeline, so that its energy is unknown.
    """
    return {
        name: pipeline_energy_kwh(pipeline, assumptions)
        for name, pipeline in _declared(cohort).items()
    }


def pipeline_durations_h(cohort: Cohort) -> dict[str, float]:
    """Declared run time of processing each inference modality once, hours.

    Raises:
        CohortError: if a modality declares no pipeline.
    """
    return {name: pipeline.runtime_h for name, pipeline in _declared(cohort).items()}


def _declared(cohort: Cohort) -> dict[str, DeclaredPipeline]:
    specs = {name: cohort.pipeline(name) for name in cohort.modalities("inference")}
    return {
        name: DeclaredPipeline(
            core_hours=spec.core_hours,
            gpu_hours=spec.gpu_hours,
            memory_gb=spec.memory_gb,
            cores=spec.cores,
            note=spec.note,
        )
        for name, spec in specs.items()
    }


def transfer_energy_kwh(assumptions: PipelineAssumptions | None = None) -> float:
    """Modelled energy of one bridge and student inference on one core, kWh."""
    declared = DeclaredPipeline(
        core_hours=INFERENCE_BUDGET_S / S_PER_H, gpu_hours=0.0, memory_gb=INFERENCE_MEMORY_GB
    )
    return pipeline_energy_kwh(declared, assumptions)


def training_record(entry: LedgerEntry, seconds: float) -> dict[str, Any]:
    """The ``training`` part of ``metrics.json``: what was spent and how that is known."""
    intensity = entry.intensity
    return {
        "seconds": seconds,
        "energy_kwh": {
            "value": entry.energy_kwh,
            "basis": entry.energy_basis,
            "source": entry.energy_source,
            "reason": entry.energy_reason,
        },
        "g_co2e": {
            "value": entry.g_co2e,
            "reason": None if entry.g_co2e is not None else entry.note or "energy unmeasured",
        },
        "intensity": None if intensity is None else intensity.as_dict(),
    }


def build_bundle(
    cohort_path: Path,
    out: Path,
    *,
    config: TrainConfig,
    monitor: CarbonMonitor,
    created: datetime,
    assumptions: PipelineAssumptions | None = None,
    progress: Progress = no_progress,
    waited: Waited | None = None,
    carbon: CarbonOptions | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Mapping[str, Any]:
    """Read a cohort, train under the monitor, and write the bundle whole or not at all.

    Args:
        cohort_path: the cohort's folder.
        out: the bundle's folder.
        config: settings and seed.
        monitor: measures the training and knows the grid.
        created: the time that the manifest names.
        assumptions: the machine that pipelines are priced on.
        progress: told of every step.
        waited: how the training came to begin now, if it waited for cleaner electricity.
        carbon: mind the grid while training; None only measures.
        clock: the present, as the monitor has it.
        sleep: how a carbon-aware run waits.

    Returns:
        The ``training`` record that the bundle's metrics hold.

    Raises:
        CohortError: if the folder cannot be used.
        TrainingError: if it cannot be learnt from.
        BundleError: if ``out`` is something else, or the export disagrees.
        BudgetSpentError: if a carbon budget is used up; what was spent is booked, and finished
            students stay in the folder of ``carbon``.
    """
    check_target(out)
    cohort = read_cohort(cohort_path)
    energies = pipeline_energies_kwh(cohort, assumptions)
    if carbon is None:
        with monitor.window(STAGE) as window:
            trained = fit(cohort, config, progress)
        record = training_record(window.entry, trained.seconds)
        if waited is not None:
            record["waiting"] = wait_record(monitor, waited, window.entry, stage=STAGE)
    else:
        if carbon.folder is not None:
            name = fingerprint(cohort_path, config, carbon.settings)
            carbon = replace(carbon, fingerprint=name)
        trained, record = train_carbon_aware(
            cohort, config, monitor, carbon, clock=clock, sleep=sleep, progress=progress,
            waited=waited,
        )  # fmt: skip
    write_bundle(
        trained,
        out,
        pipeline_kwh=energies,
        pipeline_h=pipeline_durations_h(cohort),
        transfer_kwh=transfer_energy_kwh(assumptions),
        created=created,
        training=record,
        energy_note=f"transfers: {INFERENCE_BUDGET_S * 1000:.0f} ms of one core each, modelled",
    )
    if carbon is not None and carbon.folder is not None:
        shutil.rmtree(carbon.folder)  # the bundle is there: nothing is left to resume
    return record


def train_carbon_aware(
    cohort: Cohort,
    config: TrainConfig,
    monitor: CarbonMonitor,
    carbon: CarbonOptions,
    *,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    progress: Progress = no_progress,
    waited: Waited | None = None,
) -> tuple[Trained, dict[str, Any]]:
    """Train with an eye on the grid; booked by the clock hour, also if it is stopped.

    Raises:
        BudgetSpentError: if the budget is used up before the last student.
        TrainingError: if the cohort cannot be learnt from, or the folder is of another run.
    """
    tally = HourlyTally(monitor, clock=clock)
    defer: Deferral | None = None
    if carbon.deadline_h is not None:
        defer = Deferral(
            monitor, clock=clock, sleep=sleep, deadline_h=carbon.deadline_h,
            duration_h=carbon.duration_h,
            power_w=PipelineAssumptions().w_per_core * config.n_threads,
        )  # fmt: skip
    run = CarbonRun(
        carbon.settings, intensity=tally.intensity, energy_kwh=tally.energy_kwh,
        defer=no_wait if defer is None else defer, folder=carbon.folder,
        fingerprint=carbon.fingerprint, resume=carbon.resume,
    )  # fmt: skip
    note = "carbon-aware, stopped on the way"
    try:
        run.wait(1.0)
        trained = fit(cohort, config, progress, carbon=run)
        run.charge()
        note = f"carbon-aware: {run.record()['stopped']}"
    finally:
        simulated = isinstance(clock, SimulatedClock)
        entries = tally.book(STAGE, f"{note}; waited in simulated time" if simulated else note)
    waits = [] if defer is None else defer.waits
    aware = {**run.record(), "deadline_h": carbon.deadline_h, "waited": waits,
             "simulated_time": simulated}  # fmt: skip
    record = {**hours_record(entries, trained.seconds), "carbon_aware": aware}
    if waited is not None:
        whole = replace(entries[0], energy_kwh=record["energy_kwh"]["value"])
        record["waiting"] = wait_record(monitor, waited, whole, stage=STAGE)
    return trained, record
