"""Cases that a hook starts from what it brings, and cases that came as FHIR bundles before it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.cds import intake
from api.cds.doubles import Signer, claims, hook, service_address, write_trust

PUBLIC, ISS, FHIR = (
    "https://cds.example.org",
    "https://ehr.example.org",
    "https://ehr.example.org/f",
)
SERVICE = service_address("")


def row_of(row: int) -> dict[str, Any]:
    """What the replayed student knows of a patient."""
    code = {"coding": [{"system": "urn:greenboard:feature:clinical", "code": "row"}]}
    return {"resourceType": "Observation", "id": f"o{row}", "status": "final", "code": code,
            "subject": {"reference": "Patient/p1"}, "valueQuantity": {"value": row}}  # fmt: skip


def brought(*observations: dict[str, Any], patient: str = "p1") -> dict[str, Any]:
    found = {"resourceType": "Bundle", "type": "searchset",
             "entry": [{"resource": one} for one in observations]}  # fmt: skip
    person = {"resourceType": "Patient", "id": patient, "gender": "female"}
    return {"patient": person, "conditions": None, "observations": found}


@pytest.fixture
def with_genomics(monkeypatch: Any) -> None:
    """The replayed student has no features but one; this adds what a report would say."""
    real = intake.read_for

    def read(server: Any, data: bytes) -> Any:
        found = real(server, data)
        return replace(found, features={**found.features, "genomics": {"EGFR": 1.0}})

    monkeypatch.setattr(intake, "read_for", read)


def test_what_a_call_brings_starts_one_case(serve: Any, until: Any, with_genomics: None) -> None:
    with serve(cds_open=True) as running, running.client() as client:
        asked = hook("p1", FHIR, prefetch=brought(row_of(3)))

        def call(_: int) -> Any:
            return client.post(SERVICE, json=asked)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(call, range(8)))
        assert {answer.status_code for answer in answers} == {200}
        urls = {answer.json()["cards"][0]["links"][0]["url"] for answer in answers}
        assert len(urls) == 1
        (case,) = client.get("/v1/cases").json()["cases"]
        assert urls == {f"{running.url}/cases/{case['id']}"}
        assert case["created_by"] == "cds:open"
        assert case["reference"] is None
        until(client, case["id"], "awaiting_clinician")
        # Without anything brought, the case is there now.
        (card,) = client.post(SERVICE, json=hook("p1", FHIR)).json()["cards"]
        assert "ready for a decision" in card["summary"]
        # The card that was shown at the start is known too.
        first = {answer.json()["cards"][0]["uuid"] for answer in answers}
        said = [{"card": one, "outcome": "overridden", "outcomeTimestamp": "2030-01-31T09:00:00Z"}
                for one in first]  # fmt: skip
        assert client.post(f"{SERVICE}/feedback", json={"feedback": said}).status_code == 200


def test_charts_without_anything_to_review_start_nothing(serve: Any, monkeypatch: Any) -> None:
    with serve(cds_open=True) as running, running.client() as client:
        strange = {**row_of(1), "valueQuantity": {"value": 10_000}}
        broken = {**row_of(1), "status": "no such status"}
        for prefetch in (brought(), brought(row_of(1)), brought(strange), brought(broken),
                         brought({"resourceType": "Observation"}),
                         {**brought(row_of(1)), "conditions": {"resourceType": 3}}):  # fmt: skip
            answer = client.post(SERVICE, json=hook("p1", FHIR, prefetch=prefetch))
            assert (answer.status_code, answer.json()) == (200, {"cards": []})
        other = client.post(
            SERVICE, json=hook("p1", FHIR, prefetch=brought(row_of(1), patient="p2"))
        )
        assert other.status_code == 422
        assert client.get("/v1/cases").json()["cases"] == []


def test_features_that_the_bundle_cannot_take_start_nothing(
    serve: Any, with_genomics: None
) -> None:
    with serve(cds_open=True) as running, running.client() as client:
        asked = hook("p1", FHIR, prefetch=brought(row_of(10_000)))
        assert client.post(SERVICE, json=asked).json() == {"cards": []}
        assert client.get("/v1/cases").json()["cases"] == []


@pytest.mark.parametrize("start", [True, False])
def test_only_issuers_that_may_start_cases_do(
    serve: Any, tmp_path: Path, with_genomics: None, start: bool
) -> None:
    signer = Signer.make("ES384", "k")
    trust = write_trust(tmp_path, signer, iss=ISS, fhir_server=FHIR, start_cases=start)
    with serve(cds_trust=trust, public_url=PUBLIC) as running, running.client() as client:
        token = signer.token(claims(ISS, service_address(PUBLIC), datetime.now(UTC)))
        answer = client.post(
            SERVICE, json=hook("p1", FHIR, prefetch=brought(row_of(3))),
            headers={"Authorization": f"Bearer {token}"},
        )  # fmt: skip
        assert answer.status_code == 200
        cases = client.get("/v1/cases").json()["cases"]
        assert len(answer.json()["cards"]) == len(cases) == int(start)
        if start:
            assert cases[0]["created_by"] == f"cds:{ISS}"
            assert answer.json()["cards"][0]["links"][0]["url"].startswith(PUBLIC)


def test_a_case_that_came_as_a_bundle_is_found_by_the_patients_chart(
    serve: Any, tmp_path: Path, until: Any
) -> None:
    signer = Signer.make("RS384", "k")
    trust = write_trust(tmp_path, signer, iss=ISS, fhir_server=FHIR)
    me = f"{FHIR}/Patient/p1"
    entries = [
        {"fullUrl": me, "resource": brought()["patient"]},
        {"fullUrl": f"{FHIR}/Observation/o3",
         "resource": {**row_of(3), "subject": {"reference": me}}},
    ]  # fmt: skip
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    with serve(cds_trust=trust, public_url=PUBLIC) as running, running.client() as client:
        posted = client.post(
            "/v1/fhir/Bundle", content=json.dumps(bundle),
            headers={"Content-Type": "application/fhir+json"},
        )  # fmt: skip
        assert posted.status_code == 202, posted.text
        case_id = posted.json()["case"]["id"]
        until(client, case_id, "awaiting_clinician")
        token = signer.token(claims(ISS, service_address(PUBLIC), datetime.now(UTC)))
        answer = client.post(
            SERVICE, json=hook("p1", FHIR), headers={"Authorization": f"Bearer {token}"}
        )
        (card,) = answer.json()["cards"]
        assert card["links"][0]["url"] == f"{PUBLIC}/cases/{case_id}"
