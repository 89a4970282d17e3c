"""What a hospital's Bundle says, as features."""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.fhir.codes import LOINC
from api.fhir.codes import SNOMED as SCT
from api.fhir.doubles import (
    COLUMNS,
    ME,
    Resource,
    bundle,
    cc,
    observation,
    patient,
    quantity,
    region,
    stage,
    variant,
)
from api.fhir.intake import Intake, read_bundle
from api.fhir.mapping import MapFile, bind


def read(sent: Resource | bytes, own: MapFile | None = None) -> Intake:
    data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return read_bundle(data, bind(COLUMNS, own))


def clinical(*resources: Resource, **rest: Any) -> Any:
    return read(bundle(*resources, **rest)).features.get("clinical", {})


def genomics(*resources: Resource) -> Any:
    return read(bundle(*resources)).features.get("genomics", {})


def test_a_hospitals_bundle_becomes_features() -> None:
    race = {
        "url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race",
        "extension": [
            {
                "url": "ombCategory",
                "valueCoding": {"system": "urn:oid:2.16.840.1.113883.6.238", "code": "2028-9"},
            },
            {"url": "text", "valueString": "Asian"},
        ],
    }
    staged = stage("21902-2", "3B")
    condition = {
        "resourceType": "Condition", "subject": ME,
        "stage": [{"summary": cc("http://cancerstaging.org", "IIIB"),
                   "assessment": [{"reference": "urn:uuid:r0"}]}],
        "bodySite": [cc(SCT, "42400003")],
    }  # fmt: skip
    report = {
        "resourceType": "DiagnosticReport", "status": "final", "subject": ME,
        "code": cc(LOINC, "81247-9"), "effectiveDateTime": "2026-03-01",
        "result": [{"reference": "urn:uuid:r3"}],
    }  # fmt: skip
    vaf = {"code": cc(LOINC, "81258-6"), "valueQuantity": quantity(31, "%")}
    found = read(
        bundle(
            staged, condition, region("TP53", "KRAS", "EGFR"), variant("TP53", "LA9633-4", vaf),
            report, observation("39156-5", valueQuantity=quantity(22.5, "kg/m2")),
            observation("89247-1", valueInteger=1),
            observation("72166-2", valueCodeableConcept=cc(SCT, "8517006")),
            subject=patient(birthDate="1960-03-02", gender="female", extension=[race]),
            identifier={"system": "urn:x", "value": "board-7/3"},
        )
    )  # fmt: skip
    assert found.features == {
        "clinical": {
            "age": 65.0, "sex": "female", "race": "asian", "stage": "stage iiib",
            "lobe": "r-upper", "bmi": 22.5, "ecog": 1, "smoking": "former",
        },
        "genomics": {"TP53": 1.0, "KRAS": 0.0, "EGFR": 0.0},
    }  # fmt: skip
    assert found.reference == "board-7/3"
    assert found.unmapped == ()


@pytest.mark.parametrize(
    ("birth", "on", "age"),
    [
        ("1960-03-01", "2026-03-01", 66.0),
        ("1960-03-02", "2026-03-01", 65.0),
        ("1960-05", "2026-03-01", 65.0),
        ("1960-03", "2026-03-01", None),
        ("1960", "2026-12-31", 66.0),
        ("1960", "2026-03-01", None),
    ],
)
def test_an_age_is_taken_as_far_as_the_birth_date_tells(
    birth: str, on: str, age: float | None
) -> None:
    found = read(bundle(subject=patient(birthDate=birth), timestamp=f"{on}T12:00:00Z"))
    assert found.features.get("clinical", {}).get("age") == age
    assert bool(found.notes) is (age is None)


def test_an_age_needs_a_day_to_be_of() -> None:
    found = read(bundle(subject=patient(birthDate="1960-03-01")))
    assert found.features == {}
    assert [note.where for note in found.notes] == ["Bundle.entry[0].resource.birthDate"]


def test_a_stated_age_goes_before_a_birth_date() -> None:
    aged = observation("30525-0", valueQuantity=quantity(64.5, "a"))
    subject = patient(birthDate="1960-03-01")
    assert clinical(aged, subject=subject, timestamp="2026-03-01T00:00:00Z") == {"age": 64.5}


def test_the_pathological_stage_goes_before_the_clinical_and_the_newest_before_older() -> None:
    assert clinical(stage("21908-9", "I"), stage("21902-2", "IV")) == {"stage": "stage iv"}
    old, new = (
        stage("21902-2", code, effectiveDateTime=day)
        for code, day in (("I", "2024-01-01"), ("IV", "2026-01-01"))
    )
    assert clinical(new, old) == {"stage": "stage iv"}


def test_a_coarser_word_is_used_where_the_cohort_has_no_finer_one() -> None:
    found = observation("21899-0", valueCodeableConcept=cc("http://cancerstaging.org", "pT2a"))
    assert clinical(found) == {"T": "t2"}
    assert "coarser" in read(bundle(found)).notes[0].message


def test_what_is_said_to_be_unknown_is_unknown() -> None:
    assert clinical(subject=patient(gender="other")) == {"sex": None}
    absent = cc("http://terminology.hl7.org/CodeSystem/data-absent-reason", "unknown")
    assert clinical(observation("39156-5", dataAbsentReason=absent)) == {"bmi": None}
    smoker = observation("72166-2", valueCodeableConcept=cc(SCT, "77176002"))
    assert clinical(smoker) == {"smoking": None}


def test_a_gene_that_no_report_tested_is_not_known() -> None:
    assert genomics(variant("TP53")) == {"TP53": 1.0}
    assert genomics(variant("TP53"), region("KRAS")) == {"TP53": 1.0, "KRAS": 0.0}
    assert genomics(variant("KRAS", "LA9634-2")) == {"KRAS": 0.0}
    assert genomics(variant("KRAS", "LA18198-4")) == {}
    assert genomics(variant("KRAS", "LA9634-2"), variant("KRAS")) == {"KRAS": 1.0}


def test_a_gene_is_known_by_its_present_and_its_former_symbol() -> None:
    assert genomics(variant("ADGRL3")) == {"LPHN3": 1.0}
    assert genomics(variant("LPHN3")) == {"LPHN3": 1.0}


def test_germline_and_silent_variants_are_no_mutations() -> None:
    origin = {"code": cc(LOINC, "48002-0"), "valueCodeableConcept": cc(LOINC, "LA6683-2")}
    silent = {"code": cc(LOINC, "48005-3"), "valueCodeableConcept": {"text": "p.(Leu858=)"}}
    changed = {"code": cc(LOINC, "48005-3"), "valueCodeableConcept": {"text": "p.(Leu858Arg)"}}
    for component in (origin, silent):
        found = read(bundle(variant("EGFR", "LA9633-4", component), region("EGFR")))
        assert found.features == {"genomics": {"EGFR": 0.0}}
        assert len(found.notes) == 1
    assert genomics(variant("EGFR", "LA9633-4", changed)) == {"EGFR": 1.0}


def test_what_no_feature_comes_from_is_listed_not_refused() -> None:
    found = read(
        bundle(
            observation("718-7", valueQuantity=quantity(13, "g/dL")),
            variant("TP53", status="entered-in-error"),
            variant("BRCA2"),
            {"resourceType": "Encounter", "status": "finished", "class": {"code": "IMP"}},
        )
    )
    assert found.features == {}
    assert [issue.where for issue in found.unmapped] == [
        "Bundle.entry[1].resource", "Bundle.entry[2].resource",
    ]  # fmt: skip
    assert "1 Encounter" in found.notes[0].message


@pytest.mark.parametrize(
    ("system", "code", "taken"),
    [
        (SCT, "254637007", True),
        ("http://hl7.org/fhir/sid/icd-10-cm", "C34.11", True),
        ("http://hl7.org/fhir/sid/icd-10", "C50.1", False),
        ("http://hl7.org/fhir/sid/icd-10", "C340", False),
        (SCT, "709044004", False),
    ],
)
def test_only_the_tumours_stage_and_site_count(system: str, code: str, taken: bool) -> None:
    condition = {
        "resourceType": "Condition", "subject": ME, "code": cc(system, code),
        "stage": [{"summary": cc("http://cancerstaging.org", "IV")}],
        "bodySite": [cc(SCT, "42400003") if taken else cc(SCT, "72696002")],
    }  # fmt: skip
    about = stage("21902-2", "IV", focus=[{"reference": "urn:uuid:r0"}])
    found = read(bundle(condition, about))
    assert bool(found.features) is taken
    assert len(found.unmapped) == (0 if taken else 2)


def test_references_by_version_and_by_address_are_followed() -> None:
    sent = bundle(stage("21902-2", "IV", subject={"reference": "Patient/me/_history/3"}))
    assert read(sent).features == {"clinical": {"stage": "stage iv"}}


def test_a_laboratorys_transaction_is_read() -> None:
    """Shaped as the examples of HL7's genomics reporting guide."""
    hgvs = "http://varnomen.hgvs.org"
    parts = [
        {"code": cc(LOINC, "48002-0"), "valueCodeableConcept": cc(LOINC, "LA6684-0")},
        {"code": cc(LOINC, "48004-6"), "valueCodeableConcept": cc(hgvs, "NM_000546.6:c.524G>A")},
        {"code": cc(LOINC, "48005-3"),
         "valueCodeableConcept": cc(hgvs, "NP_000537.3:p.Arg175His")},
        {"code": cc(LOINC, "81258-6"), "valueQuantity": quantity(0.2568, "1")},
        {"code": cc(LOINC, "82121-5"), "valueQuantity": quantity(148, "1")},
    ]  # fmt: skip
    sent = bundle(variant("TP53", "LA9633-4", *parts), type="transaction")
    for entry in sent["entry"]:
        entry["request"] = {"method": "POST", "url": entry["resource"]["resourceType"]}
    found = read(sent)
    assert found.features == {"genomics": {"TP53": 1.0}}
    assert [note.where for note in found.notes] == ["Bundle.type"]


def test_a_panel_says_nothing_by_itself() -> None:
    group = observation("21902-2", hasMember=[{"reference": "urn:uuid:r1"}])
    member = observation("21899-0", valueCodeableConcept=cc("http://cancerstaging.org", "T1"))
    found = read(bundle(group, member))
    assert (found.features, found.unmapped) == ({"clinical": {"T": "t1"}}, ())


def test_observations_of_a_report_that_was_taken_back_are_left_out() -> None:
    report = {
        "resourceType": "DiagnosticReport", "status": "entered-in-error", "subject": ME,
        "code": cc(LOINC, "81247-9"), "result": [{"reference": "urn:uuid:r0"}],
    }  # fmt: skip
    assert read(bundle(variant("TP53"), report)).features == {}


def test_a_priority_becomes_an_urgency() -> None:
    request = {
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": ME,
        "priority": "asap",
    }  # fmt: skip
    assert read(bundle(request)).urgency == 0.8
    assert read(bundle(request | {"status": "completed"})).urgency is None
    assert read(bundle()).urgency is None


def test_the_subject_is_the_same_as_a_hooks_where_the_server_is_named() -> None:
    sent = bundle(subject=patient(identifier=[{"system": "urn:mrn", "value": "4711-A"}]))
    assert read(sent).subject is not None
    assert vars(read(sent).subject) == {"system": "urn:mrn", "patient": "4711-A"}
    sent["entry"][0]["fullUrl"] = "https://ehr.example/fhir/Patient/me"
    sent["entry"] = sent["entry"][:1]
    found = read(sent).subject
    assert vars(found) == {"system": "https://ehr.example/fhir", "patient": "me"}
    assert "4711" not in repr(found)
    assert read(bundle()).subject is None


def test_a_deployments_map_goes_first() -> None:
    own = MapFile.model_validate(
        {
            "version": 1,
            "genes": {"any_of": {"EGFR": ["KRAS", "NRAS"]}},
            "words": {"here": {"yes": {"codes": ["urn:our|Y"], "say": ["current"]}}},
            "feature": [
                {"modality": "clinical", "names": ["smoking"], "observation": ["urn:our|smokes"],
                 "words": "here"},
                {"modality": "clinical", "names": ["bmi"], "observation": ["urn:our|bmi"],
                 "units": {"g/cm2": 10.0}},
            ],
        }
    )  # fmt: skip
    smokes, bmi = ({"code": cc("urn:our", code)} for code in ("smokes", "bmi"))
    ours = [
        observation("x", valueCodeableConcept=cc("urn:our", "Y")) | smokes,
        observation("x", valueQuantity=quantity(2.5, "g/cm2")) | bmi,
        variant("NRAS"),
    ]
    found = read(bundle(*ours), own).features
    assert found == {"clinical": {"smoking": "current", "bmi": 25.0}, "genomics": {"EGFR": 1.0}}
