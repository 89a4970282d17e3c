"""Forecasts: no look-ahead, gates, intervals, delays, and the backtest's report."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli.carbon import app
from carbon.backtest import BacktestConfig, backtest
from carbon.backtest_scores import (
    Hours,
    accuracy,
    figure,
    hindsight_width,
    interval_scores,
    skill,
    value_of,
)
from carbon.errors import IntensityError, TraceError
from carbon.features import hourly_design
from carbon.forecast import QUICK, delay_step, forecast_next, rolling_quantile
from carbon.forecast_data import ForecastData, load_forecast_data
from carbon.forecast_day import HALF_LIFE_DAYS, day_design, recent_quantile
from carbon.quality import inspect_feed

SMALL = replace(QUICK, boost=replace(QUICK.boost, trees=15, quantile_trees=10), refit_days=90)


def make(days: int = 200, seed: int = 0) -> ForecastData:
    rng = np.random.default_rng(seed)
    n = days * 24
    hour = np.arange(n)
    wind = np.zeros(n)
    for i in range(1, n):
        wind[i] = 0.97 * wind[i - 1] + rng.normal(0, 0.03)
    shape = 0.3 * np.sin(2 * np.pi * hour / 24)
    return ForecastData(
        name="made_up",
        basis="average-direct-unstated",
        time_utc=np.datetime64("2021-01-01T00", "h") + hour.astype("timedelta64[h]"),
        g_per_kwh=250 * np.exp(shape + wind + rng.normal(0, 0.01, n)),
        observed={"wind_mw": 100 - 20 * wind, "gas_mw": 100 + 20 * wind},
        foretold={"wind_ms": 5 - wind + rng.normal(0, 0.1, n)},
    )


def planted(data: ForecastData, row: int) -> ForecastData:
    """The same feed with everything observed from ``row`` on changed beyond recognition."""
    values = data.g_per_kwh.copy()
    values[row:] = 900.0 - 0.5 * values[row:]
    observed = {n: np.where(np.arange(len(v)) >= row, 7.0, v) for n, v in data.observed.items()}
    return replace(data, g_per_kwh=values, observed=observed)


@pytest.mark.parametrize("step", [1, 2])
def test_a_planted_future_value_changes_no_feature_issued_before_it(step: int):
    data, row = make(60), 50 * 24 + 7
    changed = planted(data, row)
    designs = [hourly_design(d, inspect_feed(d.g_per_kwh), step=step) for d in (data, changed)]
    first_seeing = row + step
    np.testing.assert_array_equal(designs[0].x[:first_seeing], designs[1].x[:first_seeing])
    np.testing.assert_array_equal(designs[0].last[:first_seeing], designs[1].last[:first_seeing])
    assert not np.array_equal(designs[0].x[first_seeing], designs[1].x[first_seeing])


@pytest.mark.parametrize("late", [0, 1])
def test_a_planted_future_value_changes_no_day_issued_before_it(late: int):
    data, midnight = make(60), 50 * 24
    designs = [
        day_design(d, inspect_feed(d.g_per_kwh), late_rows=late)
        for d in (data, planted(data, midnight - late))
    ]
    until = midnight + 24  # the day issued at that midnight sees nothing of it
    np.testing.assert_array_equal(designs[0].x[:until], designs[1].x[:until])
    np.testing.assert_array_equal(designs[0].yesterday[:until], designs[1].yesterday[:until])
    assert not np.array_equal(designs[0].x[until:], designs[1].x[until:])


@pytest.mark.slow
def test_a_planted_future_value_changes_no_forecast_issued_before_it():
    from carbon.forecast import roll_forward
    from carbon.forecast_day import roll_days

    data = make(160)
    start, row = 140 * 24, 150 * 24
    hourly, daily = [], []
    for d in (data, planted(data, row)):
        quality = inspect_feed(d.g_per_kwh)
        hourly.append(roll_forward(hourly_design(d, quality), start, len(d), SMALL))
        daily.append(roll_days(day_design(d, quality), start, len(d), SMALL))
    for pair, until in ((hourly, row - start + 1), (daily, row - start + 24)):
        for name in ("point", "low", "high", "fallback"):
            a, b = (getattr(r, name)[:until] for r in pair)
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert not np.array_equal(hourly[0].point, hourly[1].point)


@pytest.mark.slow
def test_the_backtest_beats_persistence_and_covers():
    report = backtest(make(), BacktestConfig(forecast=SMALL, forest_trees=5))
    assert value_of(report, "one_hour.mape") < 0.8 * value_of(report, "one_hour.persistence.mape")
    assert value_of(report, "day_ahead.mape") < value_of(report, "day_ahead.seasonal_naive.mape")
    assert 0.85 < value_of(report, "interval90.coverage") < 0.95
    assert 0.8 < value_of(report, "day_ahead.interval90.coverage") < 0.98
    assert report["unmasked"]["same_as_masked"] is True
    assert value_of(report, "one_hour.skill_persistence") > 0.2
    assert report["one_hour"]["persistence_gate"] == {"hours": 0, "reasons": []}
    low, high = report["one_hour"]["mape"]["ci95"]
    assert low < value_of(report, "one_hour.mape") < high


def test_short_history_falls_back_to_persistence_and_says_so():
    data = make(30)
    answer = forecast_next(data, config=SMALL)
    assert answer.g_per_kwh == pytest.approx(data.g_per_kwh[-1])
    assert answer.method.startswith("persistence: fewer than 60 days")
    assert answer.time_utc == data.time_utc[-1] + np.timedelta64(1, "h")


@pytest.mark.slow
def test_a_model_that_loses_to_persistence_is_gated():
    rng = np.random.default_rng(1)
    walk = 250 * np.exp(np.cumsum(rng.normal(0, 0.002, 200 * 24)))
    data = replace(make(), g_per_kwh=walk, observed={}, foretold={})
    noisy = replace(SMALL, boost=replace(SMALL.boost, learning_rate=1.0))
    config = BacktestConfig(forecast=noisy, forest_trees=2, day_ahead=False, unmasked=False)
    gate = backtest(data, config)["one_hour"]["persistence_gate"]
    assert gate["hours"] > 0
    assert "lost to it" in gate["reasons"][0]


@pytest.mark.parametrize(("delay", "step"), [(0, 1), (30, 2), (60, 2), (61, 3)])
def test_a_row_that_is_late_at_all_is_absent(delay: int, step: int):
    assert delay_step(delay) == step


def test_delays_out_of_range_are_refused():
    with pytest.raises(IntensityError, match="0 to 120"):
        delay_step(180)


def test_rolling_quantile_waits_for_what_is_known():
    miss = np.full(400, 1.0)
    miss[300:] = 9.0
    out = rolling_quantile(miss, 200, 400, delay=2, days=10, level=0.9)
    assert (out[:100] == 1.0).all()
    assert out[-1] == 9.0


def test_the_recent_quantile_weighs_new_errors_most():
    day = int(HALF_LIFE_DAYS) * 24
    calm_then_wild = np.repeat([1.0, 9.0], [10 * day, day])
    # The last half-life holds half of all weight: 0.49 lies below it, 0.51 in it.
    assert recent_quantile(calm_then_wild, 0.49) == 1.0
    assert recent_quantile(calm_then_wild, 0.51) == 9.0
    assert recent_quantile(calm_then_wild[::-1], 0.99) == 1.0
    gaps = np.where(np.arange(len(calm_then_wild)) % 2, calm_then_wild, np.nan)
    assert recent_quantile(gaps, 0.9) == 9.0
    assert recent_quantile(gaps, 1.0) == 9.0


def test_the_narrowest_band_in_hindsight_by_hand():
    time = np.datetime64("2021-07-01T00", "h") + np.arange(100).astype("timedelta64[h]")
    truth = np.full(100, 200.0)
    hours = Hours(truth=truth, time_utc=time, scored=np.ones(100, dtype=bool), seed=0)
    forecast = truth + np.where(np.arange(100) % 20 == 0, 50.0, 5.0)
    width = hindsight_width(hours, forecast)
    assert width["value"] == 10.0
    assert width["ci95"][0] <= 10.0 <= width["ci95"][1]


def test_scores_by_hand():
    time = np.datetime64("2021-07-01T00", "h") + np.arange(4).astype("timedelta64[h]")
    truth = np.array([100.0, 200.0, 100.0, 50.0])
    hours = Hours(truth=truth, time_utc=time, scored=np.array([True, True, True, False]), seed=0)
    forecast = np.array([110.0, 180.0, 100.0, 0.0])
    scores = accuracy(hours, forecast)
    assert scores["mape"]["value"] == pytest.approx(20 / 3)
    assert scores["mae"]["value"] == pytest.approx(10.0)
    assert scores["mae"]["n"] == 3
    assert skill(hours, forecast, truth + 20)["value"] == pytest.approx(0.5)
    interval = interval_scores(hours, truth - 5, truth + np.array([5, -1, 5, 5]))
    assert interval["coverage"]["value"] == pytest.approx(2 / 3)
    assert list(interval["months"]) == ["2021-07"]
    none = replace(hours, scored=np.zeros(4, dtype=bool))
    assert figure(np.empty(0), none, unit="percent")["value"] is None


def write(path: Path, data: ForecastData, column: str = "ci_life") -> Path:
    lines = [f"time_utc,{column},strange,cc_d1_life"]
    lines += [f"{t},{g:.2f},x,1" for t, g in zip(data.time_utc, data.g_per_kwh)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_any_trace_is_read_and_the_rival_never_becomes_a_feature(tmp_path: Path):
    data = load_forecast_data(write(tmp_path / "em_gb_x.csv", make(3)))
    assert data.basis == "average-life-unstated"
    assert data.observed == {}
    assert data.foretold == {}
    assert data.rival is not None
    assert data.time_zone == "Europe/London"


def test_the_period_must_lie_inside():
    with pytest.raises(TraceError, match="must lie inside"):
        backtest(make(10), BacktestConfig())


@pytest.mark.slow
def test_the_command_writes_the_report(tmp_path: Path):
    trace, out = write(tmp_path / "grid.csv", make(100)), tmp_path / "report.json"
    command = ["backtest", "--trace", str(trace), "--json", str(out), "--quick"]
    result = CliRunner().invoke(app, [*command, "--from", "2021-04-05", "--delay-min", "30"])
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["from"] == "2021-04-05T00"
    for path in (
        "one_hour.mape", "one_hour.persistence.mape", "one_hour.seasonal_naive.mape",
        "one_hour.lagged_forest.mape", "day_ahead.mape", "day_ahead.carboncast.mape",
        "interval90.coverage", "interval90.width",
    ):  # fmt: skip
        assert value_of(report, path) > 0, path
    assert "one hour ahead" in result.output


def test_a_bad_date_is_refused_in_one_line(tmp_path: Path):
    command = ["backtest", "--trace", "x.csv", "--json", str(tmp_path / "y"), "--from", "summer"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "not a date" in result.output


def test_carbon_stays_light():
    code = (
        "import carbon, carbon.monitor, sys;"
        "print('lightgbm' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
