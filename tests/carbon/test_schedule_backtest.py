from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carbon.errors import UnitError
from carbon.intensity.synthetic import synthetic_trace
from carbon.intensity.trace import Trace
from carbon.schedule_backtest import (
    WaitingConfig,
    learned_changes,
    regret,
    regret_interruptible,
    runs_of,
    starts_of,
    yesterday_changes,
)
from carbon.schedule_features import (
    FORETOLD_H,
    ScheduleData,
    load_schedule_data,
    window_features,
    window_means,
)

HOURS = 24 * 80
QUICK = WaitingConfig(duration_h=2, slack_h=3, rounds=5, refit_h=24 * 7)


def feed(seed: int = 0) -> ScheduleData:
    rng = np.random.default_rng(seed)
    return ScheduleData(
        trace=synthetic_trace(HOURS, seed=seed),
        observed={"wind_kmh": rng.uniform(0, 50, HOURS)},
        foretold={"wind_ms": rng.uniform(0, 20, HOURS)},
    )


def planted(data: ScheduleData, row: int) -> ScheduleData:
    """The same feed, with everything from ``row`` on changed."""
    g = data.trace.g_per_kwh.copy()
    g[row:] = 2500.0 - g[row:]
    wind = data.observed["wind_kmh"].copy()
    wind[row:] = -1000.0
    ahead = data.foretold["wind_ms"].copy()
    ahead[row + FORETOLD_H :] = -1000.0
    trace = replace(data.trace, g_per_kwh=g)
    return replace(data, trace=trace, observed={"wind_kmh": wind}, foretold={"wind_ms": ahead})


@pytest.mark.parametrize("delay_h", [0, 1])
@pytest.mark.parametrize("row", [24 * 73 + 5, 24 * 77, 24 * 77 + 1])
def test_nothing_is_learnt_from_the_future(delay_h: int, row: int) -> None:
    # Models are fitted anew in row 24 x 77: one fitted just before the plant must not see it.
    config = replace(QUICK, delay_h=delay_h)
    start = 24 * 70
    known = row + delay_h  # the first row that may see the planted hour
    data, changed = feed(), planted(feed(), row)
    before = learned_changes(data, config, start, HOURS)[start:known]
    after = learned_changes(changed, config, start, HOURS)[start:known]
    np.testing.assert_array_equal(before, after)
    # The same comparison finds the plant as soon as it may be known.
    shown = slice(known, known + 24)
    later = learned_changes(data, config, start, HOURS)[shown]
    assert not np.array_equal(later, learned_changes(changed, config, start, HOURS)[shown])


@pytest.mark.parametrize("delay_h", [0, 1])
@pytest.mark.parametrize(("duration_h", "slack_h"), [(4, 12), (1, 23), (6, 30)])
def test_yesterday_and_features_are_causal(duration_h: int, slack_h: int, delay_h: int) -> None:
    config = WaitingConfig(duration_h=duration_h, slack_h=slack_h, delay_h=delay_h)
    row = 24 * 60 + 7
    data, changed = feed(), planted(feed(), row)
    known = row + delay_h
    for of in (
        lambda d: yesterday_changes(d, config),
        lambda d: window_features(replace(d, foretold={}), duration_h, slack_h, delay_h),
    ):
        np.testing.assert_array_equal(of(data)[:known], of(changed)[:known])


def test_the_policy_by_hand() -> None:
    changes = np.array([[0, -1, -5], [0, -2, 9], [0, 1, 1], [0, 0, 0], [0, 0, 0]], dtype=float)
    # Arrives in row 0: waits for 2, in row 1 the one start left looks better, so the last it is.
    assert starts_of(changes, np.array([0, 1, 2])).tolist() == [2, 1, 0]


def test_foresight_has_no_regret_and_running_now_saves_nothing() -> None:
    data = feed()
    windows = window_means(data.trace.g_per_kwh, 2)
    perfect = np.stack([np.roll(windows, -k) - windows for k in range(4)], axis=1)
    rows = np.arange(24 * 30, 24 * 60)
    rng = np.random.default_rng(0)
    best = regret(data, QUICK, perfect, rows, rng)
    assert best["share_of_perfect"]["value"] == pytest.approx(1.0)
    assert best["regret_g_per_kwh"]["value"] == pytest.approx(0.0, abs=1e-9)
    none = regret(data, QUICK, np.zeros_like(perfect), rows, rng)
    assert none["share_of_perfect"]["value"] == 0.0
    assert none["mean_wait_h"]["value"] == 0.0


def test_the_pausing_policy_by_hand() -> None:
    changes = np.array([[0, -1, 5, 5], [0, 3, 4, 4], [0, -2, 9, 9], [0, 9, 9, 9]], dtype=float)
    # Two hours of work in four: one cleaner hour is ahead, so it runs; then none is, so it runs.
    assert runs_of(changes, np.array([0]), 2).tolist() == [[True, True, False, False]]
    # One hour of work: it waits for the one cleaner hour.
    assert runs_of(changes, np.array([0]), 1).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("work", [1, 2, 5])
def test_the_work_is_done_whatever_is_foreseen(work: int) -> None:
    changes = np.random.default_rng(0).normal(size=(80, 7))
    changes[:, 0] = 0.0
    for foreseen in (changes, -np.abs(changes), np.abs(changes)):
        runs = runs_of(foreseen, np.arange(70), work)
        assert (runs.sum(axis=1) == work).all()


def test_foresight_of_hours_has_no_regret_and_pausing_saves_more() -> None:
    data = feed()
    g = data.trace.g_per_kwh
    rows = np.arange(24 * 30, 24 * 60)
    hourly = QUICK.hourly
    assert (hourly.duration_h, hourly.slack_h) == (1, 4)
    perfect = np.stack([np.roll(g, -k) - g for k in range(5)], axis=1)
    best = regret_interruptible(data, QUICK, perfect, rows, np.random.default_rng(0))
    assert best["share_of_perfect"]["value"] == pytest.approx(1.0)
    none = regret_interruptible(data, QUICK, np.zeros_like(perfect), rows, np.random.default_rng(0))
    assert none["share_of_perfect"]["value"] == pytest.approx(0.0)
    assert none["mean_wait_h"]["value"] == 0.0
    through = regret(data, QUICK, yesterday_changes(data, QUICK), rows, np.random.default_rng(0))
    more = best["perfect_saved_fraction"]["value"]
    assert more >= through["perfect_saved_fraction"]["value"]
    with pytest.raises(UnitError, match=r"config\.hourly"):
        regret_interruptible(data, QUICK, perfect[:, :4], rows, np.random.default_rng(0))


def test_a_grid_that_repeats_itself_is_foreseen_by_yesterday() -> None:
    trace = synthetic_trace(HOURS, seed=0)
    day = np.random.default_rng(1).uniform(50, 300, 24)
    repeated: Trace = replace(trace, g_per_kwh=np.tile(day, HOURS // 24))
    data = ScheduleData(trace=repeated)
    result = regret(
        data, QUICK, yesterday_changes(data, QUICK), np.arange(48, 800), np.random.default_rng(0)
    )
    assert result["share_of_perfect"]["value"] == pytest.approx(1.0)
    low, high = result["share_of_perfect"]["ci95"]
    assert low == pytest.approx(high)


def test_a_flat_grid_has_nothing_to_save() -> None:
    trace = replace(synthetic_trace(HOURS, seed=0), g_per_kwh=np.full(HOURS, 100.0))
    data = ScheduleData(trace=trace)
    result = regret(
        data, QUICK, yesterday_changes(data, QUICK), np.arange(48, 800), np.random.default_rng(0)
    )
    assert result["share_of_perfect"]["value"] is None
    assert "nothing" in result["share_of_perfect"]["reason"]


def test_bad_calls_are_refused() -> None:
    data = feed()
    with pytest.raises(UnitError, match="too few"):
        learned_changes(data, QUICK, 24 * 40, HOURS)
    with pytest.raises(UnitError, match="duration_h"):
        WaitingConfig(duration_h=0)
    with pytest.raises(UnitError, match="ends before"):
        regret(data, QUICK, yesterday_changes(data, QUICK), np.array([HOURS]),
               np.random.default_rng(0))  # fmt: skip


@pytest.mark.shared_data
def test_columns_of_real_traces(shared_data: Path) -> None:
    gb = load_schedule_data(shared_data / "carbon" / "em_gb.csv.gz", "life")
    assert set(gb.observed) == {
        "low_carbon_pct", "renewable_pct", "temp_c", "cloud_pct", "wind_kmh",
    }  # fmt: skip
    assert not gb.foretold


@pytest.mark.shared_data
@pytest.mark.slow
def test_it_beats_yesterday_in_great_britain(shared_data: Path) -> None:
    data = load_schedule_data(
        shared_data / "carbon" / "em_gb.csv.gz", "life", time_zone="Europe/London"
    )
    start = int(np.searchsorted(data.trace.time_utc, np.datetime64("2022-06-01", "h")))
    config = replace(WaitingConfig(), rounds=40)
    rows = np.arange(start, start + 24 * 50)
    learned = learned_changes(data, config, start, start + 24 * 50 + 16)
    shares = [
        regret(data, config, c, rows, np.random.default_rng(0))["share_of_perfect"]["value"]
        for c in (learned, yesterday_changes(data, config))
    ]
    assert shares[0] > shares[1]
