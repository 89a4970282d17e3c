"""A real server on loopback over a replayed student: real graph, real SQLite, real HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from agent.policies.registry import make_policy
from agent.workflow.doubles import StillMonitor, replay_kit, row_features
from agent.workflow.kit import ReviewKit
from api.app import create_app
from api.auth import ApiKey, hash_key
from api.listen import listen
from api.logs import log_config
from api.settings import Settings
from distill.evidence import EvidenceTable
from envs.toy import toy_evidence

KEYS = {"viewer": "viewer-key", "reviewer": "reviewer-key", "admin": "admin-key"}


class MovableClock:
    """The present, plus what a test adds."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass(kw_only=True)
class Running:
    """A server under test."""

    url: str
    app: Any
    settings: Settings
    clock: MovableClock

    def client(self, role: str | None = "reviewer", **kwargs: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {KEYS[role]}"} if role else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=20, **kwargs)


@pytest.fixture(scope="session")
def evidence() -> EvidenceTable:
    return toy_evidence(n_patients=60, seed=3)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    keys = tuple(
        ApiKey(name=f"dr-{role}", role=role, sha256=hash_key(key)) for role, key in KEYS.items()
    )
    return Settings(
        bundle=tmp_path / "bundle", state=tmp_path / "state", policy="always-everything",
        keys=keys, wake_poll_s=0.05, workers=2,
    )  # fmt: skip


Serve = Callable[..., Any]


@contextmanager
def serving(
    settings: Settings, kit: Callable[[Settings], ReviewKit], clock: MovableClock | None = None
) -> Iterator[Running]:
    clock = clock or MovableClock()
    app = create_app(settings, load=kit, clock=clock)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=log_config(), lifespan="on", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server took too long to start"
        time.sleep(0.01)
    try:
        yield Running(
            url=f"http://127.0.0.1:{listener.getsockname()[1]}",
            app=app,
            settings=settings,
            clock=clock,
        )
    finally:
        server.should_exit = True
        thread.join(timeout=15)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture
def serve(settings: Settings, evidence: EvidenceTable) -> Serve:
    """``with serve(policy=..., monitor=..., queue_limit=...) as running:``."""

    def start(
        monitor: StillMonitor | None = None,
        budget_g_co2e: float = 1e9,
        load: Callable[[Settings], ReviewKit] | None = None,
        **changes: Any,
    ) -> Any:
        chosen = settings.model_copy(update=changes)

        def kit(s: Settings) -> ReviewKit:
            return replay_kit(
                evidence, make_policy=make_policy, policy=s.policy, monitor=monitor,
                budget_g_co2e=budget_g_co2e,
            )  # fmt: skip

        return serving(chosen, load or kit)

    return start


@pytest.fixture
def body(evidence: EvidenceTable) -> Callable[[int], dict[str, Any]]:
    return lambda row: {"features": row_features(evidence, row)}


def _until(client: httpx.Client, case_id: str, *statuses: str) -> dict[str, Any]:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        case: dict[str, Any] = client.get(f"/v1/cases/{case_id}").json()
        if case["status"] in statuses:
            return case
        time.sleep(0.02)
    raise AssertionError(f"case is still {case['status']} ({case['failure']})")


@pytest.fixture
def until() -> Callable[..., dict[str, Any]]:
    """Poll a case until it has one of these statuses."""
    return _until


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests of a module that leave nothing behind that matters."""
    table = toy_evidence(n_patients=60, seed=3)
    folder = tmp_path_factory.mktemp("shared")
    keys = tuple(
        ApiKey(name=f"dr-{role}", role=role, sha256=hash_key(key)) for role, key in KEYS.items()
    )
    settings = Settings(bundle=folder, state=folder / "state", policy="never", keys=keys)

    def kit(s: Settings) -> ReviewKit:
        monitor = StillMonitor(ahead=(250.0, 150.0))
        return replay_kit(table, make_policy=make_policy, policy=s.policy, monitor=monitor)

    with serving(settings, kit) as running:
        yield running


@pytest.fixture(scope="module")
def shared_client(shared_server: Running) -> Iterator[httpx.Client]:
    with shared_server.client() as client:
        yield client
