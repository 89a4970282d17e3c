"""Post cases of a cohort to a running server, act on some, and photograph its pages: docs/*.png.

    greenboard demo --out runs/demo
    greenboard serve --bundle runs/demo/bundle --cohort runs/demo/held_out --source synthetic \
        --second-review-above 0.95 --limit day:120:160:warn:defer --state runs/shots \
        --keys keys.toml                                                # two reviewers' keys
    python examples/screenshots.py http://127.0.0.1:8000 KEY OTHER_KEY runs/demo/held_out docs

Needs Playwright and a chromium on the path. Made-up patients, made-up references, and a script that
signs: research use only.
"""

from __future__ import annotations

import csv
import shutil
import sys
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from api.client import Client

WIDTH = 1400
COLOURS = 128
N_CASES = 13
URGENCIES = (0.1, 0.35, 0.6, 0.85, 0.2, 0.05, 0.95, 0.4)
UNITS = ("thoracic surgery", "pneumology", "oncology")


def case_ids(cohort: Path) -> list[str]:
    """Ids of the cohort's first cases."""
    with (cohort / "labels.csv").open(newline="") as file:
        return [row["case_id"] for row in csv.DictReader(file)][:N_CASES]


def post_cases(first: Client, ids: list[str]) -> list[str]:
    """Post them with a board's usual surroundings; returns their ids here."""
    now, posted = datetime.now(UTC), []
    for i, case_id in enumerate(ids):
        hours = (6, 30, 54, 100)[i % 4]
        case = first.review(
            case_id=case_id,
            reference=f"TB-2026-{101 + 7 * i}",
            unit=UNITS[i % len(UNITS)],
            session=f"board-{12 + i // 6}",
            urgency=URGENCIES[i % len(URGENCIES)],
            deadline=now + timedelta(hours=hours),
        )
        posted.append(case.id)
    return posted


def act(first: Client, second: Client, posted: list[str]) -> str:
    """Sign some, send one back; returns a case that waits and has the most to show."""
    waiting = [case for case in map(first.read_case, posted) if case.status == "awaiting_clinician"]
    waiting.sort(key=lambda case: len(case.transfers_run))
    for case in waiting[: len(waiting) // 3]:
        first.accept(case)
    for case in waiting[len(waiting) // 3 : len(waiting) // 3 + 1]:
        second.send_back(case, reason_code="missing_data")
    return waiting[-1].id


def photograph(page: Page, target: Path, at_most: int) -> None:
    """A PNG of the page's upper part with few colours: sharp text, small file."""
    height = min(at_most, int(page.evaluate("document.documentElement.scrollHeight")))
    png = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": height}, full_page=True)
    picture = Image.open(BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(target, optimize=True)
    print(f"{target}: {target.stat().st_size / 1000:.0f} kB")


def main(url: str, key: str, other_key: str, cohort: Path, out: Path) -> None:
    """Post, act, photograph."""
    with Client(url, key) as first, Client(url, other_key) as second:
        shown = act(first, second, post_cases(first, case_ids(cohort)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 1000}, color_scheme="light", reduced_motion="reduce"
        )
        page.goto(f"{url}/login")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        for name, path, height in (
            ("worklist", "/", 1100),
            ("case", f"/cases/{shown}", 1250),
            ("carbon", "/carbon", 1075),
        ):
            page.goto(url + path)
            page.locator("#live[data-state=live]").wait_for()
            photograph(page, out / f"{name}.png", height)
        browser.close()


if __name__ == "__main__":
    address, mine, theirs, folder, target = sys.argv[1:]
    main(address.rstrip("/"), mine, theirs, Path(folder), Path(target))
