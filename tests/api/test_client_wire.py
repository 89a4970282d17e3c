"""The client without a server: errors by their kind, what is sent again, and how long it waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.client import AnswerError, ApiProblemError, Client, QueueFullError, Retry, UnreachableError
from api.client.problems import NotRephrasedError, kinds, problem_of
from api.problems import TYPES

QUICK = Retry(attempts=8, first_s=0.01, most_s=0.1)


def test_every_kind_of_problem_has_its_class() -> None:
    assert set(kinds()) == set(TYPES)
    for slug, kind in TYPES.items():
        made = problem_of(
            kind.status, {"type": kind.uri, "detail": "d", "errors": [{"where": "w"}]}, {}
        )
        assert type(made) is kinds()[slug]
        assert (made.type, made.status, made.detail) == (kind.uri, kind.status, "d")
        assert made.errors == [{"where": "w"}]


ODD = (None, [], {}, {"type": 3}, {"type": "urn:problem-type:greenboard:new"},
       {"type": "https://other.example.org/stale", "errors": 3})  # fmt: skip


@pytest.mark.parametrize("body", ODD)
def test_unknown_kinds_are_the_base(body: Any) -> None:
    made = problem_of(418, body, {})
    assert type(made) is ApiProblemError
    assert (made.status, made.errors) == (418, [])


def _answers(*answers: Any) -> tuple[list[httpx.Request], httpx.MockTransport]:
    sent, waiting = [], list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        following = waiting.pop(0)
        if isinstance(following, Exception):
            raise following
        return following

    return sent, httpx.MockTransport(answer)


def _policies() -> httpx.Response:
    body = {
        "configured": "a",
        "acting": "a",
        "fallback_reason": None,
        "names": [],
        "seed": 0,
        "shadow": [],
        "new": 1,
    }
    return httpx.Response(200, json=body)


def test_what_may_pass_is_tried_again_under_one_key() -> None:
    problem = {"type": TYPES["queue-full"].uri, "title": "t", "status": 429, "detail": "d"}
    sent, transport = _answers(
        httpx.ConnectError("refused"), httpx.Response(429, json=problem), httpx.Response(502),
        httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("cut"), httpx.Response(201, json={}),
    )  # fmt: skip
    client = Client("http://server", "k", retry=QUICK, transport=transport)
    with client, pytest.raises(AnswerError, match="CaseView"):
        client.accept("c")
    assert len(sent) == 6
    assert len({request.headers["Idempotency-Key"] for request in sent}) == 1
    assert {request.read() for request in sent} == {sent[0].read()}
    assert all(request.headers["Authorization"] == "Bearer k" for request in sent)
    # Another call has another key.
    more, transport = _answers(httpx.Response(500), httpx.Response(500))
    with Client("http://server", retry=QUICK, transport=transport) as client:
        for _ in range(2):
            with pytest.raises(ApiProblemError):
                client.accept("c")
    assert len({request.headers["Idempotency-Key"] for request in more}) == 2


def test_answers_of_later_and_other_servers() -> None:
    for answer in (httpx.Response(200, text="<html>"), httpx.Response(200, json=[])):
        _, transport = _answers(answer)
        with Client("http://server", transport=transport) as client, pytest.raises(AnswerError):
            client.policies()
    _, transport = _answers(_policies())
    with Client("http://server", transport=transport) as client:
        assert client.policies().acting == "a"
    _, transport = _answers(httpx.Response(307, headers={"Location": "http://elsewhere"}))
    with (
        Client("http://server", "k", transport=transport) as client,
        pytest.raises(ApiProblemError),
    ):
        client.policies()


def test_pauses_grow_and_keep_to_what_the_server_asks() -> None:
    retry = Retry(attempts=6, first_s=1.0, most_s=4.0, patience_s=30.0, draw=lambda: 0.0)
    assert [retry.pause_s(n, None) for n in range(1, 7)] == [1.0, 2.0, 4.0, 4.0, 4.0, None]
    assert Retry(first_s=1.0, draw=lambda: 1.0).pause_s(1, None) == 0.5

    def asked(text: str) -> float | None:
        return retry.pause_s(1, httpx.Response(429, headers={"Retry-After": text}))

    assert asked("7") == 7.0
    assert asked("0") == 1.0
    assert asked("31") is None
    assert asked("soon") == 1.0
    assert asked("-5") == 1.0
    later = datetime.now(UTC) + timedelta(seconds=20)
    paused = asked(later.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    assert paused is not None
    assert 15 < paused <= 20


def test_an_address_where_nobody_answers() -> None:
    with Client("http://127.0.0.1:9", retry=Retry(attempts=2, first_s=0.01)) as client:
        with pytest.raises(UnreachableError, match="2 attempts"):
            client.health()
        with pytest.raises(ConnectionError):
            list(client.events("c"))
    assert "secret-key" not in repr(Client("http://127.0.0.1:9", "secret-key")._reach)


def test_without_patience_the_refusal_comes_through() -> None:
    full = {"type": TYPES["queue-full"].uri, "detail": "d"}
    sent, transport = _answers(httpx.Response(429, json=full))
    client = Client("http://server", retry=Retry(attempts=1), transport=transport)
    with client, pytest.raises(QueueFullError):
        client.wake("c")
    words = {"type": TYPES["not-rephrased"].uri, "detail": "d"}
    sent, transport = _answers(httpx.Response(409, json=words))
    with Client("http://server", transport=transport) as client, pytest.raises(NotRephrasedError):
        client.rephrase("c")
    assert len(sent) == 1
