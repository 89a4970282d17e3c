from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon.errors import PipelineError
from carbon.pipeline import DeclaredPipeline, PipelineAssumptions, pipeline_energy_kwh


def test_exome_by_hand() -> None:
    """20 h x 12 W + 20 h x 32 GB x 0.3725 W = 478.4 Wh, x 1.67."""
    exome = DeclaredPipeline(core_hours=20.0, gpu_hours=0.0, memory_gb=32.0)
    assert pipeline_energy_kwh(exome) == pytest.approx(0.4784 * 1.67, rel=1e-12)


def test_slide_by_hand() -> None:
    """0.5 h x 12 W + 0.1 h x 250 W + 0.5 h x 32 GB x 0.3725 W = 36.96 Wh, x 1.67."""
    slide = DeclaredPipeline(core_hours=0.5, gpu_hours=0.1, memory_gb=32.0)
    assert pipeline_energy_kwh(slide) == pytest.approx(0.03696 * 1.67, rel=1e-12)


def test_more_cores_hold_the_memory_for_less_long() -> None:
    one = DeclaredPipeline(core_hours=16.0, gpu_hours=0.0, memory_gb=64.0)
    eight = replace(one, cores=8.0)
    assert (one.runtime_h, eight.runtime_h) == (16, 2)
    assumptions = PipelineAssumptions(pue=1.0)
    memory_saved = 14 * 64 * 0.3725 / 1000
    assert pipeline_energy_kwh(one, assumptions) - pipeline_energy_kwh(
        eight, assumptions
    ) == pytest.approx(memory_saved)


def test_memory_is_held_while_only_the_gpu_works() -> None:
    gpu_only = DeclaredPipeline(core_hours=0.0, gpu_hours=2.0, memory_gb=10.0)
    expected = (2 * 250 + 2 * 10 * 0.3725) * 1.67 / 1000
    assert pipeline_energy_kwh(gpu_only) == pytest.approx(expected)


def test_nothing_declared_costs_nothing() -> None:
    assert (
        pipeline_energy_kwh(DeclaredPipeline(core_hours=0.0, gpu_hours=0.0, memory_gb=0.0)) == 0.0
    )


def test_every_assumption_counts_as_written() -> None:
    work = DeclaredPipeline(core_hours=3.0, gpu_hours=1.0, memory_gb=8.0, cores=2.0)
    machine = PipelineAssumptions(w_per_core=5.0, w_per_gpu=100.0, w_per_gb=0.5, pue=1.2, usage=0.8)
    by_hand = (3 * 5 * 0.8 + 1 * 100 + 1.5 * 8 * 0.5) * 1.2 / 1000
    assert pipeline_energy_kwh(work, machine) == pytest.approx(by_hand)


hours = st.floats(min_value=0, max_value=1e4)


@given(hours, hours, st.floats(min_value=0, max_value=4096), st.floats(min_value=0.1, max_value=64))
def test_energy_is_finite_and_grows_with_work(core: float, gpu: float, gb: float, n: float) -> None:
    work = DeclaredPipeline(core_hours=core, gpu_hours=gpu, memory_gb=gb, cores=n)
    more = replace(work, core_hours=core + 1)
    assert math.isfinite(pipeline_energy_kwh(work))
    assert pipeline_energy_kwh(more) > pipeline_energy_kwh(work) >= 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("core_hours", -1.0), ("gpu_hours", math.nan), ("memory_gb", math.inf), ("cores", 0.0)],
)
def test_a_senseless_pipeline_is_refused(field: str, value: float) -> None:
    fine = DeclaredPipeline(core_hours=1.0, gpu_hours=0.0, memory_gb=1.0)
    with pytest.raises(PipelineError, match=field):
        replace(fine, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("pue", 0.9), ("usage", 1.1), ("w_per_core", -1.0), ("w_per_gb", math.nan)]
)
def test_a_senseless_machine_is_refused(field: str, value: float) -> None:
    with pytest.raises(PipelineError, match=field):
        replace(PipelineAssumptions(), **{field: value})
