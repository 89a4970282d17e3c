"""Whatever stands in a Bundle, it is taken or refused; nothing else happens and nothing leaks."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.fhir.columns import Columns
from api.fhir.intake import read_bundle
from api.fhir.issues import FhirError, operation_outcome
from api.fhir.mapping import bind
from api.fhir.validate import check_structure
from api.fhir.walk import objects
from api.fhir.writing import write_bundle

GENES = frozenset({"TP53", "KRAS"})
BOUND = bind(
    {
        "clinical": Columns(
            numbers=frozenset({"age", "bmi"}),
            words={"sex": ("female", "male"), "stage": ("stage i",), "lobe": ("middle",)},
            flags=frozenset(),
        ),
        "genomics": Columns(numbers=GENES, words={}, flags=GENES),
    }
)
FEATURES = {
    "clinical": {"age": 61.0, "bmi": 23.5, "sex": "female", "stage": "stage i", "lobe": "middle"},
    "genomics": {"TP53": 1, "KRAS": 0},
}
GOOD = json.loads(json.dumps(write_bundle(FEATURES, BOUND, reference="board-7")))
PLACES = [(where, name) for where, here in objects(GOOD, "Bundle") for name in here]
SECRET = "Mustermann4711"
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.just(SECRET), st.just([]), st.just({}),
    st.just([SECRET]), st.just({SECRET: SECRET}), st.just([{"system": SECRET, "code": SECRET}]),
    st.just({"reference": f"urn:uuid:{SECRET}"}), st.sampled_from(["Patient", "Bundle", "1960-02"]),
    st.recursive(st.just(SECRET), lambda s: st.lists(s, max_size=2), max_leaves=4),
)  # fmt: skip


def _spoilt(place: tuple[str, str], junk: Any, how: str) -> Any:
    bundle = copy.deepcopy(GOOD)
    for where, here in objects(bundle, "Bundle"):
        if where == place[0]:
            if how == "drop":
                here.pop(place[1], None)  # type: ignore[attr-defined]
            else:
                here[SECRET if how == "add" else place[1]] = junk  # type: ignore[index]
            break
    return bundle


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PLACES), JUNK, st.sampled_from(["set", "set", "add", "drop"]))
def test_a_spoilt_bundle_is_taken_or_refused(place: tuple[str, str], junk: Any, how: str) -> None:
    data = json.dumps(_spoilt(place, junk, how)).encode()
    try:
        taken = read_bundle(data, BOUND)
        issues, rows = [*taken.unmapped, *taken.notes], set(taken.features)
    except FhirError as problem:
        issues, rows = list(problem.issues), set()
    outcome = operation_outcome(issues)
    assert check_structure(outcome) == []
    assert SECRET not in json.dumps(outcome)
    assert rows <= {"clinical", "genomics"}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    try:
        read_bundle(data, BOUND)
    except FhirError:
        return
    raise AssertionError("no Bundle was taken for one")
