from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from carbon.errors import TraceError
from carbon.intensity.synthetic import SyntheticGrid, SyntheticSource, synthetic_trace

HOUR = timedelta(hours=1)


def test_the_seed_decides_every_bit() -> None:
    first, again, other = (synthetic_trace(500, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.g_per_kwh, again.g_per_kwh)
    assert not np.array_equal(first.g_per_kwh, other.g_per_kwh)
    assert first.synthetic
    assert first.zone == "synthetic"
    assert first.estimated.all()


def test_it_has_a_day_a_week_and_a_floor() -> None:
    trace = synthetic_trace(24 * 7 * 200, 1)
    by_hour = trace.g_per_kwh.reshape(-1, 24).mean(axis=0)
    assert by_hour[12] < by_hour[3] < by_hour[18]
    weekend = trace.g_per_kwh.reshape(-1, 7, 24)[:, 5:].mean()
    assert weekend < trace.g_per_kwh.reshape(-1, 7, 24)[:, :5].mean() - 5
    assert trace.g_per_kwh.min() >= SyntheticGrid().floor_g_per_kwh


def test_without_wind_it_is_the_profile_by_hand() -> None:
    calm = SyntheticGrid(wind_sd_g_per_kwh=0.0)
    monday = synthetic_trace(24, 0, grid=calm).g_per_kwh
    assert monday[12] == pytest.approx(180 - 50 + 45 * np.exp(-0.5 * 9), abs=1e-9)
    assert monday[0] == pytest.approx(180, abs=0.01)


def test_the_wander_has_the_spread_and_memory_it_claims() -> None:
    grid = SyntheticGrid(
        mean_g_per_kwh=1000.0, solar_dip_g_per_kwh=0.0, evening_peak_g_per_kwh=0.0,
        weekend_drop_g_per_kwh=0.0,
    )  # fmt: skip
    wander = synthetic_trace(200_000, 3, grid=grid).g_per_kwh - 1000
    assert wander.std() == pytest.approx(40, rel=0.03)
    assert np.corrcoef(wander[1:], wander[:-1])[0, 1] == pytest.approx(0.97, abs=0.002)


def test_any_hour_of_any_week_has_one_value() -> None:
    at = datetime(1999, 12, 31, 23, 59, tzinfo=UTC)
    reading = SyntheticSource(seed=2).now(at)
    assert reading == SyntheticSource(seed=2).now(at)
    assert reading.g_per_kwh != SyntheticSource(seed=3).now(at).g_per_kwh
    assert "no real grid" in reading.note
    assert reading.kind == "estimated"


def test_its_forecast_errs_as_much_as_it_says() -> None:
    source = SyntheticSource(seed=0)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    errors = []
    for week in range(60):
        for day in (0, 2, 4):
            at = start + week * 168 * HOUR + day * 24 * HOUR
            reading = source.forecast(at, 6)[-1]
            actual = source.now(at + 6 * HOUR).g_per_kwh
            errors.append((actual - reading.g_per_kwh) / (reading.uncertainty_g_per_kwh or 1))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(1.0, abs=0.15)


def test_bad_shapes_are_refused() -> None:
    with pytest.raises(TraceError, match="1 or more"):
        synthetic_trace(0, 1)
    with pytest.raises(TraceError, match="below 1"):
        SyntheticGrid(wind_correlation=1.0)
    with pytest.raises(TraceError, match="negative"):
        SyntheticGrid(wind_sd_g_per_kwh=-1.0)
