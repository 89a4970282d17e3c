"""The learned forecaster beside a source: causal, never in the way, and honest about itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carbon.errors import IntensityError, NotReadyError
from carbon.intensity.build import GridConfig
from carbon.intensity.fixed import FixedSource
from carbon.intensity.protocol import IntensityReading, make_basis
from carbon.intensity.trace import HOUR
from carbon.learned import HoursAhead, LearnedConfig, LearnedForecaster, Progress, Rows
from carbon.learned_source import ForecastOptions, LearnedSource
from carbon.monitor import CarbonMonitor, build_monitor

START = datetime(2021, 1, 1, tzinfo=UTC)
DAYS = 100
AT = START + timedelta(days=95, hours=13, minutes=20)
ROW = 95 * 24 + 13
"""The row of the hour of ``AT``, the newest that may be known."""


def columns(days: int = DAYS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    n = days * 24
    wind = np.zeros(n)
    for i in range(1, n):
        wind[i] = 0.97 * wind[i - 1] + rng.normal(0, 0.03)
    shape = 0.3 * np.sin(2 * np.pi * np.arange(n) / 24)
    return {
        "ci_direct": 250 * np.exp(shape + wind + rng.normal(0, 0.01, n)),
        "wind_mw": 100 - 20 * wind,
        "gas_mw": 100 + 20 * wind,
        "wind_ms": 5 - wind + rng.normal(0, 0.1, n),
    }


def write(path: Path, table: dict[str, np.ndarray]) -> Path:
    lines = [",".join(["time_utc", *table])]
    for i, row in enumerate(zip(*table.values(), strict=True)):
        time = START + i * HOUR
        lines.append(",".join([f"{time:%Y-%m-%d %H:%M}", *(f"{v:.6f}" for v in row)]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("learned") / "made_up.csv", columns())


def monitor(file: Path, at: datetime = AT, **options: Any) -> CarbonMonitor:
    chosen = ForecastOptions(**{"quick": True, **options})
    return build_monitor(GridConfig(trace=file), meter="null", clock=lambda: at, forecast=chosen)


def figures(readings: tuple[IntensityReading, ...]) -> list[tuple[float, Any]]:
    return [(r.g_per_kwh, r.interval90_g_per_kwh) for r in readings]


@pytest.mark.slow
@pytest.mark.parametrize("delay_min", [0, 60])
def test_a_planted_future_changes_no_forecast_issued_before_it(
    trace: Path, tmp_path: Path, delay_min: int
):
    newest = ROW - delay_min // 60
    planted = columns()
    for name in ("ci_direct", "wind_mw", "gas_mw"):
        planted[name] = np.where(np.arange(DAYS * 24) > newest, 700.0, planted[name])
    # The weather forecast of the hours that are forecast is known; nothing of it beyond.
    planted["wind_ms"] = np.where(np.arange(DAYS * 24) > ROW + 24, 0.0, planted["wind_ms"])
    answers = []
    for file in (trace, write(tmp_path / "made_up.csv", planted)):
        held = monitor(file, delay_min=delay_min)
        assert held.fit() == ""
        answers.append(held.forecast(24))
    assert figures(answers[0]) == figures(answers[1])
    assert {r.note for r in answers[0]} == {r.note for r in answers[1]}
    earlier = columns()
    earlier["ci_direct"][newest] *= 1.1
    seen = monitor(write(tmp_path / "earlier.csv", earlier), delay_min=delay_min)
    seen.fit()
    assert figures(seen.forecast(24)) != figures(answers[0])


@pytest.mark.slow
def test_it_forecasts_from_any_hour_better_than_yesterday_and_covers(trace: Path):
    truth = columns()["ci_direct"]
    held = monitor(trace, START + timedelta(days=85))
    assert held.fit() == ""
    source = held.learned
    assert source is not None
    own, naive, inside = [], [], []
    for hours in range(0, 7 * 24, 5):
        at = START + timedelta(days=85, hours=hours)
        row = 85 * 24 + hours
        readings = source.forecast(at, 24)
        assert [r.time for r in readings] == [at + (k + 1) * HOUR for k in range(24)]
        values = np.array([r.g_per_kwh for r in readings])
        actual = truth[row + 1 : row + 25]
        own.append(np.abs(values - actual).mean())
        naive.append(np.abs(truth[row - 23 : row + 1] - actual).mean())
        bounds = np.array([r.interval90_g_per_kwh for r in readings])
        inside.append(((actual >= bounds[:, 0]) & (actual <= bounds[:, 1])).mean())
    assert np.mean(own) < 0.95 * np.mean(naive)
    assert 0.75 < np.mean(inside) <= 1.0
    assert readings[0].kind == "forecast"
    assert "fitted on 85 days up to 2021-03-27T00 UTC" in readings[0].note
    assert "interval90_g_per_kwh" in readings[0].as_dict()


@pytest.mark.slow
def test_the_named_forest_answers_when_it_is_asked_for(trace: Path):
    held = monitor(trace, method="forest")
    assert held.fit() == ""
    readings = held.forecast(24)
    assert readings[0].note.startswith("forecast by random forest on calendar, solar, wind")
    assert all(r.interval90_g_per_kwh is not None for r in readings)


def test_short_history_is_told_and_the_source_answers(tmp_path: Path):
    file = write(tmp_path / "short.csv", columns(30))
    held = monitor(file, START + timedelta(days=29))
    assert "days of sound history are fewer than 60" in held.fit()
    reading = held.forecast(1)[0]
    assert "same hour of the day before; the learned forecaster was not used" in reading.note
    assert reading.interval90_g_per_kwh is None


def test_until_it_is_fitted_the_source_answers_and_says_so(trace: Path):
    note = monitor(trace).forecast(1)[0].note
    assert "same hour of the day before" in note
    assert "it was not fitted yet" in note


def test_a_thin_monitor_has_nothing_to_fit(trace: Path):
    held = monitor(trace, method="thin")
    assert held.learned is None
    assert held.fit() == ""
    held.fit_in_background()


def test_delays_out_of_range_are_refused(trace: Path):
    with pytest.raises(IntensityError, match="0 to 120"):
        monitor(trace, delay_min=180)


class Ready:
    """An engine that answers 100 and remembers what it was asked."""

    def __init__(self, newest: np.datetime64) -> None:
        self.newest = newest
        self.rows: Rows = {}

    def ahead(self, newest: np.datetime64, recent: Rows) -> HoursAhead:
        self.rows = recent
        return HoursAhead(
            g_per_kwh=np.full(24, 100.0),
            low=np.full(24, 90.0),
            high=np.full(24, np.nan),
            methods=("something",) * 24,
            note="fitted",
        )


Fit = Callable[[LearnedConfig, datetime, Rows, Progress | None], Ready]


def hour_of(at: datetime) -> np.datetime64:
    return np.datetime64(at.replace(tzinfo=None), "h")


def test_no_request_waits_for_a_fit_and_fits_do_not_pile_up():
    begun, may_end = threading.Event(), threading.Event()
    fits: list[datetime] = []

    def slow(config: LearnedConfig, at: datetime, rows: Rows, progress: Progress | None) -> Ready:
        fits.append(at)
        begun.set()
        assert may_end.wait(20.0)
        return Ready(hour_of(at))

    forecaster = LearnedForecaster(LearnedConfig(), fit=slow)
    forecaster.fit_in_background(AT)
    assert begun.wait(20.0)
    forecaster.fit_in_background(AT)
    with pytest.raises(NotReadyError, match="not fitted yet"):
        forecaster.ahead(AT)
    may_end.set()
    forecaster.wait(20.0)
    assert forecaster.ahead(AT).g_per_kwh[0] == 100.0
    assert fits == [AT]


def test_an_old_fit_is_renewed_and_a_later_one_may_not_look_back():
    fits: list[datetime] = []

    def quick(config: LearnedConfig, at: datetime, rows: Rows, progress: Progress | None) -> Ready:
        fits.append(at)
        return Ready(hour_of(at))

    forecaster = LearnedForecaster(LearnedConfig(), fit=quick)
    forecaster.fit(AT)
    forecaster.ahead(AT + timedelta(days=6))
    assert fits == [AT]
    later = AT + timedelta(days=8)
    forecaster.ahead(later)
    forecaster.wait(20.0)
    assert fits == [AT, later]
    with pytest.raises(NotReadyError, match="fitted on later hours"):
        forecaster.ahead(AT)
    forecaster.wait(20.0)
    assert fits == [AT, later, AT]


def test_a_failed_fit_is_told_and_not_tried_again_at_once():
    fits: list[datetime] = []

    def broken(config: LearnedConfig, at: datetime, rows: Rows, progress: Progress | None) -> Ready:
        fits.append(at)
        raise NotReadyError("too short")

    forecaster = LearnedForecaster(LearnedConfig(), fit=broken)
    assert forecaster.fit(AT) == "too short"
    for days in (0, 1, 8):
        with pytest.raises(NotReadyError, match="too short"):
            forecaster.ahead(AT + timedelta(days=days))
        forecaster.wait(20.0)
    assert fits == [AT, AT + timedelta(days=8)]


def test_a_live_provider_adds_what_it_measured_since_the_file_ended():
    engine = Ready(hour_of(AT - HOUR))
    basis = make_basis()
    fixed = FixedSource(150.0, zone="XX", basis=basis, origin="a table")

    def recent(at: datetime) -> tuple[IntensityReading, ...]:
        hour = at.replace(minute=0) - HOUR
        return tuple(
            IntensityReading(
                g_per_kwh=value, zone="XX", time=hour + minutes * timedelta(minutes=1),
                basis=basis, provider="live", kind="measured", age_s=0.0,
            )
            for minutes, value in ((0, 100.0), (30, 120.0))
        )  # fmt: skip

    forecaster = LearnedForecaster(LearnedConfig(running_hour=False), fit=lambda *_: engine)
    source = LearnedSource(fixed, forecaster, recent=recent)
    source.fit(AT)
    readings = source.forecast(AT, 30)
    assert engine.rows == {hour_of(AT - HOUR): 110.0}
    assert readings[0].note == "forecast by something; fitted"
    assert readings[0].interval90_g_per_kwh is None
    assert "beyond the 24 hours" in readings[24].note
    assert len(readings) == 30


def test_a_doubtful_value_says_so(tmp_path: Path):
    table = columns(30)
    table["ci_direct"][20 * 24 : 20 * 24 + 5] = 222.0
    file = write(tmp_path / "stuck.csv", table)
    notes = [monitor(file, START + timedelta(days=20, hours=h)).now().note for h in range(-1, 6)]
    assert notes == ["", "", "", *["doubtful: repeated"] * 3, ""]
