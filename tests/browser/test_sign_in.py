"""In and out: a key is exchanged for a session, and nothing else opens a page."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect


def test_a_wrong_key_is_told_and_the_right_one_leads_on(shared_board: Any, sit: Any) -> None:
    seat = sit(shared_board)
    seat.expect_complaint("401")
    page = seat.goto("/?sort=created")
    expect(page).to_have_url(re.compile(r"/login\?next="))
    field = page.get_by_label("API key")
    expect(field).to_be_focused()
    page.keyboard.type("nobody-has-this-key")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This key is not known")).to_be_visible()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_value("")
    assert "nobody-has-this-key" not in page.content()
    field.fill("ada-key-for-tests")
    page.keyboard.press("Enter")
    expect(page).to_have_url(seat.url + "/?sort=created")


def test_signed_out_is_out(shared_board: Any, sit: Any) -> None:
    seat = sit(shared_board, "ada")
    cookie = next(c for c in seat.context.cookies() if "session" in c["name"])
    assert cookie["httpOnly"]
    assert cookie["sameSite"] in ("Strict", "Lax")
    assert cookie["expires"] == -1
    assert "ada-key-for-tests" not in cookie["value"]
    seat.page.get_by_role("button", name="Sign out").click()
    expect(seat.page.get_by_text("You are signed out")).to_be_visible()
    seat.page.go_back()
    expect(seat.page.get_by_label("API key")).to_be_visible()
    # The token itself is dead, not only forgotten by this browser.
    kept = {cookie["name"]: cookie["value"]}
    answer = httpx.get(shared_board.url + "/", cookies=kept, follow_redirects=False)
    assert answer.status_code == 303


def test_a_session_opens_pages_and_a_key_opens_the_api(shared_board: Any, sit: Any) -> None:
    seat = sit(shared_board, "ada")
    cookies = {c["name"]: c["value"] for c in seat.context.cookies()}
    assert httpx.get(shared_board.url + "/v1/cases", cookies=cookies).status_code == 401
    with shared_board.api() as client:
        answer = client.get("/", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")


@pytest.mark.parametrize(
    "aim", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)"]
)
def test_the_sign_in_leads_to_no_other_site(shared_board: Any, sit: Any, aim: str) -> None:
    seat = sit(shared_board)
    page = seat.goto("/login?next=" + aim)
    page.get_by_label("API key").fill("ada-key-for-tests")
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(seat.url + "/")
    expect(page.get_by_role("heading", name="Worklist")).to_be_visible()


def test_pages_say_what_they_are_for_and_load_nothing_from_elsewhere(
    shared_board: Any, sit: Any
) -> None:
    page = sit(shared_board, "guest").page
    expect(page.get_by_text("Research use only", exact=True)).to_be_visible()
    expect(page.get_by_text("Synthetic cohort")).to_be_visible()
    with shared_board.api() as client:
        headers = client.get("/login").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


def test_forms_of_other_sites_and_sessions_are_refused(shared_board: Any, sit: Any) -> None:
    seat = sit(shared_board, "ada")
    cookies = {c["name"]: c["value"] for c in seat.context.cookies()}
    logout = shared_board.url + "/logout"
    token = seat.page.locator("input[name=csrf]").first.get_attribute("value")
    with httpx.Client(cookies=cookies) as other:
        for headers, csrf in (
            ({"Origin": "https://evil.example"}, token), ({"Sec-Fetch-Site": "cross-site"}, token),
            ({"Origin": shared_board.url}, "x"), ({"Origin": shared_board.url}, ""),
        ):  # fmt: skip
            assert other.post(logout, headers=headers, data={"csrf": csrf}).status_code == 403
    seat.page.reload()
    expect(seat.page.get_by_role("heading", name="Worklist")).to_be_visible()


def test_guessing_keys_is_slowed_down(make_board: Any, sit: Any) -> None:
    board = make_board()
    seat = sit(board)
    seat.expect_complaint("40")
    seat.expect_complaint("429")
    page = seat.goto("/login")
    for i in range(30):
        page.get_by_label("API key").fill(f"guess-{i}")
        page.get_by_role("button", name="Sign in").click()
        if page.get_by_text("Too many failed attempts").is_visible():
            break
    else:
        raise AssertionError("thirty guesses were answered")
