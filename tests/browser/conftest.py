"""A real Chromium before a real server over a replayed student; each test has its own context.

Playwright's plugin for pytest is not needed. The browser is a module's, not a session's: while one
is open, Playwright keeps an event loop running in this thread, and tests of other folders that call
``asyncio.run`` would fail.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from agent.policies.registry import make_policy
from agent.workflow.doubles import (
    StillMonitor,
    StillReading,
    TableStudent,
    replay_kit,
    row_features,
)
from agent.workflow.kit import ReviewKit
from api.app import create_app
from api.auth import ApiKey, Role, hash_key
from api.listen import listen
from api.logs import log_config
from api.settings import Settings
from carbon.backends import ReplayMeter
from distill.evidence import EvidenceTable
from envs.toy import toy_evidence

PEOPLE: dict[str, Role] = {"ada": "reviewer", "ben": "reviewer", "guest": "viewer"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    # What a browser does by itself would show up beside what the page does.
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--no-first-run", "--no-default-browser-check",
    "--disable-features=OptimizationHints,MediaRouter,Translate,AutofillServerCommunication",
)  # fmt: skip
DIRTY, CLEAN = 400.0, 40.0
PATIENCE_MS = 10_000


def key_of(person: str) -> str:
    return f"{person}-key-for-tests"


class MovableClock:
    """The present, plus what a test adds."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass(frozen=True, kw_only=True)
class TidalGrid(StillMonitor):
    """Dirty now, clean from the third hour on: a deferral is worth its while. It knows the time."""

    clock: MovableClock
    began: datetime

    def _reading(self, at: datetime, kind: str) -> StillReading:
        hours = (at - self.began) / timedelta(hours=1)
        return StillReading(
            g_per_kwh=DIRTY if hours < 2 or hours > 8 else CLEAN, time=at, kind=kind,
            zone="tests", provider="tidal",
        )  # fmt: skip

    def now(self) -> StillReading:
        return self._reading(self.clock(), "estimated")

    def forecast(self, hours: int) -> tuple[StillReading, ...]:
        hour = self.clock().replace(minute=0, second=0, microsecond=0)
        return tuple(self._reading(hour + timedelta(hours=i + 1), "forecast") for i in range(hours))

    @property
    def meter(self) -> ReplayMeter:
        return ReplayMeter.of_joules(repeat(2.0))


@dataclass(frozen=True, kw_only=True)
class FragileStudent(TableStudent):
    """Fails while there is trouble, and takes its time where it is told to."""

    trouble: list[str]
    pauses_s: list[float]

    def assess(self, case: Any, transfers_run: Any) -> Any:
        time.sleep(sum(self.pauses_s))
        if self.trouble:
            raise OSError(self.trouble[0])
        return super().assess(case, transfers_run)


@dataclass(kw_only=True)
class Board:
    """A server under test, that can be stopped and started again on the same port and state."""

    settings: Settings
    evidence: EvidenceTable
    clock: MovableClock = field(default_factory=MovableClock)
    port: int = 0
    trouble: list[str] = field(default_factory=list)
    pauses_s: list[float] = field(default_factory=list)
    _running: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._running.enter_context(self._serving())

    def stop(self) -> None:
        self._running.close()

    @contextmanager
    def _serving(self) -> Iterator[None]:
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        monitor = TidalGrid(clock=self.clock, began=hour)

        def kit(settings: Settings) -> ReviewKit:
            made = replay_kit(
                self.evidence, make_policy=make_policy, policy=settings.policy, monitor=monitor
            )
            student = FragileStudent(
                evidence=self.evidence, trouble=self.trouble, pauses_s=self.pauses_s
            )
            return replace(made, student=student)

        app = create_app(self.settings, load=kit, clock=self.clock)
        with listen("127.0.0.1", self.port) as listener:
            self.port = listener.getsockname()[1]
            config = uvicorn.Config(
                app, log_config=log_config("WARNING"), timeout_graceful_shutdown=1
            )
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                deadline = time.monotonic() + 20
                while not server.started:
                    assert thread.is_alive(), "the server did not start"
                    assert time.monotonic() < deadline, "the server took too long to start"
                    time.sleep(0.01)
                yield
            finally:
                server.should_exit = True
                thread.join(timeout=15)
                assert not thread.is_alive(), "the server did not stop"

    @contextmanager
    def api(self, person: str = "ada") -> Iterator[httpx.Client]:
        headers = {"Authorization": f"Bearer {key_of(person)}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=20) as client:
            yield client

    def post(self, row: int = 0, until: str | None = "awaiting_clinician", **more: Any) -> str:
        """A case for a row of the table; returns its id when it has come to rest."""
        body = {"features": row_features(self.evidence, row), **more}
        with self.api() as client:
            posted = client.post("/v1/cases", json=body)
            assert posted.status_code == 202, posted.text
            case_id = str(posted.json()["id"])
            if until is not None:
                self.wait_for(case_id, until)
        return case_id

    def case(self, case_id: str) -> dict[str, Any]:
        with self.api() as client:
            answer = client.get(f"/v1/cases/{case_id}")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

    def wait_for(self, case_id: str, *statuses: str) -> dict[str, Any]:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            case = self.case(case_id)
            if case["status"] in statuses:
                return case
            time.sleep(0.02)
        raise AssertionError(f"{case['status']} is none of {statuses} ({case['failure']})")


@pytest.fixture(scope="session")
def evidence() -> EvidenceTable:
    return toy_evidence(n_patients=60, seed=3)


def settings_in(folder: Path, **changes: Any) -> Settings:
    keys = tuple(
        ApiKey(name=f"dr-{name}", role=role, sha256=hash_key(key_of(name)))
        for name, role in PEOPLE.items()
    )
    plain: dict[str, Any] = {
        "bundle": folder / "bundle", "state": folder / "state", "policy": "rule", "keys": keys,
        "wake_poll_s": 0.05, "workers": 2,
    }  # fmt: skip
    return Settings(**plain | changes)


MakeBoard = Callable[..., Board]


@pytest.fixture
def make_board(tmp_path: Path, evidence: EvidenceTable) -> Iterator[MakeBoard]:
    """``make_board(policy=..., second_review_above=...)``; stopped after the test."""
    with ExitStack() as stack:

        def make(**changes: Any) -> Board:
            board = Board(settings=settings_in(tmp_path, **changes), evidence=evidence)
            stack.callback(board.stop)
            board.start()
            return board

        yield make


@pytest.fixture
def board(make_board: MakeBoard) -> Board:
    return make_board()


@pytest.fixture(scope="module")
def shared_board(
    tmp_path_factory: pytest.TempPathFactory, evidence: EvidenceTable
) -> Iterator[Board]:
    """One server for those tests of a module that leave nothing behind that matters."""
    board = Board(settings=settings_in(tmp_path_factory.mktemp("shared")), evidence=evidence)
    try:
        board.start()
        yield board
    finally:
        board.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, as it is found on the path."""
    if CHROMIUM is None:
        reason = "there is no chromium on the path"
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have it: {reason}")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        try:
            yield started
        finally:
            started.close()


@dataclass(kw_only=True)
class Seat:
    """One person at a browser of their own, and what that browser complained of."""

    context: BrowserContext
    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def goto(self, path: str) -> Page:
        self.page.goto(self.url + path, wait_until="load")
        return self.page

    def sign_in(self, person: str, path: str = "/") -> Page:
        self.goto(path)
        self.page.get_by_label("API key").fill(key_of(person))
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(self.url + path)
        return self.page

    def expect_complaint(self, text: str) -> None:
        """What the test itself brings about, such as a lost connection."""
        self.expected.append(text)

    def unexpected(self) -> list[str]:
        return [c for c in self.complaints if not any(text in c for text in self.expected)]


def watched(seat: Seat) -> None:
    """Note errors of the console, of scripts, and every request that leaves the server's origin."""

    def console(message: Any) -> None:
        if message.type in ("error", "warning"):
            seat.complaints.append(f"console: {message.text} {message.location.get('url', '')}")

    def asked(request: Any) -> None:
        if not request.url.startswith((seat.url + "/", "data:", "blob:")):
            seat.complaints.append(f"left the origin: {request.url}")

    def failed(response: Any) -> None:
        if response.status >= 500:
            seat.complaints.append(f"{response.status} from {response.url}")

    seat.context.on("console", console)
    seat.context.on("weberror", lambda error: seat.complaints.append(f"script: {error.error}"))
    seat.context.on("request", asked)
    seat.context.on("response", failed)
    seat.context.on("dialog", lambda dialog: (seat.complaints.append("a dialog"), dialog.dismiss()))


RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def _findings(page: Page) -> list[str]:
    results = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]})
    return [
        f"{violation['id']} ({violation['impact']}): {node['target']} {node['html'][:120]}"
        for violation in results.response["violations"]
        for node in violation["nodes"]
    ]


@pytest.fixture(scope="session")
def axe() -> Callable[[Page], list[str]]:
    """``axe(page)``: what axe says, one line a place."""
    return _findings


Sit = Callable[..., Seat]


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    outcome: Any = yield
    if call.when == "call":
        item.stash[FAILED] = outcome.get_result().failed


FAILED = pytest.StashKey[bool]()


@pytest.fixture
def sit(browser: Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sit]:
    """``sit(board, "ada", dark=True, width=390)``: a browser context, signed in if a name is given.

    After a failure the screen and a trace of each lie in the test's folder. Whatever a browser
    complained of unexpectedly fails the test.
    """
    expect.set_options(timeout=PATIENCE_MS)
    seats: list[Seat] = []

    def make(
        board: Any, person: str | None = None, *, path: str = "/", dark: bool = False,
        width: int = 1280, height: int = 900, script: bool = True, **options: Any,
    ) -> Seat:  # fmt: skip
        context = browser.new_context(
            color_scheme="dark" if dark else "light", viewport={"width": width, "height": height},
            java_script_enabled=script, reduced_motion="reduce", **options,
        )  # fmt: skip
        context.set_default_timeout(PATIENCE_MS)
        seat = Seat(context=context, page=context.new_page(), url=board.url)
        watched(seat)
        seats.append(seat)
        if person is not None:
            seat.sign_in(person, path)
        return seat

    yield make
    broken = request.node.stash.get(FAILED, False)
    for i, seat in enumerate(seats):
        if broken:
            for j, page in enumerate(seat.context.pages):
                page.screenshot(path=tmp_path / f"seat-{i}-{j}.png", full_page=True)
                (tmp_path / f"seat-{i}-{j}.html").write_text(page.content())
        seat.context.close()
    if not broken:
        assert [c for seat in seats for c in seat.unexpected()] == []
