"""``greenboard rl train`` and ``greenboard compare`` from the command line."""

from __future__ import annotations

import json
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
