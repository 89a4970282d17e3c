from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli.carbon import app
from carbon.backends import make_meter
from carbon.errors import BasisError, UnitError
from carbon.intensity.protocol import Basis, IntensityReading
from carbon.intensity.recorded import RecordedSource
from carbon.intensity.synthetic import synthetic_trace
from carbon.monitor import CarbonMonitor
from carbon.schedule import Job, Plan, Stretch, plan_job, plan_with

AT = datetime(2024, 1, 2, 5, tzinfo=UTC)
BASIS: Basis = "average-direct-unstated"


def readings(
    values: Sequence[float], sigma: float | None = 10.0, basis: Basis = BASIS
) -> tuple[IntensityReading, ...]:
    return tuple(
        IntensityReading(
            g_per_kwh=float(value),
            zone="X",
            time=AT.replace(minute=0) + timedelta(hours=i),
            basis=basis,
            provider="test",
            kind="forecast" if i else "measured",
            age_s=0.0,
            uncertainty_g_per_kwh=sigma if i else None,
        )
        for i, value in enumerate(values)
    )


def job(duration_h: float, slack_h: float, interruptible: bool = False) -> Job:
    return Job(
        duration_h=float(duration_h),
        slack_h=float(slack_h),
        power_w=500.0,
        interruptible=interruptible,
    )


def test_the_best_start_by_hand() -> None:
    plan = plan_job(job(2, 3), readings([100, 90, 40, 60, 80]), AT)
    assert plan.stretches == (Stretch(start=AT + timedelta(hours=2), hours=2.0),)
    assert plan.now_g_co2e == pytest.approx(0.5 * 190)
    assert plan.planned_g_co2e == pytest.approx(0.5 * 100)
    assert plan.saved_g_co2e == pytest.approx(45)
    assert not plan.run_now


def test_standard_errors_by_hand() -> None:
    plan = plan_job(job(2, 3), readings([100, 90, 40, 60, 80]), AT)
    assert plan.now_se_g_co2e == pytest.approx(5), "the measured hour has no error of a forecast"
    assert plan.planned_se_g_co2e == pytest.approx(10)
    assert plan.saved_se_g_co2e == pytest.approx(np.hypot(5, 10))
    stay = plan_job(job(2, 3), readings([10, 20, 40, 60, 80]), AT)
    assert stay.run_now
    assert stay.saved_se_g_co2e == 0.0, "the same hours cancel"


def test_an_unknown_error_stays_unknown() -> None:
    plan = plan_job(job(1, 1), readings([100, 50], sigma=None), AT)
    assert plan.planned_se_g_co2e is None
    assert plan.now_se_g_co2e == 0.0
    assert plan.as_dict()["planned_g_co2e"]["ci95"] is None


def test_the_best_hours_by_hand() -> None:
    plan = plan_job(job(3, 3, True), readings([10, 90, 20, 80, 30, 90]), AT)
    starts = [(s.start - AT) // timedelta(hours=1) for s in plan.stretches]
    assert starts == [0, 2, 4]
    assert plan.planned_g_co2e == pytest.approx(0.5 * 60)
    assert plan.run_now


def test_ties_go_to_the_earliest() -> None:
    for interruptible in (False, True):
        plan = plan_job(job(2, 4, interruptible), readings([50.0] * 6), AT)
        assert plan.stretches == (Stretch(start=AT, hours=2.0),)


@pytest.mark.parametrize("duration_h", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("slack_h", [0.0, 1.5, 6.0])
@pytest.mark.parametrize("minute", [0, 20])
def test_energy_and_deadline_hold(duration_h: float, slack_h: float, minute: int) -> None:
    at = AT.replace(minute=minute)
    rng = np.random.default_rng(3)
    for interruptible in (False, True):
        one = job(duration_h, slack_h, interruptible)
        values = rng.uniform(20, 300, one.hours_ahead(at) + 1)
        plan = plan_job(one, readings(list(values)), at)
        assert sum(s.hours for s in plan.stretches) == pytest.approx(duration_h)
        last = plan.stretches[-1]
        over = last.start + timedelta(hours=last.hours) - at
        assert over <= timedelta(hours=duration_h + slack_h, seconds=1)
        assert plan.stretches[0].start >= at
        assert plan.planned_g_co2e <= plan.now_g_co2e + 1e-9
        flat = plan_job(one, readings([100.0] * len(values)), at)
        assert flat.planned_g_co2e == pytest.approx(100 * one.energy_kwh)


def test_no_choice_of_hours_is_better() -> None:
    values = list(np.random.default_rng(0).uniform(0, 300, 9))
    plan = plan_job(job(4, 5, True), readings(values), AT)
    best = min(sum(c) for c in itertools.combinations(values, 4))
    assert plan.planned_g_co2e == pytest.approx(0.5 * best)


def test_within_the_hour_intensities_are_shared_out() -> None:
    plan = plan_job(job(1, 0), readings([100, 200]), AT.replace(minute=15))
    assert plan.now_g_co2e == pytest.approx(0.5 * (0.75 * 100 + 0.25 * 200))


@pytest.mark.parametrize(
    "bad", [{"duration_h": 0.0}, {"slack_h": -1.0}, {"power_w": float("nan")}, {"slack_h": 1e6}]
)
def test_senseless_jobs_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UnitError):
        Job(**{"duration_h": 4.0, "slack_h": 12.0, "power_w": 100.0, **bad})


def test_short_forecasts_and_mixed_bases_are_refused() -> None:
    with pytest.raises(UnitError, match="longer forecast"):
        plan_job(job(4, 12), readings([100.0] * 15), AT)
    mixed = (*readings([1.0]), *readings([1.0, 2.0], basis="average-life-unstated")[1:])
    with pytest.raises(BasisError):
        plan_job(job(1, 1), mixed, AT)


def test_asked_each_hour_it_begins_before_the_deadline() -> None:
    source = RecordedSource(synthetic_trace(24 * 20, seed=0))
    arrival = source.trace.start + timedelta(days=10)
    plan: Plan | None = None
    for waited in range(13):
        at = arrival + timedelta(hours=waited)
        monitor = CarbonMonitor(source=source, meter=make_meter("null"), clock=lambda at=at: at)
        plan = plan_with(monitor, job(4, 12 - waited), at)
        if plan.run_now:
            break
    assert plan is not None
    assert plan.run_now


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["schedule", *arguments], env={"COLUMNS": "200"})


@pytest.fixture
def trace(tmp_path: Path) -> str:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = (
        f"{start + timedelta(hours=i):%Y-%m-%d %H:%M},{200 if i % 24 < 12 else 100}\n"
        for i in range(96)
    )
    file = tmp_path / "grid.csv"
    file.write_text("time_utc,ci_direct\n" + "".join(rows))
    return str(file)


def test_on_the_command_line(trace: str) -> None:
    arguments = (
        "--trace",
        trace,
        "--duration-h",
        "4",
        "--power-w",
        "1000",
        "--at",
        "2024-01-03T05:00Z",
    )
    body = json.loads(run(*arguments, "--json").stdout)
    assert body["plan"] == [{"start": "2024-01-03T12:00:00Z", "hours": 4.0}]
    assert body["now_g_co2e"]["value"] == pytest.approx(800)
    assert body["planned_g_co2e"] == {"value": pytest.approx(400), "ci95": [400, 400], "n": 1}
    assert body["deadline"] == "2024-01-03T21:00:00Z"
    assert any("same hour of the day before" in m for m in body["methods"])
    words = run(*arguments)
    assert "wait; ask again each hour" in words.output
    assert "from 2024-01-03 12:00 UTC for 4 h" in words.output


def test_interruptible_on_the_command_line(trace: str) -> None:
    result = run(
        "--trace", trace, "--duration-h", "3", "--slack-h", "10", "--power-w", "1000",
        "--at", "2024-01-03T22:00Z", "--interruptible", "--json",
    )  # fmt: skip
    body = json.loads(result.stdout)
    assert body["run_now"]
    assert [p["hours"] for p in body["plan"]] == [3.0]


def test_bad_input(trace: str) -> None:
    assert run("--trace", trace, "--duration-h", "4").exit_code == 2
    result = run("--trace", trace, "--duration-h", "-4", "--power-w", "1")
    assert isinstance(result.exception, UnitError)
