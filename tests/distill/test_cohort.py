from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.cohort import Cohort, read_cohort
from distill.cohort_check import check_cohort
from distill.errors import CohortError

# Its bytes hold the time of writing, so no test is named after them.
CUT_GZIP = gzip.compress(b"case_id,subtype\nc0,A\n" * 50)[:-9]

MANIFEST = """\
name = "small"

[label]
table = "labels.csv"
column = "subtype"
negative = "A"
positive = "B"
group = "hospital"
fold = "fold"
temporal = ["days"]

[modality.clinical]
table = "clinical.csv"
role = "inference"
pipeline = { core_hours = 0.0 }

[modality.genomics]
table = "genomics.csv"
role = "inference"
pipeline = { core_hours = 2.0, memory_gb = 4.0 }

[modality.proteomics]
table = "proteomics.csv"
role = "ignored"
"""
Tables = dict[str, list[list[str]]]
N = 12
AssertSame = Callable[[Cohort, Cohort], None]


def tables() -> Tables:
    """Twelve cases of four hospitals; every third lacks genomics."""
    rows = range(N)
    hospital = [f"h{i % 4}" for i in rows]
    return {
        "labels.csv": [
            ["case_id", "subtype", "hospital", "fold", "days"],
            *([f"c{i}", "AB"[i // 4 % 2], hospital[i], str(i % 4 % 2), str(i)] for i in rows),
        ],
        "clinical.csv": [
            ["case_id", "age", "sex"],
            *([f"c{i}", str(50 + i), ("m", "f", "")[i % 3]] for i in rows),
        ],
        "genomics.csv": [
            ["case_id", "TP53", "KRAS"],
            *([f"c{i}", str(i % 2), "" if i == 4 else "0.5"] for i in rows if i % 3),
        ],
    }


def write(folder: Path, content: Tables, manifest: str = MANIFEST) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cohort.toml").write_text(manifest, encoding="utf-8")
    for name, rows in content.items():
        (folder / name).write_text("\n".join(",".join(row) for row in rows) + "\n")
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small", tables())


def messages(folder: Path) -> list[str]:
    report = check_cohort(folder)
    assert report.clean == (not report.problems)
    return [str(problem) for problem in report.problems]


def test_reads_what_is_there(small: Path) -> None:
    cohort = read_cohort(small)
    assert cohort.n_patients == N
    assert cohort.label.tolist() == [i // 4 % 2 for i in range(N)]
    assert cohort.hospital == cohort.group == tuple(f"h{i % 4}" for i in range(N))
    assert cohort.fold is not None
    assert cohort.fold.tolist() == [i % 4 % 2 for i in range(N)]
    assert cohort.temporal is not None
    assert cohort.temporal["days"].tolist() == list(range(N))
    assert cohort.modalities() == ("clinical", "genomics")
    assert cohort.present("genomics").tolist() == [bool(i % 3) for i in range(N)]
    assert cohort.tables["genomics"].dtypes.tolist() == [np.float64, np.float64]
    assert np.isnan(cohort.tables["genomics"].loc["c4", "KRAS"])
    assert cohort.tables["clinical"]["sex"].tolist()[:3] == ["m", "f", None]
    assert cohort.pipeline("genomics").core_hours == 2.0
    with pytest.raises(CohortError, match="no modality 'radiomics'; it has clinical, genomics"):
        cohort.present("radiomics")


def test_rows_follow_the_label_table(small: Path, assert_same: AssertSame) -> None:
    content = tables()
    content["genomics.csv"][1:] = content["genomics.csv"][:0:-1]
    assert_same(read_cohort(small), read_cohort(write(small.parent / "turned", content)))


def test_subset_by_mask_and_by_indices(small: Path, assert_same: AssertSame) -> None:
    cohort = read_cohort(small)
    mask = cohort.label == 1
    part = cohort.subset(mask)
    assert_same(part, cohort.subset(np.flatnonzero(mask)))
    assert part.case_id == ("c4", "c5", "c6", "c7")
    assert part.tables["genomics"].index.tolist() == ["c4", "c5", "c7"]
    assert part.subset(np.array([2, 0])).tables["clinical"].index.tolist() == ["c6", "c4"]


def test_without_hospitals_each_case_is_its_own(small: Path) -> None:
    write(small, tables(), MANIFEST.replace('group = "hospital"\n', ""))
    cohort = read_cohort(small)
    assert cohort.group == cohort.case_id
    assert any("names no hospital column" in text for text in check_cohort(small).warnings)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_formats_say_the_same(small: Path, suffix: str, assert_same: AssertSame) -> None:
    cohort = read_cohort(small)
    manifest = MANIFEST.replace('.csv"', f'{suffix}"')
    write(small, {}, manifest)
    for name, rows in tables().items():
        target = small / name.replace(".csv", suffix)
        text = (small / name).read_text()
        (small / name).unlink()
        if suffix == ".csv.gz":
            target.write_bytes(gzip.compress(text.encode()))
        elif suffix == ".parquet":
            frame = pd.DataFrame(rows[1:], columns=rows[0])
            for column in set(rows[0]) & {"age", "TP53", "KRAS", "fold", "days"}:
                frame[column] = pd.to_numeric(frame[column])
            frame.to_parquet(target)
        else:
            target.write_text(text)
    assert_same(cohort, read_cohort(small))


def test_byte_order_mark_blank_lines_and_quotes(small: Path) -> None:
    text = (small / "clinical.csv").read_text().replace("\n", "\r\n\r\n").replace("sex", '"sex"')
    (small / "clinical.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_cohort(small).n_patients == N


def test_line_numbers_count_lines_inside_quotes(small: Path) -> None:
    content = tables()
    content["clinical.csv"][1][2] = '"two\nlines"'
    content["clinical.csv"][3][1] = "inf"
    (problem,) = messages(write(small, content))
    assert problem.startswith("clinical.csv, line 5, column 'age': inf is infinite")


CASES: dict[str, tuple[Callable[[Tables], object], str]] = {
    "label": (
        lambda t: t["labels.csv"][3].__setitem__(1, "C"),
        "labels.csv, line 4, column 'subtype': 'C' is not a class; allowed is 'A' or 'B'",
    ),
    "no label": (
        lambda t: t["labels.csv"][3].__setitem__(1, ""),
        "labels.csv, line 4, column 'subtype': the label is missing",
    ),
    "no hospital": (
        lambda t: t["labels.csv"][5].__setitem__(2, "NA"),
        "labels.csv, line 6, column 'hospital': the hospital is missing",
    ),
    "fold": (
        lambda t: t["labels.csv"][2].__setitem__(3, "first"),
        "labels.csv, line 3, column 'fold': 'first' is not a fold",
    ),
    "split hospital": (
        lambda t: t["labels.csv"][5].__setitem__(3, "1"),
        "labels.csv, line 6, column 'fold': fold 1 splits hospital 'h0', which is in fold 0 in "
        "line 2",
    ),
    "one class": (
        lambda t: [row.__setitem__(1, "A") for row in t["labels.csv"][1:]],
        "labels.csv, column 'subtype': no case is 'B'",
    ),
    "time": (
        lambda t: t["labels.csv"][2].__setitem__(4, "soon"),
        "labels.csv, line 3, column 'days': 'soon' is not a number",
    ),
    "stranger": (
        lambda t: t["genomics.csv"].append(["z9", "0", "0"]),
        "genomics.csv, line 10, column 'case_id': no case of labels.csv has this id",
    ),
    "no clinical row": (
        lambda t: t["clinical.csv"].pop(),
        "clinical.csv, column 'case_id': 1 cases of labels.csv have no row here",
    ),
    "empty table": (lambda t: t["genomics.csv"].__delitem__(slice(1, None)), "no rows"),
    "no features": (
        lambda t: t.__setitem__("genomics.csv", [["case_id"], ["c1"]]),
        "genomics.csv: the table has no columns beside 'case_id'",
    ),
    "empty file": (lambda t: t.__setitem__("genomics.csv", []), "genomics.csv: the file is empty"),
    "no key": (
        lambda t: t["genomics.csv"][0].__setitem__(0, "case"),
        "genomics.csv, line 1: there is no column 'case_id'",
    ),
    "twice": (
        lambda t: t["genomics.csv"][0].__setitem__(2, "TP53"),
        "genomics.csv, line 1, column 'TP53': 2 columns have this name",
    ),
    "nameless": (
        lambda t: t["genomics.csv"][0].__setitem__(2, ""),
        "genomics.csv, line 1: column 3 has no name",
    ),
    "short row": (
        lambda t: t["genomics.csv"][2].pop(),
        "genomics.csv, line 3: 2 cells, but the header has 3 columns",
    ),
    "label as feature": (
        lambda t: t["genomics.csv"][0].__setitem__(2, "subtype"),
        "genomics.csv, column 'subtype': the label table's column",
    ),
    "manifest column": (
        lambda t: t["labels.csv"][0].__setitem__(2, "hospitals"),
        "cohort.toml: [label] names the column 'hospital', which labels.csv does not have. "
        "Allowed: subtype, hospitals, fold, days. Did you mean 'hospitals'?",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refuses_and_says_where(small: Path, name: str) -> None:
    corrupt, expected = CASES[name]
    content = tables()
    corrupt(content)
    write(small, content)
    found = messages(small)
    assert any(expected in text for text in found), found
    with pytest.raises(CohortError, match="small/"):
        read_cohort(small)


BAD_NUMBERS = ["abc", "1_0", "1,5", "0x1F", "--3", "true"]
INFINITE = ["inf", "-inf", "Infinity", "1e999"]
MISSING = ["", "NA", "nan", "NaN", "n/a", "NULL", " "]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_one_bad_cell_is_found_where_it_is(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = tables()
    file = data.draw(st.sampled_from(["genomics.csv", "labels.csv", "clinical.csv"]))
    rows = content[file]
    line = data.draw(st.integers(2, len(rows)))
    kind = data.draw(st.sampled_from(["number", "infinite", "no id", "same id", "missing"]))
    column = {"genomics.csv": "KRAS", "labels.csv": "days", "clinical.csv": "age"}[file]
    if kind == "number" and file == "clinical.csv":
        column, kind = "age", "infinite"  # words are allowed there
    if kind in ("no id", "same id"):
        column = "case_id"
        other = data.draw(st.sampled_from([k for k in range(2, len(rows) + 1) if k != line]))
        cell = "" if kind == "no id" else rows[other - 1][0]
        line = line if kind == "no id" else max(line, other)
    else:
        cells = {"number": BAD_NUMBERS, "infinite": INFINITE, "missing": MISSING}[kind]
        cell = data.draw(st.sampled_from(cells))
    place = rows[min(line, len(rows)) - 1]
    if kind == "same id":
        place = next(row for row in rows[1:] if row is rows[line - 1])
        earlier = rows[min(line, other) - 1] if rows[other - 1] is place else rows[other - 1]
        cell = earlier[0] if earlier is not place else rows[1][0]
    place[rows[0].index(column)] = f'"{cell}"'
    folder = write(tmp_path_factory.mktemp("bad") / "small", content)
    found = messages(folder)
    if kind == "missing":
        assert not found
        return
    assert any(text.startswith(f"{file}, line {line}, column '{column}': ") for text in found), (
        found
    )


def test_many_bad_cells_of_a_column_are_one_problem(small: Path) -> None:
    content = tables()
    for row in content["genomics.csv"][2:]:
        row[1] = "mutated"
    assert messages(write(small, content)) == [
        "genomics.csv, line 3, column 'TP53': 'mutated' is not a number (and 6 more in this "
        "column). Write a number with a decimal point, or leave the cell empty."
    ]


def test_all_problems_are_listed_and_none_shows_a_case_id(small: Path) -> None:
    content = tables()
    content["labels.csv"][1][1] = "C"
    content["labels.csv"][2][0] = "c2"
    content["genomics.csv"][1][1] = "x"
    content["genomics.csv"][2][0] = "SECRET-77"
    content["clinical.csv"][0][1] = "fold"
    found = messages(write(small, content))
    assert len(found) >= 5
    assert not any("SECRET-77" in text or "'c2'" in text for text in found)
    with pytest.raises(CohortError, match=rf"\({len(found) - 1} more; 'greenboard cohort check"):
        read_cohort(small)


def test_a_measurement_with_a_word_in_it_is_refused_but_categories_are_not(small: Path) -> None:
    content = tables()
    base = [list(row) for row in content["labels.csv"]]
    for k in range(1, 4):
        for row in base[1:]:
            content["labels.csv"].append([f"{row[0]}x{k}", *row[1:]])
            content["clinical.csv"].append(
                [f"{row[0]}x{k}", str(20 + len(content["clinical.csv"])), "m"]
            )
    content["clinical.csv"][7][1] = "sixty"
    (problem,) = messages(write(small, content))
    assert problem.startswith("clinical.csv, line 8, column 'age': 'sixty' is not a number")
    for row in content["clinical.csv"][1:]:
        row[1] = row[1][-1]
    content["clinical.csv"][7][1] = "x"
    assert not messages(write(small, content))


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("labels.csv", b"\xff\xfe", "not UTF-8"),
        ("labels.csv", b'case_id,subtype\n"c0,A\n', "not valid CSV"),
        ("labels.csv", b"case_id;subtype\nc0;A\n", "separated by commas"),
        ("labels.csv.gz", b"case_id,subtype\n", "not a whole gzip file"),
        pytest.param("labels.csv.gz", CUT_GZIP, "not a whole gzip", id="cut-gzip"),
        ("labels.parquet", b"PAR1 no", "not a readable Parquet file"),
        ("labels.csv", None, "no such file"),
    ],
)
def test_unreadable_tables(small: Path, name: str, data: bytes | None, expected: str) -> None:
    write(small, {}, MANIFEST.replace('"labels.csv"', f'"{name}"'))
    (small / "labels.csv").unlink()
    if data is not None:
        (small / name).write_bytes(data)
    (problem,) = messages(small)
    assert problem.startswith(name)
    assert expected in problem


def test_a_link_out_of_the_folder_is_refused(small: Path) -> None:
    outside = small.parent / "outside.csv"
    (small / "genomics.csv").rename(outside)
    (small / "genomics.csv").symlink_to(outside)
    (problem,) = messages(small)
    assert "leads out of the cohort folder" in problem


def test_parquet_problems_count_rows(small: Path) -> None:
    rows = tables()["genomics.csv"]
    frame = pd.DataFrame(rows[1:], columns=rows[0])
    frame["KRAS"] = [0.5, np.inf, *[np.nan] * (len(frame) - 2)]
    frame["TP53"] = pd.array([True] * len(frame))
    frame.to_parquet(small / "genomics.parquet")
    write(small, {}, MANIFEST.replace("genomics.csv", "genomics.parquet"))
    (problem,) = messages(small)
    assert problem.startswith("genomics.parquet, row 2, column 'KRAS': inf is infinite")


def test_ignored_tables_are_not_opened(small: Path) -> None:
    (small / "proteomics.csv").write_text("this is no table")
    assert check_cohort(small).clean
    assert "proteomics" not in read_cohort(small).tables


def test_warns_of_confounded_hospitals(small: Path) -> None:
    content = tables()
    for row in content["labels.csv"][1:]:
        row[1] = "A" if row[2] in ("h0", "h1") else "B"
    report = check_cohort(write(small, content))
    assert report.clean
    assert any("No hospital contributed both classes" in text for text in report.warnings)


def test_warns_of_a_single_fold(small: Path) -> None:
    content = tables()
    for row in content["labels.csv"][1:]:
        row[3] = "3"
    assert any("not for training" in text for text in check_cohort(write(small, content)).warnings)
