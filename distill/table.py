"""One modality's raw values as two plain arrays: numbers and words.

Preprocessing, the teachers' synthetic rows and the serving runtime all work on this form, so that
a data frame of a cohort and the JSON of a single case go through the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Float64, Int, Shaped

from distill.errors import FeatureError

if TYPE_CHECKING:
    import pandas as pd

MISSING_TEXT = ""
MAX_NUMBER = float(np.finfo(np.float32).max)
"""The largest magnitude of a number: features are float32 in the end."""
SHOWN = 8
PLAIN = frozenset({float, int, type(None), np.float64})
"""Types of numbers that need no second look; true and false are of neither."""


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """The columns of one modality, numbers and words apart, each in a fixed order."""

    numbers: tuple[str, ...]
    texts: tuple[str, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """All column names."""
        return self.numbers + self.texts

    @cached_property
    def known(self) -> frozenset[str]:
        """The same, to look names up in."""
        return frozenset(self.columns)


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """Raw values of some patients in one modality.

    Attributes:
        schema: names and order of the columns.
        numbers: NaN where a cell is missing.
        texts: strings; the empty string where a cell is missing.
    """

    schema: TableSchema
    numbers: Float64[np.ndarray, "rows numbers"]
    texts: Shaped[np.ndarray, "rows texts"]

    def __len__(self) -> int:
        return int(self.numbers.shape[0])

    def take(self, rows: Int[np.ndarray, " chosen"]) -> RawTable:
        """These rows, in this order."""
        return RawTable(schema=self.schema, numbers=self.numbers[rows], texts=self.texts[rows])

    def filled(self) -> Int[np.ndarray, " rows"]:
        """How many cells are filled in, per patient; with none, the patient lacks the modality."""
        numbers = np.isfinite(self.numbers).sum(axis=1)
        return np.asarray(numbers + (self.texts != MISSING_TEXT).sum(axis=1))

    def quality(self) -> Float32[np.ndarray, " rows"]:
        """Share of the cells that are filled in, per patient."""
        filled = self.filled()
        return np.asarray(filled / max(len(self.schema.columns), 1), dtype=np.float32)


def schema_of(frame: pd.DataFrame) -> TableSchema:
    """Tell numbers from words by the column types of a cohort's table."""
    numeric = [bool(kind in "biuf") for kind in (dtype.kind for dtype in frame.dtypes)]
    names = [str(name) for name in frame.columns]
    return TableSchema(
        numbers=tuple(name for name, is_number in zip(names, numeric) if is_number),
        texts=tuple(name for name, is_number in zip(names, numeric) if not is_number),
    )


def _as_text(value: object) -> str:
    # NaN is the only value that differs from itself; data frames use it for missing words too.
    if value is None or value != value:  # noqa: PLR0124
        return MISSING_TEXT
    return str(value).strip()


def _numbers(frame: pd.DataFrame, names: tuple[str, ...]) -> Float64[np.ndarray, "rows numbers"]:
    try:
        numbers = frame[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        # The error's own words repeat a patient's value, so the column is looked for instead.
        wordy = [name for name in names if frame[name].dtype.kind not in "biuf"]
        raise FeatureError(
            f"Words stand where numbers are expected, in {_names(wordy)}. Write numbers, or leave "
            "the cells empty."
        ) from error
    return np.asarray(numbers).reshape(len(frame), len(names))


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def raw_table(frame: pd.DataFrame, schema: TableSchema) -> RawTable:
    """Read the schema's columns out of a data frame, whatever their order there.

    Raises:
        FeatureError: if columns are missing, or words stand where numbers are expected.
    """
    have = {str(name) for name in frame.columns}
    lacking = [name for name in schema.columns if name not in have]
    if lacking:
        raise FeatureError(
            f"{len(lacking)} columns are missing: {_names(lacking)}. Add them (empty cells are "
            "allowed)."
        )
    by_name = frame.set_axis([str(name) for name in frame.columns], axis=1)
    words = by_name[list(schema.texts)].to_numpy(dtype=object)
    texts = np.array([[_as_text(v) for v in row] for row in words], dtype=object)
    return RawTable(
        schema=schema,
        numbers=_numbers(by_name, schema.numbers),
        texts=texts.reshape(len(frame), len(schema.texts)),
    )


def as_number(name: str, value: object) -> float:
    """One number of a case, NaN for None; no message repeats a value, which may be anything.

    Raises:
        FeatureError: if it is no number, or beyond float32.
    """
    if value is None:
        return float("nan")
    if isinstance(value, (bool, np.bool_)):
        raise FeatureError(
            f"Feature {name!r} is true or false; a number is expected (0 or 1 for a flag, null "
            "where it is unknown)."
        )
    if not isinstance(value, (int, float, np.integer, np.floating)):
        came = "a word" if isinstance(value, str) else "neither a number nor null"
        raise FeatureError(
            f"Feature {name!r} is {came}; a number is expected (or null where it is unknown)."
        )
    number = value if isinstance(value, (int, float)) else value.item()
    if abs(number) > MAX_NUMBER:  # infinity, and whole numbers too long for any float, as well
        raise FeatureError(
            f"Feature {name!r} is beyond {MAX_NUMBER:.1e}; write a number of that magnitude at "
            "most, or null where it is unknown."
        )
    return float(number)


def _as_word(name: str, value: object) -> str:
    if value is not None and value == value and not isinstance(value, str):  # noqa: PLR0124
        raise FeatureError(f"Feature {name!r} is not a word; a word is expected (or null).")
    return _as_text(value)


def refuse_unknown(sent: Sequence[str], known: Sequence[str], what: str) -> None:
    """Refuse names that are not known, without repeating them: they may be a patient's values.

    Raises:
        FeatureError: with how many there are, where the first stands, and the nearest known name.
    """
    allowed = set(known)
    places = [i for i, name in enumerate(sent, start=1) if name not in allowed]
    if not places:
        return
    near = get_close_matches(sent[places[0] - 1], known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise FeatureError(
        f"{len(places)} of {len(sent)} {what} names are unknown, the first is number "
        f"{places[0]}.{hint} Known are {_names(list(known))}."
    )


def _row_numbers(row: Mapping[str, object], schema: TableSchema) -> Float64[np.ndarray, " numbers"]:
    """All numbers at once where nothing is the matter with any, else one by one, to say which."""
    values = [row.get(name) for name in schema.numbers]
    if set(map(type, values)) <= PLAIN:
        try:
            numbers = np.array(values, dtype=np.float64)
        except OverflowError:  # a whole number too long for any float
            numbers = np.array([np.inf])
        if not (np.abs(numbers) > MAX_NUMBER).any():
            return numbers
    each = [as_number(name, value) for name, value in zip(schema.numbers, values)]
    return np.array(each, dtype=np.float64)


def raw_row(row: Mapping[str, object], schema: TableSchema) -> RawTable:
    """Read one patient's features by name; names that are left out count as missing.

    Raises:
        FeatureError: for an unknown name (with the nearest known one) or a value of a wrong type.
    """
    if not row.keys() <= schema.known:
        refuse_unknown(list(row), schema.columns, "feature")
    texts = [_as_word(name, row.get(name)) for name in schema.texts]
    return RawTable(
        schema=schema,
        numbers=_row_numbers(row, schema).reshape(1, len(schema.numbers)),
        texts=np.array([texts], dtype=object).reshape(1, len(schema.texts)),
    )
