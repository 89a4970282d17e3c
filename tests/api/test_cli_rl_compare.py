"""``greenboard rl train`` and ``greenboard compare`` from the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from agent.errors import AgentError, ComparisonError, RlTrainingError
from api.cli import compare, rl
from distill.bundle import EVIDENCE, FILES, seal
from distill.errors import BundleError
from envs.toy import toy_evidence

RUNNER = CliRunner()


def app() -> typer.Typer:
    whole = typer.Typer()
    whole.add_typer(rl.app, name="rl")
    whole.command("compare")(compare.compare)
    return whole


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sealed bundle whose evidence is the toy table; the student is not needed here."""
    folder = tmp_path_factory.mktemp("bundle")
    for name in FILES:
        (folder / name).write_text("{}")
    toy_evidence(600).save(folder / EVIDENCE)
    seal(folder, {"cohort": "toy", "synthetic": True})
    return str(folder)


def test_a_policy_is_trained_compared_and_reported(bundle: str, tmp_path: Path) -> None:
    policy, out = tmp_path / "p", tmp_path / "report"
    done = RUNNER.invoke(
        app(), ["rl", "train", "--bundle", bundle, "--out", str(policy), "--steps", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["steps"], facts["fold"]) == (8192, 4)
    done = RUNNER.invoke(
        app(),
        ["compare", "--bundle", bundle, "--out", str(out), "--policies", f"rule,price,{policy}",
         "--sessions", "8"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "has the highest reward" in done.stdout
    assert f"report: {out / 'report.html'}" in done.stdout
    data = json.loads((out / "report.json").read_text())
    assert set(data["policies"]) == {"rule", "price", "p"}
    assert f"greenboard compare --bundle {bundle}" in data["provenance"]["command"]


def test_the_comparison_as_json_on_standard_output(bundle: str, tmp_path: Path) -> None:
    done = RUNNER.invoke(
        app(),
        ["compare", "--bundle", bundle, "--out", str(tmp_path), "--policies", "rule",
         "--sessions", "4", "--fold", "all", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["provenance"]["folds"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["compare", "--fold", "7"], ComparisonError, "Unknown fold '7'"),
        (["compare", "--policies", "rul"], AgentError, "Did you mean 'rule'"),
        (["rl", "train", "--warm-start", "x"], RlTrainingError, "Unknown warm start"),
        (["rl", "train", "--resume"], RlTrainingError, "Nothing to resume"),
    ],
)
def test_bad_input_is_one_clear_error(
    bundle: str, tmp_path: Path, arguments: list[str], error: type[Exception], message: str
) -> None:
    done = RUNNER.invoke(app(), [*arguments, "--bundle", bundle, "--out", str(tmp_path / "o")])
    assert isinstance(done.exception, error)
    assert message in str(done.exception)
    assert not (tmp_path / "o" / "report.json").exists()


@pytest.mark.parametrize("command", [["compare"], ["rl", "train"]])
def test_a_missing_bundle_is_named(tmp_path: Path, command: list[str]) -> None:
    done = RUNNER.invoke(
        app(), [*command, "--bundle", str(tmp_path / "none"), "--out", str(tmp_path / "o")]
    )
    assert isinstance(done.exception, BundleError)
    assert "No bundle at" in str(done.exception)


@pytest.mark.parametrize("command", [["compare"], ["rl", "train"], ["rl"]])
def test_help_teaches(command: list[str]) -> None:
    done = RUNNER.invoke(app(), [*command, "--help"])
    assert done.exit_code == 0
    if command != ["rl"]:
        assert "Examples:" in done.stdout


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folds of 22 patients and more: fewer than a session usually has."""
    folder = tmp_path_factory.mktemp("small")
    for name in FILES:
        (folder / name).write_text("{}")
    toy_evidence(60).save(folder / EVIDENCE)
    seal(folder, {"cohort": "toy", "synthetic": True})
    return str(folder)


def test_small_folds_take_smaller_sessions_and_the_advice_works(
    small_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = RUNNER.invoke(
        app(), ["rl", "train", "--bundle", small_bundle, "--out", "ppo", "--steps", "1"]
    )
    assert done.exit_code == 0, done.output
    assert "note: sessions of 11 cases, not 64" in done.stderr
    advice = done.stdout.split("compare it: greenboard ")[1]
    done = RUNNER.invoke(app(), [*shlex.split(advice), "--sessions", "4"])
    assert done.exit_code == 0, done.output
    assert "sessions of 11 cases" in done.stderr
    data = json.loads(Path("report/report.json").read_text())
    assert set(data["policies"]) == {"rule", "price", "ppo"}
    assert data["provenance"]["session_config"]["n_cases"] == 11


def test_the_size_of_a_session_can_be_chosen(small_bundle: str, tmp_path: Path) -> None:
    compare = ["compare", "--bundle", small_bundle, "--policies", "rule", "--sessions", "2"]
    done = RUNNER.invoke(app(), [*compare, "--out", str(tmp_path), "--cases", "6"])
    assert done.exit_code == 0, done.output
    assert "note" not in done.stderr
    provenance = json.loads((tmp_path / "report.json").read_text())["provenance"]
    assert provenance["session_config"]["n_cases"] == 6
    assert "--cases 6" in provenance["command"]
    done = RUNNER.invoke(app(), [*compare, "--out", str(tmp_path), "--cases", "23"])
    assert isinstance(done.exception, ComparisonError)
    assert "Use --cases 22 or less" in str(done.exception)
    compare[4] = "rul"
    done = RUNNER.invoke(app(), [*compare, "--out", str(tmp_path), "--cases", "6"])
    assert isinstance(done.exception, AgentError)
    assert "Did you mean 'rule'" in str(done.exception)
