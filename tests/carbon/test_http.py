from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest

from carbon.errors import IntensityError
from carbon.intensity.http import HttpClient, HttpLimits, HttpStatusError

if TYPE_CHECKING:
    from tests.carbon.conftest import NesoServer

AT = datetime(2024, 3, 6, 10, 20, tzinfo=UTC)
TOKEN = {"auth-token": "s3cret-token-1"}


class Time:
    """A clock that sleeping moves on."""

    def __init__(self) -> None:
        self.s = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.s

    def sleep(self, pause_s: float) -> None:
        self.pauses.append(pause_s)
        self.s += pause_s


def client(time: Time, *, rng: np.random.Generator | None = None, **limits: float) -> HttpClient:
    return HttpClient(
        HttpLimits(**limits),  # type: ignore[arg-type]
        monotonic=time, sleep=time.sleep, rng=rng, clock=lambda: AT,
    )  # fmt: skip


def test_back_off_doubles_and_is_never_shorter_than_asked(neso_server: NesoServer) -> None:
    time = Time()
    neso_server.answers("/x", {"status": 500})
    with pytest.raises(IntensityError, match="in 4 tries: HTTP 500"):
        client(time, retries=3, deadline_s=60.0).get_text(neso_server.url + "/x", {})
    assert time.pauses == [0.5, 1.0, 2.0]
    neso_server.answers("/y", {"status": 503, "headers": {"Retry-After": "3"}}, {"body": "fine"})
    assert client(time, deadline_s=60.0).get_text(neso_server.url + "/y", {}) == "fine"
    assert time.pauses[-1] == 3.0


def test_jitter_only_lengthens_a_pause(neso_server: NesoServer) -> None:
    time = Time()
    neso_server.answers("/x", {"status": 500})
    held = client(time, rng=np.random.default_rng(1), retries=2, deadline_s=60.0)
    with pytest.raises(IntensityError):
        held.get_text(neso_server.url + "/x", {})
    assert 0.5 < time.pauses[0] <= 0.75
    assert 1.0 < time.pauses[1] <= 1.5


@pytest.mark.parametrize(
    ("header", "rest_s"),
    [
        ("90", 90.0),
        (format_datetime(AT + timedelta(seconds=120), usegmt=True), 120.0),
        ("9" * 400, 86_400.0),
        ("soon", 60.0),
        ("Mon, 01 Jan 0001 00:00:00 +99999999999999999999", 60.0),
    ],
    ids=["seconds", "date", "endless", "words", "senseless date"],
)
def test_a_rate_limit_is_respected_until_it_has_passed(
    neso_server: NesoServer, header: str, rest_s: float
) -> None:
    time = Time()
    held = client(time, retries=0)
    neso_server.answers("/x", {"status": 429, "headers": {"Retry-After": header}}, {"body": "ok"})
    with pytest.raises(IntensityError, match="HTTP 429"):
        held.get_text(neso_server.url + "/x", {})
    time.s += rest_s - 1.0
    with pytest.raises(IntensityError, match="left alone for 1 s more"):
        held.get_text(neso_server.url + "/other", {})
    assert neso_server.asked == ["/x"]
    time.s += 1.5
    assert held.get_text(neso_server.url + "/x", {}) == "ok"


def test_a_redirect_is_not_followed_with_or_without_a_token(neso_server: NesoServer) -> None:
    for headers in (TOKEN, {}):
        to = {"Location": neso_server.url.replace("127.0.0.1", "localhost") + "/stolen"}
        neso_server.answers("/x", {"status": 302, "headers": to, "body": "moved"})
        with pytest.raises(HttpStatusError, match="points elsewhere") as caught:
            client(Time()).get_text(neso_server.url + "/x", headers)
        assert caught.value.status == 302
    assert "/stolen" not in neso_server.asked


def test_a_token_that_comes_back_is_blanked(neso_server: NesoServer) -> None:
    neso_server.answers("/ok", {"body": '{"echo":"s3cret-token-1"}'})
    assert client(Time()).get_text(neso_server.url + "/ok", TOKEN) == '{"echo":"***"}'
    neso_server.answers("/no", {"status": 403, "body": "token s3cret-token-1 is not known"})
    with pytest.raises(HttpStatusError, match=r"HTTP 403: token \*\*\* is not known"):
        client(Time()).get_text(neso_server.url + "/no", TOKEN)


def test_netrc_does_not_replace_the_header(
    neso_server: NesoServer, tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    neso_server.answers("/x", {"body": "ok"})
    client(Time()).get_text(neso_server.url + "/x", {"Authorization": "Bearer abcdefgh"})
    assert neso_server.headers[0]["authorization"] == "Bearer abcdefgh"


def test_what_stays_on_this_machine_goes_past_a_proxy(
    neso_server: NesoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    neso_server.answers("/x", {"body": "ok"})
    assert client(Time(), retries=0).get_text(neso_server.url + "/x", TOKEN) == "ok"
