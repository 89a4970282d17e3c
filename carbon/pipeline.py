"""Declared pipeline -> energy, by the Green Algorithms formula.

What a cohort's manifest declares about turning one patient's raw assay into a table row (hours of
cores and GPUs, gigabytes held) becomes kilowatt-hours. Every result is modelled, never measured.

Source: Lannelongue, Grealey and Inouye, "Green Algorithms: quantifying the carbon footprint of
computation", Advanced Science 8 (2021) 2100707, eq. 2:
``E = t x (n_cores x P_core x usage + GB x P_GB) x PUE x 0.001``, with the GPU term added as the
paper describes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from carbon.errors import PipelineError

W_PER_KW = 1000.0


@dataclass(frozen=True, kw_only=True)
class DeclaredPipeline:
    """What processing one modality of one patient takes, as its cohort declares it.

    Attributes:
        core_hours: CPU core-hours, that is run time in hours times ``cores``.
        gpu_hours: GPU-hours on one GPU.
        memory_gb: memory held while the pipeline runs, GB.
        cores: cores that work side by side; sets how long the memory is held.
        note: where the figures come from.
    """

    core_hours: float
    gpu_hours: float
    memory_gb: float
    cores: float = 1.0
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("core_hours", "gpu_hours", "memory_gb"):
            _require(name, getattr(self, name), minimum=0.0)
        _require("cores", self.cores, minimum=0.0, exclusive=True)

    @property
    def runtime_h(self) -> float:
        """Hours from start to end: the cores' run time, or the GPU's where that is longer.

        The formula knows one run time ``t``. A pipeline declares core-hours and GPU-hours apart,
        so ``t`` is the longer of the two: the memory is held until the slower part has ended.
        """
        return max(self.core_hours / self.cores, self.gpu_hours)


@dataclass(frozen=True, kw_only=True)
class PipelineAssumptions:
    """What the formula assumes of the machine; replace with the site's own figures.

    Attributes:
        w_per_core: watts a core at full use. 12.0 is Green Algorithms' figure for an unnamed CPU.
        w_per_gpu: watts a GPU at full use. 250 is the published thermal design power of one
            NVIDIA A100 40 GB PCIe (product brief PB-10137-001).
        w_per_gb: watts a gigabyte of memory. 0.3725 is Lannelongue 2021.
        pue: power usage effectiveness, total over computing energy, >= 1. 1.67 is the global
            average that Lannelongue 2021 uses (Uptime Institute survey 2019); the 2024 survey
            says 1.56, a hospital's own machine room may differ either way.
        usage: share of full power that busy cores draw, 0 to 1; 1.0 is Lannelongue's default.
    """

    w_per_core: float = 12.0
    w_per_gpu: float = 250.0
    w_per_gb: float = 0.3725
    pue: float = 1.67
    usage: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            _require(field.name, getattr(self, field.name), minimum=0.0)
        if self.pue < 1.0:
            raise PipelineError(
                f"pue is {self.pue}; total energy cannot be below computing energy, so give 1.0 "
                "(no overhead) or more."
            )
        if self.usage > 1.0:
            raise PipelineError(f"usage is {self.usage}; give a share between 0 and 1.")


def pipeline_energy_kwh(
    pipeline: DeclaredPipeline, assumptions: PipelineAssumptions | None = None
) -> float:
    """Energy of one run of a declared pipeline, kWh; modelled, so call it that.

    Args:
        pipeline: what the cohort declares.
        assumptions: the machine; the documented defaults where not given.

    Returns:
        ``(core_hours x W/core x usage + gpu_hours x W/gpu + t x GB x W/GB) x PUE / 1000``
        with ``t = max(core_hours / cores, gpu_hours)``.
    """
    machine = assumptions if assumptions is not None else PipelineAssumptions()
    cores_wh = pipeline.core_hours * machine.w_per_core * machine.usage
    gpu_wh = pipeline.gpu_hours * machine.w_per_gpu
    memory_wh = pipeline.runtime_h * pipeline.memory_gb * machine.w_per_gb
    return (cores_wh + gpu_wh + memory_wh) * machine.pue / W_PER_KW


def _require(name: str, value: float, *, minimum: float, exclusive: bool = False) -> None:
    too_small = value <= minimum if exclusive else value < minimum
    if not math.isfinite(value) or too_small:
        bound = "above" if exclusive else "at least"
        raise PipelineError(f"{name} is {value}; it must be a finite number, {bound} {minimum:g}.")
