from __future__ import annotations

import json
import multiprocessing
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon.entries import LedgerEntry, emissions_g_co2e, total
from carbon.errors import LedgerError, UnitError
from carbon.intensity.fixed import FixedSource
from carbon.intensity.protocol import IntensityReading, make_basis
from carbon.ledger import Ledger, read_ledger

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)


def intensity(g: float = 200.0, scope: Any = "direct") -> IntensityReading:
    source = FixedSource(g, zone="GB", basis=make_basis("average", scope), origin="x", as_of=AT)
    return source.now(AT)


def entry(stage: str = "train", kwh: float | None = 0.5, **changes: Any) -> LedgerEntry:
    grid = changes.pop("intensity", intensity())
    made = LedgerEntry(
        time=AT, stage=stage, case=None, energy_kwh=kwh, energy_basis="measured",
        energy_source="rapl", energy_reason=None if kwh is not None else "no counter",
        intensity=grid, g_co2e=emissions_g_co2e(kwh, grid),
    )  # fmt: skip
    return replace(made, **changes)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    entries = [
        entry(),
        entry("transfer:genomics->pathology", case="c-1", seconds=3.5, note="ünïcode\nline"),
        entry(kwh=None),
        entry(intensity=None),
        entry(energy_basis="modelled", energy_reason="no RAPL"),
    ]
    with Ledger(tmp_path / "deep" / "ledger.jsonl") as ledger:
        for one in entries:
            ledger.append(one)
        assert list(ledger.entries()) == entries
        assert ledger.recovery is None
    with Ledger(tmp_path / "deep" / "ledger.jsonl") as again:
        again.append(entry("later"))
        assert list(again.entries()) == [*entries, entry("later")]
        assert again.recovery is None


def test_totals_by_hand(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.jsonl") as ledger:
        ledger.append(entry("train", 1.0, case="a"))
        ledger.append(entry("train", 0.5, energy_basis="modelled", case="b"))
        ledger.append(entry("infer", 0.1, case="a"))
        ledger.append(entry("infer", None, case="a"))
        infer, train = ledger.totals("stage")
        assert (train.key, train.entries, train.measured_kwh, train.modelled_kwh) == (
            "train", 2, 1.0, 0.5,
        )  # fmt: skip
        assert train.energy_kwh == 1.5
        assert train.g_co2e == pytest.approx(300.0)
        assert (infer.entries, infer.unmeasured, infer.without_g_co2e) == (2, 1, 1)
        assert infer.g_co2e == pytest.approx(20.0)
        assert {t.key: t.entries for t in ledger.totals("case")} == {"a": 3, "b": 1}
        (everything,) = ledger.totals("all")
        assert everything.entries == 4


def test_bases_are_never_added_up() -> None:
    rows = total([entry(), entry(intensity=intensity(scope="life")), entry(intensity=None)], "all")
    assert [(row.intensity_basis, row.entries) for row in rows] == [
        (None, 1), ("average-direct-unstated", 1), ("average-life-unstated", 1),
    ]  # fmt: skip


def filled(path: Path, n: int = 3) -> bytes:
    with Ledger(path) as ledger:
        for i in range(n):
            ledger.append(entry(f"stage-{i}"))
    return path.read_bytes()


def test_every_cut_of_the_last_line_loses_that_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    whole = filled(path)
    last = whole[:-1].rindex(b"\n") + 1
    for cut in {*range(last + 1, len(whole), 23), len(whole) - 2, len(whole) - 1}:
        path.write_bytes(whole[:cut])
        seen: list[str] = []
        before = list(read_ledger(path, on_unfinished=seen.append))
        complete = cut == len(whole) - 1  # only the line end is missing
        with Ledger(path) as ledger:
            assert ledger.recovery is not None
            assert ledger.recovery.dropped_bytes == (0 if complete else cut - last)
            assert list(ledger.entries()) == before
            assert len(before) == (3 if complete else 2)
            ledger.append(entry("after"))
            assert [e.stage for e in ledger.entries()][-1] == "after"
        if complete:
            assert "kept" in ledger.recovery.message
            assert seen == []
        else:
            assert "dropped an unfinished last line" in ledger.recovery.message
            assert len(seen) == 1
        assert path.read_bytes().startswith(whole[:last])


def test_an_unfinished_line_longer_than_a_block_is_found(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    whole = filled(path)
    path.write_bytes(whole + b'{"note":"' + b"x" * 20_000)
    with Ledger(path) as ledger:
        assert ledger.recovery is not None
        assert ledger.recovery.dropped_bytes == 20_009
        assert path.read_bytes() == whole


def test_a_ledger_of_one_unfinished_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_bytes(b'{"v":1,"ti')
    with Ledger(path) as ledger:
        assert ledger.recovery is not None
        assert list(ledger.entries()) == []


def test_a_line_left_by_another_process_is_repaired_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        ledger.append(entry("one"))
        with path.open("ab") as other:
            other.write(b'{"v":1,"half')
        ledger.append(entry("two"))
        assert [e.stage for e in ledger.entries()] == ["one", "two"]
        assert ledger.recovery is not None


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (b"nonsense\n", "line 2 is damaged"),
        (b"{}\n", "line 2 is damaged .*Field required"),
        (b"\n", "line 2 is damaged"),
    ],
)
def test_damage_in_the_middle_is_refused_not_guessed(
    tmp_path: Path, damage: bytes, says: str
) -> None:
    path = tmp_path / "l.jsonl"
    first, *rest = filled(path).splitlines(keepends=True)
    path.write_bytes(first + damage + b"".join(rest))
    with Ledger(path) as ledger, pytest.raises(LedgerError, match=says):
        ledger.totals()


@pytest.mark.parametrize(
    "change", [{"extra": 1}, {"v": 2}, {"energy_kwh": -1}, {"stage": ""}, {"time": "2024-01-01"}]
)
def test_a_line_that_is_not_ours_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text(json.dumps(entry().as_dict() | change) + "\n")
    with pytest.raises(LedgerError, match="line 1 is damaged"):
        list(read_ledger(path))


def test_threads_and_processes_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as one, Ledger(path) as two:
        threads = [
            threading.Thread(target=led.append, args=(entry(f"t{n}"),))
            for n in range(10)
            for led in (one, two)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    child = multiprocessing.get_context("spawn").Process(target=filled, args=(path, 5))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert len(list(read_ledger(path))) == 25


def test_a_failed_write_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l.jsonl"
    whole = filled(path)
    write = os.write
    with Ledger(path) as ledger:
        monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:20]))
        with pytest.raises(LedgerError, match=r"20 of .* bytes were written"):
            ledger.append(entry("lost"))
        monkeypatch.undo()
        assert path.read_bytes() == whole
        ledger.append(entry("kept"))
        assert len(list(ledger.entries())) == 4


def test_a_full_disk_is_one_clear_line() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    ledger = Ledger(Path("/dev/full"))
    with ledger, pytest.raises(LedgerError, match="could not be written"):
        ledger.append(entry())


def test_a_ledger_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger(tmp_path)
    with pytest.raises(LedgerError, match="cannot be read"):
        list(read_ledger(tmp_path / "none.jsonl"))


def test_nothing_is_written_that_could_not_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    with Ledger(path) as ledger:
        with pytest.raises(LedgerError, match="not finite"):
            ledger.append(entry(seconds=float("nan")))
        with pytest.raises(LedgerError, match=r"Not fit for the ledger .*energy_kwh"):
            ledger.append(entry(energy_kwh=-1.0))
        assert path.read_bytes() == b""
        ledger.append(entry(case="odd-\udcff-name"))
        assert [e.case for e in ledger.entries()] == ["odd-?-name"]


def test_senseless_entries_are_refused() -> None:
    with pytest.raises(LedgerError, match="needs a stage"):
        entry("")
    with pytest.raises(LedgerError, match="lacks a time zone"):
        entry(time=AT.replace(tzinfo=None))
    with pytest.raises(LedgerError, match="say why"):
        entry(energy_kwh=None)
    with pytest.raises(UnitError):
        emissions_g_co2e(-1.0, intensity())
    assert emissions_g_co2e(None, intensity()) is None
    assert emissions_g_co2e(1.0, None) is None


figures = st.floats(min_value=0, max_value=1e6)
TEXT = st.characters(codec="utf-8")


@settings(max_examples=25, deadline=None)  # each example waits for the disk
@given(st.lists(st.tuples(st.text(TEXT, min_size=1), figures, st.none() | figures), max_size=10))
def test_any_entries_survive_the_file_and_add_up(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, float | None]]
) -> None:
    entries = [entry(stage, kwh, intensity=intensity(g)) for stage, g, kwh in rows]
    path = tmp_path_factory.mktemp("ledger") / "l.jsonl"
    with Ledger(path) as ledger:
        for one in entries:
            ledger.append(one)
        assert list(ledger.entries()) == entries
        by_stage = sum(row.g_co2e for row in ledger.totals("stage"))
        (everything,) = ledger.totals("all") if entries else (None,)
    expected = sum(g * (kwh or 0.0) for _, g, kwh in rows)
    assert by_stage == pytest.approx(expected)
    assert (everything.g_co2e if everything else 0.0) == pytest.approx(expected)
