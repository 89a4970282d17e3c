from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from agent.build import build_bundle, train_carbon_aware
from agent.carbon_training import CarbonOptions, Deferral, HourlyTally, SimulatedClock
from agent.errors import AgentError
from carbon.backends import ModelledMeter, NullMeter, ProcessUse
from carbon.entries import LedgerEntry
from carbon.errors import IntensityError
from carbon.intensity.protocol import IntensityReading
from carbon.intensity.recorded import RecordedSource
from carbon.intensity.trace import Trace
from carbon.ledger import Ledger
from carbon.monitor import CarbonMonitor
from distill.carbon_book import CarbonSettings
from distill.cohort import read_cohort
from distill.cohort_write import write_cohort
from distill.config import TrainConfig
from distill.errors import BudgetSpentError
from distill.synthetic import SyntheticConfig, make_synthetic

START = datetime(2024, 5, 3, 6, 30, tzinfo=UTC)
FAST = replace(
    TrainConfig.preset("quick", threads=1),
    epochs=2, screen_to=8, screen_trees=5, boosting_rounds=8, synthetic_rows=64, width=8,
    latent=4, token=8, heads=2, calibration_folds=1,
)  # fmt: skip


class Clock:
    """Moves only when told to."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def daily(dirty: float = 400.0, clean: float = 100.0) -> RecordedSource:
    """Five days that are clean from 10 to 12 o'clock and dirty otherwise."""
    hours = np.arange(np.datetime64("2024-05-01T00", "h"), np.datetime64("2024-05-06T00", "h"))
    of_day = np.arange(hours.size) % 24
    return RecordedSource(
        Trace(
            name="made up", zone="nowhere", basis="average-direct-unstated", time_utc=hours,
            g_per_kwh=np.where((of_day >= 10) & (of_day < 12), clean, dirty).astype(np.float64),
            estimated=np.zeros(hours.size, dtype=bool),
        )
    )  # fmt: skip


def make_monitor(clock: Clock, source=None, ledger: Path | None = None, meter=None):
    counted = {"cpu_s": 0.0}

    def probe() -> ProcessUse:
        counted["cpu_s"] += 0.5
        return ProcessUse(cpu_s=counted["cpu_s"], memory_bytes=0)

    return CarbonMonitor(
        source=source or daily(), clock=clock,
        meter=meter or ModelledMeter(probe=probe, monotonic=lambda: 0.0),
        ledger=None if ledger is None else Ledger(ledger),
    )  # fmt: skip


def deferral(clock: Clock, deadline_h: float = 24.0, duration_h: float = 2.0, source=None):
    return Deferral(
        make_monitor(clock, source), clock=clock, sleep=clock.sleep, deadline_h=deadline_h,
        duration_h=duration_h, power_w=12.0,
    )  # fmt: skip


def test_waits_for_the_clean_hours_and_then_goes_on_without_asking():
    clock = Clock()
    wait = deferral(clock)
    assert wait(1.0) == pytest.approx(3.5, abs=0.01)
    assert clock.at.hour == 10
    assert wait(0.9) == 0.0
    assert [round(w["hours"], 1) for w in wait.waits] == [3.5]


def test_pauses_again_when_a_dirty_hour_begins_and_never_beyond_the_deadline():
    clock = Clock(START.replace(hour=10, minute=0))
    wait = deferral(clock, deadline_h=30.0, duration_h=4.0)
    assert wait(1.0) == 0.0
    clock.sleep(2 * 3600)  # it is noon, half of the work is done
    assert wait(0.5) == pytest.approx(22.0, abs=0.01)
    clock.sleep(2 * 3600)
    assert wait(0.4) == 0.0  # 1.6 h of work in 4 h: the next clean hours are too late


def test_does_not_wait_where_nothing_is_foreseen():
    class Unknown:
        name, basis = "none", "average-direct-unstated"

        def now(self, at: datetime) -> IntensityReading:
            raise IntensityError("no answer")

        def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
            raise IntensityError("no answer")

    clock = Clock()
    wait = deferral(clock, source=Unknown())
    assert wait(1.0) == 0.0
    assert clock.at == START
    assert "no answer" in wait.waits[0]["note"]
    assert HourlyTally(make_monitor(clock, Unknown()), clock=clock).intensity() is None


def test_a_deadline_that_leaves_nothing_to_put_off_is_refused():
    with pytest.raises(AgentError, match="deadline is 1 h away and the run takes 2 h"):
        CarbonOptions(settings=CarbonSettings(), deadline_h=1.0, duration_h=2.0)


def test_a_live_reading_that_is_hours_old_counts_as_unknown_and_a_recording_does_not():
    class Old:
        name, basis = "live", "average-direct-unstated"

        def __init__(self, age_s: float, provider: str) -> None:
            self.age_s, self.provider = age_s, provider

        def now(self, at: datetime) -> IntensityReading:
            return IntensityReading(
                g_per_kwh=200.0, zone="GB", time=at - timedelta(seconds=self.age_s),
                basis="average-direct-unstated", provider=self.provider, kind="measured",
                age_s=self.age_s,
            )  # fmt: skip

        def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
            return ()

    def seen(age_s: float, provider: str) -> float | None:
        clock = Clock()
        return HourlyTally(make_monitor(clock, Old(age_s, provider)), clock=clock).intensity()

    assert seen(3600.0, "neso") == 200.0
    assert seen(3 * 3600.0, "neso") is None
    assert seen(1e8, "recorded:em_gb") == 200.0


def test_energy_is_booked_by_the_hour_at_that_hour_s_intensity(tmp_path: Path):
    clock = Clock(START.replace(hour=9, minute=30))
    monitor = make_monitor(clock, ledger=tmp_path / "ledger.jsonl")
    tally = HourlyTally(monitor, clock=clock, monotonic=lambda: 0.0)
    tally.energy_kwh()
    clock.sleep(3600)
    spent = tally.energy_kwh()
    entries = tally.book("train", "why")
    assert [e.intensity.g_per_kwh for e in entries] == [400.0, 100.0]
    assert sum(e.energy_kwh for e in entries) == pytest.approx(spent * 1.5)
    assert all(e.g_co2e == pytest.approx(e.energy_kwh * e.intensity.g_per_kwh) for e in entries)
    assert {e.energy_basis for e in entries} == {"modelled"}


def test_a_meter_without_a_figure_gives_none():
    clock = Clock()
    tally = HourlyTally(make_monitor(clock, meter=NullMeter()), clock=clock)
    assert tally.energy_kwh() is None
    assert tally.book("train", "")[0].energy_kwh is None


def test_a_simulated_clock_goes_on_by_itself_and_skips_what_is_slept():
    base = Clock()
    clock = SimulatedClock(base)
    clock.sleep(7200.0)
    base.sleep(60)
    assert clock() == START + timedelta(seconds=7260)


@pytest.fixture(scope="module")
def cohort_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cohorts") / "synthetic"
    config = SyntheticConfig(n_patients=240, n_hospitals=15, n_simulated=1000,
                             privileged=("proteomics", "radiomics"))  # fmt: skip
    write_cohort(make_synthetic(config)[0], path)
    return path


def test_a_bundle_within_its_budget_waits_and_tells_everything(cohort_path: Path, tmp_path: Path):
    clock = Clock()
    settings = CarbonSettings(budget_g_co2e=1e6, keep_every_s=0.0)
    options = CarbonOptions(
        settings=settings, deadline_h=24.0, duration_h=1.0, folder=tmp_path / "kept"
    )
    record = build_bundle(
        cohort_path, tmp_path / "bundle", config=FAST, created=START, carbon=options, clock=clock,
        monitor=make_monitor(clock, ledger=tmp_path / "ledger.jsonl"), sleep=clock.sleep,
    )  # fmt: skip
    aware = record["carbon_aware"]
    assert aware["budget_g_co2e"] == 1e6
    assert aware["stopped"] == "every epoch done"
    assert aware["waited_h"] == pytest.approx(3.5, abs=0.01)
    assert set(aware["epochs"]) == {2}
    assert record["g_co2e"]["value"] == pytest.approx(aware["g_co2e"], rel=0.05)
    assert record["intensity"]["g_per_kwh"] == 100.0
    metrics = json.loads((tmp_path / "bundle" / "metrics.json").read_text())
    assert metrics["training"]["carbon_aware"] == json.loads(json.dumps(aware))
    entries = [e for e in Ledger(tmp_path / "ledger.jsonl").entries() if isinstance(e, LedgerEntry)]
    assert {e.stage for e in entries} == {"train"}
    assert "every epoch done" in entries[0].note
    assert "put off" in (tmp_path / "bundle" / "card.md").read_text()
    assert not (tmp_path / "kept").exists()


def test_a_budget_that_does_not_reach_is_booked_and_leaves_a_run_to_resume(
    cohort_path: Path, tmp_path: Path
):
    clock, ledger, folder = Clock(), tmp_path / "ledger.jsonl", tmp_path / "kept"
    options = CarbonOptions(settings=CarbonSettings(budget_g_co2e=1e-3), folder=folder)
    with pytest.raises(BudgetSpentError, match="students are still to be trained"):
        train_carbon_aware(
            read_cohort(cohort_path), FAST, make_monitor(clock, ledger=ledger), options,
            clock=clock, sleep=clock.sleep,
        )  # fmt: skip
    booked = [e for e in Ledger(ledger).entries() if isinstance(e, LedgerEntry)]
    assert sum(e.g_co2e for e in booked) > 0
    assert "stopped on the way" in booked[0].note
    assert (folder / "run.json").is_file()
