"""What an attacker or a broken client sends: refused with a problem, repeated nowhere."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from agent.workflow.doubles import row_features
from api.problems import MEDIA_TYPE, URN

JSON = {"content-type": "application/json"}
CANARY = "MRN-5550123-Doe"
KEY = b"Authorization: Bearer reviewer-key\r\n"


def problem(answer: httpx.Response, *slugs: str) -> dict[str, Any]:
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"].startswith(MEDIA_TYPE)
    found: dict[str, Any] = answer.json()
    assert not slugs or found["type"].removeprefix(URN) in slugs, found
    return found


@pytest.fixture(scope="module")
def good(shared_server: Any) -> dict[str, Any]:
    evidence = shared_server.app.state.server.kit.student.evidence
    return {"features": row_features(evidence, 0)}


def count(client: httpx.Client) -> int:
    return sum(client.get("/readyz").json()["cases"].values())


@pytest.mark.parametrize(
    "kind",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
     "application/xml", "text/json", "image/png"],
)  # fmt: skip
def test_only_json_is_a_body(shared_client: httpx.Client, good: Any, kind: str | None) -> None:
    # Of another type a form on any site could send it without being asked.
    before = count(shared_client)
    headers = {"content-type": kind} if kind else {}
    answer = shared_client.post("/v1/cases", content=json.dumps(good), headers=headers)
    problem(answer, "invalid-request", "unsupported-media-type", "malformed-request")
    assert count(shared_client) == before


@pytest.mark.parametrize(
    "content",
    [
        "[" * 400_000,
        '{"features":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}",
        '{"features":' + "[" * 900 + "]" * 900 + "}",
        '{"features":{"clinical":{"row":' + "9" * 5000 + "}}}",
        '{"features":{"clinical":{"row":' + "9" * 400 + "}}}",
        '{"features":{"clinical":{"row":1e999}}}',
        '{"features":{"clinical":{"row":NaN}}}',
        '{"features":{"clinical":{"row":-Infinity}}}',
        '{"features":{"clinical":{"row":1}},"urgency":NaN}',
        '{"features":{"clinical":{"row":1}},"urgency":1e-999999999999}x',
        '{"features":{"clinical":{"row":1}},"reference":"\\ud800"}',
        '{"features":{"clinical":{"row":1}},"reference":"a\nb"}',
        '{"features":{"__proto__":{"row":1},"constructor":{}}}',
        "null", '"x"', "7", "[]", "", " ", "{}}", "{'a':1}",
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_deep_huge_and_odd_json(shared_client: httpx.Client, content: str) -> None:
    before = count(shared_client)
    answer = shared_client.post("/v1/cases", content=content.encode(), headers=JSON)
    problem(answer, "malformed-request", "invalid-request", "invalid-features")
    assert count(shared_client) == before


def test_many_small_names_are_refused_quickly(shared_client: httpx.Client) -> None:
    rows = {f"m{i}": {f"f{j}": 0 for j in range(1000)} for i in range(40)}
    answer = shared_client.post("/v1/cases", json={"features": rows})
    found = problem(answer, "invalid-request", "invalid-features")
    assert len(answer.text) < 10_000
    assert "m1" not in found["detail"]


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00+14:00|x", "9999-12-31T23:59:59-14:00|x", "2026-W01-1|x",
        "2026-01-01T00:00:00|x", "2026-01-01T00:00:00+00:00|", "|", "", "x" * 150,
    ],
)  # fmt: skip
def test_made_up_cursors(shared_client: httpx.Client, text: str) -> None:
    cursor = base64.urlsafe_b64encode(text.encode()).decode()
    answer = shared_client.get("/v1/cases", params={"cursor": cursor + "*" * (not text)})
    problem(answer, "malformed-request", "invalid-request")


@pytest.mark.parametrize("case_id", ["' OR 1=1 --", "\x00", "\u202e", "zzz' UNION SELECT 1"])
def test_a_cursor_is_a_value_not_a_statement(shared_client: httpx.Client, case_id: str) -> None:
    text = f"2000-01-01T00:00:00+00:00|{case_id}"
    cursor = base64.urlsafe_b64encode(text.encode()).decode()
    answer = shared_client.get("/v1/cases", params={"cursor": cursor})
    if answer.status_code == 200:
        assert answer.json() == {"cases": [], "next_cursor": None}
    else:
        problem(answer, "malformed-request", "invalid-request")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize(
    ("path", "bound"),
    [("ledger", "since"), ("ledger.jsonl", "since"), ("ledger.jsonl", "until"),
     ("account", "since"), ("account", "until"), ("account.csv", "until")],
)  # fmt: skip
def test_times_beyond_the_calendar(
    shared_client: httpx.Client, path: str, bound: str, moment: str
) -> None:
    answer = shared_client.get(f"/v1/carbon/{path}", params={bound: moment})
    problem(answer, "invalid-request")


@pytest.mark.parametrize(
    "case_id",
    ["%00", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..", "%E2%80%AE", "%ff%fe", "a" * 5000,
     "%0d%0aX-Evil:1", "'%20OR%201=1%20--", "%ef%bc%8e%ef%bc%8e", "%F0%9D%9F%8F", "-1", "%5c..%5c"],
)  # fmt: skip
def test_odd_case_ids_are_unknown(shared_client: httpx.Client, case_id: str) -> None:
    for path, method in (("", "GET"), ("/events", "GET"), ("/wake", "POST")):
        answer = shared_client.request(method, f"/v1/cases/{case_id}{path}")
        problem(answer, "case-not-found", "not-found")
        assert "x-evil" not in answer.headers
    decide = shared_client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
    problem(decide, "case-not-found", "not-found")


@pytest.mark.parametrize("case_id", ["upper", "padded", "wide", "mark"])
def test_an_id_is_itself_alone(shared_client: httpx.Client, good: Any, case_id: str) -> None:
    posted = shared_client.post("/v1/cases", json=good).json()["id"]
    disguise = {
        "upper": posted.upper() if posted != posted.upper() else posted + "A",
        "padded": posted + "%20",
        "wide": "".join(chr(ord(c) + 0xFEE0) for c in posted),
        "mark": posted + "%CC%81",
    }[case_id]
    problem(shared_client.get(f"/v1/cases/{disguise}"), "case-not-found")


@pytest.mark.parametrize("last", ["9" * 19, "9" * 20, "-1", "1e3", "٣", "0x10", "", "NaN"])
def test_odd_last_event_ids(shared_client: httpx.Client, good: Any, last: str) -> None:
    posted = shared_client.post("/v1/cases", json=good).json()["id"]
    answer = shared_client.get(
        f"/v1/cases/{posted}/events",
        params={"follow": "false"},
        headers={"Last-Event-ID": last.encode()},
    )
    assert answer.status_code < 500, answer.text


def test_methods_cannot_be_smuggled(shared_server: Any, good: Any) -> None:
    with shared_server.client("viewer") as viewer:
        before = count(viewer)
        for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
            answer = viewer.request("GET", "/v1/cases", json=good, headers={header: "POST"})
            assert answer.status_code == 200
            problem(viewer.post("/v1/cases", json=good, headers={header: "GET"}), "forbidden")
        assert viewer.get("/v1/cases", params={"_method": "POST"}).status_code in (200, 422)
        problem(viewer.request("TRACE", "/v1/cases"), "method-not-allowed")
        assert count(viewer) == before


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "token", "X-API-Key"])
def test_a_key_in_the_address_opens_nothing(shared_server: Any, name: str) -> None:
    with shared_server.client(None) as client:
        problem(client.get("/v1/cases", params={name: "reviewer-key"}), "unauthorized")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic cmV2aWV3ZXI6cmV2aWV3ZXIta2V5"},
        {"Authorization": "reviewer-key"}, {"Authorization": "Bearer"},
        {"Authorization": "Bearer reviewer-key,viewer-key"}, {"Authorization": b"Bearer \xff\xfe"},
        {"X-API-Key": "reviewer-key\t."}, {"X-API-Key": "REVIEWER-KEY"},
        {"Cookie": "key=reviewer-key"},
        {"Cookie": "X-API-Key=reviewer-key; session=reviewer-key"},
        {"X-Forwarded-User": "dr-reviewer", "X-Remote-User": "dr-reviewer"},
        {"X-Forwarded-For": "127.0.0.1", "X-Role": "admin"},
    ],
    ids=str,
)  # fmt: skip
def test_only_the_key_itself_opens(shared_server: Any, headers: Any) -> None:
    with shared_server.client(None) as client:
        problem(client.get("/v1/cases", headers=headers), "unauthorized")


def test_nobody_can_sign_as_another(serve: Any, body: Any, until: Any) -> None:
    with serve() as running, running.client() as client, running.client("viewer") as viewer:
        case_id = client.post("/v1/cases", json=body(0)).json()["id"]
        until(client, case_id, "awaiting_clinician")
        url = f"/v1/cases/{case_id}/decision"
        for extra in ({"reviewer": "dr-admin"}, {"decided_at": "2020-01-01T00:00:00Z"},
                      {"role": "admin"}, {"round": 0}):  # fmt: skip
            problem(client.post(url, json={"action": "accept", **extra}), "invalid-request")
        problem(viewer.post(url, json={"action": "accept", "role": "reviewer"}), "forbidden")
        both = {"Authorization": "Bearer viewer-key", "X-API-Key": "reviewer-key"}
        with running.client(None) as mixed:
            # The first header counts; a second key adds nothing to it.
            problem(mixed.post(url, json={"action": "accept"}, headers=both), "forbidden")
        assert client.post(url, json={"action": "accept"}).status_code == 201
        assert client.get(f"/v1/cases/{case_id}").json()["status"] == "recorded"


Send = Callable[[httpx.Client, dict[str, Any]], httpx.Response]
HIDING: dict[str, Send] = {
    "value": lambda c, b: c.post("/v1/cases", json={**b, "urgency": CANARY}),
    "name": lambda c, b: c.post("/v1/cases", json={**b, CANARY: 1}),
    "modality": lambda c, b: c.post("/v1/cases", json={"features": {CANARY: {"row": 1}}}),
    "feature": lambda c, b: c.post("/v1/cases", json={"features": {"clinical": {CANARY: 1}}}),
    "cell": lambda c, b: c.post("/v1/cases", json={"features": {"clinical": {"row": CANARY}}}),
    "nested": lambda c, b: c.post("/v1/cases", json={"features": {"clinical": {"row": [CANARY]}}}),
    "deadline": lambda c, b: c.post("/v1/cases", json={**b, "deadline": CANARY}),
    "policy": lambda c, b: c.post("/v1/cases", json={**b, "policy": CANARY}),
    "cohort case": lambda c, b: c.post("/v1/cases", json={"case_id": CANARY}),
    "both": lambda c, b: c.post("/v1/cases", json={**b, "case_id": CANARY}),
    "broken": lambda c, b: c.post("/v1/cases", content=b'{"' + CANARY.encode(), headers=JSON),
    "wrong type": lambda c, b: c.post("/v1/cases", content=CANARY.encode()),
    "surrogate": lambda c, b: c.post(
        "/v1/cases", headers=JSON,
        content='{"features":{"clinical":{"row":1,"' + CANARY + '\\ud800":1}}}',
    ),
    "surrogate modality": lambda c, b: c.post(
        "/v1/cases", headers=JSON, content='{"features":{"' + CANARY + '\\ud800":{"row":1}}}'
    ),
    "status": lambda c, b: c.get("/v1/cases", params={"status": CANARY}),
    "limit": lambda c, b: c.get("/v1/cases", params={"limit": CANARY}),
    "cursor": lambda c, b: c.get("/v1/cases", params={"cursor": CANARY}),
    "since": lambda c, b: c.get("/v1/carbon/ledger", params={"since": CANARY}),
    "by": lambda c, b: c.get("/v1/carbon/account", params={"by": CANARY}),
    "idempotency": lambda c, b: c.post(
        "/v1/cases", json=b, headers={"Idempotency-Key": f"{CANARY} {CANARY}"}
    ),
    "key": lambda c, b: c.get("/v1/cases", headers={"Authorization": f"Bearer {CANARY}"}),
    "action": lambda c, b: c.post("/v1/cases/x/decision", json={"action": CANARY}),
    "reason": lambda c, b: c.post(
        "/v1/cases/x/decision", json={"action": "send_back", "reason_code": CANARY}
    ),
}  # fmt: skip


def told(answer: httpx.Response) -> str:
    headers = " ".join(f"{name}: {value}" for name, value in answer.headers.items())
    return f"{answer.text} {headers}"


@pytest.mark.parametrize("place", HIDING)
def test_no_answer_and_no_log_repeats_what_came(
    shared_client: httpx.Client, good: Any, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = HIDING[place](shared_client, good)
    problem(answer)
    assert CANARY not in told(answer)
    assert CANARY not in "".join(capfd.readouterr())


def test_addresses_are_in_no_log_and_no_metric(
    shared_client: httpx.Client, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (f"/v1/cases/{CANARY}", f"/{CANARY}", f"/v1/cases?status={CANARY}"):
        shared_client.get(path)
        shared_client.request("DELETE", path)
    assert CANARY not in shared_client.get("/metrics").text
    assert CANARY not in "".join(capfd.readouterr())


POST = b"POST /v1/cases HTTP/1.1\r\nHost: x\r\n" + KEY
RAW = {
    "bare newline": b"GET /v1/cases HTTP/1.1\r\nHost: x\r\nA: a\nb\r\n" + KEY + b"\r\n",
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    "negative length": POST + b"Content-Length: -5\r\n\r\n",
    "endless address": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "made-up method": b"MRN5550123 /v1/cases HTTP/1.1\r\nHost: x\r\n" + KEY + b"\r\n",
    "handshake": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "space in name": b"GET /v1/cases HTTP/1.1\r\nHost: x\r\nX-API-Key : reviewer-key\r\n\r\n",
}


def exchange(url: str, data: bytes) -> bytes:
    host, port = httpx.URL(url).host, httpx.URL(url).port
    with socket.create_connection((host, port), timeout=10) as peer:
        peer.sendall(data)
        try:
            return peer.recv(65536)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("trick", RAW)
def test_broken_http_ends_at_the_door(
    shared_server: Any, trick: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = exchange(shared_server.url, RAW[trick])
    assert not answer or answer.split()[1].startswith(b"4"), answer[:200]
    assert b"MRN5550123" not in answer
    assert "MRN5550123" not in "".join(capfd.readouterr())
    with shared_server.client() as client:
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v1/cases", '{"features":{"clinical":{"row":1}},"features":{"clinical":{"row":2}}}'),
        ("/v1/cases", '{"features":{"clinical":{"row":1,"row":2}}}'),
        ("/v1/cases/x/decision", '{"action":"accept","action":"send_back","comment":""}'),
        ("/v1/cases/x/actions", '{"action":"retry","action":"raise_urgency"}'),
    ],
)
def test_a_name_that_stands_twice_is_refused(
    shared_client: httpx.Client, path: str, content: str
) -> None:
    before = count(shared_client)
    problem(shared_client.post(path, content=content, headers=JSON), "malformed-request")
    assert count(shared_client) == before


@pytest.mark.parametrize("field", ["reference", "unit", "session"])
@pytest.mark.parametrize("text", ["a\x00b", "\u202egnp.exe", "a\u2028b", "a\u200bb", "\x1b[31mred"])
def test_names_hold_nothing_that_nobody_sees(
    shared_client: httpx.Client, good: Any, field: str, text: str
) -> None:
    answer = shared_client.post("/v1/cases", json={**good, field: text})
    assert field in problem(answer, "invalid-request")["detail"]


OPEN = ("/healthz", "/readyz", "/openapi.json", "/cds-services", "/v1/fhir/metadata")
"""What needs no key; CDS Hooks have tokens of their own."""


def operations(shared_server: Any) -> list[tuple[str, str]]:
    with shared_server.client(None) as client:
        paths = client.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in paths.items()
        for method in methods
        if not path.startswith(OPEN)
    ]


def test_every_address_takes_a_key_and_every_change_a_reviewer(shared_server: Any) -> None:
    found = operations(shared_server)
    assert len(found) > 20
    with shared_server.client(None) as nobody, shared_server.client("viewer") as viewer:
        for method, path in found:
            unknown = nobody.request(method, path)
            assert unknown.status_code == 401, f"{method} {path}: {unknown.text}"
            if method != "GET":
                refused = viewer.request(method, path, json={})
                assert refused.status_code == 403, f"{method} {path}: {refused.text}"


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "..", "%2e%2e", "a/../../b", "\x00"])
def test_no_path_leads_out_of_the_folders(shared_server: Any, name: str) -> None:
    quoted = name.replace("/", "%2f").replace("\x00", "%00")
    addresses = {
        "/".join([*path.split("/")[:-1], quoted])
        for method, path in operations(shared_server)
        if method == "GET" and path.count("/") > 2
    }
    with shared_server.client("admin") as client:
        for address in (*addresses, f"/static/{quoted}", f"/cases/{quoted}"):
            answer = client.get(address)
            assert answer.status_code < 500, f"{address}: {answer.text}"
            assert "root:" not in answer.text
            assert "import" not in answer.text.split()
        activated = client.post("/v1/bundles/activate", json={"version": name})
        assert 400 <= activated.status_code < 500, activated.text
