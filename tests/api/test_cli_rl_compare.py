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
from carbon.errors import CarbonError
from distill.bundle import EVIDENCE, FILES, seal
from distill.errors import BundleError
from envs.errors import ConfigError
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
        app(),
        ["rl", "train", "--bundle", bundle, "--out", str(policy), "--steps", "1", "--cases", "12",
         "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["steps"], facts["fold"]) == (16384, 4)
    done = RUNNER.invoke(
        app(),
        ["compare", "--bundle", bundle, "--out", str(out), "--policies", f"rule,price,{policy}",
         "--sessions", "3", "--cases", "12"],
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
         "--sessions", "2", "--cases", "8", "--fold", "all", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["provenance"]["folds"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["compare", "--fold", "7"], ComparisonError, "Unknown fold '7'"),
        (["compare", "--policies", "rul"], AgentError, "Did you mean 'rule'"),
        (["compare", "--algorithms", "ppos"], ComparisonError, "Did you mean 'ppo'"),
        (["compare", "--env", "greenboard/CaseReview-v2"], ComparisonError, "CaseReview-v1'?"),
        (["compare", "--preset", "harder"], ConfigError, "Did you mean 'hard'"),
        (["compare", "--budget", "-0.1"], ConfigError, "budget_fraction is -0.1"),
        (["compare", "--trace", "no.csv"], CarbonError, "no.csv"),
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


def test_everything_beyond_the_figures_on_the_worklist(bundle: str, tmp_path: Path) -> None:
    """Other rules, robustness and equity; the command in the report names what was asked for."""
    cohort = tmp_path / "cohort"
    write_toy_cohort(cohort)
    out = tmp_path / "out"
    done = RUNNER.invoke(
        app(),
        ["compare", "--bundle", bundle, "--out", str(out), "--policies", "rule,always-everything",
         "--env", "greenboard/CaseReview-v1", "--preset", "hard", "--budget", "0.3",
         "--sessions", "4", "--cases", "16", "--robustness", "--cohort", str(cohort)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    data = json.loads((out / "report.json").read_text())
    assert set(data["equity"]["groups"]) == {"sex", "age"}
    assert {"budget 10%", "shifted hospitals"} <= set(data["robustness"])
    assert data["provenance"]["environment"] == "greenboard/CaseReview-v1"
    assert data["provenance"]["session_config"]["slots_per_hour"] == 1
    assert data["provenance"]["session_config"]["budget_fraction"] == 0.3
    tested = data["policies"]["rule"]["statistics"]
    assert {"patients_redrawn", "iqm", "differences", "regret_to_expected_lp"} <= set(tested)
    for words in ("--preset hard", "--budget 0.3", "--robustness", f"--cohort {cohort}"):
        assert words in data["provenance"]["command"]


def write_toy_cohort(folder: Path) -> None:
    """The toy patients with a sex and an age, as a cohort folder."""
    folder.mkdir()
    cases = toy_evidence(600).case_id
    (folder / "cohort.toml").write_text(
        'name = "toy"\ndescription = "toy"\nsynthetic = true\n'
        '[label]\ntable = "labels.csv"\ncolumn = "y"\nnegative = "a"\npositive = "b"\n'
        '[modality.clinical]\ntable = "clinical.csv"\nrole = "inference"\n'
    )
    labels = "".join(f"{case},{'ab'[i % 2]}\n" for i, case in enumerate(cases))
    (folder / "labels.csv").write_text("case_id,y\n" + labels)
    rows = (f"{case},{'male' if i % 3 else 'female'},{40 + i % 50}" for i, case in enumerate(cases))
    (folder / "clinical.csv").write_text("case_id,sex,age\n" + "\n".join(rows) + "\n")


def test_a_trace_for_robustness_without_it_is_refused(bundle: str, tmp_path: Path) -> None:
    done = RUNNER.invoke(
        app(),
        ["compare", "--bundle", bundle, "--out", str(tmp_path / "o"), "--other-trace", "x.csv"],
    )
    assert isinstance(done.exception, ComparisonError)
    assert "give both or neither" in str(done.exception)


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
    assert set(data["policies"]) == {"rule", "planner", "ppo"}
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
