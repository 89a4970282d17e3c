"""The typed client against a real server: every call, both kinds of client, and what goes wrong."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import ValidationError

from agent.workflow.doubles import StillMonitor
from api.case_query import CaseChoice
from api.client import (
    AlreadyDecidedError,
    AnswerError,
    ApiProblemError,
    AsyncClient,
    CaseNotFoundError,
    Client,
    ForbiddenError,
    IdempotencyKeyReusedError,
    IfMatchNeededError,
    InvalidFeaturesError,
    InvalidRequestError,
    Retry,
    StaleError,
    UnauthorizedError,
    UnreachableError,
)
from api.client.calls import CaseOptions, Filters
from api.client.problems import InvalidFhirError, NotDeferredError, kinds, problem_of
from api.problems import TYPES
from api.schemas import CaseRequest

QUICK = Retry(attempts=8, first_s=0.01, most_s=0.1)
ONCE = Retry(attempts=1)
KEYS = {"viewer": "viewer-key", "reviewer": "reviewer-key", "admin": "admin-key"}


class Awaited:
    """The asyncio client, each call run to its end, so that one test serves both."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*args, **kwargs)

    def __enter__(self) -> Awaited:
        self._runner.run(self._client.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._runner.run(self._client.__aexit__(*error))
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        def method(*args: Any, **kwargs: Any) -> Any:
            found = getattr(self._client, name)(*args, **kwargs)
            if not isinstance(found, AsyncIterator):
                return self._runner.run(found)

            async def listed() -> list[Any]:
                return [item async for item in found]

            return iter(self._runner.run(listed()))

        return method


KINDS = {"blocking": Client, "asyncio": Awaited}


@pytest.fixture(params=KINDS)
def make(request: Any) -> Any:
    """Makes a client of either kind for a running server."""

    def made(running: Any, role: str | None = "reviewer", **options: Any) -> Any:
        options.setdefault("retry", QUICK)
        return KINDS[request.param](running.url, KEYS[role] if role else None, **options)

    return made


def test_importing_it_is_light() -> None:
    heavy = ("torch", "langgraph", "sqlalchemy", "numpy", "pandas", "onnxruntime", "fastapi",
             "matplotlib", "jwt", "agent.workflow.graph")  # fmt: skip
    code = f"import sys, api.client; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def _public(kind: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_")
    }


def test_both_clients_are_the_same_to_their_users() -> None:
    blocking, awaiting = _public(Client), _public(AsyncClient)
    assert set(blocking) == set(awaiting)
    assert len(blocking) >= 40
    for name, method in blocking.items():
        assert method.__doc__, name
        ours = inspect.signature(method).parameters
        theirs = inspect.signature(awaiting[name]).parameters
        assert list(ours.values()) == list(theirs.values()), name


def test_options_and_filters_are_those_of_the_api() -> None:
    assert set(Filters.__annotations__) == set(CaseChoice.model_fields)
    assert set(CaseOptions.__annotations__) | {"features"} == set(CaseRequest.model_fields)


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


def test_a_case_from_post_to_record(serve: Any, body: Any, make: Any) -> None:
    with serve() as running, make(running) as client:
        features = body(0)["features"]
        case = client.review(features, reference="board-7", urgency=0.4, unit="thoracic")
        assert case.status == "awaiting_clinician"
        assert (case.reference, case.urgency, case.unit) == ("board-7", 0.4, "thoracic")
        signed = client.accept(case, comment="fine")
        assert (signed.status, signed.version > case.version) == ("recorded", True)
        with pytest.raises((AlreadyDecidedError, StaleError)):
            client.accept(case)
        with pytest.raises(AlreadyDecidedError):
            client.accept(case.id)
        events = list(client.events(case))
        steps = [event.seq for event in events if event.seq is not None]
        assert steps == list(range(len(steps)))
        assert events[-1].status == "recorded"
        later = list(client.events(case, after=3, follow=False))
        assert [e.seq for e in later if e.seq is not None] == steps[4:]
        assert client.export_case(case).steps[0].seq == 0
        assert client.case_audit(case).intact
        assert [line.case.id for line in client.export_cases(unit="thoracic")] == [case.id]


def test_actions_carry_the_version_that_was_seen(serve: Any, body: Any, make: Any) -> None:
    with serve(policy="never", require_if_match=True) as running, make(running) as client:
        seen = client.review(body(0)["features"])
        with pytest.raises(IfMatchNeededError):
            client.raise_urgency(seen.id, 0.5)
        newer = client.raise_urgency(seen, 0.5)
        assert newer.urgency == 0.5
        with pytest.raises(StaleError) as caught:
            client.mark_unreliable(seen, "genomics")
        assert caught.value.status == 412
        assert "version" in caught.value.detail
        transfer = "genomics->pathology"
        again = client.request_transfer(newer, transfer, comment="please")
        assert transfer in again.transfers_run
        done = client.override(again, "negative", "clinical_judgement", key="mine")
        assert client.override(again, "negative", "clinical_judgement", key="mine") == done
        with pytest.raises(IdempotencyKeyReusedError):
            client.send_back(again, "missing_data", key="mine")


def test_problems_are_raised_as_what_they_are(shared_server: Any, body: Any, make: Any) -> None:
    features = body(0)["features"]
    with make(shared_server) as client:
        with pytest.raises(CaseNotFoundError):
            client.read_case("no such?case#1")
        with pytest.raises(InvalidFeaturesError):
            client.create_case({"clinical": {"row": -1}})
        with pytest.raises(InvalidRequestError) as caught:
            client.create_case(features, deadline=datetime.now(UTC) - timedelta(hours=1))
        assert caught.value.type == "urn:problem-type:greenboard:invalid-request"
        with pytest.raises(ValidationError):
            client.create_case(features, case_id="both")
        with pytest.raises(ForbiddenError):
            client.check_audit()
    with make(shared_server, "viewer") as client, pytest.raises(ForbiddenError):
        client.create_case(features)
    with make(shared_server, None) as client, pytest.raises(UnauthorizedError):
        client.policies()


def test_everything_else_is_read_as_its_model(shared_server: Any, body: Any, make: Any) -> None:
    with make(shared_server, "admin") as client:
        case = client.review(body(1)["features"])
        assert client.health().status == "alive"
        assert client.readiness().status == "ready"
        assert "greenboard" in client.metrics()
        assert client.policies().acting == "never"
        assert client.carbon_now().g_per_kwh == 200.0
        assert len(client.carbon_forecast(2).readings) == 2
        assert client.carbon_ledger(by="case", case=case).totals[0].key == case.id
        day = datetime.now(UTC) - timedelta(days=1)
        lines = client.ledger_lines(since=day).splitlines()
        assert case.id in {json.loads(line)["case"] for line in lines}
        assert client.carbon_account(by="policy", heat="0.6:0.9:203").rows
        assert client.carbon_limits(session="s").limits == []
        assert client.check_audit().intact
        assert client.list_jobs(status=["running"]).jobs == []
        assert list(client.iter_jobs()) == []
        assert client.bundles().active
        assert client.activations().activations
        assert client.send_back(case, "missing_data").status == "sent_back"


def test_fhir_bundles_go_in_and_out(shared_server: Any, make: Any) -> None:
    code = {"coding": [{"system": "urn:greenboard:feature:clinical", "code": "row"}]}
    row = {"resourceType": "Observation", "status": "final", "code": code,
           "subject": {"reference": "urn:uuid:me"}, "valueQuantity": {"value": 2}}  # fmt: skip
    patient = {"resourceType": "Patient", "gender": "other"}
    entries = [{"fullUrl": "urn:uuid:me", "resource": patient},
               {"fullUrl": "urn:uuid:row", "resource": row}]  # fmt: skip
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    with make(shared_server) as client:
        taken = client.post_bundle(bundle, urgency=0.3, unit="thoracic")
        assert (taken.case.urgency, taken.case.unit) == (0.3, "thoracic")
        assert taken.mapped == {"clinical": 1}
        out = client.case_bundle(taken.case)
        assert (out["resourceType"], bool(out["entry"])) == ("Bundle", True)
        with pytest.raises(InvalidFhirError) as caught:
            client.post_bundle({**bundle, "type": "transaction"})
        assert caught.value.errors


def test_lists_are_gone_through_page_by_page(serve: Any, body: Any, make: Any) -> None:
    with serve(policy="never") as running, make(running) as client:
        batch = [
            CaseRequest(features=body(i)["features"], unit="a" if i % 2 else "b") for i in range(7)
        ]
        made = client.create_cases(batch)
        assert (made.accepted, made.refused) == (7, 0)
        ids = {item.id for item in made.items}
        found = [case.id for case in client.iter_cases(limit=2)]
        assert (len(found), set(found)) == (7, ids)
        assert sum(1 for _ in client.iter_cases(limit=2, unit="a")) == 3
        assert client.list_cases(limit=3).next_cursor is not None
        assert list(client.iter_cases(status=["parked", "sent_back"])) == []


class _DeferFirst:
    """A policy that puts a case off as long as that is allowed."""

    name = "tests-defer-first"

    def __init__(self, defer: int, finalise: int) -> None:
        self._defer, self._finalise = defer, finalise

    def reset(self, num_envs: int, seed: int) -> None: ...

    def act(self, observation: Any, action_mask: Any) -> Any:
        may = action_mask[:, self._defer]
        return np.where(may, self._defer, self._finalise).astype(np.int64)

    def reason(self, observation: Any, action: int) -> str:
        return "put off for a test"


def test_a_deferred_case_is_answered_as_such(serve: Any, body: Any, make: Any) -> None:
    monitor = StillMonitor(g_per_kwh=300.0, ahead=(250.0, 50.0, 100.0))
    with serve(monitor=monitor, policy=_DeferFirst.name) as running, make(running) as client:
        kit = running.app.state.server.kit
        policy = _DeferFirst(kit.catalogue.defer, kit.catalogue.finalise)
        kit.policies._make = lambda *_: policy
        case = client.review(body(6)["features"])
        assert case.status == "deferred"
        assert case.wake_at is not None
        ready = client.wake(case)
        assert (ready.id, ready.status) == (case.id, "awaiting_clinician")
        with pytest.raises(NotDeferredError):
            client.wake(case)


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


def test_a_full_queue_only_delays(serve: Any, body: Any) -> None:
    async def all_at_once(url: str) -> list[Any]:
        retry = Retry(attempts=50, first_s=0.02, most_s=0.2)
        async with AsyncClient(url, KEYS["reviewer"], retry=retry) as client:
            return await asyncio.gather(*(client.review(body(i)["features"]) for i in range(5)))

    with serve(queue_limit=1, workers=1) as running:
        cases = asyncio.run(all_at_once(running.url))
        assert {case.status for case in cases} == {"awaiting_clinician"}
        with running.client("viewer") as http:
            assert len(http.get("/v1/cases").json()["cases"]) == 5
            refused = http.get("/metrics").text
        assert "greenboard" in refused
        # Without patience the refusal comes through.
        assert ONCE.pause_s(1, httpx.Response(429)) is None


@contextmanager
def example(path: Path) -> Iterator[Any]:
    import importlib.util

    spec = importlib.util.spec_from_file_location("review_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


def test_the_example_reviews_a_case(serve: Any, body: Any, tmp_path: Path, capsys: Any) -> None:
    case = tmp_path / "case.json"
    case.write_text(json.dumps(body(2)["features"]))
    script = Path(__file__).resolve().parents[2] / "examples" / "review_client.py"
    with serve() as running, example(script) as module:
        assert module.main(running.url, KEYS["reviewer"], str(case)) == 0
        out = capsys.readouterr().out
        assert "recorded" in out
        assert "Research use only" in out
        case.write_text('{"clinical": {"nothing": 1}}')
        assert module.main(running.url, KEYS["reviewer"], str(case)) == 1
        assert "cannot take these features" in capsys.readouterr().err
