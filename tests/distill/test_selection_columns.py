"""Relevance and redundancy of columns: right by another's count, blind to the scored hospitals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score

from distill.cohort import Cohort
from distill.errors import CohortError
from distill.selection.classical import GreedySolver
from distill.selection.columns import column_problem
from distill.selection.information import MISSING, binned, coded_words, scores
from distill.selection.problem import SelectionError


def entropy(codes: np.ndarray) -> float:
    return float(mutual_info_score(codes, codes))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(20, 60))
def test_shares_agree_with_another_count(seed: int, rows: int) -> None:
    """scikit-learn's plug-in estimate less Miller and Madow's bias, pair by pair."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(-1, width, rows) for width in (2, 3, 5)], axis=1)
    codes[:, 2] = np.where(rng.random(rows) < 0.7, codes[:, 1], codes[:, 2])
    label = rng.integers(0, 2, rows)
    label[:2] = 0, 1
    found = scores(codes, label)

    def share(a: np.ndarray, b: np.ndarray, scale: float) -> float:
        cells = len({*zip(a.tolist(), b.tolist())})
        bias = (cells - np.unique(a).size - np.unique(b).size + 1) / (2 * rows)
        plain = mutual_info_score(a, b)
        return min(max(plain - bias, 0.0) / max(scale, 1e-6), 1.0)

    for i in range(3):
        expected = share(codes[:, i], label, entropy(label))
        assert found.relevance[i] == pytest.approx(expected, abs=1e-5)
        for j in range(i):
            scale = (entropy(codes[:, i]) * entropy(codes[:, j])) ** 0.5
            expected = share(codes[:, i], codes[:, j], scale)
            assert found.redundancy[i, j] == pytest.approx(expected, abs=1e-5)
    np.testing.assert_array_equal(found.redundancy, found.redundancy.T)


def test_a_copy_of_the_label_is_wholly_relevant_and_a_copy_of_a_column_wholly_redundant() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200)
    noise = rng.integers(0, 4, 200)
    found = scores(np.stack([label, noise, 3 - noise, np.zeros(200, int)], axis=1), label)
    assert found.relevance[0] == pytest.approx(1.0, abs=0.01)
    assert found.relevance[1] < 0.02
    assert found.redundancy[1, 2] == pytest.approx(1.0, abs=0.04)
    # A constant column says nothing and repeats nothing.
    assert found.relevance[3] == 0.0
    assert not found.redundancy[3].any()


def test_bins_have_equal_mass_and_keep_missing_and_few_values_apart() -> None:
    values = np.stack([np.arange(100.0), np.repeat([0.0, 1.0], 50)], axis=1)
    values[:10, 0] = np.nan
    codes = binned(values, bins=5)
    np.testing.assert_array_equal(np.unique(codes[:, 0], return_counts=True)[1], [10] + [18] * 5)
    assert (codes[:10, 0] == MISSING).all()
    np.testing.assert_array_equal(codes[:, 1], values[:, 1])
    # What only grows gives the same bins: scale and skewness do not matter.
    np.testing.assert_array_equal(codes[:, 0], binned(np.exp(values / 9.0), bins=5)[:, 0])


def test_rare_words_share_a_code() -> None:
    words = pd.DataFrame({"stage": ["i"] * 5 + ["ii"] * 3 + ["iii"] * 2 + ["iv", None]})
    np.testing.assert_array_equal(
        coded_words(words, most=3)[:, 0], [0] * 5 + [1] * 3 + [2] * 3 + [MISSING]
    )


def everyone_but(cohort: Cohort, fold: int) -> np.ndarray:
    assert cohort.fold is not None
    return np.asarray(cohort.fold != fold)


def test_it_finds_the_columns_that_carry_the_label(tiny_cohort: Cohort) -> None:
    problem = column_problem(tiny_cohort, "pathology", 1, train=everyone_but(tiny_cohort, 4))
    assert GreedySolver().solve(problem, np.random.default_rng(0)).names == ("area 0",)
    words = column_problem(tiny_cohort, "clinical", 2, train=everyone_but(tiny_cohort, 4))
    assert set(words.names) == {"age", "stage"}
    assert (words.relevance > 0).all()


def test_the_scored_hospitals_change_nothing(
    tiny_cohort: Cohort, make_cohort: Callable[..., Cohort]
) -> None:
    """Planted leak: labels and values of the left-out fold; and the control, that it would tell."""
    train = everyone_but(tiny_cohort, 4)
    before = column_problem(tiny_cohort, "genomics", 5, train=train)
    label = np.where(train, tiny_cohort.label, 1 - tiny_cohort.label).astype(np.int8)
    frame = tiny_cohort.tables["genomics"].copy()
    inside = dict(zip(tiny_cohort.case_id, train))
    scored = np.array([not inside[case] for case in frame.index])
    truth = dict(zip(tiny_cohort.case_id, label))
    # A column that gives the answer away, in the scored hospitals alone.
    frame.loc[scored, "G29"] = [float(truth[case]) for case in frame.index[scored]]
    leaky = replace(tiny_cohort, label=label, tables={**tiny_cohort.tables, "genomics": frame})
    after = column_problem(leaky, "genomics", 5, train=train)
    np.testing.assert_array_equal(before.relevance, after.relevance)
    np.testing.assert_array_equal(before.redundancy, after.redundancy)
    seen = column_problem(leaky, "genomics", 5, train=~train)
    assert seen.names[int(np.argmax(seen.relevance))] == "G29"


def test_preselection_keeps_the_most_relevant(tiny_cohort: Cohort) -> None:
    train = everyone_but(tiny_cohort, 4)
    whole = column_problem(tiny_cohort, "genomics", 3, train=train)
    some = column_problem(tiny_cohort, "genomics", 3, train=train, preselect=8)
    assert some.n == 8
    assert some.relevance.min() >= np.sort(whole.relevance)[-8] - 1e-12


def test_bad_requests_are_refused(tiny_cohort: Cohort) -> None:
    train = everyone_but(tiny_cohort, 4)
    with pytest.raises(SelectionError, match="k is 31; choose 1 to 30"):
        column_problem(tiny_cohort, "genomics", 31, train=train)
    with pytest.raises(SelectionError, match="9 columns cannot be chosen out of 8 preselected"):
        column_problem(tiny_cohort, "genomics", 9, train=train, preselect=8)
    with pytest.raises(SelectionError, match=r"trade_off is -1\.0; use 0"):
        column_problem(tiny_cohort, "genomics", 3, train=train, trade_off=-1.0)
    with pytest.raises(CohortError, match="no modality 'radiomics'"):
        column_problem(tiny_cohort, "radiomics", 2, train=train)
    with pytest.raises(SelectionError, match="of the smaller class"):
        column_problem(tiny_cohort, "genomics", 2, train=train & (tiny_cohort.label == 0))
