"""``greenboard cohort select``: what it prints, and one clear line for what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli.main import app
from distill.cohort_write import write_cohort
from distill.errors import DistillError
from distill.synthetic import SyntheticConfig, make_synthetic


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohorts") / "small"
    cohort, _ = make_synthetic(SyntheticConfig(n_patients=300, seed=1, n_simulated=2000))
    write_cohort(cohort, out)
    return out


def run(folder: Path, *words: str) -> str:
    result = CliRunner().invoke(
        app, ["cohort", "select", "--cohort", str(folder), *words], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_its_json_has_the_choice_and_what_it_rests_on(folder: Path) -> None:
    words = ("--modality", "genomics", "--k", "4", "--solver", "exact", "--preselect", "12")
    found = json.loads(run(folder, *words, "--hold-out", "0", "--json"))
    assert found["k"] == len(found["chosen"]) == 4
    assert found["variables"] == 12
    assert found["optimal"] is True
    assert found["synthetic"] is True
    assert found["held_out_fold"] == 0
    everyone = json.loads(run(folder, *words, "--json"))
    assert everyone["held_out_fold"] is None
    assert everyone["patients"] > found["patients"]
    for row in found["chosen"]:
        assert 0 <= row["relevance"] <= 1
        assert 0 <= row["mean_redundancy"] <= 1


def test_its_table_names_columns_and_says_whose_hospitals_had_a_say(folder: Path) -> None:
    text = run(folder, "--modality", "genomics", "--k", "3", "--hold-out", "1")
    assert "3 of 60 columns of genomics" in text
    assert "no row is a patient" in text
    assert "fold 1 had no say" in text
    assert "not proved to be the best" in text
    assert "score nothing on them" in run(folder, "--modality", "genomics", "--k", "3")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--modality", "genomics", "--k", "3", "--solver", "exat"), "Did you mean 'exact'"),
        (("--modality", "genomics", "--k", "61"), "k is 61; choose 1 to 60"),
        (("--modality", "genomics", "--k", "0"), "k is 0; choose 1 to 60"),
        (("--modality", "genomic", "--k", "3"), "no modality 'genomic'"),
        (("--modality", "genomics", "--k", "3", "--hold-out", "9"), "no fold 9 to hold out"),
        (("--modality", "genomics", "--k", "3", "--solver", "exact"), "20 variables at most; 60"),
        (("--modality", "genomics", "--k", "9", "--preselect", "8"), "out of 8 preselected"),
        (("--modality", "genomics", "--k", "3", "--trade-off", "-1"), "trade_off is -1.0"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    folder: Path, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DistillError, match=message):
        CliRunner().invoke(
            app, ["cohort", "select", "--cohort", str(folder), *words], catch_exceptions=False
        )


def test_help_teaches_by_example() -> None:
    text = CliRunner().invoke(app, ["cohort", "select", "--help"]).output
    assert "greenboard cohort select --cohort" in text
    assert "--hold-out" in text
