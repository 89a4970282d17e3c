"""Values that no model should see: too large, no value at all, odd ones among flags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from distill.cohort import read_cohort
from distill.cohort_check import check_cohort
from distill.errors import CohortError

MANIFEST = """\
name = "small"

[label]
table = "labels.csv"
column = "subtype"
negative = "A"
positive = "B"

[modality.clinical]
table = "clinical.csv"
role = "inference"

[modality.genomics]
table = "{genomics}"
role = "inference"
"""
N = 120


def folder(
    path: Path,
    *,
    age: Sequence[object] | None = None,
    tp53: Sequence[object] | None = None,
    kras: Sequence[object] | None = None,
    genomics: str = "genomics.csv",
) -> Path:
    """A cohort of 120 cases; age and sex, two flags of each."""
    ids = [f"c{i}" for i in range(N)]
    columns = {"subtype": ["AB"[i % 2] for i in range(N)]}
    path.mkdir(exist_ok=True)
    pd.DataFrame(columns, index=pd.Index(ids, name="case_id")).to_csv(path / "labels.csv")
    clinical = {
        "age": age if age is not None else [50.0 + i % 40 for i in range(N)],
        "sex": ["m" if i % 3 else None for i in range(N)],
    }
    pd.DataFrame(clinical, index=pd.Index(ids, name="case_id")).to_csv(path / "clinical.csv")
    flags = {
        "TP53": tp53 if tp53 is not None else [float(i % 2) for i in range(N)],
        "KRAS": kras if kras is not None else [float(i % 5 == 0) for i in range(N)],
    }
    table = pd.DataFrame(flags, index=pd.Index(ids, name="case_id"))
    if genomics.endswith(".parquet"):
        table.reset_index().to_parquet(path / genomics)
    else:
        table.to_csv(path / genomics)
    (path / "cohort.toml").write_text(MANIFEST.format(genomics=genomics), encoding="utf-8")
    return path


def with_value(at: int, value: object) -> list[object]:
    return [value if i == at else float(i % 2) for i in range(N)]


@pytest.mark.parametrize("value", [1e300, -1e39, 3.5e38])
def test_numbers_beyond_float32_are_refused_with_their_place(tmp_path: Path, value: float) -> None:
    for name, where in (("genomics.csv", "line 7"), ("genomics.parquet", "row 6")):
        report = check_cohort(folder(tmp_path, tp53=with_value(5, value), genomics=name))
        assert [str(p) for p in report.problems] == [
            f"{name}, {where}, column 'TP53': {value} is beyond 3.4e+38 (float32). Write the "
            "number that was measured, or leave the cell empty."
        ]
        with pytest.raises(CohortError, match="column 'TP53'"):
            read_cohort(tmp_path)


def test_the_largest_float32_is_taken(tmp_path: Path) -> None:
    largest = float(np.finfo(np.float32).max)
    assert check_cohort(folder(tmp_path, age=with_value(5, largest))).clean


def test_a_row_without_a_value_is_a_missing_modality(tmp_path: Path) -> None:
    gaps = [None if i in (3, 8) else float(i % 2) for i in range(N)]
    half = [None if i in (3, 8, 9) else 1.0 for i in range(N)]
    path = folder(tmp_path, tp53=gaps, kras=half)
    cohort = read_cohort(path)
    assert np.flatnonzero(~cohort.present("genomics")).tolist() == [3, 8]
    assert len(cohort.tables["genomics"]) == N - 2
    assert cohort.empty_rows == {"genomics": 2}
    report = check_cohort(path)
    assert report.clean
    assert report.modalities[1].patients == N - 2
    (warning,) = (w for w in report.warnings if "hold no value" in w)
    assert warning.startswith("genomics: 2 rows hold no value; these patients count as not having")


def test_cases_without_any_clinical_value_stay_and_are_warned_of(tmp_path: Path) -> None:
    # Every third case has no sex; two of them have no age either.
    age = [None if i in (3, 6) else 60.0 for i in range(N)]
    path = folder(tmp_path, age=age)
    report = check_cohort(path)
    assert report.clean
    (warning,) = (w for w in report.warnings if "hold no value" in w)
    assert warning.startswith("clinical: 2 rows hold no value; what is usual stands in")
    assert len(read_cohort(path).tables["clinical"]) == N


def test_a_table_without_a_value_is_refused(tmp_path: Path) -> None:
    (problem,) = check_cohort(folder(tmp_path, tp53=[None] * N, kras=[None] * N)).problems
    assert str(problem).startswith("genomics.csv: the table has no value. Fill it, or remove")


def test_odd_values_among_flags_are_warned_of(tmp_path: Path) -> None:
    report = check_cohort(folder(tmp_path, tp53=with_value(5, 700_000)))
    assert report.clean
    (warning,) = (w for w in report.warnings if "neither 0 nor 1" in w)
    assert warning.startswith("genomics: 1 values are neither 0 nor 1")
    assert "'TP53'" in warning
    assert "700" not in warning
    clean = check_cohort(folder(tmp_path))
    assert not [w for w in clean.warnings if "neither" in w]
