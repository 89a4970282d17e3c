"""The typed client against a real server: every call, both kinds of client, and what goes wrong."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from agent.workflow.doubles import StillMonitor
from api.case_query import CaseChoice
from api.client import (
    AlreadyDecidedError,
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
)
from api.client.calls import CaseOptions, Filters
from api.client.problems import (
    InvalidFhirError,
    NotDeferredError,
)
from api.schemas import CaseRequest

QUICK = Retry(attempts=8, first_s=0.01, most_s=0.1)
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


def test_the_readme_names_what_there_is() -> None:
    readme = Path(__file__).resolve().parents[2] / "api" / "client" / "README.md"
    methods = re.search(r"- \*\*Cases.*?- \*\*Errors", readme.read_text(), re.DOTALL)
    assert methods is not None
    named = set(re.findall(r"`([a-z_]+)`", methods[0]))
    assert len(named) > 30
    assert named <= set(_public(Client))


def test_options_and_filters_are_those_of_the_api() -> None:
    assert set(Filters.__annotations__) == set(CaseChoice.model_fields)
    assert set(CaseOptions.__annotations__) | {"features"} == set(CaseRequest.model_fields)


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
        assert client.carbon_budget().spent_g_co2e.n >= 1
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
            client.post_bundle({**bundle, "type": "history"})
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
        kit.policies._loaded.clear()
        kit.policies._loaded.clear()  # one may have been loaded at the start
        case = client.review(body(6)["features"])
        assert case.status == "deferred"
        assert case.wake_at is not None
        ready = client.wake(case)
        assert (ready.id, ready.status) == (case.id, "awaiting_clinician")
        with pytest.raises(NotDeferredError):
            client.wake(case)


def test_a_full_queue_only_delays(serve: Any, body: Any) -> None:
    async def all_at_once(url: str) -> list[Any]:
        retry = Retry(attempts=50, first_s=0.02, most_s=0.2)
        async with AsyncClient(url, KEYS["reviewer"], retry=retry) as client:
            return await asyncio.gather(*(client.review(body(i)["features"]) for i in range(4)))

    with serve(queue_limit=1, workers=1) as running:
        cases = asyncio.run(all_at_once(running.url))
        assert {case.status for case in cases} == {"awaiting_clinician"}
        with running.client("viewer") as http:
            assert len(http.get("/v1/cases").json()["cases"]) == 4
            refused = http.get("/metrics").text
        assert "greenboard" in refused


def test_a_stream_that_is_left_gives_its_connection_back(serve: Any, body: Any) -> None:
    async def leave(url: str) -> tuple[int, int]:
        async with AsyncClient(url, KEYS["reviewer"], retry=QUICK) as client:
            await asyncio.gather(*(client.review(body(i)["features"]) for i in range(3)))
            pool = client._http._transport._pool  # type: ignore[attr-defined]
            return len(pool.connections), sum(not c.is_idle() for c in pool.connections)

    with serve() as running:
        _, busy = asyncio.run(leave(running.url))
        assert busy == 0
        with Client(running.url, KEYS["reviewer"], retry=QUICK) as client:
            case = client.review(body(3)["features"])
            assert next(client.events(case)).seq == 0
            pool = client._http._transport._pool  # type: ignore[attr-defined]
            assert all(connection.is_idle() for connection in pool.connections)


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
