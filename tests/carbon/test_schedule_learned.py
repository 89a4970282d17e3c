"""The learned policy as a plan, and on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import carbon.schedule_learned as learned
from api.cli.carbon import app
from api.errors import CommandError
from carbon.backends import make_meter
from carbon.errors import UnitError
from carbon.intensity.recorded import RecordedSource
from carbon.intensity.synthetic import synthetic_trace
from carbon.intensity.trace import Trace
from carbon.monitor import CarbonMonitor
from carbon.schedule import Job, Plan, plan_with
from carbon.schedule_backtest import WaitingConfig
from carbon.schedule_features import ScheduleData

HOURS = 24 * 100
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(**given: Any) -> WaitingConfig:
        return WaitingConfig(rounds=15, num_leaves=15, learning_rate=0.3, **given)

    monkeypatch.setattr(learned, "WaitingConfig", quick)


def recording(change: Callable[[np.ndarray], np.ndarray] = lambda g: g) -> Trace:
    day = 100 + 80 * np.cos(2 * np.pi * (np.arange(HOURS) % 24) / 24)
    noise = np.random.default_rng(0).normal(0, 3, HOURS)
    trace = synthetic_trace(HOURS, seed=0)
    return replace(trace, g_per_kwh=change(np.abs(day + noise)), synthetic=False)


def reference(trace: Trace, row: int, job: Job, minute: int = 0) -> Plan:
    at = trace.start + row * HOUR + timedelta(minutes=minute)
    monitor = CarbonMonitor(
        source=RecordedSource(trace), meter=make_meter("null"), clock=lambda: at
    )
    return plan_with(monitor, job, at)


JOB = Job(duration_h=2.0, slack_h=6.0, power_w=500.0)
ROW = 24 * 95 + 3


def test_it_waits_for_the_cleaner_hours_of_a_daily_rhythm() -> None:
    trace = recording()
    data = ScheduleData(trace=trace)
    before = reference(trace, ROW, JOB, minute=20)
    plan = learned.plan_learned(data, before.at, before)
    # The cleanest hours are around noon, beyond the slack: as late as allowed, on the hour.
    assert plan.stretches[0].start == trace.start + (ROW + 6) * HOUR
    assert plan.now_g_co2e == before.now_g_co2e
    assert plan.saved_g_co2e == pytest.approx(before.saved_g_co2e, rel=0.2)
    assert plan.saved_se_g_co2e is not None
    assert 0 < plan.saved_se_g_co2e < plan.saved_g_co2e
    assert "learned: 6 h of waiting" in plan.methods[-1]


def test_a_job_that_may_pause_takes_the_cleanest_hours() -> None:
    trace = recording()
    job = replace(JOB, interruptible=True)
    before = reference(trace, 24 * 95 + 9, job)
    plan = learned.plan_learned(ScheduleData(trace=trace), before.at, before)
    assert sum(s.hours for s in plan.stretches) == 2.0
    assert trace.start + (24 * 95 + 11) * HOUR <= plan.stretches[0].start
    end = plan.stretches[-1].start + plan.stretches[-1].hours * HOUR
    assert end <= trace.start + (24 * 95 + 14) * HOUR


def test_at_the_cleanest_hour_it_runs() -> None:
    trace = recording()
    before = reference(trace, 24 * 95 + 11, JOB)
    plan = learned.plan_learned(ScheduleData(trace=trace), before.at, before)
    assert plan.run_now
    assert plan.saved_g_co2e == 0.0
    assert plan.saved_se_g_co2e == 0.0


def test_the_least_history_suffices() -> None:
    trace = recording()
    before = reference(trace, 2048, JOB)
    assert learned.plan_learned(ScheduleData(trace=trace), before.at, before).methods


def test_no_plan_knows_the_future() -> None:
    def reversed_after(g: np.ndarray) -> np.ndarray:
        changed = g.copy()
        changed[ROW + 1 :] = 300 - changed[ROW + 1 :]
        return changed

    plans = []
    for trace in (recording(), recording(reversed_after)):
        before = reference(trace, ROW, JOB)
        plans.append(learned.plan_learned(ScheduleData(trace=trace), before.at, before).as_dict())
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("job", "row", "says"),
    [
        (replace(JOB, duration_h=1.5), ROW, "whole hours"),
        (replace(JOB, slack_h=0.5), ROW, "no later hour"),
        (JOB, 24 * 20, "2048 are needed, 85 days"),
        (JOB, 2047, "too few"),
    ],
    ids=["half hours", "no slack", "no month", "too short"],
)
def test_what_it_cannot_plan_is_refused(job: Job, row: int, says: str) -> None:
    trace = recording()
    before = reference(trace, row, job)
    with pytest.raises(UnitError, match=says):
        learned.plan_learned(ScheduleData(trace=trace), before.at, before)


@pytest.fixture
def file(tmp_path: Path) -> str:
    first = datetime(2024, 1, 1, tzinfo=UTC)
    rows = (
        f"{first + i * HOUR:%Y-%m-%d %H:%M},{g:.2f}\n" for i, g in enumerate(recording().g_per_kwh)
    )
    path = tmp_path / "grid.csv"
    path.write_text("time_utc,ci_direct\n" + "".join(rows))
    return str(path)


def run(*arguments: str) -> Any:
    basics = ("--duration-h", "2", "--power-w", "500")
    return CliRunner().invoke(app, ["schedule", *basics, *arguments], env={"COLUMNS": "200"})


def test_methods_on_the_command_line(file: str) -> None:
    late = ("--trace", file, "--slack-h", "6", "--at", "2024-04-05T03:20Z", "--json")
    notes = {}
    for method in ("auto", "learned", "profile"):
        result = run(*late, "--method", method, "--time-zone", "Europe/London")
        assert result.exit_code == 0, result.output
        body = json.loads(result.stdout)
        assert body["plan"][0]["start"].startswith("2024-04-05T09:")
        notes[method] = body["methods"][-1]
    assert notes["auto"] == notes["learned"]
    assert notes["learned"].startswith("learned: ")
    assert not notes["profile"].startswith("learned: ")


def test_a_short_history_is_said_and_planned_on_the_forecast(file: str) -> None:
    early = ("--trace", file, "--at", "2024-01-20T03:00Z", "--slack-h", "6")
    result = run(*early)
    assert result.exit_code == 0, result.output
    assert "note: planned on the forecast; the learned policy was not used: 459 hours" in (
        result.output
    )
    refused = run(*early, "--method", "learned")
    assert isinstance(refused.exception, UnitError)


def test_deadlines_on_the_command_line(file: str) -> None:
    here = ("--trace", file, "--at", "2024-01-20T03:00Z", "--method", "profile")
    body = json.loads(run(*here, "--deadline", "2024-01-20T10:00+01:00", "--json").stdout)
    assert (body["deadline"], body["slack_h"]) == ("2024-01-20T09:00:00Z", 4.0)
    late = run(*here, "--deadline", "2024-01-20T04:00Z")
    assert isinstance(late.exception, UnitError)
    assert "cannot be met" in str(late.exception)
    assert "2024-01-20T05:00:00Z; give that or later" in str(late.exception)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("--deadline", "2030-01-01T00:00Z", "--slack-h", "3"), CommandError, "give one of them"),
        (("--deadline", "tomorrow"), CommandError, "not a moment with a time zone"),
        (("--deadline", "2030-01-01T00:00"), CommandError, "not a moment with a time zone"),
        (("--slack-h", "nan"), UnitError, "slack_h is nan"),
        (("--slack-h", "-2"), UnitError, "0 or more"),
        (("--power-w", "-5"), UnitError, "power_w is -5.0; it must be finite and above 0"),
        (("--duration-h", "inf"), UnitError, "duration_h is inf"),
        (("--method", "learned", "--source", "synthetic"), CommandError, "--trace FILE"),
    ],
    ids=["both", "word", "naive", "nan", "negative slack", "negative power", "inf", "no trace"],
)
def test_senseless_input_is_refused_with_what_to_do(
    arguments: tuple[str, ...], error: type[Exception], says: str
) -> None:
    result = (
        run("--source", "synthetic", *arguments) if "--source" not in arguments else run(*arguments)
    )
    assert isinstance(result.exception, error), result.output
    assert says in str(result.exception)


def test_an_unknown_time_zone_is_refused(file: str) -> None:
    result = run("--trace", file, "--at", "2024-04-05T03:20Z", "--time-zone", "Mars/Olympus")
    assert isinstance(result.exception, CommandError)


def test_help_teaches() -> None:
    text = CliRunner().invoke(app, ["schedule", "--help"], env={"COLUMNS": "200"}).output
    for word in ("--deadline", "--method", "Ask again each hour", "Examples:", "--interruptible"):
        assert word in text
