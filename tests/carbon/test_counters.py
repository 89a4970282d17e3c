from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.counters import NvmlMeter, RaplMeter, RaplRun
from carbon.meter import ComponentReading, combine, energy_window

RANGE_UJ = 262_143_328_850


class FakeRapl:
    """A powercap tree as Linux shows it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def zone(self, folder: str, name: str, uj: int, range_uj: int = RANGE_UJ) -> Path:
        path = self.root / folder
        path.mkdir(parents=True)
        (path / "name").write_text(f"{name}\n")
        (path / "max_energy_range_uj").write_text(f"{range_uj}\n")
        self.set(folder, uj)
        return path

    def set(self, folder: str, uj: int) -> None:
        (self.root / folder / "energy_uj").write_text(f"{uj}\n")


@pytest.fixture
def rapl(tmp_path: Path) -> FakeRapl:
    fake = FakeRapl(tmp_path)
    fake.zone("intel-rapl:0", "package-0", 1_000_000)
    fake.zone("intel-rapl:0:0", "core", 500_000)
    fake.zone("intel-rapl:0:1", "dram", 200_000)
    fake.zone("intel-rapl:1", "package-1", 3_000_000)
    fake.zone("intel-rapl:2", "psys", 9_000_000)
    fake.zone("intel-rapl-mmio:0", "package-0", 1_000_000)
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "dtpm").mkdir()
    return fake


def by_component(parts: tuple[ComponentReading, ...]) -> dict[str, ComponentReading]:
    return {part.component: part for part in parts}


def test_packages_and_memory_each_once(rapl: FakeRapl) -> None:
    run = RaplMeter(rapl.root).begin()
    for folder, uj in {
        "intel-rapl:0": 3_000_000, "intel-rapl:0:0": 99_000_000, "intel-rapl:0:1": 700_000,
        "intel-rapl:1": 3_500_000, "intel-rapl:2": 99_000_000, "intel-rapl-mmio:0": 99_000_000,
    }.items():  # fmt: skip
        rapl.set(folder, uj)
    parts = by_component(run.end())
    assert parts["cpu"].joules == pytest.approx(2.5)
    assert parts["memory"].joules == pytest.approx(0.5)
    assert parts["cpu"].basis == "measured"
    assert "package-0, package-1" in parts["cpu"].source
    assert set(parts) == {"cpu", "memory"}


def test_a_counter_that_wraps_is_unrolled(rapl: FakeRapl) -> None:
    rapl.set("intel-rapl:0", RANGE_UJ - 1_000_000)
    run = RaplMeter(rapl.root).begin()
    rapl.set("intel-rapl:0", 499_999)
    assert by_component(run.end())["cpu"].joules == pytest.approx(1.5)


def test_samples_catch_every_wrap(rapl: FakeRapl) -> None:
    run = RaplMeter(rapl.root).begin()
    for _ in range(3):
        rapl.set("intel-rapl:0", RANGE_UJ - 1)
        run.sample()
        rapl.set("intel-rapl:0", 1_000_000)
        run.sample()
    expected = 3 * (RANGE_UJ + 1) / 1e6
    assert by_component(run.end())["cpu"].joules == pytest.approx(expected, rel=1e-9)
    assert run.sample_every_s is not None
    # At 1,000 W the counter comes round in 262 s: look at least twice in that time.
    assert run.sample_every_s <= RANGE_UJ / 1e6 / 1000 / 2


@settings(max_examples=25, deadline=None)  # each step writes a file
@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20), st.integers(0, 10**7))
def test_any_walk_of_steps_below_one_round_is_summed_exactly(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], start: int
) -> None:
    range_uj = 10**7
    fake = FakeRapl(tmp_path_factory.mktemp("rapl"))
    fake.zone("intel-rapl:0", "package-0", start, range_uj)
    run = RaplMeter(fake.root).begin()
    position = start
    for step in steps:
        position = (position + step) % (range_uj + 1)
        fake.set("intel-rapl:0", position)
        run.sample()
    joules = by_component(run.end())["cpu"].joules
    assert joules == pytest.approx(sum(steps) / 1e6)


def test_a_short_counter_is_watched_by_a_thread(
    rapl: FakeRapl, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"):
        (rapl.root / folder / "max_energy_range_uj").write_text("999999")
        rapl.set(folder, 900_000)
    looked = threading.Semaphore(0)
    sample = RaplRun.sample

    def counted(self: RaplRun) -> None:
        sample(self)
        looked.release()

    monkeypatch.setattr(RaplRun, "sample", counted)
    meter = RaplMeter(rapl.root)
    assert meter.begin().sample_every_s == 0.1
    with energy_window(meter) as window:
        for uj in (100_000, 900_000, 100_000):
            rapl.set("intel-rapl:0", uj)
            # The first look may have begun before the counter moved, the second did not.
            assert looked.acquire(timeout=10)
            assert looked.acquire(timeout=10)
    assert by_component(window.reading.components)["cpu"].joules == pytest.approx(1.2)


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj", "name"])
def test_an_unreadable_package_is_none_with_a_reason_not_half_a_sum(
    rapl: FakeRapl, file: str
) -> None:
    (rapl.root / "intel-rapl:1" / file).unlink()
    (rapl.root / "intel-rapl:1" / file).mkdir()  # reading it fails, also for root
    part = by_component(RaplMeter(rapl.root).begin().end())["cpu"]
    assert part.joules is None
    assert part.reason is not None
    assert f"intel-rapl:1/{file} cannot be read" in part.reason


def test_permission_denied_says_what_to_do(rapl: FakeRapl, monkeypatch: pytest.MonkeyPatch) -> None:
    read_text = Path.read_text

    def guarded(self: Path, *args: Any, **kwargs: Any) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", guarded)
    part = by_component(RaplMeter(rapl.root).begin().end())["cpu"]
    assert part.joules is None
    assert "root only unless access is granted" in str(part.reason)


def test_a_counter_that_vanishes_on_the_way_is_none(rapl: FakeRapl) -> None:
    run = RaplMeter(rapl.root).begin()
    (rapl.root / "intel-rapl:0" / "energy_uj").write_text("garbage")
    part = by_component(run.end())["cpu"]
    assert part.joules is None
    assert "garbage" in str(part.reason)


def test_no_tree_and_no_package_are_reasons(tmp_path: Path) -> None:
    (missing,) = RaplMeter(tmp_path / "none").begin().end()
    (empty,) = RaplMeter(tmp_path).begin().end()
    assert missing.joules is None
    assert "no RAPL counters at" in str(missing.reason)
    assert "no RAPL package under" in str(empty.reason)
    assert RaplMeter(tmp_path).begin().sample_every_s is None


class FakeNvml:
    """The four functions of nvidia-ml-py that are called."""

    class NVMLError(Exception):
        pass

    def __init__(self, mj: list[int], *, broken: str = "") -> None:
        self.mj = mj
        self.broken = broken
        self.inits = 0

    def _maybe_fail(self, step: str) -> None:
        if step == self.broken:
            raise self.NVMLError(f"{step} failed")

    def nvmlInit(self) -> None:
        self.inits += 1
        self._maybe_fail("init")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.mj)

    def nvmlDeviceGetHandleByIndex(self, i: int) -> int:
        return i

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:
        self._maybe_fail("energy")
        return self.mj[handle]


def test_all_gpus_are_summed() -> None:
    library = FakeNvml([5_000, 7_000])
    meter = NvmlMeter(library)
    run = meter.begin()
    library.mj = [6_500, 9_000]
    (part,) = run.end()
    assert (part.component, part.joules, part.basis) == ("gpu", 3.5, "measured")
    assert "2 GPU" in part.source
    meter.begin()
    assert library.inits == 1


@pytest.mark.parametrize(
    ("library", "says"),
    [
        (FakeNvml([1], broken="init"), "no NVIDIA GPU can be asked"),
        (FakeNvml([1], broken="energy"), "energy counter cannot be read"),
        (FakeNvml([]), "there is no NVIDIA GPU"),
    ],
)
def test_a_gpu_that_cannot_be_read_is_none_with_a_reason(library: FakeNvml, says: str) -> None:
    (part,) = NvmlMeter(library).begin().end()
    assert part.joules is None
    assert says in str(part.reason)


def test_a_gpu_counter_that_fails_or_restarts_midway_is_none() -> None:
    library = FakeNvml([5_000])
    failing, restarted = NvmlMeter(library).begin(), NvmlMeter(library).begin()
    library.mj = [10]
    assert "driver was reloaded" in str(restarted.end()[0].reason)
    library.broken = "energy"
    assert failing.end()[0].joules is None


def test_a_total_says_what_it_leaves_out(rapl: FakeRapl) -> None:
    run = RaplMeter(rapl.root).begin()
    rapl.set("intel-rapl:0", 2_000_000)
    (gpu,) = NvmlMeter(FakeNvml([1], broken="energy")).begin().end()
    reading = combine([*run.end(), gpu], 1.0)
    assert reading.joules == pytest.approx(1.0)
    assert reading.basis == "measured"
    assert reading.reason is not None
    assert "gpu left out" in reading.reason
