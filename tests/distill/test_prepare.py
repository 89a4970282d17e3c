"""Preparing a case quickly gives what preparing it column by column gives."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from distill.cautions import MARGIN, limits, outside_range
from distill.errors import FeatureError
from distill.preprocess import BURDEN, CLIP, UNKNOWN, TablePreprocessor, _apply, fit_preprocessor
from distill.table import RawTable, TableSchema, raw_row

RNG = np.random.default_rng(3)


def mixed(rows: int) -> RawTable:
    """Plain, skewed, very skewed and negative numbers, words, and empty cells of all of them."""
    plain = RNG.standard_normal((rows, 3))
    numbers = np.column_stack([
        plain, np.exp(1.5 * plain[:, :2] + 3), np.exp(np.exp(1.2 * plain[:, 1:])),
        -np.expm1(6 * RNG.random((rows, 2))),
    ])  # fmt: skip
    numbers[RNG.random(numbers.shape) < 0.1] = np.nan
    words = RNG.choice(np.array(["", "a", "b", "c", "rare"], dtype=object), (rows, 2),
                       p=[0.1, 0.4, 0.3, 0.19, 0.01])  # fmt: skip
    names = tuple(f"n{j}" for j in range(numbers.shape[1]))
    schema = TableSchema(numbers=names, texts=("t0", "t1"))
    return RawTable(schema=schema, numbers=numbers, texts=words)


def by_definition(fitted: TablePreprocessor, raw: RawTable) -> np.ndarray:
    """Every kept feature by itself, as the class describes it."""
    out = []
    for i in fitted.selected:
        name = fitted.encoded_names[i]
        if i < len(fitted.numbers):
            column = fitted.numbers[i]
            v = raw.numbers[:, i]
            v = _apply(column, np.where(np.isfinite(v), v, column.median))
            out.append(np.clip((v - column.mean) / column.scale, -CLIP, CLIP))
        elif name == BURDEN:
            mean, scale = fitted.burden or (0.0, 1.0)
            count = np.log1p(np.nansum(raw.numbers, axis=1))
            out.append(np.clip((count - mean) / scale, -CLIP, CLIP))
        elif name.startswith("family:"):
            family = next(f for f in fitted.families if f.feature == name)
            out.append(np.clip(family.scaled(raw.numbers), -CLIP, CLIP))
        else:
            owner, word = name.split("=")
            j = [c.name for c in fitted.texts].index(owner)
            known = fitted.texts[j].words
            cells = raw.texts[:, j]
            hit = [c not in known if word == UNKNOWN else c == word for c in cells]
            out.append(np.array(hit, dtype=np.float64))
    return np.stack(out, axis=1).astype(np.float32)


@pytest.mark.parametrize("share", [1.0, 0.4, 0.0])
def test_mixed_columns_equal_their_definition_bit_for_bit(share: float):
    raw = mixed(300)
    fitted = fit_preprocessor(raw)
    kept = [i for i in fitted.selected if RNG.random() < share] or [len(fitted.numbers)]
    chosen = fitted.select(kept)
    assert {c.transform for c in fitted.numbers} == {"identity", "log1p", "signed_log1p",
                                                     "quantile"}  # fmt: skip
    whole = chosen.transform(raw)
    assert np.array_equal(whole, by_definition(chosen, raw))
    again = TablePreprocessor.from_json(chosen.to_json())
    rows = [again.transform(raw.take(np.array([i])))[0] for i in range(40)]
    assert np.array_equal(np.array(rows), whole[:40])


def test_mutations_with_burden_and_families_equal_their_definition_bit_for_bit():
    names = tuple(f"KMT{j}A" for j in range(6)) + tuple(f"GENE{j}" for j in range(8))
    cells = (RNG.random((200, len(names))) < 0.3).astype(np.float64)
    cells[RNG.random(cells.shape) < 0.02] = np.nan
    raw = RawTable(
        schema=TableSchema(numbers=names, texts=()), numbers=cells,
        texts=np.empty((200, 0), dtype=object),
    )  # fmt: skip
    fitted = fit_preprocessor(raw)
    assert fitted.families
    for keep in (fitted.selected, fitted.selected[::3], (len(fitted.encoded_names) - 1,)):
        chosen = fitted.select(keep)
        assert np.array_equal(chosen.transform(raw), by_definition(chosen, raw))


SCHEMA = TableSchema(numbers=("a", "b"), texts=())


@pytest.mark.parametrize(
    "value",
    [3, 3.5, np.float64(3.5), np.float32(3.5), np.int64(-2), None, float("nan"), 10**30, -0.0],
)
def test_every_kind_of_number_is_read_as_before(value: object):
    expected = math.nan if value is None else float(value)  # type: ignore[arg-type]
    got = raw_row({"a": value, "b": 1}, SCHEMA).numbers
    assert got.shape == (1, 2)
    np.testing.assert_array_equal(got, [[expected, 1.0]])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "is true or false"),
        (np.True_, "is true or false"),
        ("3", "is a word"),
        ([3], "is neither a number nor null"),
        (float("inf"), "is beyond"),
        (-(10**39), "is beyond"),
        (10**400, "is beyond"),
        (1e39, "is beyond"),
        (np.float64("-inf"), "is beyond"),
    ],
)
def test_every_wrong_value_is_still_told_by_name(value: object, words: str):
    with pytest.raises(FeatureError, match=f"Feature 'a' {words}"):
        raw_row({"a": value, "b": 1}, SCHEMA)


def test_limits_by_column():
    spans = np.array([[0.0, 1.0], [0.0, 10.0], [2.0, 4.0], [-1.0, 1.0], [np.inf, -np.inf]])
    low, high = limits(spans)
    np.testing.assert_array_equal(low, [0.0, 0.0, 2 - MARGIN * 2, -1 - MARGIN * 2, np.inf])
    np.testing.assert_array_equal(
        high, [1.0, 10 + MARGIN * 10, 4 + MARGIN * 2, 1 + MARGIN * 2, -np.inf]
    )


def test_numbers_outside_the_training_range_are_counted():
    table = mixed(60)
    fitted = fit_preprocessor(table)
    row = np.array([3])
    assert outside_range(table.take(row), fitted) == (0, int(np.isfinite(table.numbers[3]).sum()))
    strange = table.take(row)
    strange.numbers[0, :3] = fitted.spans[:3, 1] + 1e-3
    strange.numbers[0, 3:] = np.nan
    assert outside_range(strange, fitted) == (3, 3)
    assert outside_range(strange, replace(fitted, spans_known=False)) is None
    strange.numbers[0, :] = np.nan
    assert outside_range(strange, fitted) is None
