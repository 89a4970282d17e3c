"""Every error is a problem with a stable type, and no error repeats what came in."""

from __future__ import annotations

import json

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

        running.app.state.server.reviews._inputs.add = fail
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
