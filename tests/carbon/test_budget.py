from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.budget import (
    Action,
    Budget,
    Period,
    SpendTally,
    action_at,
    parse_budget,
    period_bounds,
    period_key,
    strictest,
)
from carbon.budget_keeper import BudgetKeeper
from carbon.entries import LedgerEntry
from carbon.errors import BasisError, BudgetError
from carbon.intensity.protocol import IntensityReading
from carbon.ledger import Ledger

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
LONDON = ZoneInfo("Europe/London")
DAY = Budget(period="day", soft_g_co2e=50.0, hard_g_co2e=100.0)


def entry(g: float | None, at: datetime = AT, *, session: str | None = None, **changes: Any) -> Any:
    basis = changes.pop("basis", "average-direct-consumption")
    grid = IntensityReading(
        g_per_kwh=100.0, zone="GB", time=at, basis=basis, provider="a test", kind="measured",
        age_s=0.0,
    )  # fmt: skip
    return LedgerEntry(
        time=at, stage="train", case=None, energy_kwh=None if g is None else g / 100.0,
        energy_basis="modelled", energy_source="a test", energy_reason="a test",
        intensity=grid, g_co2e=g, session=session,
    )  # fmt: skip


def keeper(path: Path, *budgets: Budget, at: datetime = AT, **changes: Any) -> BudgetKeeper:
    return BudgetKeeper(path, budgets, **{"timezone": UTC, "clock": lambda: at, **changes})


@pytest.mark.parametrize(
    ("spent", "cost", "action"),
    [
        (0.0, 0.0, "proceed"), (0.0, 49.9, "proceed"), (0.0, 50.0, "warn"), (50.0, 50.0, "warn"),
        (50.0, 50.1, "refuse"), (100.0, 0.0, "refuse"), (130.0, 0.0, "refuse"),
    ],
)  # fmt: skip
def test_what_happens_at_each_limit(spent: float, cost: float, action: Action) -> None:
    assert action_at(DAY, spent, cost) == action
    wait = Budget(
        period="day", soft_g_co2e=50.0, hard_g_co2e=100.0, soft_action="defer", hard_action="defer"
    )
    assert action_at(wait, spent, cost) == ("proceed" if action == "proceed" else "defer")


def test_the_ledger_is_the_tally(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    month = Budget(period="month", soft_g_co2e=500.0, hard_g_co2e=1000.0)
    session = Budget(period="session", soft_g_co2e=5.0, hard_g_co2e=10.0)
    kept = keeper(path, DAY, month, session, session="board-1")
    assert [s.spent_g_co2e for s in kept.status()] == [0.0, 0.0, 0.0]
    with Ledger(path) as ledger:
        ledger.append(entry(30.0, session="board-1"))
        ledger.append(entry(40.0, AT - timedelta(days=1)))
        ledger.append(entry(None))
        day, months, board = kept.status()
        assert (day.spent_g_co2e, day.entries, day.unknown, day.level) == (30.0, 2, 1, "within")
        assert (months.key, months.entries) == ("2024-03", 2)
        assert (board.key, board.level, board.action, board.left_g_co2e) == (
            "board-1", "hard", "refuse", 0.0,
        )  # fmt: skip
        ledger.append(entry(25.0))
        day = kept.status()[0]
        assert (day.spent_g_co2e, day.level, day.action) == (55.0, "soft", "warn")
        assert kept.action(60.0) == "refuse"
    assert day.as_dict()["spent_g_co2e"] == {"value": 55.0, "ci95": None, "n": 3}
    assert day.starts == datetime(2024, 3, 1, tzinfo=UTC)
    # February's 40 g are another day and another month.
    assert keeper(path, DAY, at=AT - timedelta(days=1)).status()[0].spent_g_co2e == 40.0


def test_a_new_process_finds_the_same_spend(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        for g in (10.0, 20.0, 30.0):
            ledger.append(entry(g))
    assert keeper(path, DAY).status() == keeper(path, DAY).status()
    assert keeper(path, DAY).status()[0].spent_g_co2e == 60.0


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=5))
def test_every_cut_loses_at_most_the_line_that_was_cut(
    tmp_path_factory: pytest.TempPathFactory, spends: list[float]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "l.jsonl"
    with Ledger(path) as ledger:
        for g in spends:
            ledger.append(entry(g))
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    last_two = ends[-3] if len(ends) > 2 else 0
    chosen = random.Random(0).sample(range(last_two, len(whole) + 1), 15)
    for cut in {*chosen, *ends[-2:], *(end - 1 for end in ends[-2:])}:
        path.write_bytes(whole[:cut])
        kept = keeper(path, DAY)
        # A line that lacks nothing but its line end is whole.
        finished = sum(end - 1 <= cut for end in ends)
        (day,) = kept.status()
        assert day.spent_g_co2e == pytest.approx(sum(spends[:finished]))
        assert day.entries == finished
        whole_lines = cut in {0, *ends, *(end - 1 for end in ends)}
        assert bool(kept.dropped) != whole_lines
        with Ledger(path) as ledger:
            ledger.append(entry(7.0))
            (day,) = kept.status()
            assert day.spent_g_co2e == pytest.approx(sum(spends[:finished]) + 7.0)
            assert (ledger.recovery is None) == (cut in {0, *ends})


@pytest.mark.slow
def test_every_byte_of_the_last_two_lines(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        for g in (10.0, 20.0, 30.0):
            ledger.append(entry(g))
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(ends[0], len(whole) + 1):
        path.write_bytes(whole[:cut])
        finished = sum(end - 1 <= cut for end in ends)
        (day,) = keeper(path, DAY).status()
        assert day.spent_g_co2e == [10.0, 30.0, 60.0][finished - 1]
        with Ledger(path) as ledger:
            assert len(list(ledger.entries())) == finished


def test_a_replaced_ledger_is_counted_anew(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ledger.append(entry(30.0))
    kept = keeper(path, DAY)
    assert kept.status()[0].spent_g_co2e == 30.0
    with Ledger(tmp_path / "other.jsonl") as ledger:
        ledger.append(entry(5.0))
    os.replace(tmp_path / "other.jsonl", path)
    assert kept.status()[0].spent_g_co2e == 5.0


def test_mixed_bases_are_refused_or_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ledger.append(entry(30.0))
        ledger.append(entry(50.0, basis="average-life-consumption"))
    with pytest.raises(BasisError, match="mixes average-direct-consumption and average-life"):
        keeper(path, DAY).status()
    (day,) = keeper(path, DAY, basis="average-life-consumption").status()
    assert (day.spent_g_co2e, day.entries, day.unknown) == (50.0, 2, 1)


ZONES = [
    "UTC", "Europe/London", "Europe/Berlin", "America/Sao_Paulo", "America/Havana",
    "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns",
]  # fmt: skip
moments = st.datetimes(datetime(2005, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC))


@given(moments, st.sampled_from(ZONES), st.sampled_from(["day", "month"]))
def test_a_moment_lies_in_its_own_period_and_periods_meet(
    at: datetime, zone: str, period: Period
) -> None:
    timezone = ZoneInfo(zone)
    starts, ends = (bound.astimezone(UTC) for bound in period_bounds(period, at, timezone) if bound)
    assert starts <= at < ends
    key = period_key(period, at, timezone)
    second = timedelta(seconds=1)
    assert period_key(period, starts, timezone) == key
    assert period_key(period, ends - second, timezone) == key
    assert period_key(period, ends, timezone) != key
    assert period_key(period, starts - second, timezone) != key
    after, _ = period_bounds(period, ends, timezone)
    assert after is not None
    assert after.astimezone(UTC) == ends


@pytest.mark.parametrize(
    ("day", "hours"), [("2024-03-31", 23), ("2024-10-27", 25), ("2024-06-01", 24)]
)
def test_days_on_which_clocks_change(day: str, hours: int) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=LONDON)
    starts, ends = period_bounds("day", noon, LONDON)
    assert starts is not None
    assert ends is not None
    assert ends.astimezone(UTC) - starts.astimezone(UTC) == timedelta(hours=hours)
    tally = SpendTally([DAY], timezone=LONDON)
    for hour in range(hours):
        tally.book(starts.astimezone(UTC) + timedelta(hours=hour), 1.0)
    tally.book(ends.astimezone(UTC), 1000.0)
    tally.book(starts.astimezone(UTC) - timedelta(seconds=1), 1000.0)
    (found,) = tally.status(noon)
    assert (found.key, found.spent_g_co2e) == (day, float(hours))


@given(st.lists(st.tuples(moments, st.none() | st.floats(0.0, 1e6)), max_size=20))
def test_days_add_up_to_their_months(spends: list[tuple[datetime, float | None]]) -> None:
    budgets = [DAY, Budget(period="month", soft_g_co2e=1.0, hard_g_co2e=2.0)]
    tally = SpendTally(budgets, timezone=LONDON)
    for i, (at, g) in enumerate(spends):
        for _ in range(2):
            tally.book(at, g, once=i)
    days = {tally.status(at)[0].key: tally.status(at)[0] for at, _ in spends}
    months = {tally.status(at)[1].key: tally.status(at)[1] for at, _ in spends}
    for month, status in months.items():
        inside = [s for key, s in days.items() if key.startswith(month)]
        assert sum(s.spent_g_co2e for s in inside) == pytest.approx(status.spent_g_co2e)
        assert sum(s.entries for s in inside) == status.entries
    assert sum(s.unknown for s in months.values()) == sum(g is None for _, g in spends)


def test_a_session_budget_is_for_sessions() -> None:
    tally = SpendTally([Budget(period="session", soft_g_co2e=1.0, hard_g_co2e=2.0)], timezone=UTC)
    tally.book(AT, 5.0)
    tally.book(AT, 1.5, session="board-1")
    assert tally.status(AT) == ()
    assert strictest(tally.status(AT)) == "proceed"
    (status,) = tally.status(AT, session="board-1")
    assert (status.spent_g_co2e, status.action, status.ends) == (1.5, "warn", None)
    with pytest.raises(BudgetError, match="needs the session's name"):
        keeper(Path("nowhere"), *tally.budgets)


def test_budgets_in_words() -> None:
    assert parse_budget("day:500:800") == Budget(period="day", soft_g_co2e=500.0, hard_g_co2e=800.0)
    assert parse_budget("month:1e4:2e4:defer:defer").hard_action == "defer"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("day:500", "is no budget"), ("year:1:2", "Unknown period 'year'"),
        ("day:a:b", "to be numbers"), ("day:5:4", "soft <= hard"), ("day:0:0", "above 0"),
        ("day:-1:4", "soft <= hard"), ("day:1:inf", "soft <= hard"), ("day:nan:4", "soft <= hard"),
        ("day:1:2:shout:refuse", "Unknown soft action"), ("day:1:2:warn:shout", "Unknown hard"),
    ],
)  # fmt: skip
def test_senseless_budgets_are_refused(text: str, says: str) -> None:
    with pytest.raises(BudgetError, match=says):
        parse_budget(text)


def test_one_budget_for_each_period() -> None:
    with pytest.raises(BudgetError, match="One budget for each kind of period"):
        SpendTally([DAY, DAY], timezone=UTC)
    with pytest.raises(BudgetError, match="A cost of -1"):
        SpendTally([DAY], timezone=UTC).status(AT, cost_g_co2e=-1.0)
