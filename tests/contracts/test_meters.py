"""Every meter must behave like this, whatever it reads from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from carbon.attribution import AttributedMeter
from carbon.backends import (
    METERS,
    MachineMeter,
    ModelledMeter,
    NullMeter,
    ReplayMeter,
    make_meter,
)
from carbon.counters import NvmlMeter, RaplMeter
from carbon.meter import Component, EnergyBasis, Meter, MeterRun, energy_window

ABSENT = Path("/nonexistent/powercap")
MADE: dict[str, Callable[[], Meter]] = {
    "machine": MachineMeter,
    "machine without RAPL": lambda: MachineMeter(rapl=RaplMeter(ABSENT)),
    "modelled": ModelledMeter,
    "null": NullMeter,
    "replay": lambda: ReplayMeter.of_joules([1.0] * 100),
    "rapl absent": lambda: RaplMeter(ABSENT),
    "nvml": NvmlMeter,
    "process": lambda: make_meter("process"),
    "process, RAPL absent": lambda: AttributedMeter(RaplMeter(ABSENT)),
}


@pytest.fixture(params=sorted(MADE))
def meter(request: pytest.FixtureRequest) -> Meter:
    made: Meter = MADE[request.param]()
    return made


def test_every_named_meter_is_under_contract() -> None:
    assert set(METERS) <= set(MADE)


def test_it_is_a_meter(meter: Meter) -> None:
    assert isinstance(meter, Meter)
    assert isinstance(meter.begin(), MeterRun)
    assert meter.name


def test_a_figure_or_a_reason_never_an_empty_zero(meter: Meter) -> None:
    with energy_window(meter) as window:
        sum(i * i for i in range(20_000))
    reading = window.reading
    assert reading.basis in get_args(EnergyBasis)
    assert reading.source
    assert reading.seconds > 0
    assert reading.components
    for part in reading.components:
        assert part.component in get_args(Component)
        assert part.joules is None or part.joules >= 0
        assert part.joules is not None or part.reason
        assert part.basis == "measured" or part.reason, "a model says why it stands in"
    known = [part.joules for part in reading.components if part.joules is not None]
    assert reading.joules == (sum(known) if known else None)
    assert (reading.kwh is None) == (reading.joules is None)
    if reading.joules is None:
        assert reading.reason


def test_windows_follow_one_another(meter: Meter) -> None:
    for _ in range(3):
        with energy_window(meter) as window:
            pass
        assert window.reading.seconds >= 0


def test_the_reading_is_there_when_the_work_fails(meter: Meter) -> None:
    with pytest.raises(KeyError), energy_window(meter) as window:
        raise KeyError("work failed")
    assert window.reading.components


def test_no_thread_is_left_behind(meter: Meter) -> None:
    before = threading.active_count()
    with energy_window(meter):
        pass
    assert threading.active_count() == before
