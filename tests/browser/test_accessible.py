"""Every page for everybody: axe finds nothing; by day, by night, narrow, on paper, by keyboard."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

WIDTHS = (320, 768)
Show = Callable[[Any, dict[str, str]], None]


def opened(path: str) -> Show:
    return lambda seat, ids: seat.goto(path.format(**ids))


def asked_to_sign(seat: Any, ids: dict[str, str]) -> None:
    seat.goto(f"/cases/{ids['waiting']}").locator("#accept").click()
    expect(seat.page.locator("#confirm")).to_be_visible()


def everything_open(seat: Any, ids: dict[str, str]) -> None:
    page = seat.goto(f"/cases/{ids['waiting']}")
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")


def told_of_errors(seat: Any, ids: dict[str, str]) -> None:
    page = seat.goto(f"/cases/{ids['waiting']}")
    page.locator("#act-override summary").click()
    page.locator("#form-override").evaluate("form => { form.noValidate = true; }")
    page.locator("#form-override button").click()
    expect(page.locator("#errors")).to_be_visible()


def keys_shown(seat: Any, ids: dict[str, str]) -> None:
    seat.goto("/").keyboard.press("?")
    expect(seat.page.get_by_role("dialog")).to_be_visible()


PAGES: dict[str, Show] = {
    "worklist": opened("/"),
    "nothing found": opened("/?q=nothing-is-called-so"),
    "keys": keys_shown,
    "waiting": opened("/cases/{waiting}"),
    "everything open": everything_open,
    "confirm": asked_to_sign,
    "errors": told_of_errors,
    "deferred": opened("/cases/{deferred}"),
    "recorded": opened("/cases/{recorded}"),
    "sent back": opened("/cases/{sent_back}"),
    "carbon": opened("/carbon"),
    "policies": opened("/policies"),
    "about": opened("/about"),
    "not found": opened("/cases/unknown"),
}


@pytest.fixture(scope="module")
def ids(shared_board: Any) -> dict[str, str]:
    """Cases in every state that a page shows."""
    board = shared_board
    ids = {
        "waiting": board.post(0, reference="waiting", urgency=0.6, deadline="2999-01-01T00:00Z"),
        "deferred": board.post(1, until="deferred", policy="planner", reference="deferred"),
        "recorded": board.post(2, unit="thoracic", session="board-1", urgency=0.95),
        "sent_back": board.post(3, reference="long-" + "reference-" * 19),
    }
    with board.api() as client:
        for name, decision in (
            ("recorded", {"action": "accept", "comment": "As the slides say."}),
            ("sent_back", {"action": "send_back", "reason_code": "missing_data"}),
        ):
            client.post(f"/v1/cases/{ids[name]}/decision", json=decision)
    return ids


def expect_errors(seat: Any) -> None:
    for code in ("404", "422"):
        seat.expect_complaint(code)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(shared_board: Any, sit: Any, ids: Any, axe: Any, dark: bool) -> None:
    seat = sit(shared_board, dark=dark)
    expect_errors(seat)
    found = {"sign in": axe(seat.goto("/login"))}
    seat.sign_in("ada")
    ground = seat.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(int(part) for part in re.findall(r"\d+", ground)[:3]) > 3 * 128
    assert light is not dark, ground
    for name, show in PAGES.items():
        show(seat, ids)
        found[name] = axe(seat.page)
    assert {name: lines for name, lines in found.items() if lines} == {}
    seat.page.evaluate("document.querySelector('h1').outerHTML = '<button></button>'")
    assert any("button-name (critical)" in line for line in axe(seat.page)), "axe is blind"


def test_the_chosen_appearance_stays(shared_board: Any, sit: Any) -> None:
    page = sit(shared_board, "guest", dark=True).page
    html = page.locator("html")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for _ in range(3):
        if html.get_attribute("data-theme") == "light":
            break
        page.locator("#theme button").click()
        page.wait_for_load_state("load")
    expect(html).to_have_attribute("data-theme", "light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.reload()
    expect(html).to_have_attribute("data-theme", "light")


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(
    shared_board: Any, sit: Any, ids: Any, width: int
) -> None:
    # 320 pixels is what remains of 1280 at 400 % (WCAG 1.4.10).
    seat = sit(shared_board, "ada", width=width)
    expect_errors(seat)
    wide = {}
    for name, show in PAGES.items():
        show(seat, ids)
        wide[name] = seat.page.evaluate("document.documentElement.scrollWidth")
    assert {name: pixels for name, pixels in wide.items() if pixels > width} == {}


def test_focus_shows_wherever_it_goes(shared_board: Any, sit: Any, ids: Any) -> None:
    seat = sit(shared_board, "ada")
    for path in ("/", f"/cases/{ids['waiting']}", "/carbon"):
        page = seat.goto(path)
        unseen, stops = [], 0
        for _ in range(60):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUS)
            if focused is None:
                break
            stops += 1
            if not focused["shown"]:
                unseen.append(focused["what"])
        assert stops > 5
        assert unseen == [], path


FOCUS = """() => {
  const e = document.activeElement;
  if (e === document.body) return null;
  const style = getComputedStyle(e), box = e.getBoundingClientRect();
  const ringed = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const seen = box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight;
  return { shown: (ringed || style.boxShadow !== "none") && seen, what: e.outerHTML.slice(0, 160) };
}"""


def test_the_first_tab_leads_past_the_menu(shared_board: Any, sit: Any) -> None:
    page = sit(shared_board, "ada").page
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_paper_has_the_case_and_none_of_the_tools(
    shared_board: Any, sit: Any, ids: Any, tmp_path: Path, dark: bool
) -> None:
    seat = sit(shared_board, "ada", dark=dark)
    page = seat.goto(f"/cases/{ids['recorded']}")
    page.emulate_media(media="print", color_scheme="dark" if dark else "light")
    for tool in ("nav[aria-label=Main]", "#theme", "#live", "#sign-out"):
        expect(page.locator(tool)).to_be_hidden()
    for kept in ("#figures", "#timeline", "#decision", ".use"):
        expect(page.locator(kept)).to_be_visible()
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
    paper = tmp_path / "case.pdf"
    page.pdf(path=paper, format="A4")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) <= 8


def test_charts_can_be_read_without_seeing_them(shared_board: Any, sit: Any, ids: Any) -> None:
    seat = sit(shared_board, "ada")
    charts = 0
    for path in (f"/cases/{ids['waiting']}", "/carbon"):
        page = seat.goto(path)
        for figure in page.locator("figure.chart").all():
            picture = figure.locator("svg").first
            assert picture.get_attribute("role") == "img"
            expect(picture).to_have_accessible_name(re.compile(r"\w"))
            expect(figure.locator("figcaption")).to_have_text(re.compile(r"\w"))
            expect(figure.locator("table")).to_have_count(1)
            charts += 1
    assert charts >= 3


def test_every_page_has_its_own_title_and_one_heading(
    shared_board: Any, sit: Any, ids: Any
) -> None:
    seat = sit(shared_board, "ada")
    titles = []
    for path in ("/", f"/cases/{ids['waiting']}", "/carbon", "/policies", "/about"):
        page = seat.goto(path)
        titles.append(page.title())
        expect(page.get_by_role("heading", level=1)).to_have_count(1)
        expect(page.get_by_role("main")).to_have_count(1)
        expect(page.get_by_text("Research use only").first).to_be_visible()
    assert len(set(titles)) == len(titles)
