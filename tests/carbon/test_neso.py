from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.errors import IntensityError
from carbon.intensity.cache import ResponseCache
from carbon.intensity.http import HttpClient, HttpLimits, RecordedClient
from carbon.intensity.neso import NesoSource

if TYPE_CHECKING:
    from tests.carbon.conftest import NesoServer

AT = datetime(2018, 1, 20, 12, 10, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)
QUICK = HttpLimits(timeout_s=0.5, deadline_s=1.0, retries=2, backoff_s=0.01)


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def scripted(**fields: Any) -> dict[str, Any]:
    return fields


def period(start: datetime, forecast: object, actual: object) -> dict[str, object]:
    return {
        "from": f"{start:%Y-%m-%dT%H:%MZ}",
        "to": f"{start + HALF_HOUR:%Y-%m-%dT%H:%MZ}",
        "intensity": {"forecast": forecast, "actual": actual, "index": "moderate"},
    }


def body(*periods: dict[str, object]) -> str:
    return json.dumps({"data": list(periods)})


NOON = datetime(2018, 1, 20, 12, 0, tzinfo=UTC)
NOW_BODY = body(period(NOON, 266, 263))


def source(
    server: NesoServer, *, cache: ResponseCache | None = None, clock: Clock | None = None
) -> NesoSource:
    return NesoSource(
        client=HttpClient(QUICK),
        cache=cache,
        base_url=server.url,
        clock=clock if clock is not None else Clock(AT),
    )


def test_the_measured_half_hour(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity", scripted(body=NOW_BODY))
    reading = source(neso_server).now(AT)
    assert reading.g_per_kwh == 263
    assert (reading.kind, reading.zone, reading.provider) == ("measured", "GB", "neso")
    assert reading.basis == "average-direct-consumption"
    assert (reading.time, reading.age_s) == (NOON, 600.0)


def test_what_is_not_measured_yet_is_called_a_forecast(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity", scripted(body=body(period(NOON, 266, None))))
    reading = source(neso_server).now(AT)
    assert (reading.g_per_kwh, reading.kind) == (266, "forecast")
    assert "not measured yet" in reading.note


def test_neither_figure_is_an_error_not_a_zero(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity", scripted(body=body(period(NOON, None, None))))
    with pytest.raises(IntensityError, match="neither an actual nor a forecast"):
        source(neso_server).now(AT)


def test_another_time_is_asked_for_by_name(neso_server: NesoServer) -> None:
    past = datetime(2018, 1, 3, 7, 45, tzinfo=UTC)
    start = datetime(2018, 1, 3, 7, 30, tzinfo=UTC)
    neso_server.answers("/intensity", scripted(body=NOW_BODY))
    neso_server.answers(
        "/intensity/2018-01-03T07:30Z/2018-01-03T08:00Z",
        scripted(body=body(period(start - HALF_HOUR, 1, 2), period(start, 100, 101))),
    )
    assert source(neso_server).now(past).g_per_kwh == 101


def test_a_late_feed_gives_its_latest_period_and_says_so(neso_server: NesoServer) -> None:
    late = body(period(NOON - HALF_HOUR, 250, 240))
    neso_server.answers("/intensity", scripted(body=late))
    neso_server.answers("/intensity/2018-01-20T12:00Z/2018-01-20T12:30Z", scripted(body="{}"))
    reading = source(neso_server).now(AT)
    assert (reading.g_per_kwh, reading.age_s) == (240, 2400.0)
    assert "the latest period" in reading.note
    with pytest.raises(IntensityError, match="no figure"):
        source(neso_server).now(AT + timedelta(hours=9))


@pytest.mark.parametrize("empty", ['{"data":[]}', "{}"])
def test_empty_answers_with_200_are_errors(neso_server: NesoServer, empty: str) -> None:
    neso_server.answers("/intensity", scripted(body=empty))
    neso_server.answers("/intensity/2018-01-20T12:00Z/2018-01-20T12:30Z", scripted(body=empty))
    neso_server.answers("/intensity/2018-01-20T12:00Z/fw24h", scripted(body=empty))
    neso_server.answers("/intensity/2018-01-20T12:00Z/pt24h", scripted(body=empty))
    with pytest.raises(IntensityError, match="no figure"):
        source(neso_server).now(AT)
    with pytest.raises(IntensityError, match="no forecast"):
        source(neso_server).forecast(AT, 3)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("<html>busy</html>", "not NESO's shape"),
        ('{"data":[{"from":"2018-01-20T12:00Z"', "not NESO's shape"),
        ('{"data":{"from":"x"}}', "not NESO's shape at data"),
        ('{"data":[{"from":"x","to":"y","intensity":{}}]}', r"at data\.0\.from"),
        (body(period(NOON, "many", None)), r"at data\.0\.intensity\.forecast"),
        (body(period(NOON, 266, -5)), "greater than or equal to 0"),
        (body(period(NOON, 266, float("nan"))), "not NESO's shape"),
        ('{"error":{"code":"400 Bad Request","message":"Please enter a valid date"}}', "NESO says"),
        ("[]", "not NESO's shape"),
    ],
)
def test_malformed_answers_are_located(neso_server: NesoServer, bad: str, says: str) -> None:
    neso_server.answers("/intensity", scripted(body=bad))
    with pytest.raises(IntensityError, match=says):
        source(neso_server).now(AT)


def test_a_passing_5xx_is_tried_again(neso_server: NesoServer) -> None:
    broken = scripted(status=503, body="down for a moment")
    neso_server.answers("/intensity", broken, broken, scripted(body=NOW_BODY))
    assert source(neso_server).now(AT).g_per_kwh == 263
    assert len(neso_server.asked) == 3


def test_tries_are_bounded_and_the_last_problem_is_told(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity", scripted(status=500, body='{"error":{"message":"oops"}}'))
    with pytest.raises(IntensityError, match=r"in 3 tries: HTTP 500 .*oops"):
        source(neso_server).now(AT)
    assert len(neso_server.asked) == 3


def test_a_4xx_is_not_tried_again(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity", scripted(status=400, body='{"error":{"message":"no"}}'))
    with pytest.raises(IntensityError, match="HTTP 400"):
        source(neso_server).now(AT)
    assert len(neso_server.asked) == 1


def test_retry_after_is_respected(neso_server: NesoServer) -> None:
    limited = scripted(status=429, headers={"Retry-After": "3"})
    neso_server.answers("/intensity", limited, scripted(body=NOW_BODY))
    pauses: list[float] = []
    client = HttpClient(HttpLimits(deadline_s=60.0), sleep=pauses.append)
    reading = NesoSource(client=client, base_url=neso_server.url, clock=Clock(AT)).now(AT)
    assert reading.g_per_kwh == 263
    assert pauses == [3.0]
    # Longer than the deadline allows: not waited for at all.
    neso_server.answers("/intensity", scripted(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(IntensityError, match="in 1 tries: HTTP 429"):
        source(neso_server).now(AT)


def test_a_slow_body_ends_at_the_deadline(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity", scripted(body=NOW_BODY, trickle_s=0.1))
    start_s = time.monotonic()
    with pytest.raises(IntensityError, match=r"not complete in 1 s"):
        source(neso_server).now(AT)
    assert time.monotonic() - start_s < 3


def test_a_silent_server_is_left(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity", scripted(body="x" * 100, trickle_s=5.0))
    start_s = time.monotonic()
    with pytest.raises(IntensityError, match="silent for"):
        source(neso_server).now(AT)
    assert time.monotonic() - start_s < 3


def test_a_huge_body_is_refused(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity", scripted(body="x" * 100_000))
    client = HttpClient(HttpLimits(max_bytes=10_000))
    with pytest.raises(IntensityError, match="larger than 10000 bytes"):
        NesoSource(client=client, base_url=neso_server.url).now(AT)


def test_nobody_listening_says_no_connection() -> None:
    client = HttpClient(HttpLimits(retries=0))
    with pytest.raises(IntensityError, match="no connection"):
        NesoSource(client=client, base_url="http://127.0.0.1:9").now(AT)


def test_fresh_answers_are_not_asked_for_again(neso_server: NesoServer, tmp_path: Path) -> None:
    neso_server.answers("/intensity", scripted(body=NOW_BODY))
    clock = Clock(AT)
    source(neso_server, cache=ResponseCache(tmp_path), clock=clock).now(AT)
    later = source(neso_server, cache=ResponseCache(tmp_path), clock=clock)
    clock.now = AT + timedelta(seconds=299)
    assert later.now(clock.now).age_s == 899.0
    assert neso_server.asked == ["/intensity"]
    clock.now = AT + timedelta(seconds=301)
    later.now(clock.now)
    assert len(neso_server.asked) == 2


def test_a_kept_answer_stands_in_and_says_its_age_and_why(
    neso_server: NesoServer, tmp_path: Path
) -> None:
    neso_server.answers("/intensity", scripted(body=NOW_BODY), scripted(status=500, body="dead"))
    clock = Clock(AT)
    made = source(neso_server, cache=ResponseCache(tmp_path), clock=clock)
    made.now(AT)
    clock.now = AT + timedelta(minutes=40)
    reading = made.now(clock.now)
    assert (reading.g_per_kwh, reading.kind, reading.age_s) == (263, "fallback", 3000.0)
    assert "kept answer of 2400 s ago, because" in reading.note
    assert "HTTP 500 dead" in reading.note
    clock.now = AT + timedelta(hours=3)
    with pytest.raises(IntensityError, match="HTTP 500"):
        made.now(clock.now)


def test_an_empty_answer_does_not_replace_a_good_one(
    neso_server: NesoServer, tmp_path: Path
) -> None:
    neso_server.answers(
        "/intensity", scripted(body=NOW_BODY), scripted(body="{}"), scripted(status=500)
    )
    neso_server.answers("/intensity/2018-01-20T12:00Z/2018-01-20T12:30Z", scripted(body="{}"))
    clock = Clock(AT)
    made = source(neso_server, cache=ResponseCache(tmp_path), clock=clock)
    made.now(AT)
    clock.now = AT + timedelta(minutes=6)
    with pytest.raises(IntensityError, match="no figure"):
        made.now(AT)
    assert made.now(AT).kind == "fallback"


def half_hours(start: datetime, n: int, *, actual: bool = False) -> str:
    return body(
        *(period(start + i * HALF_HOUR, 200 + i, 203 + i if actual else None) for i in range(n))
    )


def test_forecast_hours_are_means_of_half_hours(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity/2018-01-20T12:00Z/fw24h", scripted(body=half_hours(NOON, 48)))
    past = half_hours(NOON - 24 * 2 * HALF_HOUR, 48, actual=True)
    neso_server.answers("/intensity/2018-01-20T12:00Z/pt24h", scripted(body=past))
    readings = source(neso_server).forecast(AT, 23)
    assert [r.g_per_kwh for r in readings] == [202.5 + 2 * i for i in range(23)]
    assert readings[0].time == NOON + 2 * HALF_HOUR
    assert {r.kind for r in readings} == {"forecast"}
    assert readings[0].uncertainty_g_per_kwh == pytest.approx(3.0)
    assert readings[0].ci95 == pytest.approx((202.5 - 5.88, 202.5 + 5.88), abs=0.01)


def test_a_short_horizon_gives_fewer_hours(neso_server: NesoServer) -> None:
    neso_server.answers("/intensity/2018-01-20T12:00Z/fw48h", scripted(body=half_hours(NOON, 9)))
    readings = source(neso_server).forecast(AT, 30)
    assert len(readings) == 4
    assert readings[0].uncertainty_g_per_kwh is None
    assert "uncertainty unknown" in readings[0].note


def test_a_hole_in_the_forecast_ends_it(neso_server: NesoServer) -> None:
    rows = [period(NOON + i * HALF_HOUR, 200, None) for i in range(10) if i not in (4, 5)]
    neso_server.answers("/intensity/2018-01-20T12:00Z/fw24h", scripted(body=body(*rows)))
    assert len(source(neso_server).forecast(AT, 4)) == 1


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_a_reading_or_an_intensity_error(text: str) -> None:
    made = NesoSource(client=RecordedClient({"": text}), clock=Clock(AT))
    with pytest.raises(IntensityError):
        made.now(AT)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "from", "to", "intensity", "actual", "forecast", "error"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_any_json_is_a_reading_or_an_intensity_error(value: object) -> None:
    made = NesoSource(client=RecordedClient({"": json.dumps(value)}), clock=Clock(AT))
    with pytest.raises(IntensityError):
        made.now(AT)
    with pytest.raises(IntensityError):
        made.forecast(AT, 2)
