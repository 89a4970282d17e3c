"""Every source of carbon intensity must behave like this, whatever it reads from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest

from carbon.errors import IntensityError, UnitError
from carbon.intensity.build import SOURCES
from carbon.intensity.chain import ChainSource
from carbon.intensity.electricity_maps import ElectricityMapsSource
from carbon.intensity.fixed import FixedSource
from carbon.intensity.http import RecordedClient
from carbon.intensity.neso import NesoSource
from carbon.intensity.neso_answers import NesoPlace
from carbon.intensity.protocol import Basis, IntensityReading, IntensitySource, Kind, make_basis
from carbon.intensity.recorded import RecordedSource
from carbon.intensity.secret import Secret
from carbon.intensity.synthetic import SyntheticSource, synthetic_trace
from carbon.intensity.watch import WatchedSource
from carbon.intensity.watttime import WattTimeSource

AT = datetime(2024, 3, 6, 10, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
TRACE = synthetic_trace(24 * 21, 7, start=datetime(2024, 2, 20, tzinfo=UTC))


def _periods(start: datetime, n: int, *, actual: bool) -> str:
    rows = []
    for i in range(n):
        begin = start + i * timedelta(minutes=30)
        end = begin + timedelta(minutes=30)
        figures = {"forecast": 200 + i, "actual": 190 + i if actual else None, "index": "high"}
        rows.append({"from": f"{begin:%Y-%m-%dT%H:%MZ}", "to": f"{end:%Y-%m-%dT%H:%MZ}",
                     "intensity": figures})  # fmt: skip
    return json.dumps({"data": rows})


def _neso() -> IntensitySource:
    half_hour = datetime(2024, 3, 6, 10, 0, tzinfo=UTC)
    client = RecordedClient(
        {
            "/intensity": _periods(half_hour, 1, actual=True),
            "/fw24h": _periods(half_hour, 48, actual=False),
            "/fw48h": _periods(half_hour, 96, actual=False),
            "/pt24h": _periods(half_hour - 24 * HOUR, 48, actual=True),
        }
    )
    return NesoSource(client=client, clock=lambda: AT)


def _electricity_maps() -> IntensitySource:
    ten = datetime(2024, 3, 6, 10, tzinfo=UTC)
    rows = [
        {"zone": "DE", "carbonIntensity": 200 + i, "datetime": f"{ten + i * HOUR:%Y-%m-%dT%H:%MZ}",
         "emissionFactorType": "lifecycle", "isEstimated": i > 0}
        for i in range(-24, 72)
    ]  # fmt: skip
    asked = "zone=DE&emissionFactorType=lifecycle&shouldUseFallbackCallerLookup=false"
    client = RecordedClient(
        {
            f"{what}?{asked}{more}": json.dumps(body)
            for what, more, body in (
                ("latest", "", rows[24]),
                ("history", "", {"zone": "DE", "history": rows[:25]}),
                ("forecast", "&horizonHours=6", {"zone": "DE", "forecast": rows[24:30]}),
                ("forecast", "&horizonHours=24", {"zone": "DE", "forecast": rows[24:48]}),
                ("forecast", "&horizonHours=48", {"zone": "DE", "forecast": rows[24:]}),
            )
        }
    )
    return ElectricityMapsSource(
        zone="DE", token=Secret("a-token"), client=client, clock=lambda: AT
    )


def _watttime() -> IntensitySource:
    rows = [
        {"point_time": f"{AT + i * timedelta(minutes=5):%Y-%m-%dT%H:%MZ}", "value": 900.0 + i}
        for i in range(12 * 24)
    ]
    meta = {"region": "CAISO_NORTH", "signal_type": "co2_moer", "units": "lbs_co2_per_mwh"}
    client = RecordedClient(
        {
            "/login": json.dumps({"token": "a-token-for-now"}),
            "signal_type=co2_moer": json.dumps({"data": rows, "meta": meta}),
            "horizon_hours=72": json.dumps({"data": rows, "meta": meta}),
        }
    )
    return WattTimeSource(
        region="CAISO_NORTH", user=Secret("user"), password=Secret("password"), client=client,
        clock=lambda: AT,
    )  # fmt: skip


def _region() -> IntensitySource:
    half_hour = datetime(2024, 3, 6, 10, 0, tzinfo=UTC)

    def area(n: int) -> str:
        data = json.loads(_periods(half_hour, n, actual=False))["data"]
        return json.dumps({"data": {"regionid": 13, "data": data}})

    client = RecordedClient({"/regional/regionid/13": area(1), "h/regionid/13": area(60)})
    return NesoSource(place=NesoPlace(region_id=13), client=client, clock=lambda: AT)


class _Broken:
    name = "broken"
    basis: Basis = make_basis()

    def now(self, at: datetime) -> IntensityReading:
        raise IntensityError("out of order")

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        raise IntensityError("out of order")


MADE: dict[str, Callable[[], IntensitySource]] = {
    "fixed": lambda: FixedSource(150.0, zone="XX", basis=make_basis(), origin="a table"),
    "trace": lambda: RecordedSource(TRACE),
    "trace replayed": lambda: RecordedSource(
        synthetic_trace(24 * 15, 1, start=datetime(2021, 1, 1, tzinfo=UTC)), align="replay"
    ),
    "synthetic": lambda: SyntheticSource(seed=3),
    "neso": _neso,
    "neso region": _region,
    "electricity-maps": _electricity_maps,
    "watttime": _watttime,
    "watched neso": lambda: WatchedSource(_neso()),
    "watched electricity-maps": lambda: WatchedSource(_electricity_maps()),
    "chain": lambda: ChainSource([RecordedSource(TRACE), SyntheticSource()]),
    "chain fallen back": lambda: ChainSource([_Broken(), SyntheticSource()]),
}


@pytest.fixture(params=sorted(MADE))
def source(request: pytest.FixtureRequest) -> IntensitySource:
    made: IntensitySource = MADE[request.param]()
    return made


def test_every_named_source_is_under_contract() -> None:
    assert set(SOURCES) <= set(MADE)


def test_it_is_a_source_with_a_name_and_one_basis(source: IntensitySource) -> None:
    assert isinstance(source, IntensitySource)
    assert source.name
    assert source.basis in get_args(Basis)


def test_now_carries_its_provenance(source: IntensitySource) -> None:
    reading = source.now(AT)
    assert math.isfinite(reading.g_per_kwh)
    assert reading.g_per_kwh >= 0
    assert reading.zone
    assert reading.provider
    assert reading.basis == source.basis
    assert reading.kind in get_args(Kind)
    assert reading.time.utcoffset() == timedelta(0)
    assert reading.age_s == max(0.0, (AT - reading.time).total_seconds())
    json.dumps(reading.as_dict(), allow_nan=False)


def test_forecast_is_hourly_from_the_next_clock_hour_on(source: IntensitySource) -> None:
    readings = source.forecast(AT, 12)
    assert [r.time for r in readings] == [
        datetime(2024, 3, 6, 11, tzinfo=UTC) + i * HOUR for i in range(len(readings))
    ]
    assert 1 <= len(readings) <= 12
    for reading in readings:
        assert reading.basis == source.basis
        assert reading.kind in {"forecast", "fallback"}
        assert reading.age_s == 0.0
        assert reading.note
        json.dumps(reading.as_dict(), allow_nan=False)


@pytest.mark.parametrize("hours", [1, 2, 23, 24, 40])
def test_a_forecast_is_strictly_ahead_without_holes_and_no_longer_than_asked(
    source: IntensitySource, hours: int
) -> None:
    readings = source.forecast(AT, hours)
    assert 1 <= len(readings) <= hours
    assert readings[0].time > AT
    assert {b.time - a.time for a, b in pairwise(readings)} <= {HOUR}
    assert len({reading.zone for reading in readings}) == 1


def test_the_moment_counts_not_the_time_zone(source: IntensitySource) -> None:
    abroad = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert source.now(abroad).g_per_kwh == source.now(AT).g_per_kwh
    assert source.forecast(abroad, 3)[0].time == source.forecast(AT, 3)[0].time


def test_a_time_without_a_zone_is_refused(source: IntensitySource) -> None:
    with pytest.raises((UnitError, IntensityError), match="time zone"):
        source.now(AT.replace(tzinfo=None))


def test_a_forecast_of_no_hours_is_refused(source: IntensitySource) -> None:
    with pytest.raises((UnitError, IntensityError), match="1 or more"):
        source.forecast(AT, 0)


def test_the_same_question_gets_the_same_answer(source: IntensitySource) -> None:
    first, second = source.now(AT), source.now(AT)
    assert first.g_per_kwh == second.g_per_kwh
    assert [r.g_per_kwh for r in source.forecast(AT, 5)] == [
        r.g_per_kwh for r in source.forecast(AT, 5)
    ]


@pytest.mark.parametrize("hours", [1, 24, 30])
def test_a_recorded_forecast_uses_nothing_from_the_future(hours: int) -> None:
    source = RecordedSource(TRACE)
    index = TRACE.index_at(AT)
    changed = np.where(np.arange(len(TRACE)) > index, 999.0, TRACE.g_per_kwh)
    planted = RecordedSource(
        type(TRACE)(
            time_utc=TRACE.time_utc,
            g_per_kwh=changed,
            estimated=TRACE.estimated,
            basis=TRACE.basis,
            zone=TRACE.zone,
            name=TRACE.name,
            synthetic=True,
        )
    )
    assert planted.forecast(AT, hours) == source.forecast(AT, hours)
    assert planted.now(AT) == source.now(AT)
