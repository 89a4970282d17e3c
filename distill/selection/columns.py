"""Which columns of a cohort's table to keep: the problem, from training hospitals alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from distill.cohort import Cohort
from distill.selection.information import BINS, Scores, binned, coded_words, scores
from distill.selection.problem import SelectionError, SelectionProblem, mrmr_problem
from distill.table import schema_of

MIN_ROWS = 20


def column_problem(
    cohort: Cohort,
    modality: str,
    k: int,
    *,
    train: Bool[np.ndarray, " patients"],
    preselect: int | None = None,
    trade_off: float = 1.0,
    bins: int = BINS,
) -> SelectionProblem:
    """Choose k columns of one modality by mutual information with the label.

    Only the training patients who have the modality are looked at: neither values nor labels of
    any other patient can change the problem.

    Args:
        cohort: the patients.
        modality: whose columns.
        k: how many.
        train: who may be looked at; leave out whole hospitals.
        preselect: keep only so many columns first, by relevance; None keeps all.
        trade_off: weight of the mean redundancy against the mean relevance.
        bins: bins of equal mass of a numeric column.

    Raises:
        CohortError: if the cohort has no such modality.
        SelectionError: if k is out of range, or the patients are too few or of one class.
    """
    rows = train & cohort.present(modality)
    label = cohort.label[rows].astype(np.int64)
    smallest = int(np.bincount(label, minlength=2).min())
    if label.size < MIN_ROWS or not smallest:
        raise SelectionError(
            f"{label.size} training patients have {modality!r}, {smallest} of the smaller class; "
            f"at least {MIN_ROWS}, and both classes, are needed."
        )
    names, found = _column_scores(cohort.subset(rows), modality, bins)
    keep = np.arange(len(names))
    if preselect is not None and preselect < len(names):
        if preselect < max(k, 1):
            raise SelectionError(f"{k} columns cannot be chosen out of {preselect} preselected.")
        keep = np.sort(np.argsort(-found.relevance, kind="stable")[:preselect])
    return mrmr_problem(
        [names[i] for i in keep], found.relevance[keep], found.redundancy[np.ix_(keep, keep)],
        k, trade_off,
    )  # fmt: skip


def _column_scores(cohort: Cohort, modality: str, bins: int) -> tuple[list[str], Scores]:
    frame = cohort.tables[modality]
    schema = schema_of(frame)
    numbers = frame[list(schema.numbers)].to_numpy(dtype=np.float64, na_value=np.nan)
    codes = np.concatenate([binned(numbers, bins), coded_words(frame[list(schema.texts)])], axis=1)
    return list(schema.columns), scores(codes, cohort.label.astype(np.int64))
