"""The list: live, searchable, quick with a thousand cases, and all of it by keyboard."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import create_engine, insert

from api.store.tables import cases

MANY = 1000
NOW = datetime.now(UTC)


def fill(board: Any, n: int = MANY) -> None:
    """Cases as reviews leave them, straight into the store."""
    statuses = ("awaiting_clinician", "recorded", "deferred", "sent_back", "awaiting_second")
    rows = [
        {
            "id": f"{i:032x}", "reference": f"board-{i:04d}", "status": statuses[i % 5],
            "created_at": NOW - timedelta(minutes=i), "updated_at": NOW, "created_by": "dr-ada",
            "urgency": (i % 101) / 100, "policy": "rule", "features": {}, "transfers_run": [],
            "deadline": NOW + timedelta(hours=i) if i % 3 == 0 else None,
            "probability": (i % 97) / 97, "uncertainty": (i % 89) / 89, "g_co2e": float(i),
            "unit": ("thoracic", "breast")[i % 2], "session": None, "version": 1,
            "wake_at": NOW + timedelta(hours=5) if i % 5 == 2 else None,
            "result": "positive" if i % 5 == 1 else None, "suggestion": "positive",
        }
        for i in range(n)
    ]  # fmt: skip
    engine = create_engine(f"sqlite:///{board.settings.state / 'cases.sqlite'}")
    with engine.begin() as connection:
        connection.execute(insert(cases), rows)
    engine.dispose()


class Wire:
    """A cable between a browser and a board that can be cut and mended."""

    def __init__(self, board: Any) -> None:
        """Lay it to wherever the board listens at the time of each connection."""
        self._board = board
        self._ends: list[socket.socket] = []
        self._cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break what is connected and refuse what comes."""
        self._cut = True
        for end in self._ends:
            # The other thread still reads from it: this wakes that one up.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        self._cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._cut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._board.port))
            self._ends += [near, far]
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(board: Any) -> Iterator[Wire]:
    laid = Wire(board)
    yield laid
    laid.close()


@pytest.fixture(scope="module")
def full(shared_board: Any) -> Any:
    fill(shared_board)
    return shared_board


def names(page: Page, n: int = 5) -> list[str]:
    texts = page.locator("#worklist tbody th a").all_inner_texts()[:n]
    return [text.strip() for text in texts]


def test_a_posted_case_appears_by_itself(board: Any, sit: Any) -> None:
    page = sit(board, "ada").page
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    expect(page.get_by_text("No cases yet")).to_be_visible()
    case_id = board.post(0, reference="live/1")
    # A first case, or one more: it is announced, and one key or click shows it.
    expect(page.locator("#fresh")).to_contain_text("new or changed")
    page.keyboard.press("r")
    row = page.locator(f"#case-{case_id}")
    expect(row).to_have_attribute("data-status", "awaiting_clinician")
    expect(row).to_contain_text("live/1")
    with board.api() as client:
        client.post(f"/v1/cases/{case_id}/decision", json={"action": "accept"})
    # What is on the screen changes in place.
    expect(row).to_have_attribute("data-status", "recorded")


def test_a_lost_connection_shows_and_nothing_is_missed(board: Any, wire: Any, sit: Any) -> None:
    first = board.post(0, reference="before")
    seat = sit(wire, "ada")
    seat.expect_complaint("net::ERR_")
    live, row = seat.page.locator("#live"), seat.page.locator(f"#case-{first}")
    expect(live).to_have_attribute("data-state", "live")
    wire.cut()
    expect(live).to_have_attribute("data-state", "lost")
    expect(live).to_contain_text("Connection lost")
    with board.api() as client:
        client.post(f"/v1/cases/{first}/decision", json={"action": "accept"})
    second = board.post(1, reference="meanwhile")
    expect(row).to_have_attribute("data-status", "awaiting_clinician")
    wire.mend()
    expect(live).to_have_attribute("data-state", "live", timeout=20_000)
    expect(row).to_have_attribute("data-status", "recorded")
    expect(seat.page.locator("#fresh")).to_contain_text("1 case is new")
    seat.page.keyboard.press("r")
    expect(seat.page.locator(f"#case-{second}")).to_be_visible()


def test_a_restarted_server_asks_to_sign_in_again(board: Any, sit: Any) -> None:
    first = board.post(0, reference="before")
    seat = sit(board, "ada")
    seat.expect_complaint("net::ERR_")
    seat.expect_complaint("401")
    live = seat.page.locator("#live")
    expect(live).to_have_attribute("data-state", "live")
    board.stop()
    expect(live).to_have_attribute("data-state", "lost")
    board.start()
    # Sessions are in the server's memory alone.
    expect(live).to_have_attribute("data-state", "over", timeout=20_000)
    seat.sign_in("ada")
    expect(seat.page.locator(f"#case-{first}")).to_be_visible()


def test_a_thousand_cases_come_quickly(full: Any, sit: Any) -> None:
    seat = sit(full, "ada")
    expect(seat.page.locator("#worklist tbody tr")).to_have_count(MANY)
    cookies = {c["name"]: c["value"] for c in seat.context.cookies()}
    with httpx.Client(base_url=full.url, cookies=cookies) as client:
        took = []
        for _ in range(3):
            began_s = time.monotonic()
            assert client.get("/").status_code == 200
            took.append(time.monotonic() - began_s)
    print(f"worklist of {MANY} cases: {min(took):.3f} s")
    assert min(took) < 1.0  # the goal is 0.3 s; a busy machine must not fail it


def test_search_filter_and_sort(full: Any, sit: Any) -> None:
    page = sit(full, "ada", path="/?q=nothing-is-called-so").page
    page.get_by_label("Search").fill("board-0042")
    page.keyboard.press("Enter")
    expect(page.locator("#worklist tbody tr")).to_have_count(1)
    assert names(page) == ["board-0042"]
    expect(page.locator("#count")).to_have_text("1 case")
    # The address says it all: it can be shared.
    page.reload()
    expect(page.get_by_label("Search")).to_have_value("board-0042")
    page.get_by_label("Search").fill("100%_no such")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No case fits these filters")).to_be_visible()
    page.get_by_label("Search").fill("")
    page.get_by_label("Status").select_option("awaiting_second")
    page.get_by_label("Sort").select_option("carbon")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#worklist tbody tr")).to_have_count(MANY // 5)
    assert names(page, 2) == ["board-0999", "board-0994"]
    page.get_by_role("link", name="gCO2e").click()
    assert names(page, 2) == ["board-0004", "board-0009"]
    expect(page.locator("th[aria-sort=ascending]")).to_contain_text("gCO2e")


def test_the_list_by_keyboard(full: Any, sit: Any) -> None:
    page = sit(full, "ada", path="/?sort=reference").page
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    focused = page.locator("#worklist tbody th a:focus")
    expect(focused).to_have_text("board-0002")
    page.keyboard.press("k")
    expect(focused).to_have_text("board-0001")
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("jk?g")
    expect(page.get_by_label("Search")).to_have_value("jk?g")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/cases/[0-9a-f]{32}$"))


def test_what_cannot_be_meant_is_told(full: Any, sit: Any) -> None:
    seat = sit(full, "ada", path="/?q=nothing-is-called-so")
    seat.expect_complaint("422")
    for query in ("sort=nothing", "min_urgency=7", "status=x", "q=" + "a" * 300):
        page = seat.goto(f"/?{query}")
        expect(page.locator("main")).to_contain_text(re.compile("allowed|understood|not|cannot"))
        expect(page.get_by_role("link", name="greenboard, worklist")).to_be_visible()
