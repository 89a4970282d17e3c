from __future__ import annotations

import json

import pytest

from api.cli.casefile import read_case
from api.inputs import cohort_features, times_of
from distill.synthetic import DAYS, SyntheticConfig, make_synthetic


@pytest.fixture(scope="module")
def cohort():
    return make_synthetic(SyntheticConfig(n_patients=120, n_simulated=1000))[0]


class Taking:
    def __init__(self, example):
        self._example = example

    def example(self):
        return self._example


def test_a_cohort_case_brings_the_times_that_the_student_takes(cohort):
    case = cohort.case_id[0]
    plain = cohort_features(cohort, case, ("clinical",))
    assert plain is not None
    assert set(plain) == {"clinical"}
    timed = cohort_features(cohort, case, ("clinical",), (DAYS, "days_to_slide"))
    assert timed is not None
    assert timed["temporal"] == {DAYS: cohort.temporal.loc[case, DAYS], "days_to_slide": None}
    assert json.loads(json.dumps(timed)) == timed


def test_times_are_those_of_the_student_s_example():
    assert times_of(Taking({"clinical": {"age": 60.0}})) == ()
    assert times_of(Taking({"clinical": {"age": 60.0}, "temporal": {DAYS: 20.0}})) == (DAYS,)


def test_a_case_file_holds_times_beside_the_modalities(tmp_path):
    path = tmp_path / "case.json"
    rows = {"clinical": {"age": 67}, "temporal": {DAYS: 21}}
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert read_case(path).features == rows
