from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from api.cli.evaluate import evaluate
from api.cli.train import train
from distill.cohort_write import write_cohort
from distill.config import TrainConfig
from distill.errors import BundleError, TrainingError
from distill.synthetic import SyntheticConfig, make_synthetic

app = typer.Typer()
app.command("train")(train)
app.command("evaluate")(evaluate)


@pytest.fixture(scope="module")
def cohort_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cohorts") / "synthetic"
    config = SyntheticConfig(
        n_patients=240, n_hospitals=15, n_simulated=1000, privileged=("proteomics", "radiomics")
    )
    write_cohort(make_synthetic(config)[0], path)
    return path


@pytest.fixture
def small_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(name: str, *, seed: int = 0, threads: int = 0) -> TrainConfig:
        return replace(
            TrainConfig(seed=seed, threads=1), epochs=2, screen_to=8, screen_trees=5,
            boosting_rounds=8, synthetic_rows=64, width=8, latent=4, token=8, heads=2,
            calibration_folds=1, boosted_baselines=False,
        )  # fmt: skip

    monkeypatch.setattr(TrainConfig, "preset", tiny)


@pytest.mark.usefixtures("small_preset")
def test_train_then_evaluate(cohort_path: Path, tmp_path: Path):
    runner = CliRunner()
    bundle, figures = tmp_path / "bundle", tmp_path / "figures.json"
    arguments = ["train", "--cohort", str(cohort_path), "--out", str(bundle), "--json"]
    result = runner.invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["full"]["auc"]["n"] == 240
    assert "late_fusion" in shown["baselines"]
    arguments = ["evaluate", "--bundle", str(bundle), "--cohort", str(cohort_path), "--json",
                 str(figures)]  # fmt: skip
    result = runner.invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "SYNTHETIC" in result.stdout
    assert "were in training" in result.stderr
    assert set(json.loads(figures.read_text())) >= {"full", "evidence", "single", "notes"}


def test_bad_input_raises_one_clear_error(cohort_path: Path, tmp_path: Path):
    runner = CliRunner()
    arguments = ["train", "--cohort", str(cohort_path), "--out", str(tmp_path / "b")]
    result = runner.invoke(app, [*arguments, "--preset", "quik"])
    assert isinstance(result.exception, TrainingError)
    result = runner.invoke(app, ["evaluate", "--bundle", str(tmp_path), "--cohort", "x"])
    assert isinstance(result.exception, BundleError)
    assert list(tmp_path.iterdir()) == []


def test_help_teaches_with_examples():
    for command in ("train", "evaluate"):
        text = CliRunner().invoke(app, [command, "--help"]).stdout
        assert f"greenboard {command}" in text
