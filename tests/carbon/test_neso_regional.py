from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.errors import IntensityError
from carbon.intensity.http import HttpClient, HttpLimits, RecordedClient
from carbon.intensity.neso import NesoSource
from carbon.intensity.neso_answers import NesoPlace

if TYPE_CHECKING:
    from tests.carbon.conftest import NesoServer

AT = datetime(2024, 3, 6, 10, 20, tzinfo=UTC)
TEN = datetime(2024, 3, 6, 10, 0, tzinfo=UTC)
HALF_HOUR = timedelta(minutes=30)
QUICK = HttpLimits(timeout_s=0.5, deadline_s=1.0, retries=1, backoff_s=0.01)
LONDON = NesoPlace(region_id=13)
READING = NesoPlace(postcode="RG10")
NOW_LONDON = "/regional/regionid/13"
NOW_READING = "/regional/postcode/RG10"
AHEAD = "/regional/intensity/2024-03-06T10:00Z/fw24h"


def periods(n: int, first: object = 100) -> list[dict[str, Any]]:
    return [
        {
            "from": f"{TEN + i * HALF_HOUR:%Y-%m-%dT%H:%MZ}",
            "to": f"{TEN + (i + 1) * HALF_HOUR:%Y-%m-%dT%H:%MZ}",
            "intensity": {
                "forecast": first + i if type(first) is int else first,
                "index": "low",
            },
            "generationmix": [{"fuel": "gas", "perc": 43.6}],
        }
        for i in range(n)
    ]


def area(n: int, *, first: object = 100, **where: object) -> dict[str, Any]:
    return {"dnoregion": "UKPN London", "shortname": "London", **where, "data": periods(n, first)}


def source(server: NesoServer, place: NesoPlace) -> NesoSource:
    return NesoSource(place=place, client=HttpClient(QUICK), base_url=server.url, clock=lambda: AT)


@pytest.mark.parametrize(
    ("place", "path", "where", "zone"),
    [
        (LONDON, NOW_LONDON, {"regionid": 13}, "GB-13"),
        (READING, NOW_READING, {"regionid": 12, "postcode": "RG10"}, "GB-RG10"),
    ],
    ids=["region", "postcode"],
)
def test_the_present_of_a_place_is_a_forecast_and_says_so(
    neso_server: NesoServer, place: NesoPlace, path: str, where: dict[str, object], zone: str
) -> None:
    neso_server.answers(path, {"body": json.dumps({"data": [area(1, **where)]})})
    reading = source(neso_server, place).now(AT)
    assert (reading.g_per_kwh, reading.kind, reading.zone) == (100.0, "forecast", zone)
    assert (reading.time, reading.age_s) == (TEN, 1200.0)
    assert "measures the nation only" in reading.note
    assert reading.basis == "average-direct-consumption"


def test_a_range_comes_as_an_object(neso_server: NesoServer) -> None:
    body = {"data": area(9, regionid=12, postcode="RG10")}
    neso_server.answers(f"{AHEAD}/postcode/RG10", {"body": json.dumps(body)})
    readings = source(neso_server, READING).forecast(AT, 6)
    assert [r.g_per_kwh for r in readings] == [102.5, 104.5, 106.5, 108.0]
    assert {r.zone for r in readings} == {"GB-RG10"}
    assert readings[0].uncertainty_g_per_kwh is None
    assert "uncertainty unknown" in readings[0].note
    assert source(neso_server, READING).recent(AT) == ()


def test_what_claims_to_be_measured_in_a_region_is_not_believed(neso_server: NesoServer) -> None:
    answer = area(1, regionid=13)
    answer["data"][0]["intensity"]["actual"] = 7
    neso_server.answers(NOW_LONDON, {"body": json.dumps({"data": [answer]})})
    reading = source(neso_server, LONDON).now(AT)
    assert (reading.g_per_kwh, reading.kind) == (100.0, "forecast")


@pytest.mark.parametrize(
    ("where", "says"),
    [({"regionid": 3}, "answered for 3, not for 13"), ({"regionid": "13"}, None)],
    ids=["another region", "number as text"],
)
def test_an_answer_for_another_place_is_not_taken(
    neso_server: NesoServer, where: dict[str, object], says: str | None
) -> None:
    neso_server.answers(NOW_LONDON, {"body": json.dumps({"data": [area(1, **where)]})})
    if says is None:
        assert source(neso_server, LONDON).now(AT).g_per_kwh == 100.0
        return
    with pytest.raises(IntensityError, match=says):
        source(neso_server, LONDON).now(AT)


def test_another_postcode_is_not_taken(neso_server: NesoServer) -> None:
    body = {"data": [area(1, postcode="SW1A")]}
    neso_server.answers(NOW_READING, {"body": json.dumps(body)})
    with pytest.raises(IntensityError, match="answered for SW1A, not for RG10"):
        source(neso_server, READING).now(AT)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"data":[]}', "no figure"),
        ("{}", "no figure"),
        ('{"data":{"data":[]}}', "no figure"),
        ('{"data":null}', "not NESO's shape at data"),
        (json.dumps({"data": [area(1, first=None, regionid=13)]}), "neither"),
        (json.dumps({"data": [area(1, first=-1, regionid=13)]}), "not NESO's shape"),
        (json.dumps({"data": [area(1, first=1e300, regionid=13)]}), "not NESO's shape"),
        (json.dumps({"data": [area(1, first=True, regionid=13)]}), "not NESO's shape"),
        ('{"error":{"code":"400 Bad Request","message":"Please enter a valid region ID"}}', "says"),
        ("<html>", "not NESO's shape"),
    ],
    ids=["empty", "bare", "empty object", "null", "no value", "negative", "absurd", "truth value",
         "error with 200", "page"],
)  # fmt: skip
def test_odd_answers_are_errors(neso_server: NesoServer, body: str, says: str) -> None:
    neso_server.answers(NOW_LONDON, {"body": body})
    with pytest.raises(IntensityError, match=says):
        source(neso_server, LONDON).now(AT)


def test_a_period_of_years_does_not_stand_for_now(neso_server: NesoServer) -> None:
    answer = area(1, regionid=13)
    answer["data"][0]["to"] = "2034-03-06T10:30Z"
    neso_server.answers(NOW_LONDON, {"body": json.dumps({"data": [answer]})})
    with pytest.raises(IntensityError, match="within an hour"):
        source(neso_server, LONDON).now(AT)


def test_a_full_postcode_is_cut_to_its_outward_part() -> None:
    for text in ("RG10 9NY", "rg109ny", " rg10 "):
        assert NesoPlace(postcode=text) == READING
    assert NesoPlace(postcode="SW1A 2AA").path() == "/regional/postcode/SW1A"
    assert NesoPlace(postcode="E1").zone == "GB-E1"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"region_id": 0}, "no region 0"),
        ({"region_id": 18}, "no region 18"),
        ({"postcode": "75001"}, "no British postcode"),
        ({"postcode": "RG10/../x"}, "no British postcode"),
        ({"postcode": ""}, "no British postcode"),
        ({"region_id": 3, "postcode": "E1"}, "not both"),
    ],
)
def test_places_that_are_none(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(IntensityError, match=says) as caught:
        NesoPlace(**fields)
    assert "75001" not in str(caught.value)


keys = st.sampled_from(
    ["data", "regionid", "postcode", "from", "to", "intensity", "actual", "forecast", "error"]
)
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([13, "RG10", "2024-03-06T10:00Z", "2024-03-06T10:30Z", 10**400,
                       "0001-01-01T00:00+05:00", "9999-12-31T23:59Z"])
)  # fmt: skip
wild = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=16,
)
bodies = wild | st.fixed_dictionaries({"data": wild}) | st.builds(
    lambda value, start, end: {
        "data": [{"regionid": 13, "data": [
            {"from": start, "to": end, "intensity": {"forecast": value}}]}]
    },
    leaves, leaves, leaves,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(bodies)
def test_any_json_is_a_valid_reading_or_an_intensity_error(value: object) -> None:
    made = NesoSource(
        place=LONDON, client=RecordedClient({"": json.dumps(value)}), clock=lambda: AT
    )
    try:
        readings = [made.now(AT), *made.forecast(AT, 2)]
    except IntensityError:
        return
    assert all(0 <= r.g_per_kwh <= 3000 and r.kind == "forecast" for r in readings)
