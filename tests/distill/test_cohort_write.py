"""Writing cohorts: exact, repeatable, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.cohort import Cohort, read_cohort
from distill.cohort_write import write_cohort
from distill.errors import CohortError

AssertSame = Callable[[Cohort, Cohort], None]


@pytest.fixture
def cohort(tiny_cohort: Cohort, tmp_path: Path) -> Cohort:
    return read_cohort(write_cohort(tiny_cohort, tmp_path / "written"))


def test_round_trip_is_exact_and_repeatable(
    cohort: Cohort, tmp_path: Path, assert_same: AssertSame
) -> None:
    cohort.tables["genomics"].iloc[1, 0] = 0.1 + 0.2
    first = write_cohort(cohort, tmp_path / "a")
    second = write_cohort(cohort, tmp_path / "b")
    assert_same(cohort, read_cohort(first))
    names = sorted(p.name for p in first.iterdir())
    tables = sorted(f"{name}.csv" for name in (*cohort.tables, "labels"))
    assert names == sorted([*tables, "cohort.toml"])
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_what_was_written_is_what_was_held(
    tiny_cohort: Cohort, cohort: Cohort, assert_same: AssertSame
) -> None:
    assert_same(tiny_cohort, cohort)


def test_refuses_to_overwrite(cohort: Cohort, tmp_path: Path, assert_same: AssertSame) -> None:
    written = tmp_path / "written"
    with pytest.raises(CohortError, match="holds a cohort already"):
        write_cohort(cohort, written)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(CohortError, match="not a cohort folder"):
        write_cohort(cohort, tmp_path / "other", force=True)
    (written / "old.txt").write_text("old")
    write_cohort(cohort, written, force=True)
    assert not (written / "old.txt").exists()
    assert_same(cohort, read_cohort(written))


def test_leaves_nothing_behind_when_it_fails(cohort: Cohort, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match=r"."):
        write_cohort(cohort, tmp_path / "new", extra={"x" * 300: "a name too long"})
    assert sorted(tmp_path.iterdir()) == before
