"""What else there is to see: steps as they happen, the carbon page, the policies, the pictures."""

from __future__ import annotations

import re
import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import expect

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "screenshots.py"


def test_steps_appear_as_they_happen(board: Any, sit: Any) -> None:
    seat = sit(board, "ada")
    board.pauses_s.append(0.5)
    case_id = board.post(0, until=None, policy="always-everything")
    page = seat.goto(f"/cases/{case_id}")
    here = page.locator("[data-case]")
    steps = page.locator("#timeline > li")
    expect(here).to_have_attribute("data-status", re.compile("queued|running"))
    expect(page.locator("#form-accept")).to_have_count(0)
    page.evaluate("window.here = 1")
    expect(steps.nth(4)).to_be_visible()
    expect(here).to_have_attribute("data-status", re.compile("queued|running"))
    board.pauses_s.clear()
    expect(here).to_have_attribute("data-status", "awaiting_clinician")
    expect(page.locator("#form-accept")).to_be_visible()
    with board.api() as client:
        text = client.get(f"/v1/cases/{case_id}/events", params={"follow": "false"}).text
    expect(steps).to_have_count(len(re.findall(r"^id: ", text, re.MULTILINE)))
    numbers = [li.get_attribute("data-seq") for li in steps.all()]
    assert numbers == [str(i) for i in range(len(numbers))]
    assert page.evaluate("window.here") == 1, "it was never loaded again"


def test_the_carbon_page_shows_the_grid_the_budget_and_who_waits(board: Any, sit: Any) -> None:
    case_id = board.post(0, until="deferred", policy="planner", reference="tide", urgency=0.1)
    board.post(1)
    page = sit(board, "guest", path="/carbon").page
    main = page.locator("main")
    expect(main).to_contain_text("400")
    expect(main).to_contain_text("tidal")
    for chart in ("#chart-forecast", "#chart-burndown"):
        picture = page.locator(f"{chart} svg").first
        expect(picture).to_be_visible()
        expect(picture).to_have_accessible_name(re.compile(r"\d"))
        page.locator(f"{chart} summary").click()
        expect(page.locator(f"{chart} table tbody tr").first).to_be_visible()
    waits = page.get_by_role("link", name="tide")
    expect(waits).to_have_attribute("href", f"/cases/{case_id}")
    expect(page.get_by_role("heading", name="Account")).to_be_visible()
    expect(main).not_to_contain_text(re.compile(r"\b(nan|None|undefined|inf)\b"))
    board.clock.ahead = timedelta(minutes=20)
    with board.api() as client:
        assert client.post(f"/v1/cases/{case_id}/wake").status_code == 200
    board.wait_for(case_id, "awaiting_clinician")
    page.reload()
    expect(page.get_by_role("link", name="tide")).to_have_count(0)


def test_policies_and_limits_of_use_are_told(shared_board: Any, sit: Any) -> None:
    page = sit(shared_board, "guest", path="/policies").page
    main = page.locator("main")
    expect(main).to_contain_text("rule")
    page.get_by_role("link", name="About", exact=True).click()
    expect(main).to_contain_text(re.compile("research use only", re.IGNORECASE))
    expect(main).to_contain_text("synthetic")
    expect(main).to_contain_text("toy-60-3")


def test_keys_lead_from_page_to_page(shared_board: Any, sit: Any) -> None:
    seat = sit(shared_board, "ada")
    for key, path in (("c", "/carbon"), ("p", "/policies"), ("a", "/about"), ("w", "/")):
        seat.page.keyboard.press("g")
        seat.page.keyboard.press(key)
        expect(seat.page).to_have_url(seat.url + path)


def test_an_unknown_case_is_told_on_a_page(shared_board: Any, sit: Any) -> None:
    seat = sit(shared_board, "ada")
    seat.expect_complaint("404")
    for path in ("/cases/MRN-5550123", "/cases/" + "0" * 32):
        page = seat.goto(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.locator("main")).not_to_contain_text("MRN-5550123")
        expect(page.get_by_role("link", name="Back to the worklist")).to_be_visible()


def test_the_pictures_of_the_readme_are_small(shared_board: Any, sit: Any, tmp_path: Path) -> None:
    photograph = runpy.run_path(str(EXAMPLE))["photograph"]
    page = sit(shared_board, "ada", path="/carbon", width=1400).page
    target = tmp_path / "carbon.png"
    photograph(page, target, 1000)
    assert target.stat().st_size < 250_000
    with Image.open(target) as picture:
        assert picture.size[0] == 1400
    for name in ("worklist", "case", "carbon"):
        assert (EXAMPLE.parents[1] / "docs" / f"{name}.png").stat().st_size < 250_000
