"""What a hospital's Bundle says, and what is refused of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from api.fhir.columns import Columns
from api.fhir.intake import Intake, read_bundle
from api.fhir.issues import FhirError
from api.fhir.mapping import MapFile, bind

LOINC, SCT = "http://loinc.org", "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
GENES = frozenset({"TP53", "KRAS", "EGFR", "LPHN3"})
CLINICAL = Columns(
    numbers=frozenset({"age", "bmi", "ecog"}),
    words={
        "sex": ("female", "male"), "stage": ("stage i", "stage iiib", "stage iv"),
        "smoking": ("current", "former", "never"), "race": ("asian", "white"),
        "lobe": ("r-upper", "l-lower"), "T": ("t1", "t2"),
    },
    flags=frozenset(),
)  # fmt: skip
COLUMNS = {"clinical": CLINICAL, "genomics": Columns(numbers=GENES, words={}, flags=GENES)}
ME = {"reference": "urn:uuid:me"}
Resource = dict[str, Any]


def cc(system: str, code: str, **rest: str) -> Resource:
    return {"coding": [{"system": system, "code": code, **rest}]}


def observation(code: str, **rest: Any) -> Resource:
    made = {
        "resourceType": "Observation", "status": "final", "code": cc(LOINC, code), "subject": ME,
    }  # fmt: skip
    return made | rest


def quantity(value: Any, unit: str) -> Resource:
    return {"value": value, "system": UCUM, "code": unit, "unit": unit}


def stage(code: str, value: str, **rest: Any) -> Resource:
    return observation(code, valueCodeableConcept=cc("http://cancerstaging.org", value), **rest)


def gene(symbol: str) -> Resource:
    named = cc("http://www.genenames.org/geneId", "HGNC:1", display=symbol)
    return {"code": cc(LOINC, "48018-6"), "valueCodeableConcept": named}


def variant(symbol: str, state: str = "LA9633-4", *more: Resource, **rest: Any) -> Resource:
    return observation(
        "69548-6", valueCodeableConcept=cc(LOINC, state), component=[gene(symbol), *more], **rest
    )


def region(*symbols: str) -> Resource:
    return observation("53041-0", component=[gene(symbol) for symbol in symbols])


def patient(**rest: Any) -> Resource:
    return {"resourceType": "Patient", "id": "me"} | rest


def bundle(*resources: Resource, subject: Resource | None = None, **rest: Any) -> Resource:
    entries = [{"fullUrl": "urn:uuid:me", "resource": subject or patient()}]
    entries += [
        {"fullUrl": f"urn:uuid:r{i}", "resource": resource} for i, resource in enumerate(resources)
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries} | rest


def read(sent: Resource | bytes, own: MapFile | None = None) -> Intake:
    data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    return read_bundle(data, bind(COLUMNS, own))


def clinical(*resources: Resource, **rest: Any) -> Any:
    return read(bundle(*resources, **rest)).features.get("clinical", {})


def genomics(*resources: Resource) -> Any:
    return read(bundle(*resources)).features.get("genomics", {})


@pytest.fixture
def refused() -> Callable[..., str]:
    """The place of the first problem; nothing that came in may be repeated."""

    def place(sent: Resource | bytes, *secrets: str) -> str:
        with pytest.raises(FhirError) as caught:
            read(sent)
        told = " ".join(f"{issue.where} {issue.message}" for issue in caught.value.issues)
        assert not [secret for secret in secrets if secret in told]
        return caught.value.issues[0].where

    return place


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


def test_a_bundle_full_of_unknown_names_is_refused_in_no_time() -> None:
    system = "urn:greenboard:feature:clinical"
    many = [{"code": cc(system, f"f{i}"), "valueQuantity": {"value": i}} for i in range(4000)]
    many.append({"code": cc(system, "x" * 100_000), "valueQuantity": {"value": 0}})
    began = time.process_time()
    with pytest.raises(FhirError) as caught:
        read(bundle(observation("x", component=many)))
    assert time.process_time() - began < 3
    assert len(caught.value.issues) == len(many)


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


HIDDEN = "Mustermann"


@pytest.mark.parametrize(
    ("resource", "where"),
    [
        (observation("39156-5", valueQuantity=quantity(22.5, "lb")), "valueQuantity.code"),
        (observation("39156-5", valueQuantity=quantity(22.5, "kg/m2") | {"comparator": "<"}),
         "valueQuantity.comparator"),
        (observation("39156-5", valueQuantity=quantity(10**400, "kg/m2")), "valueQuantity.value"),
        (observation("39156-5", valueString=HIDDEN), ""),
        (observation("39156-5"), ""),
        (stage("21902-2", HIDDEN), "valueCodeableConcept"),
        (observation("21902-2", valueCodeableConcept={"text": HIDDEN}), "valueCodeableConcept"),
        (variant("TP53", "LA0-0"), "valueCodeableConcept"),
        (variant("TP53", "LA9633-4", {"code": cc(LOINC, "81258-6"),
                                      "valueQuantity": quantity(1.2, "1")}),
         "component[1].valueQuantity.value"),
        (observation("69548-6", valueCodeableConcept=cc(LOINC, "LA9633-4")), ""),
        (observation("1", status="bogus"), "status"),
        (observation("1", modifierExtension=[{"url": "u", "valueString": HIDDEN}]),
         "modifierExtension"),
        (observation("1", contained=[{"resourceType": "Patient"}]), "contained"),
        (observation("1", implicitRules="urn:x"), "implicitRules"),
        (observation("1", id="a/b"), "id"),
        (observation("1", effectiveDateTime="2026-02-30"), "effectiveDateTime"),
        (observation("1", subject={"reference": f"https://elsewhere.example/{HIDDEN}"}), "subject"),
        (observation("1", subject={"display": HIDDEN}), "subject"),
        ({"resourceType": "Condition", "subject": ME,
          "clinicalStatus": cc("http://terminology.hl7.org/CodeSystem/condition-clinical", HIDDEN)},
         "clinicalStatus.coding[0].code"),
        ({"resourceType": "Observation", HIDDEN: 1, "status": "final", "code": {"text": "x"}}, "?"),
        ({"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "x"},
          "subject": ME, "result": [{"reference": "Observation/elsewhere"}]}, "result[0]"),
        (patient(id="other"), None),
        ({"resourceType": "Bundle", "type": "collection"}, ""),
        (observation("1") | {"code": cc("urn:greenboard:feature:clinical", HIDDEN)}, "code"),
        (observation("1", valueQuantity=quantity(3, "kg"))
         | {"code": cc("urn:greenboard:feature:clinical", "bmi")}, "valueQuantity.code"),
        (observation("1", valueString=HIDDEN)
         | {"code": cc("urn:greenboard:feature:clinical", "bmi")}, ""),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_with_its_place(
    resource: Resource, where: str | None, refused: Callable[..., str]
) -> None:
    place = refused(bundle(resource), HIDDEN)
    base = "Bundle.entry[1].resource"
    assert place == ("Bundle.entry" if where is None else ".".join(filter(None, [base, where])))


def test_contradictions_are_refused(refused: Callable[..., str]) -> None:
    two = bundle(stage("21902-2", "I"), stage("21902-2", "IV"))
    assert refused(two) == "Bundle.entry[2].resource"
    mixed = stage("21902-2", "I")
    mixed["valueCodeableConcept"]["coding"].append(
        {"system": "http://cancerstaging.org", "code": "IV"}
    )
    assert refused(bundle(mixed)) == "Bundle.entry[1].resource.valueCodeableConcept"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"type": "history"}, "Bundle.type"),
        (
            {
                "type": "batch",
                "entry": [
                    {"resource": patient(), "request": {"method": "DELETE", "url": "Patient/me"}}
                ],
            },
            "Bundle.entry[0].request.method",
        ),
        ({"type": "bogus"}, "Bundle.type"),
        ({"entry": []}, "Bundle.entry"),
        ({"entry": [{"fullUrl": "urn:uuid:a"}]}, "Bundle.entry[0].resource"),
        ({"entry": [{"resource": observation("1")}]}, "Bundle.entry"),
        ({"entry": [{"resource": patient()}] * 2}, "Bundle.entry[1].resource"),
        ({"entry": [{"resource": patient()}] * 2001}, "Bundle.entry"),
        ({"identifier": {"value": "case-4711-a"}}, "Bundle.identifier.value"),
        ({"identifier": {"value": "a\u202eb"}}, "Bundle.identifier.value"),
        ({"timestamp": "2026-02-30T00:00:00Z"}, "Bundle.timestamp"),
        ({"resourceType": "Patient"}, None),
    ],
)
def test_hostile_bundles_are_refused(
    change: Resource, where: str | None, refused: Callable[..., str]
) -> None:
    sent = bundle(subject=patient(identifier=[{"value": "4711-A"}])) | change
    assert where in (None, refused(sent, "4711", "\u202e"))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"5", b"\xff\xfe", b'{"resourceType":"Bundle"', b'{"a":NaN}',
        b'{"resourceType":"Patient","gender":"\\ud800"}',
        b'{"resourceType":"Bundle","type":"collection","type":"document"}',
        b'{"resourceType":"Patient","extension":' + b'[{"extension":' * 5000 + b"[]" + b"}]" * 5000
        + b"}",
        json.dumps(bundle(observation("39156-5", valueQuantity={"value": 7}))).encode()
        .replace(b": 7", b": " + b"7" * 5000),
    ],
)  # fmt: skip
def test_what_is_no_json_or_beyond_measure_is_refused(
    data: bytes, refused: Callable[..., str]
) -> None:
    assert refused(data)
