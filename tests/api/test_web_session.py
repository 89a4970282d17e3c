"""Signing in to the page: sessions, forms that may be trusted, headers, assets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.auth import Principal
from api.web.session import Attempts, SessionLimits, Sessions, token_sum

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DOCTOR = Principal(name="dr-reviewer", role="reviewer")
KEYS = {"viewer": "viewer-key", "reviewer": "reviewer-key", "admin": "admin-key"}


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, f"no field {name}"
    return found[1]


def sign_in(client: httpx.Client, role: str = "reviewer", **fields: str) -> httpx.Response:
    form = client.get("/login", params={"next": fields.pop("next", "/")})
    given = {"csrf": hidden(form.text, "csrf"), "next": hidden(form.text, "next"), **fields}
    return client.post("/login", data={"key": KEYS.get(role, role), **given})


@pytest.fixture
def browser(shared_server: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared_server.url, timeout=20) as client:
        shared_server.app.state.server.web.attempts.succeeded("127.0.0.1")
        yield client


def test_a_token_is_kept_as_a_sum_only() -> None:
    sessions = Sessions()
    token, session = sessions.open(DOCTOR, NOW)
    assert len(token) >= 43
    assert token not in repr(vars(sessions))
    assert token_sum(token) in repr(vars(sessions))
    assert sessions.find(token, NOW) is session
    assert sessions.find("x" + token, NOW) is None
    assert sessions.find(None, NOW) is None


def test_a_session_ends_when_idle_and_after_its_longest() -> None:
    limits = SessionLimits(idle=timedelta(minutes=10), longest=timedelta(hours=1))
    sessions = Sessions(limits)
    token, _ = sessions.open(DOCTOR, NOW)
    assert sessions.find(token, NOW + timedelta(minutes=9)) is not None
    assert sessions.find(token, NOW + timedelta(minutes=18)) is not None
    # A stream looks without counting as use.
    assert sessions.find(token, NOW + timedelta(minutes=27), touch=False) is not None
    assert sessions.find(token, NOW + timedelta(minutes=28)) is None
    token, _ = sessions.open(DOCTOR, NOW)
    for minute in range(5, 60, 5):
        assert sessions.find(token, NOW + timedelta(minutes=minute)) is not None
    assert sessions.find(token, NOW + timedelta(minutes=60)) is None


def test_only_so_many_sessions_are_kept() -> None:
    sessions = Sessions(SessionLimits(most=2))
    tokens = [sessions.open(DOCTOR, NOW)[0] for _ in range(3)]
    assert [sessions.find(token, NOW) is not None for token in tokens] == [False, True, True]


def test_an_address_waits_after_failures_and_others_do_not() -> None:
    attempts = Attempts(allowed=2, window=timedelta(minutes=1))
    attempts.failed("a", NOW)
    assert attempts.wait_s("a", NOW) == 0
    attempts.failed("a", NOW + timedelta(seconds=30))
    assert attempts.wait_s("a", NOW + timedelta(seconds=30)) == 30
    assert attempts.wait_s("b", NOW) == 0
    assert attempts.wait_s("a", NOW + timedelta(seconds=60)) == 0


def test_the_sign_in_gives_a_guarded_cookie_and_leads_back(browser: httpx.Client) -> None:
    answer = sign_in(browser, next="/carbon")
    assert (answer.status_code, answer.headers["location"]) == (303, "/carbon")
    cookie = next(c for c in answer.headers.get_list("set-cookie") if "greenboard_session" in c)
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie  # plain http on loopback
    page = browser.get("/")
    assert page.status_code == 200
    assert "dr-reviewer" in page.text
    assert "Reviewer" in page.text


def test_over_https_the_cookie_is_secure_and_bound_to_the_host(
    browser: httpx.Client, shared_server: Any
) -> None:
    server = shared_server.app.state.server
    settings = server.settings.model_copy(update={"public_url": "https://board.example"})
    object.__setattr__(server, "settings", settings)
    try:
        form = browser.get("/login")
        nonce = form.cookies["greenboard_sign_in"]
        answer = browser.post(
            "/login",
            data={"key": "reviewer-key", "csrf": hidden(form.text, "csrf")},
            headers={"Cookie": f"greenboard_sign_in={nonce}"},
        )
    finally:
        object.__setattr__(server, "settings", settings.model_copy(update={"public_url": None}))
    cookie = next(c for c in answer.headers.get_list("set-cookie") if "_session" in c)
    assert cookie.startswith("__Host-greenboard_session=")
    assert "Secure" in cookie


@pytest.mark.parametrize(
    "next_", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_the_sign_in_leads_to_no_other_site(browser: httpx.Client, next_: str) -> None:
    assert sign_in(browser, next=next_).headers["location"] == "/"


def test_wrong_keys_are_refused_then_held_up(browser: httpx.Client, shared_server: Any) -> None:
    for _ in range(5):
        answer = sign_in(browser, "not-a-key-of-anybody")
        assert answer.status_code == 401
        assert 'aria-describedby="api-key-error"' in answer.text
        assert "not-a-key" not in answer.text
    held = sign_in(browser)
    assert held.status_code == 429
    assert int(held.headers["retry-after"]) > 0
    shared_server.app.state.server.web.attempts.succeeded("127.0.0.1")
    assert sign_in(browser).status_code == 303


def test_the_sign_in_form_is_our_own(browser: httpx.Client) -> None:
    stranger = browser.post("/login", data={"key": "reviewer-key", "csrf": "x"})
    assert stranger.status_code == 403
    elsewhere = browser.post(
        "/login", data={"key": "reviewer-key"}, headers={"Origin": "https://evil.example"}
    )
    assert elsewhere.status_code == 403
    opaque = browser.post("/login", data={"key": "x"}, headers={"Origin": "null"})
    assert opaque.status_code == 403


def test_signing_out_ends_the_session_for_good(browser: httpx.Client) -> None:
    sign_in(browser)
    page = browser.get("/")
    token = browser.cookies["greenboard_session"]
    answer = browser.post("/logout", data={"csrf": hidden(page.text, "csrf")})
    assert answer.headers["location"] == "/login?said=out"
    again = browser.get("/", headers={"Cookie": f"greenboard_session={token}"})
    assert (again.status_code, again.headers["location"]) == (303, "/login")


def test_a_form_of_another_session_is_refused(browser: httpx.Client) -> None:
    sign_in(browser)
    for csrf in ("", "other"):
        assert browser.post("/logout", data={"csrf": csrf}).status_code == 403
    csrf = hidden(browser.get("/").text, "csrf")
    cross = browser.post("/logout", data={"csrf": csrf}, headers={"Origin": "https://evil.example"})
    assert cross.status_code == 403
    own = browser.post(
        "/logout",
        data={"csrf": csrf},
        headers={"Origin": "null", "Sec-Fetch-Site": "same-origin"},
    )
    assert own.status_code == 303


def test_a_session_that_was_idle_too_long_leads_to_the_sign_in(
    browser: httpx.Client, shared_server: Any
) -> None:
    sign_in(browser)
    assert browser.get("/").status_code == 200
    shared_server.clock.ahead = timedelta(minutes=31)
    try:
        assert browser.get("/").headers["location"] == "/login"
        assert (
            browser.get("/rows", params={"id": "x"}, headers={"X-Fragment": "1"}).status_code == 401
        )
    finally:
        shared_server.clock.ahead = timedelta(0)
    assert browser.get("/").status_code == 303  # it does not come back


def test_without_a_session_everything_leads_to_the_sign_in(browser: httpx.Client) -> None:
    for path in ("/", "/cases/x", "/carbon", "/policies", "/about", "/changes", "/rows?id=x"):
        answer = browser.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/login")
    assert browser.get("/carbon?by=case").headers["location"] == "/login?next=%2Fcarbon%3Fby%3Dcase"
    assert browser.get("/", headers={"X-Fragment": "1"}).status_code == 401
    assert browser.post("/cases/x/act").status_code == 303


def test_whoever_follows_a_link_from_elsewhere_is_sent_on_by_us(browser: httpx.Client) -> None:
    answer = browser.get("/cases/abc", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert '<meta http-equiv="refresh" content="0;url=/cases/abc">' in answer.text


def test_the_cookie_opens_no_api_and_the_key_no_page(browser: httpx.Client) -> None:
    sign_in(browser)
    assert browser.get("/v1/cases").status_code == 401
    with httpx.Client(base_url=str(browser.base_url)) as bare:
        answer = bare.get("/", headers={"Authorization": "Bearer reviewer-key"})
        assert answer.status_code == 303


def test_every_answer_carries_the_headers(browser: httpx.Client) -> None:
    sign_in(browser)
    for path in ("/login", "/", "/carbon", "/nothing-like-this/x", "/cases/nope", "/about"):
        answer = browser.get(path)
        if answer.headers["content-type"].startswith("application/problem+json"):
            continue  # no page of ours
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"


def test_assets_are_named_by_their_content_and_kept(browser: httpx.Client) -> None:
    page = browser.get("/login").text
    found = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(found) == 3
    for path in found:
        answer = browser.get(path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        again = browser.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
    assert browser.get("/static/app.0000000000000000.css").status_code == 404


def test_the_appearance_is_kept(browser: httpx.Client) -> None:
    assert 'data-theme="auto"' in browser.get("/login").text
    answer = browser.post("/theme", data={"theme": "dark", "back": "/login"})
    assert answer.headers["location"] == "/login"
    assert 'data-theme="dark"' in browser.get("/login").text
    assert browser.post("/theme", data={"theme": "pink"}).status_code == 422
    assert (
        browser.post("/theme", data={"theme": "dark", "back": "//evil.example"}).headers["location"]
        == "/"
    )


def test_nothing_is_fetched_from_elsewhere(browser: httpx.Client) -> None:
    sign_in(browser)
    paths = ["/", "/carbon", "/policies", "/about"]
    pages = [browser.get(path).text for path in paths]
    pages += [browser.get(p).text for p in re.findall(r'="(/static/[^"]+)"', pages[0])]
    for text in pages:
        links = set(re.findall(r"""(?:https?:)?//[\w.-]+\.\w+[^\s"'<)]*""", text))
        assert links <= {"http://www.w3.org/2000/svg"}, links
        assert " style=" not in text
        assert not re.search(r"\son\w+=", text)
