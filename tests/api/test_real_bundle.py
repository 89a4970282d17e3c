"""The commands over a real (tiny, synthetic) bundle: review, batch, serve."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from agent.build import build_bundle
from agent.errors import PolicyError
from agent.policies.registry import policy_names
from agent.workflow.errors import WorkflowError
from agent.workflow.opening import open_kit
from api.app import load_kit
from api.auth import hash_key
from api.cli.batch import batch
from api.cli.review import review
from api.errors import CommandError, SettingsError
from api.examples import case_examples
from api.inputs import cohort_features
from api.schemas import CaseRequest
from api.settings import Settings, read_settings
from carbon.intensity.build import GridConfig
from carbon.monitor import build_monitor
from distill.cohort import Cohort, read_cohort
from distill.cohort_write import write_cohort
from distill.config import TrainConfig
from distill.errors import BundleError
from distill.synthetic import SyntheticConfig, make_synthetic
from distill.temporal import TEMPORAL

app = typer.Typer()
app.command("review")(review)
app.command("batch")(batch)
GRID = ["--source", "synthetic"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``cohort`` (trained on), ``other`` (not) and ``bundle``."""
    root = tmp_path_factory.mktemp("real")
    for name, patients, seed in (("cohort", 240, 0), ("other", 300, 9)):
        config = SyntheticConfig(
            n_patients=patients, n_hospitals=15, n_simulated=1000, seed=seed,
            privileged=("proteomics", "radiomics"),
        )  # fmt: skip
        cohort = make_synthetic(config)[0]
        if name == "other":
            # Ids count up from 0 whatever the seed: the last ones are in the other cohort only.
            cohort = cohort.subset(np.arange(288, 300))
        write_cohort(cohort, root / name)
    tiny = replace(
        TrainConfig(threads=1), epochs=2, screen_to=8, screen_trees=5, boosting_rounds=8,
        synthetic_rows=64, width=8, latent=4, token=8, heads=2, calibration_folds=1,
        boosted_baselines=False,
    )  # fmt: skip
    monitor = build_monitor(GridConfig(sources=("synthetic",)))
    build_bundle(
        root / "cohort", root / "bundle", config=tiny, monitor=monitor, created=datetime.now(UTC)
    )
    return root


@pytest.fixture(scope="module")
def other(folder: Path) -> Cohort:
    return read_cohort(folder / "other")


@pytest.fixture(scope="module")
def case_file(folder: Path, other: Cohort) -> Path:
    path = folder / "case.json"
    features = cohort_features(other, other.case_id[0], ("clinical", "genomics", "pathology"))
    path.write_text(json.dumps({"features": features, "urgency": 0.5}))
    return path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


def test_every_policy_of_the_report_can_decide(folder: Path) -> None:
    monitor = build_monitor(GridConfig(sources=("synthetic",)))
    kit = open_kit(folder / "bundle", monitor=monitor, policy="price")
    assert set(policy_names(kit.catalogue)) == set(kit.policies.names)
    for name in kit.policies.names:
        acting = kit.policies.acting(name)
        assert (acting.policy.name, acting.fallback_reason) == (name, None)
    assert kit.identity.synthetic
    assert kit.budget.g_co2e_per_day > 0
    with pytest.raises(WorkflowError, match="Unknown policy"):
        kit.policies.check("nobody")


@pytest.mark.parametrize("policy", ["pirce", "policies/gone/"])
def test_a_policy_that_names_nothing_is_refused(
    policy: str, folder: Path, case_file: Path, tmp_path: Path
) -> None:
    given = ("--bundle", folder / "bundle", "--policy", policy, *GRID)
    with pytest.raises(PolicyError, match=r"price|no policy directory"):
        run("review", *given, "--case", case_file)
    out = tmp_path / "reviews.jsonl"
    with pytest.raises(PolicyError, match=r"price|no policy directory"):
        run("batch", *given, "--cohort", folder / "other", "--out", out)
    assert not list(tmp_path.iterdir())
    settings = Settings(bundle=folder / "bundle", policy=policy, source="synthetic")
    with pytest.raises(PolicyError):
        load_kit(settings)
    # One that is there but damaged is another matter: the rule decides, and says so.
    (tmp_path / "damaged").mkdir()
    damaged = load_kit(settings.model_copy(update={"policy": f"{tmp_path / 'damaged'}/"}))
    assert damaged.policies.acting().fallback_reason is not None


def test_the_examples_of_the_schema_are_of_this_bundle(folder: Path) -> None:
    kit = load_kit(Settings(bundle=folder / "bundle", policy="price", source="synthetic"))
    for example in case_examples(kit.student.example(), datetime.now(UTC)):
        sent = CaseRequest.model_validate(json.loads(json.dumps(example)))
        case = kit.student.prepare(sent.features)
        # Times stand beside the modalities and are none.
        assert case.present == tuple(m for m in sent.features if m != TEMPORAL)
        assert case.cautions == ()
    assert kit.student.example()["genomics"]


def test_review_leaves_the_decision_to_a_person(folder: Path, case_file: Path) -> None:
    result = run("review", "--bundle", folder / "bundle", "--case", case_file, "--policy",
                 "always-everything", *GRID)  # fmt: skip
    assert result.exit_code == 0
    assert "awaiting clinician" in result.stdout
    assert "SYNTHETIC" in result.stdout
    assert "recorded" not in result.stdout
    assert "Research use only" in result.stdout


def test_review_with_a_decision_as_json(folder: Path, case_file: Path) -> None:
    result = run("review", "--bundle", folder / "bundle", "--case", case_file, "--policy", "rule",
                 "--decision", "negative", "--reviewer", "reviewer-1", "--json", *GRID)  # fmt: skip
    facts = json.loads(result.stdout)
    assert facts["status"] == "recorded"
    assert facts["outcome"]["result"] == "negative"
    assert facts["outcome"]["decision"]["reviewer"] == "reviewer-1"
    assert facts["events"][-1]["kind"] == "record"
    assert {c["energy_basis"] for c in facts["charges"]} <= {"measured", "modelled"}
    explanation = facts["explanation"]
    assert explanation["conformal_level"] == 0.9
    assert set(explanation["conformal_set"]) <= set(facts["classes"].values())
    assert any(line.startswith("At the 90 % level") for line in explanation["lines"])
    last = [e["data"] for e in facts["events"] if e["kind"] == "assessment"][-1]
    assert set(last["contributions"]) == set(explanation["weighting"]) == set(last["processed"])
    assert explanation["weighting"]["clinical"]["quality"] > 0


def test_review_tells_of_unusual_values_and_charges_no_empty_modality(
    folder: Path, tmp_path: Path
) -> None:
    case = tmp_path / "case.json"
    features = {"clinical": {"age": 60}, "genomics": {"TP53": None}, "pathology": {}}
    review = ("review", "--bundle", folder / "bundle", "--case", case, "--policy",
              "always-everything", "--json", *GRID)  # fmt: skip
    case.write_text(json.dumps(features))
    facts = json.loads(run(*review).stdout)
    assert facts["explanation"]["missing"] == ["genomics", "pathology"]
    assert facts["explanation"]["cautions"] == []
    assert facts["explanation"]["energy_kwh_modelled"] < 1e-3  # inference alone
    case.write_text(json.dumps({"clinical": {"age": -1e6}, "genomics": {"TP53": 700_000}}))
    explanation = json.loads(run(*review).stdout)["explanation"]
    assert [c.split(":")[0] for c in explanation["cautions"]] == ["clinical", "genomics"]
    assert all(f"Caution: {c}" in explanation["lines"] for c in explanation["cautions"])
    assert "700000" not in str(explanation)


def test_review_refuses_bad_input(folder: Path, case_file: Path, tmp_path: Path) -> None:
    given = ("review", "--bundle", folder / "bundle", *GRID, "--case")
    with pytest.raises(CommandError, match="--reviewer"):
        run(*given, case_file, "--decision", "accept")
    with pytest.raises(CommandError, match="--decision"):
        run(*given, case_file, "--decision", "maybe", "--reviewer", "x")
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(CommandError, match="Cannot read"):
        run(*given, bad)
    bad.write_text('{"features": {"clinical": {"age": [1]}}}')
    with pytest.raises(CommandError, match="features/clinical/age"):
        run(*given, bad)


def test_the_student_of_either_precision_can_be_asked_for(folder: Path, case_file: Path) -> None:
    given = ("review", "--bundle", folder / "bundle", "--case", case_file, *GRID, "--json")
    answers = {
        precision: json.loads(run(*given, *option).stdout)
        for precision, option in (
            ("fp32", ("--precision", "fp32")), ("int8", ("--precision", "int8")), ("default", ()),
        )
    }  # fmt: skip
    assert [answers[p]["precision"] for p in ("fp32", "int8")] == ["fp32", "int8"]
    assert answers["default"]["precision"] in answers
    explanations = [answer["explanation"]["suggestion"] for answer in answers.values()]
    assert len(set(explanations)) == 1
    with pytest.raises(BundleError, match="Unknown precision 'int4'"):
        run(*given, "--precision", "int4")
    given_settings = {"bundle": folder / "bundle", "precision": "fp32", "source": "synthetic"}
    settings = read_settings(given_settings)
    assert load_kit(settings).identity.precision == "fp32"
    with pytest.raises(SettingsError, match="Setting 'precision'"):
        read_settings({"bundle": folder / "bundle", "precision": "int4"})


def test_batch_is_whole_resumes_and_repeats(folder: Path, other: Cohort, tmp_path: Path) -> None:
    out = tmp_path / "reviews.jsonl"
    given = ("batch", "--bundle", folder / "bundle", "--cohort", folder / "other", "--out", out,
             "--policy", "price", "--json", *GRID)  # fmt: skip
    summary = json.loads(run(*given).stdout)
    lines = out.read_text().splitlines()
    assert (summary["n"], summary["seen_in_training"]) == (12, 0)
    assert [json.loads(line)["case_id"] for line in lines] == list(other.case_id)
    assert not list(tmp_path.glob("*.partial"))
    before = out.read_bytes()
    assert json.loads(run(*given).stdout) == summary
    assert out.read_bytes() == before
    # Killed half way: five finished lines and one that was cut short.
    out.unlink()
    partial = tmp_path / "reviews.jsonl.partial"
    partial.write_text("\n".join(lines[:5]) + "\n" + lines[5][:40])
    assert json.loads(run(*given).stdout)["n"] == 12
    again = out.read_text().splitlines()
    assert again[:5] == lines[:5]
    keys = ("case_id", "probability", "transfers_run", "g_co2e")
    for one, two in zip(lines, again):
        a, b = json.loads(one), json.loads(two)
        # The metered energy of an inference differs from run to run; all else is the same.
        assert [a[k] for k in keys[:3]] == [b[k] for k in keys[:3]]
    with pytest.raises(CommandError, match="another bundle, cohort or policy"):
        run(*[("rule" if a == "price" else a) for a in given])


def test_batch_leaves_out_who_has_no_clinical_value(
    folder: Path, other: Cohort, tmp_path: Path
) -> None:
    clinical = other.tables["clinical"].copy()
    clinical.iloc[2] = None
    write_cohort(replace(other, tables={**other.tables, "clinical": clinical}), tmp_path / "c")
    out = tmp_path / "reviews.jsonl"
    result = run("batch", "--bundle", folder / "bundle", "--cohort", tmp_path / "c", "--out", out,
                 "--policy", "never", "--json", *GRID)  # fmt: skip
    assert "left out: 1 cases without any clinical value" in result.stderr
    reviewed = [json.loads(line)["case_id"] for line in out.read_text().splitlines()]
    assert reviewed == [case for i, case in enumerate(other.case_id) if i != 2]


def test_batch_says_what_was_trained_on_and_refuses_ray(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen.jsonl"
    given = ("batch", "--bundle", folder / "bundle", "--cohort", folder / "cohort", "--out", out,
             "--policy", "never", *GRID)  # fmt: skip
    assert "saw 240 of these patients in training" in run(*given).stdout
    with pytest.raises(CommandError, match="ray"):
        run(*given, "--executor", "ray")
    text = out.read_text()
    cohort = read_cohort(folder / "cohort")
    assert not any(f'"{hospital}"' in text for hospital in set(cohort.group))
    assert "label" not in text


def test_serve_takes_a_cohorts_case_and_says_it_was_seen(folder: Path, tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    arguments = ["serve", "--bundle", folder / "bundle", "--cohort", folder / "cohort", "--port",
                 "0", "--port-file", port_file, "--state", tmp_path / "state", *GRID]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GREENBOARD_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        key = re.search(r"until the server stops: (\S+)", line)
        assert key is not None, line
        deadline = time.monotonic() + 40
        while not port_file.exists() or not port_file.read_text().strip():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        headers = {"X-API-Key": key.group(1)}
        case_id = read_cohort(folder / "cohort").case_id[3]
        with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
            while True:
                assert time.monotonic() < deadline
                try:
                    ready = client.get("/readyz")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            assert ready.json()["model"]["synthetic"] is True
            posted = client.post("/v1/cases", json={"case_id": case_id, "policy": "rule"})
            assert posted.status_code == 202, posted.text
            case = posted.json()
            while case["status"] in ("queued", "running"):
                assert time.monotonic() < deadline
                case = client.get(f"/v1/cases/{case['id']}").json()
            assert case["status"] == "awaiting_clinician", case["failure"]
            assert case["seen_in_training"] is True
            assert any("optimistic" in line for line in case["caution"])
            assert any("optimistic" in line for line in case["explanation"]["lines"])
            odd = {"clinical": {"age": 1e6}, "genomics": {"TP53": None}}
            posted = client.post("/v1/cases", json={"features": odd})
            case = posted.json()
            while case["status"] in ("queued", "running"):
                assert time.monotonic() < deadline
                case = client.get(f"/v1/cases/{case['id']}").json()
            assert any("'age'" in line for line in case["caution"])
            assert "genomics" in case["explanation"]["missing"]
            for value in (int("9" * 400), True, "MRN 4711"):
                refused = client.post("/v1/cases", json={"features": {"clinical": {"age": value}}})
                assert refused.status_code == 422
                assert refused.json()["type"].endswith("invalid-features")
                assert str(value) not in refused.text
            assert client.get("/v1/carbon/now").json()["provider"].startswith("synthetic")
            assert len(client.get("/v1/carbon/forecast").json()["readings"]) == 24
            absent = client.post("/v1/cases", json={"case_id": "nobody"})
            assert absent.json()["type"].endswith("unknown-cohort-case")
    finally:
        process.terminate()
        out, log = process.communicate(timeout=20)
    assert process.returncode in (0, -signal.SIGTERM)  # uvicorn ends by the signal it was sent
    assert case_id not in log
    assert key.group(1) not in out + log


def test_serve_refuses_to_face_outside_without_keys(folder: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GREENBOARD_")}
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "serve", "--bundle", str(folder / "bundle"), "--host",
         "0.0.0.0"],
        capture_output=True, text=True, timeout=60, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: No API keys")
    assert hash_key("x") not in done.stderr
