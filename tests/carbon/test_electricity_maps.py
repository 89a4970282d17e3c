from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.errors import BasisError, IntensityError
from carbon.intensity.cache import ResponseCache
from carbon.intensity.chain import ChainSource
from carbon.intensity.electricity_maps import ElectricityMapsSource
from carbon.intensity.http import HttpClient, HttpLimits, RecordedClient
from carbon.intensity.neso import NesoSource
from carbon.intensity.secret import Secret

if TYPE_CHECKING:
    from carbon.intensity.protocol import Scope
    from tests.carbon.conftest import NesoServer

AT = datetime(2024, 3, 6, 10, 20, tzinfo=UTC)
TEN = datetime(2024, 3, 6, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
TOKEN = "em-token-0123456789"
QUICK = HttpLimits(timeout_s=0.5, deadline_s=1.0, retries=2, backoff_s=0.01)
LATEST = "/v3/carbon-intensity/latest"
HISTORY = "/v3/carbon-intensity/history"
FORECAST = "/v3/carbon-intensity/forecast"


class Clock:
    def __init__(self, now: datetime = AT) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def row(value: object = 322, at: datetime = TEN, **changes: object) -> dict[str, Any]:
    return {
        "zone": "DE",
        "carbonIntensity": value,
        "datetime": f"{at:%Y-%m-%dT%H:%M:%S.000Z}",
        "updatedAt": "2024-03-06T10:05:00.000Z",
        "createdAt": "2024-03-03T10:05:00.000Z",
        "emissionFactorType": "lifecycle",
        "isEstimated": False,
        "estimationMethod": None,
        **changes,
    }


def latest(value: object = 322, at: datetime = TEN, **changes: object) -> dict[str, Any]:
    return {"body": json.dumps(row(value, at, **changes))}


def history(*rows: dict[str, Any], zone: str = "DE") -> dict[str, Any]:
    return {"body": json.dumps({"zone": zone, "history": list(rows)})}


def forecast(*values: object, zone: str = "DE", start: datetime = TEN) -> dict[str, Any]:
    rows = [
        {"carbonIntensity": value, "datetime": f"{start + i * HOUR:%Y-%m-%dT%H:%M:%SZ}"}
        for i, value in enumerate(values)
    ]
    body = {"zone": zone, "forecast": rows, "updatedAt": "2024-03-06T10:05:00Z"}
    return {"body": json.dumps(body)}


def source(
    server: NesoServer,
    *,
    scope: Scope = "life",
    zone: str = "DE",
    cache: ResponseCache | None = None,
    clock: Clock | None = None,
) -> ElectricityMapsSource:
    return ElectricityMapsSource(
        zone=zone,
        token=Secret(TOKEN),
        scope=scope,
        client=HttpClient(QUICK),
        cache=cache,
        base_url=server.url + "/v3",
        clock=clock if clock is not None else Clock(),
    )


def test_the_running_hour_with_its_provenance(neso_server: NesoServer) -> None:
    neso_server.answers(LATEST, latest())
    reading = source(neso_server).now(AT)
    assert (reading.g_per_kwh, reading.kind, reading.zone) == (322.0, "measured", "DE")
    assert (reading.time, reading.age_s) == (TEN, 1200.0)
    assert reading.provider == "electricity-maps"
    assert reading.basis == "average-life-consumption"


def test_what_is_asked_for(neso_server: NesoServer) -> None:
    neso_server.answers(LATEST, latest(emissionFactorType="direct"))
    assert source(neso_server, scope="direct").now(AT).basis == "average-direct-consumption"
    assert parse_qs(urlsplit(neso_server.asked[0]).query) == {
        "zone": ["DE"],
        "emissionFactorType": ["direct"],
        "shouldUseFallbackCallerLookup": ["false"],
    }
    assert neso_server.headers[0]["auth-token"] == TOKEN
    assert TOKEN not in neso_server.asked[0]


@pytest.mark.parametrize("estimated", [True, None], ids=["estimated", "unsaid"])
def test_only_what_is_said_to_be_measured_is(neso_server: NesoServer, estimated: object) -> None:
    answer = latest(isEstimated=estimated, estimationMethod="TIME_SLICER_AVERAGE")
    neso_server.answers(LATEST, answer)
    reading = source(neso_server).now(AT)
    assert reading.kind == "estimated"
    assert ("TIME_SLICER_AVERAGE" if estimated else "does not say") in reading.note


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"zone": "FR"}, "answered for the zone FR, not for DE"),
        ({"zone": None}, "answered for the zone None, not for DE"),
        ({"zone": "de"}, "answered for the zone de, not for DE"),
        ({"emissionFactorType": "direct"}, "with direct factors; asked were DE and lifecycle"),
        ({"carbonIntensity": -3}, "not Electricity Maps's shape at carbonIntensity"),
        ({"carbonIntensity": 1e7}, "not Electricity Maps's shape at carbonIntensity"),
        ({"carbonIntensity": "322"}, "not Electricity Maps's shape at carbonIntensity"),
        ({"carbonIntensity": True}, "not Electricity Maps's shape at carbonIntensity"),
        ({"carbonIntensity": None}, "no figure for DE"),
        ({"datetime": "2024-03-06T10:00:00"}, "at datetime"),
        ({"datetime": "0001-01-01T00:00:00+05:00"}, "at datetime"),
        ({"isEstimated": "no"}, "at isEstimated"),
        ({"error": "Zone unavailable"}, "says Zone unavailable"),
    ],
    ids=["other zone", "no zone", "case", "other factors", "negative", "absurd", "text",
         "truth value", "null", "naive time", "year one", "no truth value", "error with 200"],
)  # fmt: skip
def test_odd_answers_are_errors(
    neso_server: NesoServer, changes: dict[str, object], says: str
) -> None:
    neso_server.answers(LATEST, {"body": json.dumps(row() | changes)})
    with pytest.raises(IntensityError, match=says):
        source(neso_server).now(AT)


def test_a_null_is_replaced_by_the_latest_known_hour(neso_server: NesoServer) -> None:
    neso_server.answers(LATEST, latest(None))
    rows = [row(300, TEN - 2 * HOUR), row(310, TEN - HOUR, isEstimated=True), row(None)]
    neso_server.answers(HISTORY, history(*rows))
    reading = source(neso_server).now(AT)
    assert (reading.g_per_kwh, reading.kind, reading.age_s) == (310.0, "estimated", 4800.0)
    assert "the latest hour" in reading.note


def test_an_earlier_hour_comes_from_the_history(neso_server: NesoServer) -> None:
    neso_server.answers(LATEST, latest())
    neso_server.answers(HISTORY, history(row(280, TEN - 5 * HOUR), row(290, TEN - 4 * HOUR)))
    asked = AT - 5 * HOUR
    assert source(neso_server).now(asked).g_per_kwh == 280.0
    with pytest.raises(IntensityError, match="no figure for DE at 2024-03-05"):
        source(neso_server).now(AT - 30 * HOUR)


def test_a_figure_from_the_future_is_doubtful_and_not_called_measured(
    neso_server: NesoServer,
) -> None:
    neso_server.answers(LATEST, latest(at=TEN + HOUR))
    neso_server.answers(HISTORY, {"status": 403, "body": "not in your plan"})
    reading = source(neso_server).now(AT)
    assert (reading.kind, reading.age_s) == ("estimated", 0.0)
    assert "doubtful: from the future, by 2400 s" in reading.note
    neso_server.answers(LATEST, latest(at=TEN + 5 * HOUR))
    with pytest.raises(IntensityError, match="no figure"):
        source(neso_server).now(AT)


def test_a_late_feed_says_so_and_ends_after_two_hours(neso_server: NesoServer) -> None:
    neso_server.answers(LATEST, latest(at=TEN - 2 * HOUR))
    reading = source(neso_server).now(AT)
    assert reading.age_s == 8400.0
    assert "the latest hour that Electricity Maps has published" in reading.note
    with pytest.raises(IntensityError, match="no figure"):
        source(neso_server).now(AT + HOUR)


def test_forecast_begins_with_the_next_hour_and_ends_at_a_null(neso_server: NesoServer) -> None:
    neso_server.answers(FORECAST, forecast(1, 2, 3, None, 5))
    readings = source(neso_server).forecast(AT, 10)
    assert [(r.time, r.g_per_kwh) for r in readings] == [(TEN + HOUR, 2.0), (TEN + 2 * HOUR, 3.0)]
    assert {r.kind for r in readings} == {"forecast"}
    assert readings[0].uncertainty_g_per_kwh is None
    assert "horizonHours=24" in neso_server.asked[0]


@pytest.mark.parametrize(("hours", "horizon"), [(5, 6), (6, 24), (23, 24), (24, 48), (100, 72)])
def test_horizons_are_those_that_the_provider_knows(
    neso_server: NesoServer, hours: int, horizon: int
) -> None:
    neso_server.answers(FORECAST, forecast(*range(horizon)))
    assert len(source(neso_server).forecast(AT, hours)) == min(hours, 71)
    assert f"horizonHours={horizon}" in neso_server.asked[0]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (forecast(), "no forecast for DE"),
        (forecast(None, None), "no forecast for DE"),
        (forecast(1, 2, start=TEN - 9 * HOUR), "no forecast for DE"),
        (forecast(1, 2, zone="FR"), "answered for the zone FR"),
        ({"body": "{}"}, "answered for the zone None"),
        ({"body": "[]"}, "not Electricity Maps's shape"),
        ({"body": '{"zone":"DE","forecast":'}, "not Electricity Maps's shape"),
        ({"status": 403, "body": '{"error":"upgrade"}'}, "plan does not include"),
        ({"status": 401}, "the token is not accepted"),
        ({"status": 404}, "no such zone"),
        ({"status": 500, "body": "oops"}, "in 3 tries: HTTP 500 oops"),
    ],
    ids=["empty", "nulls", "past", "other zone", "bare", "list", "cut off", "plan", "token",
         "unknown zone", "broken"],
)  # fmt: skip
def test_odd_forecasts_are_errors(
    neso_server: NesoServer, answer: dict[str, Any], says: str
) -> None:
    neso_server.answers(FORECAST, answer)
    with pytest.raises(IntensityError, match=says):
        source(neso_server).forecast(AT, 3)


def test_recent_hours_leave_out_nulls_and_the_running_hour(neso_server: NesoServer) -> None:
    rows = [row(300, TEN - 2 * HOUR), row(None, TEN - HOUR), row(5), row(6, TEN + HOUR)]
    neso_server.answers(HISTORY, history(*rows))
    (only,) = source(neso_server).recent(AT)
    assert (only.g_per_kwh, only.time) == (300.0, TEN - 2 * HOUR)


def test_a_slow_body_a_huge_body_and_a_redirect(neso_server: NesoServer) -> None:
    neso_server.answers(LATEST, {"body": json.dumps(row()), "trickle_s": 0.1})
    start_s = time.monotonic()
    with pytest.raises(IntensityError, match="not complete in 1 s"):
        source(neso_server).now(AT)
    assert time.monotonic() - start_s < 3
    neso_server.answers(LATEST, {"body": " " * 5_000_000})
    with pytest.raises(IntensityError, match="larger than 4000000 bytes"):
        source(neso_server).now(AT)
    elsewhere = neso_server.url.replace("127.0.0.1", "localhost") + "/v3/elsewhere"
    neso_server.answers(LATEST, {"status": 307, "headers": {"Location": elsewhere}})
    with pytest.raises(IntensityError, match="points elsewhere"):
        source(neso_server).now(AT)
    assert "/v3/elsewhere" not in neso_server.asked


def test_a_rate_limit_is_respected_and_a_kept_answer_stands_in(
    neso_server: NesoServer, tmp_path: Path
) -> None:
    limited = {"status": 429, "headers": {"Retry-After": "3600"}}
    neso_server.answers(LATEST, latest(), limited)
    clock = Clock()
    made = source(neso_server, cache=ResponseCache(tmp_path), clock=clock)
    made.now(AT)
    clock.now = AT + timedelta(minutes=6)
    for _ in range(3):
        reading = made.now(clock.now)
        assert (reading.kind, reading.g_per_kwh) == ("fallback", 322.0)
        assert "kept answer of 360 s ago" in reading.note
    assert len(neso_server.asked) == 2, "asked again although told to wait an hour"


def test_the_token_is_nowhere_to_be_seen(
    neso_server: NesoServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = json.dumps({**row(), "echo": TOKEN})
    denied = {"status": 403, "body": f"{TOKEN} may not"}
    neso_server.answers(LATEST, {"body": echo})
    neso_server.answers(FORECAST, denied)
    made = source(neso_server, cache=ResponseCache(tmp_path))
    shown = [repr(made), repr(vars(made)), repr(made.now(AT))]
    with pytest.raises(IntensityError) as caught:
        made.forecast(AT, 2)
    shown += [str(caught.value), repr(caught.value.__cause__)]
    shown += [caplog.text]
    assert "GET /v3" in caplog.text
    shown += [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(shown) > 5
    assert not [text for text in shown if TOKEN in text]


@pytest.mark.parametrize("zone", ["", "de", "DE&zone=FR", "Germany", "D" * 50, "../x"])
def test_what_is_no_zone_is_refused(neso_server: NesoServer, zone: str) -> None:
    with pytest.raises(IntensityError, match="no zone of Electricity Maps"):
        source(neso_server, zone=zone)


def test_a_token_goes_to_https_or_this_machine_only() -> None:
    with pytest.raises(IntensityError, match="use an https address"):
        ElectricityMapsSource(zone="DE", token=Secret(TOKEN), base_url="http://example.org/v3")


def test_direct_and_life_cycle_never_meet(neso_server: NesoServer) -> None:
    neso = NesoSource(base_url=neso_server.url)
    assert ChainSource([neso, source(neso_server, scope="direct", zone="GB")]).basis == neso.basis
    with pytest.raises(BasisError, match="would mix"):
        ChainSource([neso, source(neso_server, scope="life", zone="GB")])


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["DE", "lifecycle", "2024-03-06T10:00Z", "9999-12-31T23:59-12:00", 10**400])
)  # fmt: skip
keys = st.sampled_from([*row(), "history", "forecast", "error"])
wild = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=12,
)
nearly = st.builds(
    lambda changes, past, ahead: {**row(), **changes, "history": past, "forecast": ahead},
    st.dictionaries(keys, leaves, max_size=2),
    st.lists(
        st.builds(lambda changes: {**row(), **changes}, st.dictionaries(keys, leaves)), max_size=3
    ),
    wild,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(wild | nearly)
def test_any_json_is_a_valid_reading_or_an_intensity_error(value: object) -> None:
    made = ElectricityMapsSource(
        zone="DE",
        token=Secret(TOKEN),
        client=_Always(json.dumps(value)),
        clock=lambda: AT,
    )
    for ask in (lambda: [made.now(AT)], lambda: made.forecast(AT, 3), lambda: made.recent(AT)):
        try:
            readings = ask()
        except IntensityError:
            continue
        assert all(0 <= r.g_per_kwh <= 3000 and r.zone == "DE" for r in readings)


class _Always(RecordedClient):
    def __init__(self, body: str) -> None:
        super().__init__({"": body})
