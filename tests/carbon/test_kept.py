from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from carbon.errors import IntensityError
from carbon.intensity.cache import ResponseCache
from carbon.intensity.kept import Freshness, KeptAnswers

AT = datetime(2024, 3, 6, 10, 20, tzinfo=UTC)
URL = "https://provider.invalid/x"


class Provider:
    def __init__(self, body: str = "1") -> None:
        self.body = body
        self.asked = 0

    def __call__(self, url: str) -> str:
        self.asked += 1
        if not self.body:
            raise IntensityError("down")
        return self.body


def parse(url: str, body: str) -> int:
    try:
        return int(body)
    except ValueError as error:
        raise IntensityError(f"{url}: not a number") from error


def kept(cache: ResponseCache, at: datetime = AT) -> KeptAnswers:
    return KeptAnswers(
        cache=cache, freshness=Freshness(fresh_s=60.0, stale_s=600.0), clock=lambda: at
    )


def test_young_answers_spare_the_provider_and_old_ones_stand_in() -> None:
    cache, provider = ResponseCache(), Provider()
    assert kept(cache).fetch(URL, provider, parse).value == 1
    provider.body = ""
    assert kept(cache, AT + timedelta(seconds=59)).fetch(URL, provider, parse).stale_note == ""
    assert provider.asked == 1
    stale = kept(cache, AT + timedelta(seconds=599)).fetch(URL, provider, parse)
    assert (stale.value, stale.stale_note) == (1, "kept answer of 599 s ago, because down")
    with pytest.raises(IntensityError, match="down"):
        kept(cache, AT + timedelta(seconds=601)).fetch(URL, provider, parse)


def test_an_answer_from_the_future_or_damaged_is_asked_for_again(tmp_path: Path) -> None:
    cache, provider = ResponseCache(tmp_path), Provider("2")
    cache.put(URL, "1", AT + timedelta(days=400))
    assert kept(cache).fetch(URL, provider, parse).value == 2
    cache.put(URL, "no number", AT)
    assert kept(cache).fetch(URL, provider, parse).value == 2
    assert provider.asked == 2


def test_what_is_not_worth_keeping_does_not_hide_a_good_answer() -> None:
    cache, provider = ResponseCache(), Provider("0")
    cache.put(URL, "5", AT - timedelta(seconds=100))
    assert kept(cache).fetch(URL, provider, parse).value == 0
    provider.body = ""
    assert kept(cache).fetch(URL, provider, parse).value == 5


def test_a_kept_answer_is_read_once_and_a_new_one_again() -> None:
    cache, provider, read = ResponseCache(), Provider(), []

    def counted(url: str, body: str) -> int:
        read.append(body)
        return parse(url, body)

    held = kept(cache)
    for _ in range(5):
        assert held.fetch(URL, provider, counted).value == 1
    assert read == ["1", "1"], "once as it came, once as it was kept"
    cache.put(URL, "7", AT)
    assert held.fetch(URL, provider, counted).value == 7
    for i in range(40):
        held.fetch(f"{URL}/{i}", provider, counted)
