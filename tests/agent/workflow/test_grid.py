"""The grid is read once a minute, its age goes on, and a failure is not remembered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from agent.workflow.budget import DayBudget
from agent.workflow.doubles import StillMonitor
from agent.workflow.grid import GridWatch
from agent.workflow.policybook import PolicyBook
from carbon.errors import IntensityError
from envs.config import SessionConfig

AT = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)


class Counted(StillMonitor):
    """Counts how often it is asked, and fails when told to."""

    asked: ClassVar[list[int]] = []
    failing: ClassVar[list[bool]] = []

    def now(self) -> Any:
        self.asked.append(1)
        if self.failing:
            self.failing.pop()
            raise IntensityError("down")
        return super().now()


@pytest.fixture
def monitor() -> Counted:
    Counted.asked, Counted.failing = [], []
    return Counted(ahead=(150.0, 160.0))


def looks(watch: GridWatch, *times: datetime) -> list[Any]:
    return [asyncio.run(watch.look(lambda at=at: at)) for at in times]  # type: ignore[misc]


def test_cases_of_one_minute_share_what_was_read(monitor: Counted) -> None:
    watch = GridWatch(monitor, SessionConfig())
    (first, data), (same, older) = looks(watch, AT, AT + timedelta(seconds=42))
    assert len(monitor.asked) == 1
    assert first.forecast_g_per_kwh == same.forecast_g_per_kwh == (150.0, 160.0)
    assert same.now.age_s == first.now.age_s + 42.0
    assert older["now"]["age_s"] == data["now"]["age_s"] + 42.0
    assert older == same.model_dump(mode="json")
    assert data == first.model_dump(mode="json"), "what the first case holds stays as it was"


@pytest.mark.parametrize(
    "later",
    [timedelta(seconds=60), timedelta(seconds=-1), timedelta(hours=1)],
    ids=["a minute", "a clock set back", "an hour"],
)
def test_it_is_read_anew(monitor: Counted, later: timedelta) -> None:
    looks(GridWatch(monitor, SessionConfig()), AT, AT + later)
    assert len(monitor.asked) == 2


def test_a_new_hour_is_read_anew_at_once(monitor: Counted) -> None:
    end = AT.replace(minute=59, second=50)
    looks(GridWatch(monitor, SessionConfig()), end, end + timedelta(seconds=15))
    assert len(monitor.asked) == 2


def test_a_failure_is_not_remembered(monitor: Counted) -> None:
    watch = GridWatch(monitor, SessionConfig())
    monitor.failing.append(True)
    with pytest.raises(IntensityError):
        looks(watch, AT)
    assert looks(watch, AT)[0][0].now.g_per_kwh == 200.0


def test_the_days_budget_runs_along_and_counts_each_stage_once() -> None:
    budget = DayBudget(g_co2e_per_day=100.0, cases_per_day=3)
    for case, stage, g in (("a", "x", 10.0), ("a", "x", 99.0), ("a", "y", None), ("b", "x", 5.0)):
        budget.charge(case, stage, AT, g)
    assert budget.spent_g_co2e(AT) == 15.0
    assert budget.left_fraction(AT) == 0.85
    assert budget.cases_left(AT) == 2
    tomorrow = AT + timedelta(days=1)
    assert budget.spent_g_co2e(tomorrow) == 0.0
    budget.charge("c", "x", tomorrow + timedelta(days=5), 1.0)
    assert budget.spent_g_co2e(AT) == 0.0, "days long past are forgotten"


def test_a_policy_is_loaded_once_and_beside_the_loop() -> None:
    class Named:
        name = "n"

        def reset(self, num_envs: int, seed: int) -> None:
            """Nothing to forget."""

        def act(self, observation: Any, action_mask: Any) -> Any:
            raise NotImplementedError

        def reason(self, observation: Any, action: int) -> str:
            raise NotImplementedError

    made: list[str] = []

    def make(name: str) -> Any:
        made.append(name)
        return Named()

    book = PolicyBook(make, configured="a", names=("b",))

    async def ask() -> Any:
        return [await book.ready(name) for name in ("b", "b", None, "unknown")]

    b, again, configured, unknown = asyncio.run(ask())
    assert b is again
    assert configured is unknown is book.acting("a")
    assert made == ["b", "a"]
