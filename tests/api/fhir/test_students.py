"""A real student's features: its example, the command line, a deployment's own map."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli import fhir as command
from api.errors import CommandError, SettingsError
from api.fhir.intake import features_from_bundle
from api.fhir.mapping import map_beside, packaged, read_map
from api.fhir.students import columns_of
from api.fhir.validate import check_bundle
from api.fhir.writing import bundle_from_features
from api.inputs import cohort_features, times_of
from distill.cohort import Cohort
from distill.preprocess import fit_preprocessor
from distill.runtime import StudentRuntime
from distill.synthetic import SyntheticConfig, make_synthetic
from distill.table import raw_table, schema_of
from distill.temporal import TEMPORAL, fit_times


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return make_synthetic(SyntheticConfig(n_patients=200, n_hospitals=15, n_simulated=1000))[0]


@pytest.fixture(scope="module")
def student(cohort: Cohort) -> StudentRuntime:
    """Fitted on the cohort; it has no network, since none is asked here."""
    modalities = cohort.modalities("inference")
    fitted = tuple(
        fit_preprocessor(raw_table(cohort.tables[m], schema_of(cohort.tables[m])))
        for m in modalities
    )
    gaps = np.asarray(cohort.temporal, dtype=np.float64)
    made = object.__new__(StudentRuntime)
    vars(made).update(
        bundle=SimpleNamespace(manifest={"synthetic": True}),
        modalities=modalities,
        preprocessors=fitted,
        n_features=400,
        times=fit_times(["days_ct_to_surgery"], gaps),
    )
    return made


@pytest.fixture
def run(student: StudentRuntime, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(StudentRuntime, "open", lambda path: student)
    return lambda *a: CliRunner().invoke(command.app, [str(x) for x in a], catch_exceptions=False)


def test_patients_of_a_cohort_come_back_as_they_were(
    cohort: Cohort, student: StudentRuntime
) -> None:
    for case_id in cohort.case_id[::10]:
        features = cohort_features(cohort, case_id, student.modalities, times_of(student))
        assert features is not None
        bundle = bundle_from_features(features, student, synthetic=True)
        assert check_bundle(bundle) == []
        found = features_from_bundle(json.dumps(bundle).encode(), student)
        assert found.features == {name: row for name, row in features.items() if row}
        before, after = student.prepare(features), student.prepare(found.features)
        assert np.array_equal(before.x, after.x)


def test_the_columns_are_the_students(student: StudentRuntime) -> None:
    columns = columns_of(student)
    assert set(columns) == {*student.modalities, TEMPORAL}
    assert "TP53" in columns["genomics"].flags
    assert "ecog" not in columns["clinical"].flags
    assert columns["clinical"].words["sex"] == ("female", "male")


def test_the_example_is_taken(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    made = run("example", "--bundle", tmp_path / "b", "--out", path)
    assert made.exit_code == 0
    bundle = json.loads(path.read_text())
    assert check_bundle(bundle) == []
    assert {"code": "synthetic"}.items() <= bundle["meta"]["tag"][1].items()
    checked = run("check", path, "--bundle", tmp_path / "b")
    assert checked.exit_code == 0
    assert "clinical: 6 features" in checked.stdout
    told = json.loads(run("check", path, "--bundle", tmp_path / "b", "--json").stdout)
    assert told["unmapped"] == []


def test_a_bundle_that_would_be_refused_is_refused(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_text('{"resourceType": "Bundle", "type": "collection"}')
    refused = run("check", path, "--bundle", tmp_path / "b")
    assert refused.exit_code == 2
    assert "error: Bundle.entry" in refused.stderr


def test_a_map_beside_the_bundle_counts(run: Any, tmp_path: Path) -> None:
    bundle, path = tmp_path / "b", tmp_path / "bundle.json"
    map_beside(bundle).write_text(
        'version = 1\n[systems]\nus = "urn:us"\n'
        '[[feature]]\nmodality = "clinical"\nnames = ["bmi"]\n'
        'observation = ["us|bmi"]\nunits = { "kg/m2" = 1.0 }\n'
    )
    assert run("example", "--bundle", bundle, "--out", path).exit_code == 0
    assert '"urn:us"' in path.read_text()
    with pytest.raises(CommandError, match="no map"):
        run("check", path, "--bundle", bundle, "--map", tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 2", "version"),
        ("version = 1\nfeatures = 1", "features"),
        ("version = ", "cannot be read"),
        ('version = 1\n[[feature]]\nmodality = "m"\nnames = ["a"]\nobservation = ["x"]', "SYSTEM"),
    ],
)
def test_a_map_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_map(path)


def test_the_packages_map_means_one_thing_by_each_code() -> None:
    for table in packaged().words.values():
        codes = [code for word in table.values() for code in word.codes]
        assert len(set(codes)) == len(codes)
        assert all(system.startswith(("http://", "urn:")) for system, _ in codes)
    named = {rule.words for rule in packaged().feature if rule.words}
    assert named == set(packaged().words)
