from __future__ import annotations

import base64
import json
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.errors import BasisError, IntensityError
from carbon.intensity.cache import ResponseCache
from carbon.intensity.chain import ChainSource
from carbon.intensity.http import HttpClient, HttpLimits, RecordedClient
from carbon.intensity.neso import NesoSource
from carbon.intensity.secret import Secret
from carbon.intensity.watttime import G_PER_KWH_PER_LB_PER_MWH, WattTimeSource

if TYPE_CHECKING:
    from tests.carbon.conftest import NesoServer

AT = datetime(2024, 3, 6, 10, 22, tzinfo=UTC)
START = datetime(2024, 3, 6, 10, 20, tzinfo=UTC)
ELEVEN = datetime(2024, 3, 6, 11, tzinfo=UTC)
FIVE_MIN = timedelta(minutes=5)
HOUR = timedelta(hours=1)
USER, PASSWORD, TOKEN = "watt-user-1", "pass:word-åäö", "wt-token-abcdefgh"
QUICK = HttpLimits(timeout_s=0.5, deadline_s=1.0, retries=2, backoff_s=0.01)
LOGIN = "/login"
FORECAST = "/v3/forecast"
TOKEN_ANSWER = {"body": json.dumps({"token": TOKEN})}


class Clock:
    def __init__(self, now: datetime = AT) -> None:
        self.now = now
        self.s = 0.0

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.s


def meta(**changes: object) -> dict[str, Any]:
    return {
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "units": "lbs_co2_per_mwh",
        "generated_at": "2024-03-06T10:20:00+00:00",
        "data_point_period_seconds": 300,
        **changes,
    }


def points(*values: object, start: datetime = START) -> list[dict[str, Any]]:
    return [
        {"point_time": f"{start + i * FIVE_MIN:%Y-%m-%dT%H:%M:%S+00:00}", "value": value}
        for i, value in enumerate(values)
    ]


def answer(*values: object, start: datetime = START, **changes: object) -> dict[str, Any]:
    return {"body": json.dumps({"data": points(*values, start=start), "meta": meta(**changes)})}


def source(
    server: NesoServer, *, cache: ResponseCache | None = None, clock: Clock | None = None
) -> WattTimeSource:
    held = clock if clock is not None else Clock()
    return WattTimeSource(
        region="CAISO_NORTH",
        user=Secret(USER),
        password=Secret(PASSWORD),
        client=HttpClient(QUICK),
        cache=cache,
        base_url=server.url,
        clock=held,
        monotonic=held.monotonic,
    )


@pytest.fixture
def server(neso_server: NesoServer) -> NesoServer:
    neso_server.answers(LOGIN, TOKEN_ANSWER)
    return neso_server


def test_pounds_per_mwh_become_grams_per_kwh_exactly(server: NesoServer) -> None:
    server.answers(FORECAST, answer(1000.0, 2000.0))
    reading = source(server).now(AT)
    assert reading.g_per_kwh == pytest.approx(453.59237, rel=1e-15)
    assert (reading.kind, reading.zone, reading.provider) == ("forecast", "CAISO_NORTH", "watttime")
    assert (reading.time, reading.age_s) == (START, 120.0)
    assert reading.basis == "marginal-direct-unstated"
    assert "made at 2024-03-06 10:20 UTC, CO2 only" in reading.note
    assert G_PER_KWH_PER_LB_PER_MWH == 453.59237 / 1000


def test_login_by_basic_authentication_then_bearer(server: NesoServer) -> None:
    server.answers(FORECAST, answer(1.0))
    source(server).now(AT)
    assert server.asked == [LOGIN, "/v3/forecast?region=CAISO_NORTH&signal_type=co2_moer"]
    sent = server.headers[0]["authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == f"{USER}:{PASSWORD}"
    assert server.headers[1]["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [401, 403])
def test_an_expired_token_is_renewed_once(server: NesoServer, status: int) -> None:
    server.answers(LOGIN, {"body": '{"token":"old-token-1"}'}, {"body": '{"token":"new-token-2"}'})
    server.answers(FORECAST, {"status": status, "body": "expired"}, answer(1.0))
    source(server).now(AT)
    assert [headers["authorization"] for headers in server.headers[1::2]] == [
        "Bearer old-token-1",
        "Bearer new-token-2",
    ]


def test_a_new_token_that_is_refused_too_is_the_end(server: NesoServer) -> None:
    server.answers(FORECAST, {"status": 403, "body": "region not in your plan"})
    with pytest.raises(
        IntensityError, match=r"with a new token as well\..*region not in your plan"
    ):
        source(server).now(AT)
    assert [path.partition("?")[0] for path in server.asked] == [LOGIN, FORECAST] * 2


def test_a_token_serves_until_it_is_25_minutes_old(server: NesoServer) -> None:
    server.answers(FORECAST, answer(*[1.0] * 60))
    clock = Clock()
    made = source(server, clock=clock)
    for minutes in (0, 10, 24, 30):
        clock.now, clock.s = AT + timedelta(minutes=minutes), 60.0 * minutes
        made.now(clock.now)
    assert server.asked.count(LOGIN) == 2


@pytest.mark.parametrize(
    ("login", "says"),
    [
        ({"status": 401, "body": f"no {USER} with {PASSWORD}"}, "does not accept the user name"),
        ({"status": 500}, "in 3 tries: HTTP 500"),
        ({"body": "{}"}, "not WattTime's shape at token"),
        ({"body": '{"token":""}'}, "token from WattTime is empty"),
        ({"body": '{"token":"a\\nb"}'}, "unprintable"),
        ({"body": '{"token":"日本日本"}'}, "no header can"),
        ({"body": '{"token":7}'}, "not WattTime's shape at token"),
        ({"body": "<html>"}, "not WattTime's shape"),
        ({"status": 302, "headers": {"Location": "http://localhost:9/"}}, "points elsewhere"),
    ],
    ids=["refused", "broken", "bare", "empty", "newline", "beyond ascii", "number", "page",
         "redirect"],
)  # fmt: skip
def test_logins_that_fail(neso_server: NesoServer, login: dict[str, Any], says: str) -> None:
    neso_server.answers(LOGIN, login)
    with pytest.raises(IntensityError, match=says) as caught:
        source(neso_server).now(AT)
    assert PASSWORD not in str(caught.value)
    assert USER not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"units": "percentile", "signal_type": "co2_moer"}, "percentile from 0 to 100, not"),
        ({"signal_type": "signal-index"}, "percentile from 0 to 100, not"),
        ({"units": "lbs_co2_per_kwh"}, "not taken as an intensity"),
        ({"units": None}, "not taken as an intensity"),
        ({"signal_type": "health_damage", "units": "USD"}, "not taken as an intensity"),
        ({"region": "PJM_DC"}, "answered for the region PJM_DC, not for CAISO_NORTH"),
        ({"region": None}, "answered for the region None"),
        ({"data_point_period_seconds": 0}, "not WattTime's shape"),
    ],
    ids=["percent", "index", "per kWh", "unitless", "health", "other region", "no region",
         "period"],
)  # fmt: skip
def test_other_signals_and_regions_are_refused(
    server: NesoServer, changes: dict[str, object], says: str
) -> None:
    server.answers(FORECAST, answer(50.0, **changes))
    with pytest.raises(IntensityError, match=says):
        source(server).now(AT)
    with pytest.raises(IntensityError, match=says):
        source(server).forecast(AT, 2)


def test_the_percentile_index_is_refused_where_it_is_asked_for(server: NesoServer) -> None:
    with pytest.raises(IntensityError, match="percentile from 0 to 100, not a carbon intensity"):
        WattTimeSource(
            region="CAISO_NORTH", user=Secret(USER), password=Secret(PASSWORD),
            signal_type="signal-index",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (answer(), "no figure"),
        (answer(None, None), "no figure"),
        (answer(-5.0), "not WattTime's shape"),
        (answer(1e5), "not WattTime's shape"),
        (answer(float("nan")), "not WattTime's shape"),
        (answer("900"), "not WattTime's shape"),
        (answer(True), "not WattTime's shape"),
        ({"body": "{}"}, "not taken as an intensity"),
        ({"body": "[]"}, "not WattTime's shape"),
        ({"body": '{"error":"no data"}'}, "says no data"),
        ({"body": '{"data":[{"point_time"'}, "not WattTime's shape"),
        ({"status": 503, "body": "later"}, "HTTP 503 later"),
        ({"status": 400, "body": "bad region"}, "HTTP 400: bad region"),
    ],
    ids=["empty", "nulls", "negative", "absurd", "nan", "text", "truth value", "bare", "list",
         "error with 200", "cut off", "broken", "bad request"],
)  # fmt: skip
def test_odd_answers_are_errors(server: NesoServer, reply: dict[str, Any], says: str) -> None:
    server.answers(FORECAST, reply)
    with pytest.raises(IntensityError, match=says):
        source(server).now(AT)


def test_forecast_hours_are_means_of_five_minutes(server: NesoServer) -> None:
    # 8 points to the full hour, 12 in the next one, then 5: too few for a mean.
    values = [1.0] * 8 + [1000.0 + i for i in range(12)] + [7.0] * 5
    server.answers(FORECAST, answer(*values))
    (only,) = source(server).forecast(AT, 5)
    assert only.time == ELEVEN
    assert only.g_per_kwh == pytest.approx(1005.5 * G_PER_KWH_PER_LB_PER_MWH)
    assert (only.kind, only.age_s) == ("forecast", 0.0)


def test_nulls_thin_an_hour_until_too_few_are_left(server: NesoServer) -> None:
    hour = [None] * 6 + [10.0] * 6
    server.answers(FORECAST, answer(*hour, *[None] * 7, *[20.0] * 5, start=ELEVEN))
    assert len(source(server).forecast(AT, 5)) == 1


@pytest.mark.parametrize(("hours", "asked"), [(23, None), (24, "horizon_hours=72")])
def test_long_horizons_are_asked_for(server: NesoServer, hours: int, asked: str | None) -> None:
    server.answers(FORECAST, answer(*[100.0] * (12 * 30)))
    assert len(source(server).forecast(AT, hours)) == hours
    assert ("horizon_hours" in server.asked[-1]) == (asked is not None)


def test_points_from_the_future_are_doubtful_or_not_taken(server: NesoServer) -> None:
    server.answers(FORECAST, answer(1.0, start=START + timedelta(minutes=30)))
    reading = source(server).now(AT)
    assert "doubtful: from the future, by 1680 s" in reading.note
    assert reading.age_s == 0.0
    server.answers(FORECAST, answer(1.0, start=START + 3 * HOUR))
    with pytest.raises(IntensityError, match="no figure"):
        source(server).now(AT)


def test_an_old_forecast_says_its_age(server: NesoServer) -> None:
    server.answers(FORECAST, answer(*[1.0] * 9, generated_at="2024-03-05T22:22:00Z"))
    assert "doubtful: the forecast is 12.0 h old" in source(server).now(AT).note
    server.answers(FORECAST, answer(*[1.0] * 9, generated_at="2024-03-06T12:22:00Z"))
    assert "doubtful: from the future" in source(server).now(AT).note


def test_a_kept_forecast_stands_in_at_its_later_points(server: NesoServer, tmp_path: Path) -> None:
    values = [100.0 + i for i in range(12)]
    server.answers(FORECAST, answer(*values), {"status": 500})
    clock = Clock()
    made = source(server, cache=ResponseCache(tmp_path), clock=clock)
    made.now(AT)
    clock.now = AT + timedelta(minutes=30)
    reading = made.now(clock.now)
    assert reading.g_per_kwh == pytest.approx(106 * G_PER_KWH_PER_LB_PER_MWH)
    assert (reading.kind, reading.age_s) == ("fallback", 120.0)
    assert "kept answer of 1800 s ago" in reading.note


def test_a_rate_limit_is_respected(server: NesoServer) -> None:
    server.answers(FORECAST, {"status": 429, "headers": {"Retry-After": "120"}})
    made = source(server)
    for says in ("HTTP 429", "left alone for 1"):
        with pytest.raises(IntensityError, match=says):
            made.now(AT)
    assert len(server.asked) == 2


def test_a_slow_body_and_a_huge_body(server: NesoServer) -> None:
    server.answers(FORECAST, {**answer(1.0), "trickle_s": 0.1})
    start_s = time.monotonic()
    with pytest.raises(IntensityError, match="not complete in 1 s"):
        source(server).now(AT)
    assert time.monotonic() - start_s < 3
    server.answers(FORECAST, {"body": " " * 5_000_000})
    with pytest.raises(IntensityError, match="larger than"):
        source(server).now(AT)


def test_credentials_are_nowhere_to_be_seen(
    server: NesoServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = json.dumps({"data": points(1.0), "meta": meta(), "echo": [TOKEN, PASSWORD]})
    server.answers(FORECAST, {"body": body}, {"status": 400, "body": f"what is {TOKEN}"})
    made = source(server, cache=ResponseCache(tmp_path))
    shown = [repr(made.now(AT)), repr(made), repr(vars(made))]
    with pytest.raises(IntensityError, match="what is") as caught:
        made.forecast(AT, 40)
    shown += [str(caught.value), repr(caught.value.__cause__)]
    shown += [caplog.text]
    assert "GET /login" in caplog.text
    kept = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert kept
    secrets = (TOKEN, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
    assert not [text for text in shown + kept for secret in secrets if secret in text]


def test_average_and_marginal_never_meet(server: NesoServer) -> None:
    with pytest.raises(BasisError, match="would mix"):
        ChainSource([NesoSource(base_url=server.url), source(server)])


@pytest.mark.parametrize("region", ["", "caiso_north", "CAISO NORTH", "X&signal_type=y"])
def test_what_is_no_region_is_refused(region: str) -> None:
    with pytest.raises(IntensityError, match="no region of WattTime"):
        WattTimeSource(region=region, user=Secret(USER), password=Secret(PASSWORD))


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["2024-03-06T10:20Z", "9999-12-31T23:59-12:00", "co2_moer", 10**400, 900])
)  # fmt: skip
keys = st.sampled_from([*meta(), "data", "meta", "point_time", "value", "error", "token"])
wild = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=12,
)
nearly = st.builds(
    lambda changes, rows: {"token": "abcdefgh", "meta": {**meta(), **changes}, "data": rows},
    st.dictionaries(keys, leaves, max_size=1),
    st.lists(
        st.fixed_dictionaries({"point_time": leaves, "value": leaves})
        | st.dictionaries(keys, leaves, max_size=3),
        max_size=4,
    )
    | wild,
)


@settings(max_examples=150, deadline=None)
@given(wild | nearly)
def test_any_json_is_a_valid_reading_or_an_intensity_error(value: object) -> None:
    body = json.dumps(value)
    made = WattTimeSource(
        region="CAISO_NORTH", user=Secret(USER), password=Secret(PASSWORD),
        client=RecordedClient({"": body, "/login": '{"token":"abcdefgh"}'}), clock=lambda: AT,
    )  # fmt: skip
    login = WattTimeSource(
        region="CAISO_NORTH", user=Secret(USER), password=Secret(PASSWORD),
        client=RecordedClient({"": body}), clock=lambda: AT,
    )  # fmt: skip
    for ask in (
        lambda: [made.now(AT)], lambda: made.forecast(AT, 3), lambda: [login.now(AT)],
    ):  # fmt: skip
        try:
            readings = ask()
        except IntensityError:
            continue
        assert all(0 <= r.g_per_kwh <= 3000 and r.zone == "CAISO_NORTH" for r in readings)
