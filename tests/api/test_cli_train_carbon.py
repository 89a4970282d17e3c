from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from agent.errors import AgentError
from api.cli.carbon_aware import GridMinding
from api.cli.train import train
from api.errors import CommandError
from distill.cohort_write import write_cohort
from distill.errors import BudgetSpentError, TrainingError
from distill.synthetic import SyntheticConfig, make_synthetic

app = typer.Typer()
app.command("train")(train)


class ReachedError(Exception):
    """Training would begin here."""


@pytest.fixture(scope="module")
def cohort_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cohorts") / "synthetic"
    config = SyntheticConfig(n_patients=120, n_hospitals=12, n_simulated=1000)
    write_cohort(make_synthetic(config)[0], path)
    return path


@pytest.fixture
def began(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def build(cohort: Path, out: Path, **given: Any) -> None:
        seen.update(given, out=out)
        raise seen.get("error", ReachedError)

    monkeypatch.setattr("agent.build.build_bundle", build)
    return seen


def run(cohort_path: Path, tmp_path: Path, *options: str):
    arguments = ["--cohort", str(cohort_path), "--out", str(tmp_path / "bundle"), *options]
    return CliRunner().invoke(app, arguments)


def test_without_its_options_training_minds_nothing(cohort_path, tmp_path, began):
    assert isinstance(run(cohort_path, tmp_path).exception, ReachedError)
    assert began["carbon"] is None
    assert began["config"].epochs == 200


def test_carbon_aware_stands_for_fewer_epochs_and_a_day_in_simulated_time(
    cohort_path, tmp_path, began
):
    result = run(cohort_path, tmp_path, "--carbon-aware", "--grid", "synthetic")
    assert isinstance(result.exception, ReachedError)
    assert began["config"].epochs == 100
    assert began["carbon"].deadline_h == 24.0
    assert began["carbon"].folder == tmp_path / "bundle.checkpoint"
    before = began["clock"]()
    began["sleep"](7200.0)
    assert 7200 <= (began["clock"]() - before).total_seconds() < 7260


def test_single_options_reach_the_run(cohort_path, tmp_path, began):
    result = run(
        cohort_path, tmp_path, "--carbon-budget", "0.5", "--epochs", "12", "--temperature", "3",
        "--anneal", "carbon", "--rate-by-intensity", "1", "--checkpoint", str(tmp_path / "kept"),
        "--resume",
    )  # fmt: skip
    assert isinstance(result.exception, ReachedError)
    carbon = began["carbon"]
    assert carbon.settings.budget_g_co2e == 0.5
    assert (carbon.settings.temperature, carbon.settings.anneal) == (3.0, "carbon")
    assert carbon.settings.rate_by_intensity == 1.0
    assert (carbon.folder, carbon.resume, carbon.deadline_h) == (tmp_path / "kept", True, None)
    assert began["config"].epochs == 12


def test_fewer_epochs_alone_are_no_reason_to_mind_the_grid(cohort_path, tmp_path, began):
    assert isinstance(run(cohort_path, tmp_path, "--epochs", "12").exception, ReachedError)
    assert began["carbon"] is None
    assert began["config"].epochs == 12


def test_a_deadline_on_a_live_grid_needs_to_wait_really(cohort_path, tmp_path, began):
    result = run(cohort_path, tmp_path, "--deadline-h", "12", "--grid", "neso")
    assert isinstance(result.exception, CommandError)
    assert "Add --wait-for-clean" in str(result.exception)
    assert not began
    real = object()
    assert GridMinding(deadline_h=12.0).timing(real, wait=True, chosen=None) is real


def test_a_deadline_without_a_grid_and_one_that_is_too_near_are_refused(
    cohort_path, tmp_path, began
):
    result = run(cohort_path, tmp_path, "--deadline-h", "12")
    assert isinstance(result.exception, CommandError)
    assert "none was named" in str(result.exception)
    result = run(cohort_path, tmp_path, "--deadline-h", "1", "--grid", "synthetic")
    assert isinstance(result.exception, AgentError)
    assert "nothing could be put off" in str(result.exception)


@pytest.mark.parametrize("bad", [
    ("--carbon-budget", "0"), ("--carbon-budget", "nan"), ("--temperature", "-1"),
    ("--rate-by-intensity", "inf"),
])  # fmt: skip
def test_numbers_that_make_no_sense_are_refused_before_training(cohort_path, tmp_path, began, bad):
    result = run(cohort_path, tmp_path, *bad)
    assert isinstance(result.exception, TrainingError)
    assert "must be finite and" in str(result.exception)
    assert not began


def test_a_spent_budget_ends_with_code_3_and_says_how_to_go_on(cohort_path, tmp_path, began):
    began["error"] = BudgetSpentError("Stopped: of 0.1 gCO2e 0.1 are spent.")
    result = run(cohort_path, tmp_path, "--carbon-budget", "0.1")
    assert result.exit_code == 3
    assert "Stopped: of 0.1 gCO2e" in result.stderr
    assert "bundle.checkpoint" in result.stderr
    assert "--resume" in result.stderr


def test_a_dry_run_plans_within_the_deadline_and_trains_nothing(cohort_path, tmp_path, began):
    result = run(
        cohort_path, tmp_path, "--deadline-h", "10", "--duration-h", "2", "--grid", "synthetic",
        "--dry-run",
    )  # fmt: skip
    assert result.exit_code == 0
    assert "may wait 8 h" in result.stdout
    assert not began


def test_help_names_every_option_and_gives_examples():
    text = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout.split())
    for option in ("--carbon-aware", "--carbon-budget", "--deadline-h", "--temperature",
                   "--rate-by-intensity", "--checkpoint", "--resume"):  # fmt: skip
        assert option in text
    assert "greenboard train --cohort cohort --out bundle --grid neso --carbon-budget 0.5" in text
