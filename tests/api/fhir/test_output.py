"""A case as FHIR has it, wherever its review stands."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fhir.resources.R4B import get_fhir_model_class
from hypothesis import given, settings
from hypothesis import strategies as st

from api.audit import AuditEntry
from api.fhir.output import case_bundle
from api.fhir.reading_back import read_case
from api.fhir.validate import check_bundle
from api.schemas import CaseView, ModelOfCase, PolicyOfCase

AT = datetime(2026, 3, 1, 12, 30, 0, 250, tzinfo=UTC)
EXPLANATION = {
    "suggestion": "positive", "lines": ["First line.", "Second line."], "g_co2e": 41.5,
    "energy_kwh_modelled": 0.2, "energy_kwh_measured": 0.0001, "unmeasured": ["GPU: no counter"],
    "missing": ["radiomics"], "unreliable": ["pathology"], "conformal_set": ["LUAD", "LUSC"],
    "conformal_level": 0.9,
    "weighting": {
        "clinical": {"contribution_log_odds": 0.25, "attention": 0.4, "quality": 0.9},
        "path ology": {"contribution_log_odds": -1.5, "attention": 0.6, "quality": None},
    },
}  # fmt: skip


def opinion(action: str, reviewer: str = "dr-a", **rest: Any) -> dict[str, Any]:
    return {"action": action, "reviewer": reviewer, "decided_at": AT.isoformat(), "round": 0} | rest


def case(status: str = "awaiting_clinician", **rest: Any) -> CaseView:
    known: dict[str, Any] = {
        "id": "6f1c0c5e9b8e4c3a9d7e2f1a0b3c4d5e", "status": status, "reference": "board-7",
        "unit": None, "session": None, "urgency": 0.2, "deadline": None, "created_at": AT,
        "updated_at": AT, "created_by": "dr-a", "seen_in_training": None, "probability": 0.7,
        "policy": PolicyOfCase(asked="rule", acting="rule"), "transfers_run": [], "wake_at": None,
        "result": None, "version": 3, "uncertainty": 0.88, "g_co2e": 41.5, "flags": ["drift"],
        "suggestion": "positive", "second_review": None, "opinions": [], "decision": None,
        "model": ModelOfCase(
            bundle_version="abc123", cohort="tcga nsclc", synthetic=False, negative="LUAD",
            positive="LUSC", precision="int8",
        ),
        "explanation": EXPLANATION, "plan": None, "failure": None, "caution": ["Careful."],
        "links": {},
    }  # fmt: skip
    return CaseView.model_validate(known | rest)


def entry(seq: int, action: str, actor: str = "dr-a", **detail: Any) -> AuditEntry:
    return AuditEntry(
        seq=seq, time=AT, actor=actor, action=action, subject="x", detail=detail, previous="0" * 64,
        hash="f" * 64,
    )  # fmt: skip


def made(view: CaseView, *trail: AuditEntry) -> dict[str, Any]:
    bundle = case_bundle(view, trail, software="1.2")
    assert check_bundle(bundle) == []
    for part in bundle["entry"]:
        resource = part["resource"]
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    parsed: dict[str, Any] = json.loads(json.dumps(bundle, allow_nan=False))
    return parsed


def of(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


@pytest.mark.parametrize(
    ("status", "known", "expected"),
    [
        ("queued", {"probability": None, "explanation": None}, "registered"),
        ("deferred", {"explanation": None, "wake_at": AT + timedelta(hours=3)}, "preliminary"),
        ("parked", {"probability": None, "explanation": None, "failure": "x"}, "registered"),
        ("awaiting_clinician", {}, "preliminary"),
        ("awaiting_second", {"opinions": [opinion("accept")]}, "preliminary"),
        ("recorded", {"opinions": [opinion("accept")], "result": "positive"}, "final"),
        ("sent_back", {"opinions": [opinion("send_back", reason_code="other")]}, "cancelled"),
        ("sent_back", {"opinions": [opinion("send_back", reason_code="wrong_data")]},
         "entered-in-error"),
    ],
)  # fmt: skip
def test_the_status_says_where_the_review_stands(
    status: str, known: dict[str, Any], expected: str
) -> None:
    view = case(status, **known)
    bundle = made(view, entry(0, "case.created"))
    facts = read_case(bundle)
    assert facts.status == expected
    assert bool(facts.probabilities) is (view.probability is not None)
    assert all(o["status"] == expected for o in of(bundle, "Observation") if "device" in o)


def test_two_reviewers_stand_under_what_they_agreed_on() -> None:
    opinions = [
        opinion("override", "dr-a", result="negative", reason_code="new_information"),
        opinion("accept", "dr-b", round=1, comment="No \x00 doubt."),
        opinion("accept", "dr-c", round=2),
    ]
    bundle = made(case("recorded", opinions=opinions, result="positive"))
    facts = read_case(bundle)
    assert facts.result == "LUSC"
    assert [(s.action, s.reviewer) for s in facts.opinions] == [
        ("override", "dr-a"), ("accept", "dr-b"), ("accept", "dr-c"),
    ]  # fmt: skip
    (result,) = [o for o in of(bundle, "Observation") if "focus" in o]
    people = {
        f"urn:uuid:{p['id']}": p["identifier"][0]["value"] for p in of(bundle, "Practitioner")
    }
    assert [people[p["reference"]] for p in result["performer"]] == ["dr-b", "dr-c"]
    (note,) = [n for n in of(bundle, "RiskAssessment")[0]["note"] if "authorReference" in n]
    assert people[note["authorReference"]["reference"]] == "dr-b"
    assert "\x00" not in note["text"]


def test_the_assessment_says_what_it_rests_on_and_what_it_cost() -> None:
    bundle = made(case())
    (risk,) = of(bundle, "RiskAssessment")
    assert [p["probabilityDecimal"] for p in risk["prediction"]] == [70.0, pytest.approx(30.0)]
    rationale = risk["prediction"][0]["rationale"]
    for text in ("clinical +0.25", "0.9", "LUAD, LUSC", "radiomics", "pathology"):
        assert text in rationale
    evidence = [o for o in of(bundle, "Observation") if "device" in o]
    assert [{"reference": f"urn:uuid:{o['id']}", "type": "Observation"} for o in evidence] == risk[
        "basis"
    ]
    carbon = {part["url"]: part for part in risk["extension"][0]["extension"]}
    assert carbon["gross-co2e"]["valueQuantity"]["value"] == 41.5
    assert carbon["energy-modelled"]["valueQuantity"]["code"] == "kW.h"
    assert "Nothing is called avoided" in carbon["note"]["valueString"]
    unmetered = case(explanation=EXPLANATION | {"energy_kwh_measured": 0.0})
    assert "energy-measured" not in json.dumps(made(unmetered))
    texts = [note["text"] for note in risk["note"]]
    assert texts[0].startswith("Research use only")
    assert {"Careful.", "First line.", "drift"} <= set(texts)


def test_what_is_synthetic_is_marked_so_everywhere() -> None:
    model = case().model.model_copy(update={"synthetic": True})
    view = case("recorded", model=model, opinions=[opinion("accept")], result="positive")
    bundle = made(view, entry(0, "case.created"))
    for part in [bundle, *(e["resource"] for e in bundle["entry"])]:
        codes = {tag["code"] for tag in part["meta"]["tag"]}
        assert {"synthetic", "HTEST", "research-use-only"} <= codes
    assert "synthetic" not in json.dumps(made(case())["meta"])


def test_the_audit_log_can_be_found_from_its_events() -> None:
    trail = [
        entry(4, "case.created", policy="rule", of={"b": 1.5, "a": None}),
        entry(9, "case.accept", "dr-b", result=None),
        entry(11, "case.woken", "machine \x07"),
    ]  # fmt: skip
    bundle = made(case("recorded", opinions=[opinion("accept", "dr-b")], result="positive"), *trail)
    events = of(bundle, "AuditEvent")
    assert [event["action"] for event in events] == ["C", "U", "U"]
    detail = {d["type"]: d["valueString"] for d in events[0]["entity"][0]["detail"]}
    assert detail == {"audit-seq": "4", "audit-sha256": "f" * 64, "policy": "rule",
                      "of": '{"a": null, "b": 1.5}'}  # fmt: skip
    (person,) = of(bundle, "Practitioner")
    assert events[1]["agent"][0]["who"]["reference"] == f"urn:uuid:{person['id']}"
    assert "identifier" in events[2]["agent"][0]["who"]


PRINTABLE = st.text(max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    p=st.floats(0, 1),
    result=st.sampled_from(["negative", "positive"]),
    comment=PRINTABLE,
    reference=PRINTABLE,
    name=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(str.strip),
)
def test_probability_result_and_decision_come_back(
    p: float, result: str, comment: str, reference: str, name: str
) -> None:
    signed = opinion("override", result=result, reason_code="other", comment=comment)
    model = case().model.model_copy(update={"positive": "+ " + name.strip()})
    view = case(
        "recorded", probability=p, opinions=[signed], result=result, reference=reference,
        model=model,
    )  # fmt: skip
    facts = read_case(made(view))
    assert facts.probabilities == {model.positive: p, model.negative: 1.0 - p}
    assert facts.result == (model.positive if result == "positive" else model.negative)
    assert facts.opinions[0].reason_code == "other"
    assert (facts.case, facts.bundle_version, facts.g_co2e) == (view.id, "abc123", 41.5)
