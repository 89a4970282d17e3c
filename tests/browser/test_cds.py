"""The CDS service called from another site's page in a real browser, as the public sandbox does."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Browser, Page

from api.cds.doubles import hook, service_address
from api.subject import Subjects

SANDBOX = "https://sandbox.cds-hooks.org"
FHIR, PATIENT = "https://launch.smarthealthit.org/v/r4/fhir", "smart-1288992"
CALL = """async ([url, method, token, body]) => {
  const headers = {Accept: "application/json", Authorization: `Bearer ${token}`};
  if (body) headers["Content-Type"] = "application/json";
  try {
    const answer = await fetch(url, {method, headers, body: body && JSON.stringify(body)});
    return {status: answer.status, body: await answer.json().catch(() => null)};
  } catch (error) {
    return {refused: String(error)};
  }
}"""


@pytest.fixture
def sandbox(browser: Browser) -> Iterator[Page]:
    """A page of the sandbox's site; nothing is fetched from it.

    Its user allowed it to reach this machine: Chromium asks for that by itself.
    """
    context = browser.new_context()
    context.grant_permissions(["local-network-access"], origin=SANDBOX)
    context.route(f"{SANDBOX}/**", lambda route: route.fulfill(body="<!doctype html><title>x"))
    page = context.new_page()
    page.goto(f"{SANDBOX}/")
    # While requests are caught, Playwright answers preflights itself: those are to be tested.
    context.unroute_all()
    yield page
    context.close()


def token(audience: str) -> str:
    """What the sandbox sends: ES256, which this service does not take where it asks for tokens."""
    now = int(time.time())
    said = {"iss": SANDBOX, "aud": audience, "exp": now + 300, "iat": now, "jti": uuid.uuid4().hex}
    header = {"kid": uuid.uuid4().hex, "jku": f"{SANDBOX}/.well-known/jwks.json"}
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(said, key, algorithm="ES256", headers=header)


def call(page: Page, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    method = "GET" if body is None else "POST"
    found: dict[str, Any] = page.evaluate(CALL, [url, method, token(url), body])
    return found


def attach(state: Path, case_id: str) -> None:
    import sqlite3
    from contextlib import closing

    subject = Subjects.open(state).of(f"open:{FHIR}", PATIENT)
    with closing(sqlite3.connect(state / "cases.sqlite", timeout=10)) as connection:
        connection.execute("UPDATE cases SET subject = ? WHERE id = ?", (subject, case_id))
        connection.commit()


def test_a_page_of_the_sandbox_finds_calls_and_answers_the_service(
    make_board: Any, sandbox: Page
) -> None:
    board = make_board(cds_open=True)
    attach(board.settings.state, board.post(0))
    found = call(sandbox, f"{board.url}/cds-services")
    (service,) = found["body"]["services"]
    url = f"{board.url}/cds-services/{service['id']}"
    assert url == service_address(board.url)
    shown = call(sandbox, url, hook(PATIENT, FHIR))
    (card,) = shown["body"]["cards"]
    assert card["summary"].startswith("Research use only")
    said = {"card": card["uuid"], "outcome": "overridden",
            "outcomeTimestamp": "2030-01-31T09:00:00.000Z"}  # fmt: skip
    assert call(sandbox, f"{url}/feedback", {"feedback": [said]})["status"] == 200
    # A page can read what was wrong with its call.
    wrong = call(sandbox, url, {**hook(PATIENT, FHIR), "hook": "order-sign"})
    assert (wrong["status"], wrong["body"]["status"]) == (422, 422)
    # The rest of the server is closed to it, though the address is the same.
    assert "refused" in call(sandbox, f"{board.url}/v1/cases")


def test_its_tokens_open_nothing_where_tokens_are_asked_for(board: Any, sandbox: Page) -> None:
    assert call(sandbox, f"{board.url}/cds-services")["status"] == 200
    # Chromium no longer says so in a preflight; one that does is refused (tests/api/test_cds.py).
    answer = call(sandbox, service_address(board.url), hook(PATIENT, FHIR))
    assert answer["status"] == 401
