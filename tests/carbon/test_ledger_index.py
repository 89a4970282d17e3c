from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.entries import By, LedgerEntry, LedgerTotal, emissions_g_co2e, total
from carbon.errors import LedgerError
from carbon.intensity.protocol import IntensityReading
from carbon.ledger import Ledger, ledger_totals, read_ledger
from carbon.ledger_columns import count_columns
from carbon.ledger_index import STEP_BYTES, index_path

AT = datetime(2024, 3, 1, tzinfo=UTC)


def entry(i: int, **changes: Any) -> LedgerEntry:
    grid = IntensityReading(
        g_per_kwh=100.0 + i % 50, zone="GB", time=AT, provider="a test", kind="measured",
        basis="average-life-consumption" if i % 7 == 0 else "average-direct-consumption",
        age_s=0.0,
    )  # fmt: skip
    kwh = None if i % 11 == 0 else 0.25 * (i % 5)
    made = LedgerEntry(
        time=AT + timedelta(minutes=i), stage=("train", "assess", "transfer:a->b")[i % 3],
        case=f"c-{i % 13}" if i % 2 else None, energy_kwh=kwh,
        energy_basis="measured" if i % 3 else "modelled", energy_source="a test",
        energy_reason="a test", seconds=None, intensity=grid if i % 5 else None,
        g_co2e=emissions_g_co2e(kwh, grid if i % 5 else None), note="x" * (i % 90),
    )  # fmt: skip
    return replace(made, **changes)


def lines(entries: list[LedgerEntry]) -> bytes:
    return b"".join(
        json.dumps(e.as_dict(), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        for e in entries
    )


def same(got: tuple[LedgerTotal, ...], expected: tuple[LedgerTotal, ...]) -> None:
    assert [(r.key, r.intensity_basis) for r in got] == [
        (r.key, r.intensity_basis) for r in expected
    ]
    for one, other in zip(got, expected):
        for name in ("entries", "measured_kwh", "modelled_kwh", "g_co2e", "unmeasured",
                     "without_g_co2e"):  # fmt: skip
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-12), name


@pytest.fixture(scope="module")
def long_lines() -> bytes:
    """A little over two checkpoints' worth."""
    made = lines([entry(i) for i in range(2000)])
    return made * (2 * STEP_BYTES // len(made) + 2)


def slowly(path: Path, by: By) -> tuple[LedgerTotal, ...]:
    return total(read_ledger(path), by)


@pytest.mark.parametrize("by", ["stage", "case", "all"])
def test_columns_count_as_lines_do(tmp_path: Path, by: By) -> None:
    made = [entry(i) for i in range(500)]
    found = count_columns(lines(made), by)
    assert found is not None
    same(found, total(made, by))


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"v": 2},
        {"energy_kwh": -1.0},
        {"stage": ""},
        {"time": "2024-01-01"},
        {"energy_basis": "guessed"},
        {"case": ""},
        {"energy_kwh": None, "energy_reason": None},
        {"g_co2e": -1.0},
        {"note": None},
        {"policy": ""},
        {"energy_kwh": "1"},
    ],
    ids="-".join,
)
def test_columns_leave_what_is_odd_to_the_line_reader(change: dict[str, Any]) -> None:
    odd = json.dumps(entry(1).as_dict() | change).encode() + b"\n"
    block = lines([entry(i) for i in range(20)]) + odd
    assert count_columns(block, "stage") is None


def test_the_index_gives_what_reading_every_line_gives(tmp_path: Path, long_lines: bytes) -> None:
    path = tmp_path / "l.jsonl"
    path.write_bytes(long_lines)
    expected = slowly(path, "stage")
    same(ledger_totals(path, use_index=False), expected)
    assert not index_path(path).exists()
    same(ledger_totals(path), expected)
    assert index_path(path).exists()
    same(ledger_totals(path), expected)
    same(ledger_totals(path, "all"), slowly(path, "all"))
    same(ledger_totals(path, "case"), slowly(path, "case"))
    with Ledger(path) as ledger:
        for i in range(20):
            ledger.append(entry(i))
        same(ledger.totals(), slowly(path, "stage"))


def test_appending_keeps_the_index_near(tmp_path: Path, long_lines: bytes) -> None:
    path = tmp_path / "l.jsonl"
    path.write_bytes(long_lines[: long_lines.index(b"\n", STEP_BYTES - 2000) + 1])
    with Ledger(path) as ledger:
        while path.stat().st_size <= STEP_BYTES:
            ledger.append(entry(1))
        assert json.loads(index_path(path).read_bytes())["covered"] == path.stat().st_size
        ledger.append(entry(2))
        same(ledger.totals(), slowly(path, "stage"))


@pytest.mark.parametrize("how", ["changed", "shorter", "replaced", "torn", "forged", "foreign"])
def test_an_index_that_does_not_fit_is_not_believed(
    tmp_path: Path, long_lines: bytes, how: str
) -> None:
    path = tmp_path / "l.jsonl"
    path.write_bytes(long_lines)
    ledger_totals(path)
    index = index_path(path)
    if how == "changed":
        path.write_bytes(long_lines.replace(b'"energy_kwh":0.25', b'"energy_kwh":0.75'))
    elif how == "shorter":
        path.write_bytes(long_lines[: long_lines.index(b"\n") + 1])
    elif how == "replaced":
        path.write_bytes(lines([entry(3)]) + long_lines)
    elif how == "torn":
        index.write_bytes(index.read_bytes()[:-20])
    elif how == "forged":
        index.write_text(index.read_text().replace('"entries": ', '"entries": 1'))
    else:
        index.write_text("[]")
    same(ledger_totals(path), slowly(path, "stage"))


def test_damage_is_found_with_its_line(tmp_path: Path, long_lines: bytes) -> None:
    path = tmp_path / "l.jsonl"
    at = long_lines.index(b"\n", len(long_lines) // 2) + 1
    path.write_bytes(long_lines[:at] + b"nonsense\n" + long_lines[at:])
    number = long_lines[:at].count(b"\n") + 1
    with pytest.raises(LedgerError, match=f"line {number} is damaged"):
        ledger_totals(path)


def test_an_unfinished_last_line_is_left_out_and_said(tmp_path: Path, long_lines: bytes) -> None:
    path = tmp_path / "l.jsonl"
    path.write_bytes(long_lines)
    expected = ledger_totals(path)
    with path.open("ab") as file:
        file.write(b'{"v":1,"ti')
    said: list[str] = []
    same(ledger_totals(path, on_unfinished=said.append), expected)
    assert "dropped an unfinished last line" in said[0]


def test_a_folder_that_may_only_be_read_still_gets_its_sums(
    tmp_path: Path, long_lines: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l.jsonl"
    path.write_bytes(long_lines)

    def no_room(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError("read only")

    monkeypatch.setattr(os, "replace", no_room)
    same(ledger_totals(path), slowly(path, "stage"))
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=30), st.sampled_from(["stage", "case", "all"]))
def test_any_lines_count_alike(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], by: By
) -> None:
    made = [entry(i) for i in numbers]
    path = tmp_path_factory.mktemp("ledger") / "l.jsonl"
    path.write_bytes(lines(made))
    same(ledger_totals(path, by), total(made, by))
    if made:
        found = count_columns(lines(made), by)
        assert found is not None
        same(found, total(made, by))
