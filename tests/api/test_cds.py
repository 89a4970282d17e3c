"""The CDS service: discovery, cards for what is known, feedback, and calls from browsers."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.workflow.doubles import StillMonitor
from api.cds.cards import NEAR, REASONS, Shown, card_id, card_of, escape
from api.cds.doubles import hook
from api.cds.intake import bundle_of
from api.cds.schemas import Card
from api.errors import SettingsError
from api.schemas import CaseView
from api.subject import KEY_FILE, Subjects

SERVICES = "/cds-services"
SERVICE = f"{SERVICES}/greenboard-case-review"
FHIR, PATIENT = "https://ehr.example.org/fhir", "patient-1"
SYSTEM = f"open:{FHIR}"
NOW = datetime(2030, 1, 31, 9, tzinfo=UTC)


def attach(state: Path, case_id: str, patient: str = PATIENT) -> None:
    """Say whose case it is, as the intake of a FHIR bundle does."""
    subject = Subjects.open(state).of(SYSTEM, patient)
    with closing(sqlite3.connect(state / "cases.sqlite", timeout=10)) as connection:
        connection.execute("UPDATE cases SET subject = ? WHERE id = ?", (subject, case_id))
        connection.commit()


def rows_of(state: Path, table: str) -> list[Any]:
    with closing(sqlite3.connect(state / "cases.sqlite", timeout=10)) as connection:
        return connection.execute(f"SELECT * FROM {table}").fetchall()


def card_for(client: httpx.Client, patient: str = PATIENT) -> dict[str, Any]:
    answer = client.post(SERVICE, json=hook(patient, FHIR))
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store"), answer.text
    (card,) = answer.json()["cards"]
    return dict(card)


def reviewed(running: Any, client: httpx.Client, body: Any, until: Any, row: int = 0) -> str:
    posted = client.post("/v1/cases", json=body(row)).json()
    until(client, posted["id"], "awaiting_clinician")
    attach(running.settings.state, posted["id"])
    return str(posted["id"])


def test_discovery_is_open_and_complete(shared_server: Any) -> None:
    answer = httpx.get(shared_server.url + SERVICES, headers={"Authorization": "Bearer whatever"})
    (service,) = answer.json()["services"]
    assert service["hook"] == "patient-view"
    assert service["id"] == "greenboard-case-review"
    assert "Research use only" in service["description"]
    assert service["prefetch"]["patient"] == "Patient/{{context.patientId}}"
    assert all(t.count("{{context.patientId}}") == 1 for t in service["prefetch"].values())


def test_browsers_may_call_the_services_and_nothing_else(serve: Any) -> None:
    asking = {
        "Origin": "https://sandbox.cds-hooks.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    with serve(cds_open=True) as running, running.client(None) as client:
        for path in (SERVICE, f"{SERVICE}/feedback"):
            answer = client.options(path, headers=asking)
            assert answer.status_code == 200
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
            assert "Access-Control-Allow-Credentials" not in answer.headers
        private = {**asking, "Access-Control-Request-Private-Network": "true"}
        answer = client.options(SERVICE, headers=private)
        assert answer.headers["Access-Control-Allow-Private-Network"] == "true"
        origin = {"Origin": asking["Origin"]}
        assert client.get(SERVICES, headers=origin).headers["Access-Control-Allow-Origin"] == "*"
        # Errors too: a page must be able to read what was wrong.
        wrong = client.post(SERVICE, json={}, headers=origin)
        assert (wrong.status_code, wrong.headers["Access-Control-Allow-Origin"]) == (422, "*")
        for path in ("/v1/cases", "/healthz", "/cds-servicesX"):
            answer = client.options(path, headers=asking)
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Access-Control-Allow-Origin" not in client.get(path, headers=origin).headers


def test_pages_from_outside_do_not_reach_a_server_that_is_not_open(shared_server: Any) -> None:
    answer = httpx.options(
        shared_server.url + SERVICE,
        headers={"Origin": "https://sandbox.cds-hooks.org", "Access-Control-Request-Method": "POST",
                 "Access-Control-Request-Private-Network": "true"},
    )  # fmt: skip
    assert answer.status_code == 400


def test_a_card_says_where_the_review_stands(serve: Any, body: Any, until: Any) -> None:
    with serve(cds_open=True) as running, running.client() as client:
        case_id = reviewed(running, client, body, until)
        card = card_for(client)
        Card.model_validate(card)
        assert len(card["summary"]) < 140
        assert card["summary"].startswith("Research use only")
        assert card["source"]["label"]
        assert card["links"] == [
            {"label": "Open the case review", "url": f"{running.url}/cases/{case_id}",
             "type": "absolute"}
        ]  # fmt: skip
        assert {reason["code"] for reason in card["overrideReasons"]} == set(REASONS)
        assert all(reason["display"] for reason in card["overrideReasons"])
        assert card["selectionBehavior"] == "at-most-one"
        (suggestion,) = card["suggestions"]
        task = suggestion["actions"][0]["resource"]
        assert task["for"] == {"reference": f"Patient/{PATIENT}"}
        assert (task["status"], task["intent"]) == ("requested", "proposal")
        # The same version of a case is the same card; another version is another one.
        assert card_for(client)["uuid"] == card["uuid"]
        client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
        until(client, case_id, "recorded")
        signed = card_for(client)
        assert signed["uuid"] != card["uuid"]
        assert "signed" in signed["summary"]
        assert signed["indicator"] == "info"
        assert "suggestions" not in signed
        # Other patients, and the same id in another system, have no card.
        assert client.post(SERVICE, json=hook("patient-2", FHIR)).status_code == 412
        assert client.post(SERVICE, json=hook(PATIENT, FHIR + "2")).status_code == 412


def test_the_examples_of_the_schema_fit(serve: Any) -> None:
    with serve(cds_open=True) as running, running.client(None) as client:
        paths = client.get("/openapi.json").json()["paths"]
        for path, status in ((SERVICE, 200), (f"{SERVICE}/feedback", 404)):
            content = paths[path]["post"]["requestBody"]["content"]["application/json"]
            for example in content["examples"].values():
                assert client.post(path, json=example["value"]).status_code == status


def test_the_latest_case_is_the_one_that_is_shown(serve: Any, body: Any, until: Any) -> None:
    with serve(cds_open=True) as running, running.client() as client:
        reviewed(running, client, body, until, 0)
        later = reviewed(running, client, body, until, 1)
        assert card_for(client)["links"][0]["url"].endswith(later)


def test_a_deferred_case_is_shown_as_waiting(serve: Any, body: Any, until: Any) -> None:
    ahead = StillMonitor(g_per_kwh=400.0, ahead=(400.0, 10.0))
    with serve(monitor=ahead, cds_open=True) as running, running.client() as client:
        deadline = (datetime.now(UTC) + timedelta(hours=6)).isoformat()
        case = client.post("/v1/cases", json={**body(0), "deadline": deadline, "policy": "rule"})
        case_id = case.json()["id"]
        found = until(client, case_id, "deferred", "awaiting_clinician")
        attach(running.settings.state, case_id)
        card = card_for(client)
        assert card["indicator"] == "warning"
        assert "deadline" in card["detail"]
        if found["status"] == "deferred":
            assert "cleaner hour" in card["summary"]


def test_calls_that_do_not_fit_are_refused(serve: Any) -> None:
    nothing = {"patient": None, "conditions": None, "observations": None}
    with serve(cds_open=True) as running, running.client(None) as client:
        for body, status in (
            (hook(PATIENT, FHIR), 412),
            (hook(PATIENT, FHIR, prefetch={"patient": None}), 412),
            (hook(PATIENT, None), 412),
            (hook(PATIENT, FHIR, prefetch=nothing), 200),
            (hook(PATIENT, "ftp://ehr", prefetch=nothing), 422),
            (hook("a/../b", FHIR), 422),
            (hook("x" * 65, FHIR), 422),
            ({**hook(PATIENT, FHIR), "hook": "order-sign"}, 422),
            (hook(PATIENT, FHIR, prefetch=[]), 422),
        ):
            answer = client.post(SERVICE, json=body)
            assert answer.status_code == status, answer.text
            if status == 200:
                assert answer.json() == {"cards": []}
            else:
                assert PATIENT not in answer.text
        missing = client.post(SERVICE, json=hook(PATIENT, FHIR)).json()
        assert missing["type"].endswith(":prefetch-missing")
        assert client.post(f"{SERVICES}/other", json=hook(PATIENT, FHIR)).status_code == 404
        twice = b'{"hook": "patient-view", "hook": "patient-view"}'
        for junk in (b"{", twice):
            headers = {"Content-Type": "application/json"}
            assert client.post(SERVICE, content=junk, headers=headers).status_code == 400
        # Fields of later versions of the standard are no error, and a token of theirs is not kept.
        extended = hook(PATIENT, FHIR, prefetch=nothing, extension={"a": 1},
                        fhirAuthorization={"access_token": "s3cret"})  # fmt: skip
        assert client.post(SERVICE, json=extended).status_code == 200


def _feedback(card: str, outcome: str = "overridden", **more: Any) -> dict[str, Any]:
    return {"feedback": [{"card": card, "outcome": outcome,
                          "outcomeTimestamp": "2030-01-31T09:00:00Z", **more}]}  # fmt: skip


def test_feedback_is_taken_once_and_decides_nothing(serve: Any, body: Any, until: Any) -> None:
    with serve(cds_open=True) as running, running.client() as client:
        state = running.settings.state
        case_id = reviewed(running, client, body, until)
        card = card_for(client)
        before = client.get(f"/v1/cases/{case_id}").json()
        taken = _feedback(
            card["uuid"], "accepted", acceptedSuggestions=[{"id": card["suggestions"][0]["uuid"]}]
        )
        dismissed = _feedback(
            card["uuid"].upper(),
            overrideReason={
                "reason": {"code": "not-now", "system": "urn:x", "display": "Mrs. Smith is away"},
                "userComment": "x" * 900,
            },
        )
        for sent in (taken, dismissed, taken, dismissed):
            answer = client.post(f"{SERVICE}/feedback", json=sent)
            assert (answer.status_code, answer.content) == (200, b"")
        rows = rows_of(state, "cds_feedback")
        assert len(rows) == 2
        text = str(rows)
        assert "not-now" in text
        assert "Smith" not in text
        assert "x" * 500 in text
        assert "x" * 501 not in text
        assert client.get(f"/v1/cases/{case_id}").json() == before
        kinds = [row[3] for row in rows_of(state, "audit") if str(row[3]).startswith("cds.")]
        assert sorted(kinds) == ["cds.accepted", "cds.overridden"]


def test_feedback_on_unknown_cards_is_refused_whole(serve: Any, body: Any, until: Any) -> None:
    with serve(cds_open=True) as running, running.client() as client:
        case_id = reviewed(running, client, body, until)
        card = card_for(client)["uuid"]
        # A card that could exist but was never shown.
        other = card_id(case_id, 999, issuer="open", service="greenboard-case-review")
        mixed = _feedback(card)
        mixed["feedback"] += _feedback(other)["feedback"]
        answer = client.post(f"{SERVICE}/feedback", json=mixed)
        assert (answer.status_code, answer.json()["type"].split(":")[-1]) == (404, "card-not-found")
        assert rows_of(running.settings.state, "cds_feedback") == []
        for wrong in ({"feedback": []}, {}, _feedback("x"), _feedback(card, "approved"),
                      _feedback(card, outcomeTimestamp="2030-01-31T09:00:00")):  # fmt: skip
            assert client.post(f"{SERVICE}/feedback", json=wrong).status_code == 422


def test_no_patient_id_stays_anywhere(serve: Any, body: Any, until: Any, capfd: Any) -> None:
    patient = "MRN-7731-zebra"
    nothing = {"patient": None, "conditions": None, "observations": None}
    with serve(cds_open=True) as running, running.client() as client:
        state = running.settings.state
        client.post(SERVICE, json=hook(patient, FHIR))
        client.post(SERVICE, json=hook(patient, FHIR, prefetch=nothing))
        case_id = client.post("/v1/cases", json=body(0)).json()["id"]
        until(client, case_id, "awaiting_clinician")
        attach(state, case_id, patient)
        card_for(client, patient)
        key = state / KEY_FILE
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    for path in state.rglob("*"):
        assert not path.is_file() or patient.encode() not in path.read_bytes(), path
    out, err = capfd.readouterr()
    assert patient not in out + err


def test_subjects_are_kept_apart(tmp_path: Path) -> None:
    subjects = Subjects.open(tmp_path)
    assert Subjects.open(tmp_path) == subjects
    sums = {subjects.of(*pair) for pair in (("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"))}
    assert len(sums) == 4
    assert repr(subjects.key) not in repr(subjects)
    other = tmp_path / "other"
    other.mkdir()
    assert Subjects.open(other).of("a", "bc") not in sums
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(SettingsError, match="32 bytes"):
        Subjects.open(tmp_path)


def _case(**changes: Any) -> CaseView:
    model = {"bundle_version": "1", "cohort": "c", "synthetic": False, "negative": "squamous",
             "positive": "adeno", "precision": "fp32"}  # fmt: skip
    empty = dict.fromkeys(("reference", "unit", "session", "deadline", "seen_in_training",
                           "wake_at", "result", "plan", "decision", "failure"))  # fmt: skip
    known: dict[str, Any] = {
        "id": "6f1c0c5e9b8e4c3a9d7e2f1a0b3c4d5e", "version": 3, "status": "awaiting_clinician",
        "urgency": 0.0, "created_at": NOW, "updated_at": NOW, "created_by": "dr",
        "policy": {"asked": "rule", "acting": "rule"}, "probability": 0.82, "uncertainty": 0.68,
        "g_co2e": 120.0, "suggestion": "positive", "second_review": False, "flags": [],
        "transfers_run": [], "opinions": [], "caution": [], "links": {}, "model": model,
        "explanation": {"suggestion": "positive", "missing": []},
    }  # fmt: skip
    return CaseView.model_validate({**empty, **known, **changes})


def _card(**changes: Any) -> Card:
    shown = Shown(case=_case(**changes), issuer="ehr", service="s", patient="p",
                  base="https://greenboard.example.org", now=NOW)  # fmt: skip
    return card_of(shown)


@pytest.mark.parametrize(
    ("changes", "indicator", "words"),
    [
        ({}, "info", "suggests adeno (0.82)"),
        (
            {"probability": 0.2, "explanation": {"suggestion": "negative"}},
            "info",
            "squamous (0.80)",
        ),
        ({"status": "parked"}, "warning", "set aside"),
        ({"status": "awaiting_second"}, "warning", "second reviewer"),
        ({"deadline": NOW + NEAR - timedelta(minutes=1)}, "warning", "ready"),
        ({"deadline": NOW + NEAR}, "info", "ready"),
        ({"deadline": NOW - NEAR}, "warning", "ready"),
        (
            {"explanation": {"conformal_level": 0.9, "conformal_set": ["a", "b"]}},
            "warning",
            "ready",
        ),
        ({"explanation": {"conformal_level": 0.9, "conformal_set": ["a"]}}, "info", "ready"),
        ({"status": "recorded", "result": "negative"}, "info", "signed: squamous"),
        ({"status": "sent_back", "deadline": NOW}, "info", "sent back"),
        ({"status": "queued", "explanation": None, "probability": None}, "info", "under way"),
        ({"status": "deferred", "wake_at": NOW + NEAR}, "info", "cleaner hour"),
    ],
)
def test_cards_of_every_state(changes: dict[str, Any], indicator: str, words: str) -> None:
    card = _card(**changes)
    assert (card.indicator, words in card.summary) == (indicator, True), card.summary
    assert card.summary.startswith("Research use only:")
    assert "Research use only" in card.detail


def test_marks_survive_long_names_and_text_stays_text() -> None:
    model = {**_case().model.model_dump(), "synthetic": True, "positive": "x" * 300}
    card = _card(model=model, caution=["<b>[a](http://x)</b> *now*\n# head"])
    assert card.summary.startswith("Research use only, synthetic model: ")
    assert len(card.summary) == 139
    assert r"\<b\>\[a\](http://x)\</b\> \*now\* \# head" in card.detail
    assert escape("a_b|c`d`") == r"a\_b\|c\`d\`"


def test_what_a_call_brings_becomes_one_bundle() -> None:
    patient, condition = {"resourceType": "Patient"}, {"resourceType": "Condition"}
    found = {"resourceType": "Bundle", "entry": [{"resource": condition}, {}, 3, {"resource": 4}]}
    bundle = bundle_of({"patient": patient, "conditions": found, "observations": None, "other": {}})
    assert [entry["resource"] for entry in bundle["entry"]] == [patient, condition]
    odd: Callable[..., Any] = bundle_of
    assert odd({"conditions": {"resourceType": "Bundle", "entry": 7}})["entry"] == []
