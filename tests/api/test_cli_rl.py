"""``greenboard rl train|tune|sweep`` on the toy, with tiny steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.algorithms import read_settings
from agent.errors import ComparisonError, RlTrainingError
from api.cli import rl
from distill.bundle import EVIDENCE, FILES, seal
from envs.toy import toy_evidence

RUNNER = CliRunner()
WORKLIST = "greenboard/CaseReview-v1"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bundle")
    for name in FILES:
        (folder / name).write_text("{}")
    toy_evidence(200).save(folder / EVIDENCE)
    seal(folder, {"cohort": "toy", "synthetic": True})
    return str(folder)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """Settings of a training that takes a blink."""
    path = tmp_path / "tiny.toml"
    path.write_text(
        "num_envs = 8\nn_steps = 32\nbatch_size = 128\nsteps = 256\nrollouts_per_chunk = 1\n"
        "eval_every = 1\neval_sessions = 4\nburn_in = 2\n"
    )
    return str(path)


def invoke(*arguments: str) -> Any:
    return RUNNER.invoke(rl.app, list(arguments))


@pytest.mark.parametrize("command", ["train", "tune", "sweep"])
def test_help_teaches(command: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert "Examples:" in done.stdout


def test_a_worklist_policy_is_trained_from_settings_in_a_file(
    bundle: str, tiny: str, tmp_path: Path
) -> None:
    out = tmp_path / "p"
    done = invoke(
        "train", "--bundle", bundle, "--out", str(out), "--env", WORKLIST, "--preset", "hard",
        "--settings", tiny, "--cases", "10", "--patience", "2", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    stored = json.loads((out / "policy.json").read_text())["provenance"]
    assert (stored["environment"], stored["preset"]) == (WORKLIST, "hard")
    assert stored["session_config"]["slots_per_hour"] == 1
    assert stored["config"]["patience"] == 2
    assert stored["validation_fold"] != stored["held_out_fold"] == 4
    assert len(stored["validation"]) == 2


def test_tuning_goes_on_where_it_was_and_prints_settings(
    bundle: str, tiny: str, tmp_path: Path
) -> None:
    out = tmp_path / "study"
    common = ("tune", "--bundle", bundle, "--out", str(out), "--settings", tiny, "--cases", "10")
    done = invoke(*common, "--trials", "1", "--rotations", "1")
    assert done.exit_code == 0, done.output
    read_settings(done.stdout, "stdout")
    more = invoke(*common, "--trials", "2", "--rotations", "1", "--json")
    assert more.exit_code == 0, more.output
    facts = json.loads(more.stdout)
    assert facts["trials"] == 2
    assert len(facts["validation_rewards"]) == 1
    assert [path.name for path in out.iterdir()] == ["study.sqlite"]
    assert (out / "study.sqlite").read_bytes().startswith(b"SQLite format 3")
    other = invoke(*common, "--trials", "2", "--rotations", "2")
    assert isinstance(other.exception, RlTrainingError)
    assert "study of other settings" in str(other.exception)


def test_a_sweep_trains_reports_and_is_not_repeated(bundle: str, tiny: str, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    common = (
        "sweep", "--bundle", bundle, "--out", str(out), "--algorithms", "maskable-ppo",
        "--folds", "3,4", "--seeds", "1", "--cases", "10", "--settings", tiny, "--sessions", "4",
    )  # fmt: skip
    done = invoke(*common, "--jobs", "2", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary == json.loads((out / "sweep.json").read_text())
    assert [run["status"] for run in summary["runs"]] == ["trained", "trained"]
    figure = summary["algorithms"]["maskable-ppo"]["held_out_reward"]
    assert figure["n"] == 2
    assert figure["ci95"][0] <= figure["value"] <= figure["ci95"][1]
    before = {p: p.stat().st_mtime_ns for p in out.rglob("weights.safetensors")}
    assert len(before) == 2
    again = invoke(*common)
    assert again.exit_code == 0, again.output
    assert {p: p.stat().st_mtime_ns for p in out.rglob("weights.safetensors")} == before


def test_a_failed_training_is_reported_and_stops_no_other(
    bundle: str, tiny: str, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    out.mkdir()
    (out / "maskable-ppo-fold3-seed0").write_text("in the way")
    done = invoke(
        "sweep", "--bundle", bundle, "--out", str(out), "--folds", "3,4", "--seeds", "1",
        "--cases", "10", "--settings", tiny, "--sessions", "4",
    )  # fmt: skip
    assert done.exit_code == 1
    assert "failed: maskable-ppo, fold 3, seed 0" in done.stderr
    summary = json.loads((out / "sweep.json").read_text())
    assert [run["status"] for run in summary["runs"]] == ["failed", "trained"]
    assert summary["failed"] == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("train", "--algorithm", "dqn"), RlTrainingError, "Unknown training preset 'dqn'"),
        (("train", "--env", "CaseReview"), ComparisonError, "Unknown environment"),
        (("train", "--settings", "none.toml"), RlTrainingError, "cannot be read"),
        (("tune", "--rotations", "9"), RlTrainingError, "from 1 to 4 folds"),
        (("sweep", "--folds", "a"), ComparisonError, "give numbers with commas"),
        (("sweep", "--folds", "1,1"), RlTrainingError, "each once"),
        (("sweep", "--algorithms", "ppo,dqn"), RlTrainingError, "Unknown training preset"),
    ],
)
def test_bad_input_is_one_clear_error(
    bundle: str, tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    done = invoke(*arguments, "--bundle", bundle, "--out", str(tmp_path / "o"), "--cases", "10")
    assert isinstance(done.exception, error)
    assert message in str(done.exception)
    assert not (tmp_path / "o").exists()
