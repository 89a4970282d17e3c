from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon.attribution import AttributedMeter, CpuShare, attribute, machine_busy_s
from carbon.backends import MachineMeter, ModelledMeter, NullMeter, ProcessUse, make_meter
from carbon.counters import RaplMeter
from carbon.meter import ComponentReading, energy_window


def counted(component: str, joules: float | None) -> ComponentReading:
    return ComponentReading(
        component=component,  # type: ignore[arg-type]
        joules=joules, basis="measured", source="rapl package-0 (whole machine)",
        reason=None if joules is not None else "permission denied",
    )  # fmt: skip


def test_by_hand() -> None:
    part = attribute(counted("cpu", 200.0), CpuShare(process_s=2.0, machine_s=8.0))
    assert (part.joules, part.basis) == (50.0, "modelled")
    assert part.source == "rapl package-0 (whole machine) x this process's share of CPU time"
    assert part.reason is not None
    assert "whole machine's 200 J" in part.reason
    assert "2.000 of 8.000 s (25.0%)" in part.reason


@given(st.floats(0, 1e9), st.lists(st.floats(0, 1e6), min_size=1, max_size=6))
def test_the_parts_of_all_processes_are_the_whole(joules: float, cpu_s: list[float]) -> None:
    machine_s = sum(cpu_s)
    parts = [
        attribute(counted("cpu", joules), CpuShare(process_s=s, machine_s=machine_s)).joules
        for s in cpu_s
    ]
    if machine_s > 0:
        assert sum(p or 0.0 for p in parts) == pytest.approx(joules)
        assert all(p is not None and 0 <= p <= joules for p in parts)
    else:
        assert parts == [None] * len(parts)


def test_what_cannot_be_shared_out_says_why() -> None:
    short = attribute(counted("cpu", 3.0), CpuShare(process_s=0.001, machine_s=0.0))
    assert short.joules is None
    assert "counted 3 J for the whole machine" in str(short.reason)
    missing = counted("cpu", None)
    assert attribute(missing, CpuShare(process_s=1.0, machine_s=1.0)) is missing
    gpu = attribute(counted("gpu", 9.0), CpuShare(process_s=1.0, machine_s=4.0))
    assert (gpu.joules, gpu.basis) == (9.0, "measured")
    assert "whole devices" in str(gpu.reason)
    assert CpuShare(process_s=2.0, machine_s=1.0).share == 1.0


def rapl(tmp_path: Path) -> Path:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    (zone / "energy_uj").write_text("1000000\n")
    return zone / "energy_uj"


def test_a_window_gives_the_process_its_share(tmp_path: Path) -> None:
    counter = rapl(tmp_path)
    clock = {"process": 10.0, "machine": 100.0}

    def probe() -> ProcessUse:
        return ProcessUse(cpu_s=clock["process"], memory_bytes=0)

    meter = MachineMeter(
        rapl=AttributedMeter(
            RaplMeter(tmp_path), probe=probe, busy_s=lambda: clock["machine"]
        ),
        nvml=NullMeter("no GPU"), model=ModelledMeter(probe=probe), name="process",
    )  # fmt: skip
    with energy_window(meter) as window:
        counter.write_text("9000000\n")
        clock |= {"process": 11.0, "machine": 104.0}
    cpu = next(part for part in window.reading.components if part.component == "cpu")
    assert cpu.joules == pytest.approx(2.0)
    assert cpu.basis == "modelled"
    assert window.reading.basis == "modelled"
    assert "whole machine's 8 J" in str(window.reading.reason)


def test_the_machines_own_clock_moves_with_work() -> None:
    before = machine_busy_s()
    assert sum(i * i for i in range(3_000_000)) > 0
    assert machine_busy_s() >= before


def test_it_can_be_chosen_by_name() -> None:
    meter = make_meter("process")
    assert meter.name == "process"
    with energy_window(meter) as window:
        assert sum(range(1000)) > 0
    assert {part.component for part in window.reading.components} >= {"cpu", "memory"}
