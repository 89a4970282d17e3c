"""Every error is a problem with a stable type, and no error repeats what came in."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from api.problems import MEDIA_TYPE, TYPES, URN

SECRET = "patient-value-424242"


def check(answer, slug: str) -> dict:
    kind = TYPES[slug]
    assert answer.status_code == kind.status, answer.text
    assert answer.headers["content-type"].startswith(MEDIA_TYPE)
    problem = answer.json()
    assert problem["type"] == URN + slug
    assert problem["status"] == kind.status
    assert problem["detail"]
    assert "\n" not in problem["detail"]
    assert SECRET not in answer.text
    return problem


def test_every_way_to_be_refused(serve, body) -> None:
    with serve(max_body_bytes=20_000) as running, running.client() as client:
        good = body(0)
        check(client.get("/no/such/place"), "not-found")
        check(client.delete("/v1/cases"), "method-not-allowed")
        check(client.get("/v1/cases/unknown"), "case-not-found")
        check(client.get("/v1/cases/unknown/events"), "case-not-found")
        check(client.post("/v1/cases/unknown/wake"), "case-not-found")
        check(client.post("/v1/cases", json={}), "invalid-request")
        check(client.post("/v1/cases", json={**good, "surprise": SECRET}), "invalid-request")
        check(client.post("/v1/cases", json={**good, SECRET: 1}), "invalid-request")
        named = client.post("/v1/cases", json={"features": {"clinical": {"row": 1, SECRET: [1]}}})
        assert check(named, "invalid-request")["detail"].startswith("body/features/#1/#2/")
        modality = client.post("/v1/cases", json={"features": {SECRET: [1]}})
        assert check(modality, "invalid-request")["detail"].startswith("body/features/#1")
        check(client.get("/v1/carbon/account", params={SECRET: 1}), "invalid-request")
        check(client.post("/v1/cases", json={**good, "urgency": 1.5}), "invalid-request")
        check(client.post("/v1/cases", json={**good, "deadline": "2026-01-01T00:00:00"}),
              "invalid-request")  # fmt: skip
        check(client.post("/v1/cases", json={**good, "case_id": "x"}), "invalid-request")
        check(client.post("/v1/cases", json={"case_id": SECRET}), "unknown-cohort-case")
        check(client.post("/v1/cases", json={"features": {"clinical": {"row": SECRET}}}),
              "invalid-features")  # fmt: skip
        check(client.post("/v1/cases", json={"features": {"histology": {}}}), "invalid-features")
        check(client.post("/v1/cases", json={**good, "policy": "nobody"}), "unknown-policy")
        headers = {"content-type": "application/json"}
        check(client.post("/v1/cases", content=b"{" + SECRET.encode(), headers=headers),
              "malformed-request")  # fmt: skip
        large = b'{"features": {"clinical": {"row": "' + b"1" * 20_000 + b'"}}}'
        check(client.post("/v1/cases", content=large, headers=headers), "body-too-large")

        def chunks():
            for _ in range(30):
                yield b" " * 1000

        check(client.post("/v1/cases", content=chunks(), headers=headers), "body-too-large")
        check(client.get("/v1/cases", params={"limit": 0}), "invalid-request")
        check(client.get("/v1/cases", params={"cursor": "%%%"}), "malformed-request")
        check(client.post("/v1/cases", json=good, headers={"Idempotency-Key": "a b"}),
              "invalid-request")  # fmt: skip


def test_a_surprise_is_500_without_its_words(serve, body, capfd) -> None:
    with serve() as running, running.client() as client:

        def fail(*args: object) -> None:
            raise KeyError(SECRET)

        running.app.state.server.kits.active.inputs.add = fail
        check(client.post("/v1/cases", json=body(0)), "internal-error")
    said = "".join(capfd.readouterr())
    assert "KeyError" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("role", "method", "path", "slug"),
    [
        (None, "GET", "/v1/cases", "unauthorized"),
        (None, "GET", "/metrics", "unauthorized"),
        (None, "POST", "/v1/cases", "unauthorized"),
        ("viewer", "POST", "/v1/cases", "forbidden"),
        ("viewer", "POST", "/v1/cases/x/decision", "forbidden"),
        ("viewer", "POST", "/v1/cases/x/wake", "forbidden"),
        ("reviewer", "GET", "/v1/audit", "forbidden"),
    ],
)
def test_roles(shared_server, body, role, method, path, slug) -> None:
    with shared_server.client(role) as client:
        content = body(0) if path == "/v1/cases" else {"action": "accept"}
        sent = {"json": content} if method == "POST" else {}
        answer = client.request(method, path, **sent)
        check(answer, slug)
        assert ("www-authenticate" in answer.headers) == (slug == "unauthorized")


def test_wrong_key_and_both_headers(shared_server) -> None:
    with shared_server.client(None) as client:
        wrong = client.get("/v1/cases", headers={"Authorization": "Bearer nonsense"})
        assert check(wrong, "unauthorized")["detail"].startswith("This key is not known")
        assert client.get("/v1/cases", headers={"X-API-Key": "viewer-key"}).status_code == 200
        assert client.get("/healthz").json() == {"status": "alive"}
        assert client.get("/readyz").json()["status"] == "ready"


def test_openapi_documents_problems_and_examples(shared_server) -> None:
    with shared_server.client(None) as client:
        schema = client.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    post = schema["paths"]["/v1/cases"]["post"]
    for status in ("401", "403", "413", "422", "429", "500"):
        content = post["responses"][status]["content"]
        assert content[MEDIA_TYPE]["schema"]["$ref"] == "#/components/schemas/Problem"
    assert schema["components"]["schemas"]["CaseRequest"]["examples"]
    decision = schema["paths"]["/v1/cases/{case_id}/decision"]["post"]
    examples = decision["requestBody"]["content"]["application/json"]["examples"]
    assert set(examples) == {"accept", "override", "send_back"}
    assert "Problem" in schema["components"]["schemas"]
    assert "HTTPValidationError" not in json.dumps(schema["paths"])
    assert {s["type"] for s in schema["components"]["securitySchemes"].values()} == {
        "http",
        "apiKey",
    }


def test_deadlines_and_urgencies_say_what_they_mean(serve, body) -> None:
    with serve() as running, running.client() as client:
        good, later = body(0), "2999-01-01T00:00:00Z"
        for urgency in (True, "0.5", None):
            check(client.post("/v1/cases", json={**good, "urgency": urgency}), "invalid-request")
        for deadline in (
            5, "5", "1900000000", "2026-01-01T00:00:00Z", "2999-01-01", True,
            "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
        ):  # fmt: skip
            problem = check(
                client.post("/v1/cases", json={**good, "deadline": deadline}), "invalid-request"
            )
            assert "deadline" in problem["detail"]
        for whole in (0, 1):
            answer = client.post("/v1/cases", json={**good, "urgency": whole, "deadline": later})
            assert answer.status_code == 202, answer.text


def test_a_request_asked_again_after_its_deadline_finds_its_case(serve, body) -> None:
    with serve() as running, running.client() as client:
        soon = (running.clock() + timedelta(hours=1)).isoformat()
        request, headers = {**body(0), "deadline": soon}, {"Idempotency-Key": "k1"}
        first = client.post("/v1/cases", json=request, headers=headers)
        assert first.status_code == 202
        running.clock.ahead = timedelta(hours=2)
        again = client.post("/v1/cases", json=request, headers=headers)
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        check(client.post("/v1/cases", json=request), "invalid-request")
        assert len(client.get("/v1/cases").json()["cases"]) == 1


def test_405_names_every_method_of_the_address(shared_server) -> None:
    with shared_server.client() as client:
        for method, path, allowed in (
            ("PUT", "/v1/cases", "GET, POST"),
            ("DELETE", "/v1/cases/x", "GET"),
            ("GET", "/v1/cases/x/wake", "POST"),
        ):
            answer = client.request(method, path)
            detail = check(answer, "method-not-allowed")["detail"]
            assert detail == f"{method} is not allowed here; allowed: {allowed}."
            assert answer.headers["allow"] == allowed


def test_the_queue_takes_no_more_than_it_says(serve, body) -> None:
    with serve(queue_limit=3, workers=1) as running, running.client() as client:
        running.app.state.server.workers._jobs.get = asyncio.Event().wait  # nobody takes up
        client.post("/v1/cases", json=body(0))
        with ThreadPoolExecutor(12) as pool:
            bodies = [body(i) for i in range(24)]
            answers = list(pool.map(lambda one: client.post("/v1/cases", json=one), bodies))
        refused = [answer for answer in answers if answer.status_code == 429]
        for answer in refused:
            assert "cases wait, 3 may" in check(answer, "queue-full")["detail"]
        assert running.app.state.server.workers.waiting <= 3
