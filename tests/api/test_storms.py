"""Many at once: one decision counts, one case a key, slow peers and watchers stop nobody."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx

from agent.workflow.doubles import StillMonitor
from api.problems import URN


def at_once(n: int, act: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    """All of them start together."""
    gate = threading.Barrier(n)

    def one(i: int) -> httpx.Response:
        gate.wait(20)
        return act(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(one, range(n)))


def events(client: httpx.Client, case_id: str) -> list[str]:
    text = client.get(f"/v1/cases/{case_id}/events", params={"follow": "false"}).text
    return [line.removeprefix("event: ") for line in text.splitlines() if line[:6] == "event:"]


def test_of_fifty_decisions_at_once_one_counts(serve: Any, body: Any, until: Any) -> None:
    with serve(workers=4) as running, running.client() as client, running.client("admin") as admin:
        case_id = client.post("/v1/cases", json=body(0)).json()["id"]
        until(client, case_id, "awaiting_clinician")
        asked = [
            {"action": "override", "result": ("positive", "negative")[i % 2],
             "reason_code": "clinical_judgement"} if i % 3 else
            {"action": "send_back", "reason_code": "missing_data"}
            for i in range(50)
        ]  # fmt: skip
        answers = at_once(
            50,
            lambda i: (client if i % 2 else admin).post(
                f"/v1/cases/{case_id}/decision", json=asked[i]
            ),
        )
        assert Counter(a.status_code for a in answers) == {201: 1, 409: 49}
        slugs = {a.json()["type"].removeprefix(URN) for a in answers if a.status_code == 409}
        assert slugs <= {"already-decided", "not-awaiting-clinician"}
        case = until(client, case_id, "recorded", "sent_back")
        (won,) = (i for i, a in enumerate(answers) if a.status_code == 201)
        assert case["result"] == asked[won].get("result")
        assert case["decision"]["reviewer"] == ("dr-reviewer" if won % 2 else "dr-admin")
        kinds = events(client, case_id)
        assert (kinds.count("decision"), kinds.count("record")) == (1, 1)
        assert admin.get("/v1/audit").json()["intact"] is True


def test_one_key_at_once_makes_one_case(serve: Any, body: Any) -> None:
    with serve(policy="never") as running, running.client() as client:
        for key, same in (("same", True), ("other", False)):
            bodies = [body(0 if same else i) for i in range(24)]
            answers = at_once(
                24,
                lambda i, bodies=bodies, key=key: client.post(
                    "/v1/cases", json=bodies[i], headers={"Idempotency-Key": key}
                ),
            )
            codes = Counter(a.status_code for a in answers)
            assert codes == {202: 1, (200 if same else 422): 23}
            assert len({a.json()["id"] for a in answers if a.status_code < 300}) == 1
        assert len(client.get("/v1/cases").json()["cases"]) == 2


def test_one_key_at_once_makes_one_decision(serve: Any, body: Any, until: Any) -> None:
    with serve(policy="never") as running, running.client() as client:
        case_id = client.post("/v1/cases", json=body(0)).json()["id"]
        until(client, case_id, "awaiting_clinician")
        answers = at_once(
            20,
            lambda i: client.post(
                f"/v1/cases/{case_id}/decision",
                json={"action": "accept"},
                headers={"Idempotency-Key": "k"},
            ),
        )
        assert Counter(a.status_code for a in answers) == {201: 1, 200: 19}
        until(client, case_id, "recorded")
        assert events(client, case_id).count("decision") == 1


def test_keys_of_two_callers_do_not_meet(serve: Any, body: Any) -> None:
    with serve(policy="never") as running, running.client() as one, running.client("admin") as two:
        made = [
            client.post("/v1/cases", json=body(0), headers={"Idempotency-Key": "k"})
            for client in (one, two)
        ]
        assert [answer.status_code for answer in made] == [202, 202]
        assert made[0].json()["id"] != made[1].json()["id"]


def watching(case_id: str) -> bytes:
    head = f"GET /v1/cases/{case_id}/events HTTP/1.1\r\nHost: x\r\nX-API-Key: viewer-key\r\n\r\n"
    return head.encode()


@contextmanager
def sockets(url: str, n: int, first: bytes) -> Iterator[list[socket.socket]]:
    address = (httpx.URL(url).host, httpx.URL(url).port)
    peers = [socket.create_connection(address, timeout=10) for _ in range(n)]
    try:
        for peer in peers:
            peer.sendall(first)
        yield peers
    finally:
        for peer in peers:
            peer.close()


def test_slow_bodies_hold_nobody_up(serve: Any, body: Any) -> None:
    head = (
        b"POST /v1/cases HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer reviewer-key\r\n"
        b"Content-Type: application/json\r\nContent-Length: 900000\r\n\r\n{"
    )
    with serve(policy="never") as running, running.client() as client:
        with (
            sockets(running.url, 150, head) as slow,
            sockets(running.url, 50, b"GET /v1/cases HTTP/1.1\r\nX-Slow: "),
        ):
            for _ in range(3):
                for peer in slow:
                    peer.sendall(b" ")
                began_s = time.monotonic()
                assert client.post("/v1/cases", json=body(0)).status_code == 202
                assert time.monotonic() - began_s < 2
        # Those that hang up half way leave no case behind.
        assert len(client.get("/v1/cases").json()["cases"]) == 3
        assert client.get("/healthz").status_code == 200


def test_a_crowd_of_watchers_hears_everything_and_is_let_go(
    serve: Any, body: Any, until: Any
) -> None:
    with serve(policy="never") as running, running.client() as client:
        case_id = client.post("/v1/cases", json=body(0)).json()["id"]
        until(client, case_id, "awaiting_clinician")
        with sockets(running.url, 200, watching(case_id)) as watchers:
            for watcher in watchers:
                assert b" 200 " in watcher.recv(200)
            client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
            for watcher in watchers:
                watcher.settimeout(10)
                heard = b""
                while b'"recorded"' not in heard:
                    piece = watcher.recv(65536)
                    assert piece, "the stream ended before the record was told"
                    heard += piece
                assert heard.count(b"event: record") == 1
        for _ in range(20):
            events(client, case_id)
        hub = running.app.state.server.hub
        deadline = time.monotonic() + 10
        while case_id in hub._bells and time.monotonic() < deadline:
            time.sleep(0.05)
        assert case_id not in hub._bells, "a finished case is remembered for nobody"


def test_watchers_are_bounded_and_their_places_come_back(serve: Any, body: Any, until: Any) -> None:
    with serve(policy="never", watchers=10) as running, running.client() as client:
        case_id = client.post("/v1/cases", json=body(0)).json()["id"]
        until(client, case_id, "awaiting_clinician")
        with sockets(running.url, 10, watching(case_id)) as watchers:
            for watcher in watchers:
                assert b" 200 " in watcher.recv(200)
            refused = client.get(f"/v1/cases/{case_id}/events")
            assert refused.status_code == 429
            assert refused.json()["type"].removeprefix(URN) == "too-many-watchers"
            assert int(refused.headers["retry-after"]) >= 1
            # Who only wants what there is, and everybody else, is still served.
            assert client.get(f"/v1/cases/{case_id}").status_code == 200
        deadline = time.monotonic() + 10
        while running.app.state.server.watchers.locked():
            assert time.monotonic() < deadline, "the places of those who left are kept"
            time.sleep(0.05)
        assert "intake" in events(client, case_id)


def test_a_server_stops_although_it_is_watched(serve: Any, body: Any, until: Any) -> None:
    with ExitStack() as open_streams:
        with serve(policy="never") as running, running.client() as client:
            case_id = client.post("/v1/cases", json=body(0)).json()["id"]
            until(client, case_id, "awaiting_clinician")
            watchers = open_streams.enter_context(sockets(running.url, 20, watching(case_id)))
            for watcher in watchers:
                assert b" 200 " in watcher.recv(200)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 8


def test_a_restart_in_the_middle_loses_and_doubles_nothing(
    serve: Any, body: Any, until: Any
) -> None:
    ids: list[str] = []
    with serve(workers=2) as running, running.client() as client:
        for row in range(12):
            answer = client.post(
                "/v1/cases", json=body(row), headers={"Idempotency-Key": f"k{row}"}
            )
            ids.append(answer.json()["id"])
    with serve(workers=2) as running, running.client() as client:
        again = [
            client.post("/v1/cases", json=body(row), headers={"Idempotency-Key": f"k{row}"})
            for row in range(12)
        ]
        assert [answer.json()["id"] for answer in again] == ids
        assert {answer.status_code for answer in again} == {200}
        for case_id in ids:
            until(client, case_id, "awaiting_clinician")
            text = client.get(f"/v1/cases/{case_id}/events", params={"follow": "false"}).text
            steps = [
                json.loads(line[6:])["seq"]
                for line in text.splitlines()
                if line.startswith("data: ") and '"seq"' in line
            ]
            assert steps == list(range(len(steps)))
            kinds = events(client, case_id)
            assert (kinds.count("intake"), kinds.count("explanation")) == (1, 1)


def test_of_twenty_wakes_at_once_one_counts(serve: Any, body: Any, until: Any) -> None:
    # Much cleaner in three hours, so that the planner waits.
    monitor = StillMonitor(g_per_kwh=400.0, ahead=(380.0, 380.0, 40.0, 40.0, 300.0))
    with serve(monitor=monitor, policy="planner") as running, running.client() as client:
        case_id = client.post("/v1/cases", json=body(0)).json()["id"]
        until(client, case_id, "deferred")
        answers = at_once(20, lambda i: client.post(f"/v1/cases/{case_id}/wake"))
        codes = Counter(answer.status_code for answer in answers)
        assert set(codes) <= {200, 409}
        assert codes[200] >= 1
        until(client, case_id, "awaiting_clinician")
        kinds = events(client, case_id)
        assert (kinds.count("wake"), kinds.count("deferral")) == (1, 1)
