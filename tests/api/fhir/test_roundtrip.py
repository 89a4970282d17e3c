"""Features to a Bundle and back: identical, whatever the cohort."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.fhir.columns import Columns
from api.fhir.intake import read_bundle
from api.fhir.mapping import BoundMap, bind
from api.fhir.validate import check_bundle
from api.fhir.writing import write_bundle
from api.inputs import cohort_features
from distill.cohort import read_cohort

GENES = frozenset({"TP53", "KRAS", "EGFR", "RP11-707M1.1", "LPHN3"})
COLUMNS = {
    "clinical": Columns(
        numbers=frozenset({"age", "bmi", "ecog", "pack_years", "FEV1 %", "  odd  name "}),
        words={
            "sex": ("female", "male"),
            "stage": ("stage_i", "stage_ii", "stage_iii"),
            "T": ("t1", "t2a"),
            "lobe": ("upper_left", "middle"),
            "race": ("white", "asian"),
            "note|with#odd": ("a",),
        },
        flags=frozenset(),
    ),
    "genomics": Columns(numbers=GENES | {"burden"}, words={}, flags=GENES),
    "path ology/§": Columns(
        numbers=frozenset({"AREA (MM2) OF [TUMOR]", "100 %", "x%20y"}), words={}, flags=frozenset()
    ),
    "temporal": Columns(numbers=frozenset({"days_ct_to_surgery"}), words={}, flags=frozenset()),
}


BOUND = bind(COLUMNS)
NUMBER = st.one_of(
    st.none(), st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False)
)
FREE = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
WORD = st.one_of(
    st.none(),
    st.sampled_from(
        ["female", "stage_ii", "stage_iii", "stage iiib", "t2a", "T2A", "tx", "middle", "white"]
    ),
    FREE.filter(lambda text: text.strip() == text and text != ""),
)
FLAG = st.one_of(st.none(), st.sampled_from([0, 1, 0.0, 1.0, 2, 0.5]))


def _row(columns: Columns) -> st.SearchStrategy[dict[str, Any]]:
    cells = dict.fromkeys(columns.numbers, NUMBER) | dict.fromkeys(columns.words, WORD)
    cells |= dict.fromkeys(columns.flags, FLAG)
    return st.fixed_dictionaries({}, optional=cells)


ROWS = st.fixed_dictionaries({}, optional={name: _row(c) for name, c in COLUMNS.items()})


def _there_and_back(features: Mapping[str, Any], bound: BoundMap) -> Mapping[str, Any]:
    bundle = write_bundle(features, bound, reference="board-7", synthetic=True)
    assert check_bundle(bundle) == []
    taken = read_bundle(json.dumps(bundle).encode(), bound)
    assert taken.unmapped == ()
    assert taken.reference == "board-7"
    return taken.features


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS)
def test_any_features_come_back_as_they_were(features: dict[str, Any]) -> None:
    back = _there_and_back(features, BOUND)
    assert back == {name: row for name, row in features.items() if row}


def test_what_is_well_known_is_written_in_well_known_codes() -> None:
    row = {"age": 61.0, "sex": "female", "stage": "stage_iii", "lobe": "middle", "race": "asian"}
    features = {"clinical": row, "genomics": {"TP53": 1, "KRAS": 0}}
    bundle = write_bundle(features, BOUND)
    found = {entry["resource"]["resourceType"]: entry["resource"] for entry in bundle["entry"]}
    assert found["Patient"]["gender"] == "female"
    assert found["Condition"]["stage"][0]["summary"]["coding"][0]["code"] == "III"
    assert found["Condition"]["bodySite"][0]["coding"][0]["code"] == "72481006"
    assert len(found["DiagnosticReport"]["result"]) == 2
    assert "urn:greenboard:feature:clinical" not in json.dumps(bundle)


@pytest.mark.shared_data
def test_real_patients_come_back_as_they_were(shared_data: Path) -> None:
    cohort = read_cohort(shared_data / "tcga_nsclc")
    modalities = cohort.modalities("inference")
    bound = bind({modality: _columns(cohort.tables[modality]) for modality in modalities})
    for case_id in cohort.case_id[::60]:
        features = cohort_features(cohort, case_id, modalities)
        assert features is not None
        back = _there_and_back(features, bound)
        assert back == {name: row for name, row in features.items() if row}


def _columns(table: Any) -> Columns:
    """A cohort's table, as a student that was fitted on it has it."""
    numbers = frozenset(str(name) for name, kind in table.dtypes.items() if kind.kind in "biuf")
    return Columns(
        numbers=numbers,
        words={str(n): tuple(table[n].dropna().unique()) for n in table if str(n) not in numbers},
        flags=frozenset(n for n in numbers if table[n].dropna().isin([0, 1]).all()),
    )
