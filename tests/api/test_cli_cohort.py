from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli.cohort import app
from distill.cohort import read_cohort
from distill.errors import CohortError
from distill.synthetic_truth import Truth


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohorts") / "synthetic"
    command = ["synth", "--out", str(out), "--patients", "300", "--simulated", "5000"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "no row is a patient" in result.output
    assert str(out) in result.output
    assert "clinical + genomics + pathology + radiomics" in result.output
    return out


def test_synth_writes_a_cohort_with_its_truth(synthetic: Path) -> None:
    cohort = read_cohort(synthetic)
    assert cohort.synthetic
    assert cohort.n_patients == 300
    truth = Truth.load(synthetic)
    assert 0.9 < truth.auc_for(cohort.modalities("inference")) < 0.99


def test_synth_refuses_to_overwrite(synthetic: Path) -> None:
    before = (synthetic / "labels.csv").read_bytes()
    result = CliRunner().invoke(app, ["synth", "--out", str(synthetic), "--patients", "100"])
    assert result.exit_code != 0
    assert isinstance(result.exception, CohortError)
    assert "--force" in str(result.exception)
    assert (synthetic / "labels.csv").read_bytes() == before


def test_synth_json_and_force(tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    command = ["synth", "--out", str(out), "--patients", "120", "--privileged", "", "--json"]
    command += ["--simulated", "5000"]
    assert CliRunner().invoke(app, command).exit_code == 0
    result = CliRunner().invoke(app, [*command, "--force", "--seed", "4"])
    assert result.exit_code == 0
    raw = json.loads(result.output)
    assert (raw["path"], raw["seed"], raw["synthetic"]) == (str(out), 4, True)
    assert raw["evidence"]["proteomics"]["auc"]["value"] > 0.9
    assert read_cohort(out).modalities("privileged") == ()
    assert [p.name for p in tmp_path.iterdir()] == ["cohort"]


def test_synth_refuses_too_few(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["synth", "--out", str(tmp_path / "x"), "--patients", "9"])
    assert isinstance(result.exception, CohortError)
    assert list(tmp_path.iterdir()) == []


def test_check_prints_tables(synthetic: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(synthetic)])
    assert result.exit_code == 0, result.output
    text = result.output
    assert "synthetic, no row is a patient" in text
    assert "300 patients" in text
    for word in ("modality", "patients lacking %", "hospital", "fold", "privileged", "LUSC"):
        assert word in text
    assert "No problems." in text
    assert "SYN" not in text


def test_check_json(synthetic: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(synthetic), "--json"])
    raw = json.loads(result.output)
    assert raw["clean"] is True
    assert raw["patients"]["patients"] == 300
    assert raw["modalities"][0]["name"] == "clinical"
    assert sum(h["patients"] for h in raw["hospitals"]) == 300
    assert raw["folds"][0]["hospitals"] > 1


def test_check_lists_problems_and_exits_2(synthetic: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in synthetic.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    labels = (broken / "labels.csv").read_text().replace("LUAD", "luad", 1)
    (broken / "labels.csv").write_text(labels)
    lines = (broken / "pathology.csv").read_text().splitlines()
    lines[7] = ",".join([*lines[7].split(",")[:-1], "many"])
    (broken / "pathology.csv").write_text("\n".join(lines))
    result = CliRunner().invoke(app, ["check", str(broken)])
    assert result.exit_code == 2
    assert "problem: labels.csv, line" in result.output
    assert "'luad' is not a class; allowed is 'LUAD' or 'LUSC'" in result.output
    assert "problem: pathology.csv, line 8, column 'vessels_texture_entropy': 'many'" in (
        result.output
    )
    assert "2 problems: the cohort cannot be used until corrected." in result.output
    as_json = CliRunner().invoke(app, ["check", str(broken), "--json"])
    assert as_json.exit_code == 2
    raw = json.loads(as_json.output)
    assert raw["n_problems"] == 2
    assert {p["file"] for p in raw["problems"]} == {"labels.csv", "pathology.csv"}


def test_check_of_a_broken_manifest(tmp_path: Path) -> None:
    (tmp_path / "cohort.toml").write_text("name = 'x'\n")
    result = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 2
    assert "cohort.toml: key 'label': missing" in result.output
    assert "synthetic" not in result.output


def test_check_of_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(tmp_path / "none")])
    assert isinstance(result.exception, CohortError)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["tcga_nsclc", "r01_radiogenomics"])
def test_real_cohorts_are_clean(shared_data: Path, name: str) -> None:
    result = CliRunner().invoke(app, ["check", str(shared_data / name)])
    assert result.exit_code == 0, result.output
    assert "No problems." in result.output
    assert "warning:" in result.output


@pytest.mark.parametrize("command", ["check", "synth"])
def test_help_teaches(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Example: greenboard cohort" in result.output
