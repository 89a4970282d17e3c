from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from distill.errors import BundleError, FeatureError
from distill.preprocess import (
    BURDEN,
    CLIP,
    IDENTITY,
    LOG,
    QUANTILE,
    SIGNED_LOG,
    TablePreprocessor,
    fit_preprocessor,
)
from distill.table import RawTable, TableSchema, raw_row, raw_table, schema_of


def numbers(values: np.ndarray, names: tuple[str, ...] | None = None) -> RawTable:
    names = names or tuple(f"c{j}" for j in range(values.shape[1]))
    texts = np.empty((len(values), 0), dtype=object)
    return RawTable(schema=TableSchema(numbers=names, texts=()), numbers=values, texts=texts)


def words(values: list[str]) -> RawTable:
    return RawTable(
        schema=TableSchema(numbers=(), texts=("stage",)),
        numbers=np.empty((len(values), 0)),
        texts=np.array(values, dtype=object)[:, None],
    )


def test_median_fills_and_training_rows_are_standardised():
    values = np.array([[1.0], [2.0], [3.0], [np.nan]])
    fitted = fit_preprocessor(numbers(values))
    assert fitted.numbers[0].median == 2.0
    out = fitted.transform(numbers(values))[:, 0]
    assert out[3] == out[1]
    assert abs(out.mean()) < 1e-6
    assert abs(out.std() - 1) < 1e-6


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.random.default_rng(0).standard_normal(400), IDENTITY),
        (np.exp(1.5 * np.random.default_rng(0).standard_normal(400) + 3), LOG),
        (np.exp(np.exp(1.2 * np.random.default_rng(0).standard_normal(400))), QUANTILE),
        (np.r_[-np.expm1(np.linspace(0, 6, 300)), np.linspace(-1, 1, 10)], SIGNED_LOG),
        (np.r_[np.zeros(390), np.ones(10)], IDENTITY),
    ],
)  # fmt: skip
def test_skewed_columns_are_transformed(values, expected):
    fitted = fit_preprocessor(numbers(values[:, None]))
    assert fitted.numbers[0].transform == expected
    assert np.abs(fitted.transform(numbers(values[:, None]))).max() <= CLIP


def test_transforms_keep_the_order_of_values():
    rng = np.random.default_rng(3)
    for values in (np.exp(rng.standard_normal(200) * 3), rng.standard_t(2, 200) ** 3):
        out = fit_preprocessor(numbers(values[:, None])).transform(numbers(values[:, None]))[:, 0]
        assert (np.diff(out[np.argsort(values)]) >= -1e-6).all()


def test_rare_and_unseen_and_missing_words_share_one_feature():
    train = words(["i"] * 10 + ["ii"] * 10 + ["rare"] * 2 + [""] * 3)
    fitted = fit_preprocessor(train)
    assert fitted.feature_names == ("stage=i", "stage=ii", "stage=<unknown>")
    out = fitted.transform(words(["i", "rare", "never seen", ""]))
    assert out.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]


def test_mutation_burden_is_derived_before_selection():
    values = (np.random.default_rng(0).random((50, 12)) < 0.3).astype(float)
    fitted = fit_preprocessor(numbers(values))
    assert fitted.feature_names[-1] == BURDEN
    only = fitted.select([12]).transform(numbers(values))[:, 0]
    assert np.corrcoef(only, np.log1p(values.sum(axis=1)))[0, 1] > 0.999999


def test_column_of_nothing_but_missing_cells_is_harmless():
    values = np.column_stack([np.full(20, np.nan), np.arange(20.0)])
    out = fit_preprocessor(numbers(values)).transform(numbers(values))
    assert np.isfinite(out).all()
    assert (out[:, 0] == 0).all()


def test_json_round_trip_gives_the_same_features():
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.standard_normal(60), np.exp(2 * rng.standard_normal(60)),
                              rng.standard_t(1.2, 60) ** 3])  # fmt: skip
    fitted = fit_preprocessor(numbers(values)).select([2, 0, 1])
    again = TablePreprocessor.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
    assert np.array_equal(again.transform(numbers(values)), fitted.transform(numbers(values)))
    with pytest.raises(BundleError, match=r"preprocess\.json"):
        TablePreprocessor.from_json({"numbers": []})


def test_one_row_from_json_equals_the_same_row_of_a_table():
    frame = pd.DataFrame({"age": [50.0, np.nan, 70.0] * 5, "stage": ["i", None, "ii"] * 5})
    schema = schema_of(frame)
    fitted = fit_preprocessor(raw_table(frame, schema))
    row = raw_row({"stage": "ii", "age": 70}, schema)
    table = fitted.transform(raw_table(frame, schema))
    assert np.array_equal(fitted.transform(row)[0], table[2])
    nothing = fitted.transform(raw_row({}, schema))[0]
    assert np.array_equal(nothing, table[1])


def test_columns_are_found_by_name_and_missing_ones_are_named():
    frame = pd.DataFrame({"b": [1.0, 2.0], "a": [3.0, 4.0], "word": ["x", "y"]})
    schema = schema_of(frame)
    turned = raw_table(frame[["word", "a", "b"]], schema)
    assert np.array_equal(turned.numbers, raw_table(frame, schema).numbers)
    with pytest.raises(FeatureError, match="1 columns are missing: 'a'"):
        raw_table(frame.drop(columns="a"), schema)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"agee": 3}, "Did you mean 'age'"),
        ({"age": "old"}, "a number is expected"),
        ({"age": True}, "is true or false; a number is expected"),
        ({"age": float("inf")}, r"beyond 3\.4e\+38"),
        ({"age": -(10**400)}, r"beyond 3\.4e\+38"),
        ({"age": 1e39}, r"beyond 3\.4e\+38"),
        ({"age": ["x"]}, "neither a number nor null"),
        ({"stage": 3.0}, "a word is expected"),
    ],
)
def test_bad_features_get_one_clear_error(row, message):
    with pytest.raises(FeatureError, match=message):
        raw_row(row, TableSchema(numbers=("age",), texts=("stage",)))


@pytest.mark.parametrize(
    "row",
    [
        {"age": "MRN 4711 Smith"},
        {"MRN 4711 Smith": 1},
        {"age": 4711 * 10**80},
        {"stage": ["MRN 4711 Smith"]},
        {"stage": 4711},
    ],
)
def test_no_message_repeats_what_came(row):
    with pytest.raises(FeatureError) as caught:
        raw_row(row, TableSchema(numbers=("age",), texts=("stage",)))
    assert "4711" not in str(caught.value)
    assert "Smith" not in str(caught.value)


def test_unknown_names_are_counted_and_placed():
    with pytest.raises(FeatureError, match=r"2 of 3 feature names are unknown, the first is numb"):
        raw_row({"age": 1, "x": 2, "y": 3}, TableSchema(numbers=("age",), texts=()))


def test_words_in_a_numeric_column_are_named_by_column_alone():
    frame = pd.DataFrame({"age": ["61", "Smith"], "bmi": [20.0, 30.0]})
    with pytest.raises(FeatureError, match="numbers are expected, in 'age'") as caught:
        raw_table(frame, TableSchema(numbers=("age", "bmi"), texts=()))
    assert "Smith" not in str(caught.value)


def test_spans_are_those_of_the_training_rows_and_survive_json():
    values = np.array([[3.0, np.nan], [1.0, np.nan], [np.nan, np.nan]])
    fitted = fit_preprocessor(numbers(values))
    assert [c.span for c in fitted.numbers] == [(1.0, 3.0), None]
    again = TablePreprocessor.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted


def test_json_of_an_earlier_version_has_no_spans_and_the_same_features():
    values = np.random.default_rng(0).standard_normal((30, 3))
    fitted = fit_preprocessor(numbers(values))
    old = {key: value for key, value in fitted.to_json().items() if key != "spans"}
    again = TablePreprocessor.from_json(old)
    assert not again.spans_known
    assert np.array_equal(again.transform(numbers(values)), fitted.transform(numbers(values)))


def test_a_mutation_that_no_training_patient_has_is_within_the_span():
    values = np.zeros((40, 12))
    values[:5, 0] = 1
    assert {c.span for c in fit_preprocessor(numbers(values)).numbers} == {(0.0, 1.0)}


def test_quality_is_the_share_of_filled_cells():
    frame = pd.DataFrame({"a": [1.0, np.nan], "b": [1.0, 2.0], "w": ["x", None], "v": ["x", "y"]})
    assert raw_table(frame, schema_of(frame)).quality().tolist() == [1.0, 0.5]
