from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from carbon.backends import (
    MachineMeter,
    ModelledMeter,
    NullMeter,
    ProcessUse,
    ReplayMeter,
    make_meter,
    this_process,
)
from carbon.counters import RaplMeter
from carbon.errors import MeterError, UnitError
from carbon.meter import ComponentReading, combine, energy_window
from carbon.pipeline import PipelineAssumptions

ABSENT = Path("/nonexistent/powercap")


def counted(component: str, joules: float) -> ReplayMeter:
    part = ComponentReading(
        component=component,  # type: ignore[arg-type]
        joules=joules, basis="measured", source=f"counter of {component}",
    )  # fmt: skip
    return ReplayMeter([(part,)])


def test_the_model_by_hand() -> None:
    uses = iter([ProcessUse(cpu_s=1.0, memory_bytes=10**9),
                 ProcessUse(cpu_s=4.0, memory_bytes=3 * 10**9)])  # fmt: skip
    clock = iter([100.0, 110.0])
    meter = ModelledMeter(
        assumptions=PipelineAssumptions(w_per_core=10.0, usage=0.5),
        probe=lambda: next(uses), monotonic=lambda: next(clock), reason="no counter",
    )  # fmt: skip
    cpu, memory = meter.begin().end()
    assert cpu.joules == pytest.approx(3 * 10 * 0.5)
    assert memory.joules == pytest.approx(2 * 0.3725 * 10)
    assert {cpu.basis, memory.basis} == {"modelled"}
    assert "5 W a core" in cpu.source
    assert (cpu.reason, memory.reason) == ("no counter", "no counter")


def test_work_uses_cpu_time_and_sleep_does_not() -> None:
    before = this_process()
    time.sleep(0.05)
    idle = this_process().cpu_s - before.cpu_s
    while this_process().cpu_s - before.cpu_s < idle + 0.05:
        pass
    assert idle < 0.04
    assert this_process().memory_bytes > 10**6


def test_even_a_short_window_has_used_something() -> None:
    with energy_window(ModelledMeter()) as window:
        sum(range(1000))
    assert window.reading.joules is not None
    assert 0 < window.reading.joules < 1


def test_counters_win_part_by_part() -> None:
    meter = MachineMeter(rapl=counted("cpu", 5.0), nvml=counted("gpu", 7.0))
    with energy_window(meter) as window:
        pass
    parts = {part.component: part for part in window.reading.components}
    assert (parts["cpu"].basis, parts["cpu"].joules) == ("measured", 5.0)
    assert (parts["gpu"].basis, parts["gpu"].joules) == ("measured", 7.0)
    assert parts["memory"].basis == "modelled"
    assert window.reading.basis == "modelled", "one modelled part makes the sum a model"
    assert "memory modelled" in str(window.reading.reason)


def test_without_counters_the_model_says_why_it_stands_in() -> None:
    meter = MachineMeter(rapl=RaplMeter(ABSENT), nvml=NullMeter())
    with energy_window(meter) as window:
        pass
    assert window.reading.basis == "modelled"
    assert "no RAPL counters" in str(window.reading.reason)


def test_replay_hands_out_in_order_and_ends() -> None:
    meter = ReplayMeter.of_joules([1.0, 2.0])
    readings = []
    for _ in range(2):
        with energy_window(meter) as window:
            pass
        readings.append(window.reading.joules)
    assert readings == [1.0, 2.0]
    with pytest.raises(MeterError, match="no more windows"), energy_window(meter):
        pass


def test_null_is_none_with_its_reason() -> None:
    with energy_window(NullMeter("a test")) as window:
        pass
    assert window.reading.joules is None
    assert window.reading.kwh is None
    assert "a test" in str(window.reading.reason)


def test_an_open_window_cannot_be_read() -> None:
    with energy_window(NullMeter()) as window, pytest.raises(MeterError, match="still open"):
        _ = window.reading


def test_parts_without_a_figure_need_a_reason() -> None:
    with pytest.raises(UnitError, match="needs a reason"):
        ComponentReading(component="cpu", joules=None, basis="measured", source="x")
    with pytest.raises(UnitError, match="finite"):
        ComponentReading(component="cpu", joules=math.nan, basis="measured", source="x")


def test_no_parts_is_no_figure() -> None:
    reading = combine([], 1.0)
    assert reading.joules is None
    assert reading.reason


def test_an_unknown_meter_names_the_known() -> None:
    assert make_meter("null").name == "null"
    with pytest.raises(MeterError, match="Allowed: machine, process, modelled, null"):
        make_meter("watts")
