"""``--wait-for-clean`` and ``--dry-run`` of the commands that train."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.cli import rl, train, waiting
from api.errors import CommandError
from carbon.entries import LedgerEntry
from carbon.errors import UnitError
from carbon.ledger import read_ledger
from distill.bundle import EVIDENCE, FILES, seal
from distill.cohort_write import write_cohort
from distill.config import TrainConfig
from distill.errors import CohortError
from distill.synthetic import SyntheticConfig, make_synthetic
from envs.toy import toy_evidence

START = datetime(2024, 1, 3, 5, 30, tzinfo=UTC)
RUNNER = CliRunner()


def app() -> typer.Typer:
    whole = typer.Typer()
    whole.command("train")(train.train)
    whole.add_typer(rl.app, name="rl")
    return whole


class Clock:
    """The present; sleeping moves it, or is interrupted."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.at, self.naps, self.interrupt_after = START, 0, interrupt_after

    def __call__(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        if self.naps == self.interrupt_after:
            raise KeyboardInterrupt
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (train, rl):
        monkeypatch.setattr(
            module, "Timing", lambda: waiting.Timing(clock=clock, sleep=clock.sleep)
        )
    return clock


@pytest.fixture
def grid(tmp_path: Path) -> str:
    """200 g/kWh before noon, 100 from noon on, each day."""
    first = datetime(2023, 12, 20, tzinfo=UTC)
    rows = (
        f"{first + timedelta(hours=i):%Y-%m-%d %H:%M},{200 if i % 24 < 12 else 100}\n"
        for i in range(24 * 20)
    )
    file = tmp_path / "grid.csv"
    file.write_text("time_utc,ci_direct\n" + "".join(rows))
    return str(file)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("cohorts") / "synthetic"
    config = SyntheticConfig(
        n_patients=240, n_hospitals=15, n_simulated=1000, privileged=("proteomics", "radiomics")
    )
    write_cohort(make_synthetic(config)[0], path)
    return str(path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bundle")
    for name in FILES:
        (folder / name).write_text("{}")
    toy_evidence(600).save(folder / EVIDENCE)
    seal(folder, {"cohort": "toy", "synthetic": True})
    return str(folder)


@pytest.fixture
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(name: str, *, seed: int = 0, threads: int = 0) -> TrainConfig:
        return replace(
            TrainConfig(seed=seed, threads=1), epochs=2, screen_to=8, screen_trees=5,
            boosting_rounds=8, synthetic_rows=64, width=8, latent=4, token=8, heads=2,
            calibration_folds=1, boosted_baselines=False,
        )  # fmt: skip

    monkeypatch.setattr(TrainConfig, "preset", tiny)


def invoke(*arguments: str) -> Any:
    return RUNNER.invoke(app(), list(arguments))


@pytest.mark.usefixtures("clock", "small_preset")
def test_a_dry_run_tells_the_plan_and_writes_nothing(
    cohort: str, bundle: str, grid: str, tmp_path: Path
) -> None:
    out, ledger = tmp_path / "out", tmp_path / "ledger.jsonl"
    commands = (
        ["train", "--cohort", cohort, "--trace", grid],
        ["rl", "train", "--bundle", bundle, "--grid-trace", grid],
    )
    for command in commands:
        command.extend(["--ledger", str(ledger)])
        result = invoke(*command, "--out", str(out), "--dry-run", "--duration-h", "2")
        assert result.exit_code == 0, result.output
        assert "start: 2024-01-03 12:00 UTC" in result.stdout
        assert "started now" in result.stdout
        assert "by forecast, an estimate" in result.stdout
        told = invoke(*command, "--out", str(out), "--dry-run", "--json")
        body = json.loads(told.stdout)
        assert body["plan"][0]["start"] == "2024-01-03T12:00:00Z"
        assert body["saved_g_co2e"]["value"] == pytest.approx(1.2, rel=0.05)
    assert not out.exists()
    assert not ledger.exists()


@pytest.mark.usefixtures("small_preset")
def test_training_waits_runs_and_says_what_that_saved_by_estimate(
    cohort: str, grid: str, tmp_path: Path, clock: Clock
) -> None:
    out, ledger = tmp_path / "bundle", tmp_path / "ledger.jsonl"
    result = invoke(
        "train", "--cohort", cohort, "--out", str(out), "--trace", grid, "--wait-for-clean",
        "--slack-h", "12", "--ledger", str(ledger),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert clock.at == datetime(2024, 1, 3, 12, tzinfo=UTC)
    assert result.stderr.count("start: 2024-01-03 12:00 UTC") == 7, "asked at each hour"
    assert "waited 6.5 h; saved" in result.stdout
    assert "by estimate" in result.stdout
    training = json.loads((out / "metrics.json").read_text())["training"]
    record = training["waiting"]
    assert record["begun_at"] == "2024-01-03T12:00:00+00:00"
    assert record["saved_g_co2e"]["value"] == pytest.approx(100 * training["energy_kwh"]["value"])
    entries = [e for e in read_ledger(ledger) if isinstance(e, LedgerEntry)]
    assert [e.stage for e in entries] == ["train", "train: wait"]
    assert "by estimate" in entries[1].note


def test_a_policy_waits_too(bundle: str, grid: str, tmp_path: Path, clock: Clock) -> None:
    out, ledger = tmp_path / "policy", tmp_path / "ledger.jsonl"
    result = invoke(
        "rl", "train", "--bundle", bundle, "--out", str(out), "--steps", "1", "--json",
        "--grid-trace", grid, "--wait-for-clean", "--ledger", str(ledger),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads((out / "waiting.json").read_text())
    assert json.loads(result.stdout)["waiting"] == record
    assert record["waited_h"] == 6.5
    entries = [e for e in read_ledger(ledger) if isinstance(e, LedgerEntry)]
    assert [e.stage for e in entries] == ["rl train", "rl train: wait"]


@pytest.mark.usefixtures("small_preset")
@pytest.mark.parametrize("what", ["train", "rl"])
def test_ctrl_c_while_waiting_leaves_nothing(
    what: str, cohort: str, bundle: str, grid: str, tmp_path: Path, clock: Clock
) -> None:
    clock.interrupt_after = 200
    out, ledger = tmp_path / "out", tmp_path / "ledger.jsonl"
    command = {
        "train": ["train", "--cohort", cohort, "--trace", grid],
        "rl": ["rl", "train", "--bundle", bundle, "--grid-trace", grid],
    }[what]
    result = invoke(*command, "--out", str(out), "--wait-for-clean", "--ledger", str(ledger))
    assert result.exit_code == 130
    assert "stopped while waiting: nothing was run or written" in result.stderr
    assert not out.exists()
    assert not ledger.exists() or ledger.read_bytes() == b""


@pytest.mark.usefixtures("clock", "small_preset")
def test_what_can_be_known_to_fail_fails_before_the_wait(
    cohort: str, bundle: str, grid: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    here = ("--out", out, "--wait-for-clean")
    no_cohort = invoke("train", "--cohort", str(tmp_path / "none"), *here, "--trace", grid)
    assert isinstance(no_cohort.exception, CohortError)
    for command in (("train", "--cohort", cohort), ("rl", "train", "--bundle", bundle)):
        result = invoke(*command, *here)
        assert isinstance(result.exception, CommandError)
        assert "--grid neso" in str(result.exception)
        result = invoke(*command, *here, "--grid", "trace")
        assert isinstance(result.exception, CommandError)
        for bad in (("--slack-h", "-1"), ("--duration-h", "nan")):
            result = invoke(*command, *here, "--grid", "synthetic", *bad)
            assert isinstance(result.exception, UnitError)
    assert not Path(out).exists()
