from __future__ import annotations

import copy
import pickle

import pytest

from carbon.errors import IntensityError
from carbon.intensity.secret import (
    Secret,
    basic_header,
    blank,
    credentials_in,
    require_private,
)


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(" hunter2-hunter2\n")
    assert secret.reveal() == secret.for_header() == "hunter2-hunter2"
    for shown in (repr(secret), str(secret), f"{secret}", repr({"token": secret})):
        assert "hunter2" not in shown
    for write in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            write(secret)


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "a\x00b", "a\x7fb"])
def test_what_no_header_can_hold_is_refused_unrepeated(text: str) -> None:
    with pytest.raises(IntensityError, match="token is empty or holds unprintable") as caught:
        Secret(text, what="token")
    assert "a" + text[1:] not in str(caught.value) or not text.strip()


def test_a_token_beyond_ascii_is_refused_but_a_password_is_not() -> None:
    secret = Secret("пароль-длинный")
    with pytest.raises(IntensityError, match="no header can"):
        secret.for_header()
    assert basic_header(Secret("u"), secret).startswith("Basic ")


def test_credentials_are_found_in_headers_and_blanked() -> None:
    header = basic_header(Secret("alice-long"), Secret("pass:word-1"))
    found = credentials_in({"Authorization": header, "Accept": "application/json"})
    body = f"alice-long said pass:word-1 as {header}, application/json"
    assert blank(body, found) == "*** said *** as ***, application/json"
    assert credentials_in({"Accept": "x"}) == ()
    assert "tok" in blank("tok", ["tok"]), "too short to be told from chance"


@pytest.mark.parametrize(
    "url", ["https://api.example.org/v3/", "http://127.0.0.1:8/", "http://localhost"]
)
def test_private_addresses(url: str) -> None:
    assert require_private(url) == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://api.example.org", "https"),
        ("ftp://127.0.0.1", "https"),
        ("https://me:pw@api.example.org", "must not hold credentials"),
        ("http://[", "cannot be read"),
    ],
)
def test_credentials_go_nowhere_else(url: str, says: str) -> None:
    with pytest.raises(IntensityError, match=says) as caught:
        require_private(url)
    assert "pw" not in str(caught.value)
