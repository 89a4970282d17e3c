"""What of a Bundle is refused: each with its place, and nothing that came in repeated."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from api.fhir.codes import LOINC
from api.fhir.doubles import (
    COLUMNS,
    ME,
    Resource,
    bundle,
    cc,
    observation,
    patient,
    quantity,
    stage,
    variant,
)
from api.fhir.intake import read_bundle
from api.fhir.issues import FhirError
from api.fhir.mapping import bind


def read(sent: Resource | bytes) -> None:
    data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    read_bundle(data, bind(COLUMNS))


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
        (observation("1", effectiveDateTime=HIDDEN), "effectiveDateTime"),
        (observation("1") | {"code": cc(f"{HIDDEN} x", "y")},
         "code.coding[0].system"),
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


def test_a_bundle_full_of_unknown_names_is_refused_in_no_time() -> None:
    system = "urn:greenboard:feature:clinical"
    many = [{"code": cc(system, f"f{i}"), "valueQuantity": {"value": i}} for i in range(4000)]
    many.append({"code": cc(system, "x" * 100_000), "valueQuantity": {"value": 0}})
    began = time.process_time()
    with pytest.raises(FhirError) as caught:
        read(bundle(observation("x", component=many)))
    assert time.process_time() - began < 3
    assert len(caught.value.issues) == len(many)
