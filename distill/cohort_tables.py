"""Tables of a cohort folder as they stand on disk: CSV, CSV.gz or Parquet, with line numbers."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float64, Int64

from distill.cohort_problems import Problem, Problems, suggest
from distill.manifest import CASE_ID
from distill.table import MAX_NUMBER

MISSING_TOKENS = frozenset({"", "na", "n/a", "nan", "null"})
"""Cells (after lower-casing) that say that a value is missing; leaving the cell empty is best."""
PANDAS_INDEX = "__index_level_"
_MEASUREMENT_DISTINCT = 20
_MEASUREMENT_SHARE = 0.9

Column = np.ndarray
"""One column of a raw table: an object array of stripped text, or float64 (Parquet numbers)."""


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """A table before any meaning is given to its cells.

    Attributes:
        file: its name inside the folder.
        row_word: ``"line"`` for CSV, ``"row"`` for Parquet.
        lines: where each row stands in the file, int64[rows].
        case_id: text of the key column; an empty string where it is missing.
        columns: every other column in file order, text or float64.
    """

    file: str
    row_word: str
    lines: Int64[np.ndarray, " rows"]
    case_id: tuple[str, ...]
    columns: dict[str, Column]

    def problem(self, message: str, row: int | None = None, column: str | None = None) -> Problem:
        """A problem at a row of this table (0-based) and a column."""
        line = None if row is None else int(self.lines[row])
        return Problem(
            file=self.file, message=message, line=line, column=column, row_word=self.row_word
        )


def is_missing(cell: str) -> bool:
    """Whether a text cell says that the value is missing."""
    return cell.lower() in MISSING_TOKENS


def read_table(folder: Path, file: str, problems: Problems) -> RawTable | None:
    """Read one table; what makes it unreadable is added to ``problems``, and then it is None."""
    path = folder / file
    read = _read_parquet if file.lower().endswith(".parquet") else _read_csv
    try:
        if path.resolve().is_relative_to(folder.resolve()):
            return read(path, file, problems)
        message = "this link leads out of the cohort folder. Put the table itself there."
    except (OSError, ValueError, EOFError, zlib.error, pa.ArrowException) as error:
        message = _why_unreadable(error)
    problems.add(Problem(file=file, message=message))
    return None


def _why_unreadable(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "no such file, but cohort.toml names it. Add the table or correct the name."
        case IsADirectoryError():
            return "this is a folder, not a table. Correct the name in cohort.toml."
        case UnicodeDecodeError():
            return f"not UTF-8 text (byte {error.start}). Save the table as UTF-8."
        case gzip.BadGzipFile() | EOFError() | zlib.error():
            return f"not a whole gzip file: {error}. Compress it again."
        case pa.ArrowException():
            return f"not a readable Parquet file: {error}. Write it again."
        case _:
            return f"cannot be read: {error}. Check the file."


def _open_text(path: Path) -> io.TextIOWrapper:
    # utf-8-sig: spreadsheets put a byte-order mark in front of the first column's name.
    if path.name.lower().endswith(".gz"):
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_csv(path: Path, file: str, problems: Problems) -> RawTable | None:
    before = len(problems)
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    with _open_text(path) as handle:
        reader = csv.reader(handle, strict=True)
        line = 1
        try:
            for cells in reader:
                if not header:
                    header = [cell.strip() for cell in cells]
                elif len(cells) == len(header):
                    rows.append(cells)
                    lines.append(line)
                elif cells:  # a blank line is no row
                    message = f"{len(cells)} cells, but the header has {len(header)} columns."
                    message += " Add or remove commas, or quote cells that hold one."
                    problems.add(Problem(file=file, line=line, message=message))
                line = reader.line_num + 1
        except csv.Error as error:
            message = f"not valid CSV: {error}. Correct the quoting there."
            problems.add(Problem(file=file, line=reader.line_num, message=message))
    if not _header_is_good(header, file, problems) or len(problems) > before:
        return None
    columns = {
        name: np.array([cells[i].strip() for cells in rows], dtype=object)
        for i, name in enumerate(header)
    }
    key = columns.pop(CASE_ID)
    return RawTable(
        file=file,
        row_word="line",
        lines=np.array(lines, dtype=np.int64),
        case_id=tuple("" if is_missing(cell) else cell for cell in key),
        columns=columns,
    )


def _header_is_good(header: Sequence[str], file: str, problems: Problems) -> bool:
    before = len(problems)
    if not header:
        message = "the file is empty. Its first line must name the columns, case_id among them."
        problems.add(Problem(file=file, message=message))
        return False
    for name in dict.fromkeys(header):
        if not name:
            message = f"column {header.index(name) + 1} has no name. Name it or remove it."
            problems.add(Problem(file=file, line=1, message=message))
        elif header.count(name) > 1:
            message = f"{header.count(name)} columns have this name. Rename or remove all but one."
            problems.add(Problem(file=file, line=1, column=name, message=message))
    if CASE_ID not in header:
        message = f"there is no column {CASE_ID!r}. {suggest(CASE_ID, header)} Rename the key."
        if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
            message = "one column only: the cells must be separated by commas."
        problems.add(Problem(file=file, line=1, message=message))
    return len(problems) == before


def _read_parquet(path: Path, file: str, problems: Problems) -> RawTable | None:
    table = pq.ParquetFile(path).read()
    # pandas writes a nameless index as a column of its own: an ordinal, never a feature.
    names = [name for name in table.column_names if not name.startswith(PANDAS_INDEX)]
    if not _header_is_good(names, file, problems):
        return None
    columns = {name: _arrow_column(table.column(name)) for name in names if name != CASE_ID}
    key = _arrow_text(table.column(CASE_ID))
    return RawTable(
        file=file,
        row_word="row",
        lines=np.arange(1, table.num_rows + 1, dtype=np.int64),
        case_id=tuple("" if is_missing(cell) else cell for cell in key),
        columns=columns,
    )


def _arrow_column(column: pa.ChunkedArray) -> Column:
    kind = column.type
    if pa.types.is_boolean(kind):
        column, kind = column.cast(pa.int8()), pa.int8()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.asarray(values, dtype=np.float64)
    return _arrow_text(column)


def _arrow_text(column: pa.ChunkedArray) -> Column:
    cells = ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]
    return np.array(cells, dtype=object)


def as_text(column: Column) -> list[str]:
    """A column's cells as text, an empty string where missing; whole numbers without a point."""
    if column.dtype == np.float64:
        return ["" if math.isnan(v) else f"{v:.17g}" for v in column]
    return ["" if is_missing(cell) else cell for cell in column]


def _parse(cell: str) -> float | None:
    # float() also takes '1_000', which no other reader of the table would.
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def as_numbers(table: RawTable, name: str, problems: Problems) -> Float64[np.ndarray, " rows"]:
    """A numeric column as float64, NaN where missing.

    Text cells and numbers too large for float32 are added to ``problems``: the first one with
    its line, and how many.
    """
    column = table.columns[name]
    values, bad = _convert(column)
    if bad.size:
        message = f"{column[bad[0]]!r} is not a number{_and_more(bad.size)}. Write a number with "
        message += "a decimal point, or leave the cell empty."
        problems.add(table.problem(message, int(bad[0]), name))
    _refuse_too_large(table, name, values, problems)
    return values


def as_feature(table: RawTable, name: str, problems: Problems) -> Column:
    """A column of a table that may hold text: float64 if its cells are numbers, else text.

    Text columns are object arrays with ``None`` where missing. A column of many different
    numbers with a few words in it is a measurement with typing errors, which is a problem:
    read as categories, it would lose its order.
    """
    column = table.columns[name]
    values, bad = _convert(column)
    distinct = np.unique(values[~np.isnan(values)])
    if not bad.size:
        _refuse_too_large(table, name, values, problems)
        return values
    n_numbers = int((~np.isnan(values)).sum())
    mostly = n_numbers >= _MEASUREMENT_SHARE * (n_numbers + bad.size)
    if mostly and distinct.size > _MEASUREMENT_DISTINCT:
        message = f"{column[bad[0]]!r} is not a number{_and_more(bad.size)}, and the other "
        message += f"{n_numbers} cells are. Write a number or leave the cell empty."
        problems.add(table.problem(message, int(bad[0]), name))
    return np.array([None if is_missing(cell) else cell for cell in column], dtype=object)


def _convert(column: Column) -> tuple[np.ndarray, np.ndarray]:
    if column.dtype == np.float64:
        return column, np.array([], dtype=np.int64)
    if "_" not in "".join(column):
        # The usual case in one pass: numbers and empty cells only.
        with contextlib.suppress(ValueError):
            filled = np.where(column == "", "nan", column)
            return filled.astype(np.float64), np.array([], dtype=np.int64)
    parsed = [math.nan if is_missing(cell) else _parse(cell) for cell in column]
    bad = np.array([i for i, value in enumerate(parsed) if value is None], dtype=np.int64)
    values = np.array([math.nan if value is None else value for value in parsed], dtype=np.float64)
    return values, bad


def _refuse_too_large(table: RawTable, name: str, values: np.ndarray, problems: Problems) -> None:
    rows = np.flatnonzero(np.abs(values) > MAX_NUMBER)
    if rows.size:
        came = values[rows[0]]
        why = "is infinite" if np.isinf(came) else f"is beyond {MAX_NUMBER:.1e} (float32)"
        message = f"{came} {why}{_and_more(rows.size)}. Write the number that was measured, or "
        message += "leave the cell empty."
        problems.add(table.problem(message, int(rows[0]), name))


def _and_more(count: int) -> str:
    return f" (and {count - 1} more in this column)" if count > 1 else ""
