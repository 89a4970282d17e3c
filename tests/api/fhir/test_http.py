"""FHIR over HTTP with a real server: a Bundle in, the review, a Bundle out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir.resources.R4B import get_fhir_model_class

from api.app import create_app
from api.errors import SettingsError
from api.fhir.reading_back import read_case
from api.fhir.validate import check_bundle, check_structure
from api.settings import Settings

FHIR = "application/fhir+json"
ROW = "urn:greenboard:feature:clinical"
Until = Callable[..., dict[str, Any]]


def sent(row: int = 1, **rest: Any) -> dict[str, Any]:
    """A patient of the replayed table: its one feature says which row."""
    me = {"reference": "urn:uuid:me"}

    def own(modality: str, code: str) -> dict[str, Any]:
        return {"coding": [{"system": f"urn:greenboard:feature:{modality}", "code": code}]}

    clinical = {
        "resourceType": "Observation", "status": "final", "subject": me,
        "code": own("clinical", "row"), "valueQuantity": {"value": row},
    }  # fmt: skip
    patient = {
        "resourceType": "Patient", "id": "me", "gender": "female", "birthDate": "1960-01-01",
        "identifier": [{"system": "urn:mrn", "value": "MRN-4711"}],
        "name": [{"family": "Mustermann"}],
    }  # fmt: skip
    entries = [
        {"fullUrl": "urn:uuid:me", "resource": patient},
        {"fullUrl": "urn:uuid:row", "resource": clinical},
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries} | rest


def post(client: httpx.Client, body: Any, accept: str = "application/json", **rest: Any) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": FHIR, "Accept": accept} | rest.pop("headers", {})
    return client.post("/v1/fhir/Bundle", content=content, headers=headers, **rest)


def out(client: httpx.Client, case_id: str) -> dict[str, Any]:
    answer = client.get(f"/v1/cases/{case_id}/fhir")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{FHIR}; fhirVersion=4.0"
    bundle: dict[str, Any] = answer.json()
    assert check_bundle(bundle) == []
    for entry in bundle["entry"]:
        # A second opinion on structure, by another library.
        get_fhir_model_class(entry["resource"]["resourceType"]).model_validate(entry["resource"])
    return bundle


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def test_from_a_bundle_to_a_signed_bundle(shared_client: httpx.Client, until: Until) -> None:
    answer = post(
        shared_client, sent(2, identifier={"value": "board-7/2"}), params={"urgency": 0.4}
    )
    assert answer.status_code == 202
    told = answer.json()
    case_id = told["case"]["id"]
    assert answer.headers["location"] == f"/v1/cases/{case_id}"
    assert told["case"]["reference"] == "board-7/2"
    assert told["case"]["urgency"] == 0.4
    assert told["mapped"] == {"clinical": 1}
    case = until(shared_client, case_id, "awaiting_clinician")

    before = out(shared_client, case_id)
    facts = read_case(before)
    assert facts.status == "preliminary"
    assert facts.probabilities[case["model"]["positive"]] == case["probability"]
    assert facts.bundle_version == case["model"]["bundle_version"]
    assert facts.g_co2e == case["explanation"]["g_co2e"]
    assert facts.synthetic is case["model"]["synthetic"]
    assert (facts.result, facts.opinions) == (None, ())

    decision = {
        "action": "override", "result": "negative", "reason_code": "new_information",
        "comment": "Histology \u0000 says so.",
    }  # fmt: skip
    assert shared_client.post(f"/v1/cases/{case_id}/decision", json=decision).status_code == 201
    case = until(shared_client, case_id, "recorded")
    after = out(shared_client, case_id)
    facts = read_case(after)
    assert facts.status == "final"
    assert facts.result == case["model"]["negative"]
    assert facts.probabilities[case["model"]["positive"]] == case["probability"]
    signed = [(s.action, s.reviewer, s.reason_code) for s in facts.opinions]
    assert signed == [("override", "dr-reviewer", "new_information")]
    events = [event["subtype"][0]["code"] for event in resources(after, "AuditEvent")]
    assert events == ["case.created", "case.override"]
    assert "Mustermann" not in json.dumps(after)
    assert "4711" not in json.dumps(after)


def test_the_same_case_gives_the_same_bundle(shared_client: httpx.Client, until: Until) -> None:
    case_id = post(shared_client, sent(3)).json()["case"]["id"]
    until(shared_client, case_id, "awaiting_clinician")
    first, second = (out(shared_client, case_id) for _ in range(2))
    assert first == second
    urls = [entry["fullUrl"] for entry in first["entry"]]
    assert urls == [f"urn:uuid:{entry['resource']['id']}" for entry in first["entry"]]


def test_machine_and_clinician_are_told_apart(shared_client: httpx.Client, until: Until) -> None:
    case_id = post(shared_client, sent(4)).json()["case"]["id"]
    until(shared_client, case_id, "awaiting_clinician")
    shared_client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
    until(shared_client, case_id, "recorded")
    bundle = out(shared_client, case_id)
    (risk,) = resources(bundle, "RiskAssessment")
    assert risk["meta"]["security"][0]["code"] == "AIAST"
    assert "Research use only" in risk["mitigation"]
    (result,) = [o for o in resources(bundle, "Observation") if "focus" in o]
    assert result["meta"]["security"][0]["code"] == "CLINAST"
    by_kind = {p["activity"]["coding"][0]["code"]: p for p in resources(bundle, "Provenance")}
    device = resources(bundle, "Device")[0]
    maker = by_kind["CREATE"]["agent"][0]
    assert maker["who"]["reference"] == f"urn:uuid:{device['id']}"
    assert by_kind["AU"]["agent"][0]["type"]["coding"][0]["code"] == "verifier"


@pytest.mark.parametrize(
    ("reason", "status"), [("missing_data", "cancelled"), ("wrong_data", "entered-in-error")]
)
def test_a_case_that_was_sent_back_is_not_final(
    shared_client: httpx.Client, until: Until, reason: str, status: str
) -> None:
    case_id = post(shared_client, sent(5)).json()["case"]["id"]
    until(shared_client, case_id, "awaiting_clinician")
    decision = {"action": "send_back", "reason_code": reason}
    shared_client.post(f"/v1/cases/{case_id}/decision", json=decision)
    until(shared_client, case_id, "sent_back")
    facts = read_case(out(shared_client, case_id))
    assert (facts.status, facts.result) == (status, None)
    assert [s.action for s in facts.opinions] == ["send_back"]


def test_those_who_speak_fhir_are_answered_in_fhir(shared_client: httpx.Client) -> None:
    answer = post(shared_client, sent(6), accept=FHIR)
    assert answer.status_code == 202
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert answer.headers["location"].startswith("/v1/cases/")
    refused = post(shared_client, sent(6, type="history"), accept=FHIR)
    assert refused.status_code == 422
    issue = refused.json()["issue"][0]
    assert (issue["severity"], issue["code"]) == ("error", "not-supported")
    assert issue["expression"] == ["Bundle.type"]


def test_problems_name_places_and_repeat_nothing(shared_client: httpx.Client) -> None:
    bad = sent(6)
    bad["entry"][0]["resource"]["gender"] = "Mustermann"
    answer = post(shared_client, bad)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"].endswith(":invalid-fhir")
    assert problem["errors"][0]["where"] == "Bundle.entry[0].resource.gender"
    assert "Mustermann" not in answer.text


def test_the_same_key_and_bundle_make_one_case(shared_client: httpx.Client) -> None:
    key = {"Idempotency-Key": "fhir-1"}
    first, again = (post(shared_client, sent(7), headers=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["case"]["id"] == again.json()["case"]["id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert (
        post(shared_client, sent(8), headers=key).json()["type"].endswith(":idempotency-key-reused")
    )


def test_of_who_the_patient_is_a_keyed_sum_is_kept(shared_server: Any) -> None:
    with shared_server.client() as client:
        case_id = post(client, sent(9)).json()["case"]["id"]
    state = shared_server.settings.state
    subject = shared_server.app.state.server.cds.subjects.of("urn:mrn", "MRN-4711")
    stored = b"".join(path.read_bytes() for path in state.glob("*.sqlite*"))
    assert case_id.encode() in stored
    assert subject.encode() in stored
    for secret in (b"MRN-4711", b"Mustermann", b"1960-01-01"):
        assert secret not in stored


def test_who_may_not_is_told_so(shared_server: Any) -> None:
    with shared_server.client("viewer") as client:
        assert post(client, sent()).status_code == 403
        assert client.get("/v1/cases/none/fhir").status_code == 404
    with shared_server.client(None) as client:
        assert post(client, sent()).status_code == 401
        assert client.get("/v1/cases/none/fhir").status_code == 401
    with shared_server.client() as client:
        wrong = client.post(
            "/v1/fhir/Bundle", content=b"<x/>", headers={"Content-Type": "text/xml"}
        )
        assert wrong.status_code == 415
        assert post(client, b" " * (shared_server.settings.max_body_bytes + 1)).status_code == 413
        assert post(client, sent(), params={"urgency": 2}).status_code == 422
        assert post(client, sent(10**6)).json()["type"].endswith(":invalid-features")


def test_the_example_of_the_schema_is_taken_as_it_stands(shared_client: httpx.Client) -> None:
    schema = shared_client.get("/openapi.json").json()
    content = schema["paths"]["/v1/fhir/Bundle"]["post"]["requestBody"]["content"]
    assert set(content) == {FHIR, "application/json"}
    for media in content.values():
        bundle = media["examples"]["made-up"]["value"]
        assert check_bundle(bundle) == []
        assert post(shared_client, bundle).status_code == 202


def test_fhir_clients_can_ask_what_there_is(shared_server: Any) -> None:
    with shared_server.client(None) as client:
        answer = client.get("/v1/fhir/metadata")
    assert answer.headers["content-type"] == f"{FHIR}; fhirVersion=4.0"
    statement = answer.json()
    assert check_structure(statement) == []
    assert statement["fhirVersion"] == "4.0.1"
    assert "Research use only" in statement["rest"][0]["documentation"]


def test_what_no_case_may_hold_comes_in_by_no_other_door(shared_client: httpx.Client) -> None:
    for reference in ("x" * 201, "a\u200bb", "\u0085"):
        answer = post(shared_client, sent(1, identifier={"value": reference}))
        assert answer.status_code == 422
        assert reference not in answer.text
    assert post(shared_client, sent(), params={"unit": "a\u202eb"}).status_code == 422
    late = {"deadline": "2020-01-01T00:00:00Z"}
    assert post(shared_client, sent(), params=late).status_code == 422


def test_a_server_does_not_start_on_a_map_that_it_cannot_read(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "map.toml"
    path.write_text("version = 2")
    app = create_app(settings.model_copy(update={"fhir_map": path}))

    async def start() -> None:
        async with app.router.lifespan_context(app):
            raise AssertionError("it has started")

    with pytest.raises(SettingsError, match="version"):
        asyncio.run(start())
