from __future__ import annotations

import json

import numpy as np
import pytest

from distill.families import MIN_MEMBERS, PREFIX, families_of, roots
from distill.preprocess import BURDEN, TablePreprocessor, fit_preprocessor
from distill.table import RawTable, TableSchema

NAMES = ("COL1A2", "COL3A1", "COL5A1", "COL9A1", "PCDH7", "PCDH9", "PCDHB7", "PCDHA1", "TP53",
         "KRAS", "TTN", "MUC16")  # fmt: skip


def table(values: np.ndarray) -> RawTable:
    return RawTable(
        schema=TableSchema(numbers=NAMES, texts=()), numbers=values.astype(np.float64),
        texts=np.empty((len(values), 0), dtype=object),
    )  # fmt: skip


def mutations(rows: int = 60) -> np.ndarray:
    return (np.random.default_rng(0).random((rows, len(NAMES))) < 0.3).astype(np.float64)


def test_roots_are_the_leading_letters():
    assert roots("COL1A2") == ("COL",)
    assert roots("PCDHB7") == ("PCD", "PCDH")
    assert roots("F8") == ()
    assert roots("7SK") == ()


def test_families_need_four_members_and_are_named_once():
    found = families_of(NAMES, mutations())
    assert [f.name for f in found] == ["COL", "PCD"]
    assert [f.columns for f in found] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert families_of(NAMES[: MIN_MEMBERS - 1], mutations()[:, : MIN_MEMBERS - 1]) == ()


def test_a_family_is_the_scaled_log_of_its_count():
    values = mutations()
    count = np.log1p(values[:, :4].sum(axis=1))
    expected = (count - count.mean()) / count.std()
    assert families_of(NAMES, values)[0].scaled(values) == pytest.approx(expected)
    holes = values.copy()
    holes[values == 0] = np.nan
    assert families_of(NAMES, values)[0].scaled(holes) == pytest.approx(expected)


def test_preprocessing_derives_them_between_the_words_and_the_burden():
    raw = table(mutations())
    fitted = fit_preprocessor(raw)
    assert fitted.feature_names[-3:] == (PREFIX + "COL", PREFIX + "PCD", BURDEN)
    only = fitted.select([len(NAMES)])
    assert only.reads_numbers.tolist() == [True] * 4 + [False] * 8
    again = TablePreprocessor.from_json(json.loads(json.dumps(only.to_json())))
    assert again == only
    assert np.array_equal(again.transform(raw), fitted.transform(raw)[:, [len(NAMES)]])


def test_bundles_written_before_there_were_families_still_read():
    fitted = fit_preprocessor(table(mutations()))
    old = {key: value for key, value in fitted.to_json().items() if key != "families"}
    old["selected"] = [0, len(NAMES)]
    again = TablePreprocessor.from_json(old)
    assert again.families == ()
    assert again.feature_names == (NAMES[0], BURDEN)


def test_families_of_other_tables_are_left_out():
    assert fit_preprocessor(table(mutations() * 2.5)).families == ()
