"""A case through the real server: posted, followed, decided, read back."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest

from agent.workflow.doubles import StillMonitor


def read_sse(client: httpx.Client, case_id: str, stop: str, **headers: str) -> list[dict[str, Any]]:
    """Messages of a case's stream until a status is told."""
    messages: list[dict[str, Any]] = []
    with client.stream("GET", f"/v1/cases/{case_id}/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        message: dict[str, Any] = {}
        for line in response.iter_lines():
            if line:
                field, _, value = line.partition(": ")
                message[field] = value
                continue
            if message:
                messages.append(message)
            if message.get("event") == "status" and json.loads(message["data"])["status"] == stop:
                return messages
            message = {}
    return messages


def test_case_from_post_to_signed_decision(serve, body, until) -> None:
    with serve() as running, running.client() as client:
        posted = client.post("/v1/cases", json={**body(0), "urgency": 0.4, "reference": "b/1"})
        assert posted.status_code == 202, posted.text
        case_id = posted.json()["id"]
        assert posted.headers["location"] == f"/v1/cases/{case_id}"
        messages = read_sse(client, case_id, "awaiting_clinician")
        kinds = [m["event"] for m in messages]
        assert kinds[:4] == ["intake", "carbon", "assessment", "choice"]
        assert kinds[-2:] == ["explanation", "status"]
        assert [int(m["id"]) for m in messages[:-1]] == list(range(len(messages) - 1))
        waiting = until(client, case_id, "awaiting_clinician")
        assert waiting["result"] is None
        assert waiting["decision"] is None
        decided = client.post(
            f"/v1/cases/{case_id}/decision",
            json={"action": "override", "result": "negative", "reason_code": "new_information"},
        )
        assert decided.status_code == 201, decided.text
        case = client.get(f"/v1/cases/{case_id}").json()
        assert (case["status"], case["result"]) == ("recorded", "negative")
        assert case["decision"]["reviewer"] == "dr-reviewer"
        assert case["reference"] == "b/1"
        ledger = client.get("/v1/carbon/ledger", params={"case": case_id}).json()
        by = {(line["key"], line["energy_basis"]): line for line in ledger["totals"]}
        assert by["transfer", "modelled"]["energy_kwh"] > 0
        assert by["inference", "measured"]["entries"] == len(case["transfers_run"]) + 1


def test_stream_replays_from_the_last_event_seen(serve, body, until) -> None:
    with serve() as running, running.client() as client:
        case_id = client.post("/v1/cases", json=body(1)).json()["id"]
        until(client, case_id, "awaiting_clinician")
        every = read_sse(client, case_id, "awaiting_clinician")
        rest = read_sse(client, case_id, "awaiting_clinician", **{"Last-Event-ID": "2"})
        assert rest[:-1] == every[3:-1]
        client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
        last = str(len(every))
        tail = read_sse(client, case_id, "recorded", **{"Last-Event-ID": every[-2]["id"]})
        assert [m["event"] for m in tail] == ["decision", "record", "status"]
        seen = client.get(f"/v1/cases/{case_id}/events", headers={"Last-Event-ID": last})
        assert seen.status_code == 204


def test_two_simultaneous_decisions_one_wins(serve, body, until) -> None:
    with serve(workers=4) as running, running.client() as client:
        for row in range(5):
            case_id = client.post("/v1/cases", json=body(row)).json()["id"]
            until(client, case_id, "awaiting_clinician")

            def decide(result: str, case_id: str = case_id) -> int:
                with running.client() as own:
                    return own.post(
                        f"/v1/cases/{case_id}/decision",
                        json={
                            "action": "override",
                            "result": result,
                            "reason_code": "clinical_judgement",
                        },
                    ).status_code

            with ThreadPoolExecutor(2) as pool:
                answers = sorted(pool.map(decide, ["positive", "negative"]))
            assert answers == [201, 409]
            case = until(client, case_id, "recorded")
            assert case["result"] == case["decision"]["result"]
            events = read_sse(client, case_id, "recorded")
            assert [m["event"] for m in events].count("decision") == 1


def test_decision_before_the_case_waits_is_refused(serve, body) -> None:
    with serve(queue_limit=1) as running, running.client() as client:
        answer = client.post("/v1/cases/none/decision", json={"action": "accept"})
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:problem-type:greenboard:case-not-found"


def test_send_back_closes_without_a_result(serve, body, until) -> None:
    with serve() as running, running.client() as client:
        case_id = client.post("/v1/cases", json=body(2)).json()["id"]
        until(client, case_id, "awaiting_clinician")
        sent = client.post(
            f"/v1/cases/{case_id}/decision",
            json={"action": "send_back", "reason_code": "missing_data", "comment": "no slide"},
        )
        assert sent.status_code == 201
        assert (sent.json()["status"], sent.json()["result"]) == ("sent_back", None)


def test_idempotency_key_finds_the_same_case(serve, body, until) -> None:
    with serve() as running, running.client() as client:
        once = {"Idempotency-Key": "abc-1"}
        first = client.post("/v1/cases", json=body(3), headers=once)
        again = client.post("/v1/cases", json=body(3), headers=once)
        other = client.post("/v1/cases", json=body(4), headers=once)
        assert (first.status_code, again.status_code, other.status_code) == (202, 200, 422)
        assert first.json()["id"] == again.json()["id"]
        assert again.headers["idempotency-replayed"] == "true"
        assert other.json()["type"].endswith("idempotency-key-reused")
        case_id = first.json()["id"]
        until(client, case_id, "awaiting_clinician")
        key = {"Idempotency-Key": "abc-2"}
        url = f"/v1/cases/{case_id}/decision"
        assert client.post(url, json={"action": "accept"}, headers=key).status_code == 201
        assert client.post(url, json={"action": "accept"}, headers=key).status_code == 200
        assert client.post(url, json={"action": "accept"}).status_code == 409
        assert len(client.get("/v1/cases").json()["cases"]) == 1


def test_list_pages_and_filters(serve, body, until) -> None:
    with serve(policy="never") as running, running.client() as client:
        ids = []
        for row in range(5):
            posted = client.post("/v1/cases", json={**body(row), "urgency": row / 10})
            ids.append(posted.json()["id"])
        for case_id in ids:
            until(client, case_id, "awaiting_clinician")
        client.post(f"/v1/cases/{ids[0]}/decision", json={"action": "accept"})
        listed: list[str] = []
        cursor: str | None = None
        while True:
            page = client.get(
                "/v1/cases", params={"limit": 2, **({"cursor": cursor} if cursor else {})}
            )
            listed += [case["id"] for case in page.json()["cases"]]
            cursor = page.json()["next_cursor"]
            if cursor is None:
                break
        assert listed == ids[::-1]
        waiting = client.get("/v1/cases", params={"status": "awaiting_clinician"}).json()["cases"]
        assert {case["id"] for case in waiting} == set(ids[1:])
        urgent = client.get("/v1/cases", params={"min_urgency": 0.3}).json()["cases"]
        assert [case["id"] for case in urgent] == [ids[4], ids[3]]
        bad = client.get("/v1/cases", params={"cursor": "nonsense"})
        assert (bad.status_code, bad.json()["type"][-17:]) == (400, "malformed-request")


def test_policy_by_name_and_fallback_are_said(serve, body, until) -> None:
    with serve(policy="runs/no/such/policy") as running, running.client() as client:
        case_id = client.post("/v1/cases", json=body(5)).json()["id"]
        case = until(client, case_id, "awaiting_clinician")
        assert case["policy"]["acting"] == "rule"
        assert "cannot load" in case["policy"]["fallback_reason"]
        assert any("cannot load" in line for line in case["caution"])
        assert any("cannot load" in line for line in case["explanation"]["lines"])
        assert "cannot load" in client.get("/readyz").json()["policy"]["fallback_reason"]
        assert "greenboard_policy_fallback 1.0" in client.get("/metrics").text
        never = client.post("/v1/cases", json={**body(5), "policy": "never"}).json()["id"]
        case = until(client, never, "awaiting_clinician")
        assert (case["policy"]["acting"], case["transfers_run"]) == ("never", [])
        unknown = client.post("/v1/cases", json={**body(5), "policy": "/etc"})
        assert unknown.status_code == 422
        assert unknown.json()["type"].endswith("unknown-policy")


def test_queue_full_is_429_with_retry_after(serve, body) -> None:
    with serve(queue_limit=1) as running, running.client() as client:
        running.app.state.server.reviews._workers = Full(running.app.state.server.workers)
        refused = client.post("/v1/cases", json=body(0))
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["type"].endswith("queue-full")
        assert client.get("/v1/cases").json()["cases"] == []


class Full:
    """Workers that are busy for good."""

    def __init__(self, real: Any) -> None:
        self._real = real

    @property
    def waiting(self) -> int:
        return 10

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("early", [True, False])
def test_deferred_case_waits_and_wakes(serve, body, until, early: bool) -> None:
    monitor = StillMonitor(g_per_kwh=300.0, ahead=(250.0, 50.0, 100.0))
    with serve(monitor=monitor, policy="tests-defer-first") as running, running.client() as client:
        running.app.state.server.kit.policies._make = _deferring(running.app)
        posted = client.post("/v1/cases", json={**body(6), "urgency": 0.0})
        case_id = posted.json()["id"]
        case = until(client, case_id, "deferred")
        assert case["plan"]["intensity_expected_g_per_kwh"] == 50.0
        assert case["wake_at"] == case["plan"]["wake_at"]
        assert (
            client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
            .json()["type"]
            .endswith("not-awaiting-clinician")
        )
        if early:
            assert client.post(f"/v1/cases/{case_id}/wake").status_code == 200
        else:
            running.clock.ahead = timedelta(hours=3)
        case = until(client, case_id, "awaiting_clinician")
        events = read_sse(client, case_id, "awaiting_clinician")
        wake = json.loads(next(m["data"] for m in events if m["event"] == "wake"))["data"]
        assert wake == {"by": "dr-reviewer" if early else "schedule", "early": early}
        assert [m["event"] for m in events].count("deferral") == 1
        assert client.post(f"/v1/cases/{case_id}/wake").status_code == 409


def test_deferred_case_outlives_a_restart_and_wakes_as_planned(serve, body, until) -> None:
    monitor = StillMonitor(g_per_kwh=300.0, ahead=(250.0, 50.0, 100.0))
    how = {"monitor": monitor, "policy": "tests-defer-first"}
    with serve(**how) as first, first.client() as client:
        first.app.state.server.kit.policies._make = _deferring(first.app)
        case_id = client.post("/v1/cases", json={**body(6), "urgency": 0.0}).json()["id"]
        before = until(client, case_id, "deferred")
    plan = before["plan"]
    assert plan["why"].startswith("Of the starts up to")
    assert plan["saved_g_co2e"]["value"] > 0
    assert plan["forecast"] == ["still: made up for a test"]
    with serve(**how) as second, second.client() as client:
        second.app.state.server.kit.policies._make = _deferring(second.app)
        assert client.get(f"/v1/cases/{case_id}").json()["plan"] == plan
        time.sleep(0.2)
        assert client.get(f"/v1/cases/{case_id}").json()["status"] == "deferred", "not before it"
        second.clock.ahead = timedelta(hours=3)
        after = until(client, case_id, "awaiting_clinician")
        lines = after["explanation"]["lines"]
        assert any(plan["why"] in line for line in lines)
        wakes = [m for m in read_sse(client, case_id, "awaiting_clinician") if m["event"] == "wake"]
        assert json.loads(wakes[0]["data"])["data"] == {"by": "schedule", "early": False}
        assert len(wakes) == 1


def _deferring(app: Any) -> Any:
    import numpy as np

    catalogue = app.state.server.kit.catalogue
    # The configured policy may have been loaded at the start.
    app.state.server.kit.policies._loaded.clear()

    class DeferFirst:
        name = "tests-defer-first"

        def reset(self, num_envs: int, seed: int) -> None: ...

        def act(self, observation: Any, action_mask: Any) -> Any:
            may = action_mask[:, catalogue.defer]
            return np.where(may, catalogue.defer, catalogue.finalise).astype(np.int64)

        def reason(self, observation: Any, action: int) -> str:
            return "a test defers what may be deferred"

    return lambda name: DeferFirst()
