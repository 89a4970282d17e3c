from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from agent.errors import OffPolicyError
from agent.ope_log import write_log
from agent.ope_replay import Exploring, log_sessions
from agent.policies.registry import make_policy
from api.cli.main import app
from distill.bundle import EVIDENCE, FILES, seal
from envs.setup import build_setup
from envs.toy import toy_evidence


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    setup = build_setup(evidence=toy_evidence(120), n_cases=16, budget_mode="price")
    behaviour = Exploring(
        policy=make_policy("price", setup.layout, setup.catalogue),
        catalogue=setup.catalogue,
        share=0.3,
    )
    log = log_sessions(behaviour, setup, range(30), np.random.default_rng(0))
    path = tmp_path_factory.mktemp("ope") / "decisions.jsonl"
    write_log(log, path)
    return path


def test_ope_prints_every_estimate_with_its_interval(logged: Path) -> None:
    words = ["rl", "ope", "--log", str(logged), "--policy", "price", "--redraws", "50"]
    plain = CliRunner().invoke(app, words)
    assert plain.exit_code == 0, plain.output
    assert "doubly robust" in plain.output
    assert "about 1 if propensities are right" in plain.output
    report = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    for name in ("logged", "snips", "snips_per_decision", "doubly_robust", "auc", "auc_gain"):
        low, high = report["estimates"][name]["ci95"]
        assert low <= report["estimates"][name]["value"] <= high
    assert report["n_cases"] == 30 * 16


def test_a_log_without_propensities_is_refused(logged: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in logged.read_text(encoding="utf-8").splitlines()]
    for row in rows[1:]:
        del row["propensity"]
    path = tmp_path / "none.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    result = CliRunner().invoke(app, ["rl", "ope", "--log", str(path), "--policy", "price"])
    assert isinstance(result.exception, OffPolicyError)
    assert "lacks propensity" in str(result.exception)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_log_from_replay_can_be_evaluated(tmp_path: Path, ending: str) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for name in FILES:
        (bundle / name).write_text("{}")
    toy_evidence(200).save(bundle / EVIDENCE)
    seal(bundle, {"cohort": "toy", "synthetic": True})
    path = tmp_path / f"decisions.{ending}"
    words = ["rl", "log", "--bundle", str(bundle), "--out", str(path), "--policy", "price"]
    done = CliRunner().invoke(app, [*words, "--sessions", "12", "--explore", "0.4", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.output)
    words = ["rl", "ope", "--log", str(path), "--policy", "price", "--redraws", "20", "--json"]
    report = json.loads(CliRunner().invoke(app, words).output)
    assert report["n_decisions"] == facts["decisions"]
    assert report["behaviour"] == "price, 40% explored"


@pytest.mark.parametrize("command", ["log", "ope"])
def test_help_teaches(command: str) -> None:
    result = CliRunner().invoke(app, ["rl", command, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output
    assert "greenboard rl" in result.output
