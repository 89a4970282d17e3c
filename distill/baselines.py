"""What a user would pick instead: scikit-learn's models from the same folds and patients.

Logistic regression and histogram gradient boosting per modality, early fusion of both kinds on the
concatenated tables, and late fusion: the mean probability over what a patient has.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float64, Int
from scipy.special import logit as to_logit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from distill.crossfit import TrainingData
from distill.preprocess import burden, fit_preprocessor
from distill.table import MISSING_TEXT, RawTable
from distill.teacher import prior_logit, summed_logit
from distill.transfers import BASE_MODALITY

LOGISTIC, BOOSTING = "logistic", "boosting"
KINDS = (LOGISTIC, BOOSTING)
LATE_FUSION = "late_fusion"
LOGISTIC_C = 0.01
"""The default of 1.0 overfits tables of hundreds of columns: a kinder baseline than the default."""
EPSILON = 1e-6
Scores = dict[str, Float64[np.ndarray, " patients"]]


def _model(kind: str, seed: int) -> object:
    if kind == LOGISTIC:
        return make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            StandardScaler(),
            LogisticRegression(C=LOGISTIC_C, solver="newton-cholesky"),
        )
    return HistGradientBoostingClassifier(random_state=seed)


def encode(train: RawTable, rows: RawTable) -> Float64[np.ndarray, "rows encoded"]:
    """Numbers as they are (NaN where missing), words one-hot, the burden of 0/1 tables."""
    fitted = fit_preprocessor(train)
    parts = [rows.numbers]
    if fitted.burden is not None:
        parts.append(burden(rows.numbers)[:, None])
    for j, column in enumerate(fitted.texts):
        cells = rows.texts[:, j]
        known = np.stack([cells == word for word in (*column.words, MISSING_TEXT)], axis=1)
        parts.append(known.astype(np.float64))
    return np.concatenate(parts, axis=1)


def _probability(
    kind: str,
    train: Float64[np.ndarray, "train encoded"],
    label: Int[np.ndarray, " train"],
    test: Float64[np.ndarray, "test encoded"],
    seed: int,
) -> Float64[np.ndarray, " test"]:
    model = _model(kind, seed)
    # One thread, as for the teachers: hundreds of rows are too few to share.
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # A baseline at its defaults: hundreds of columns may not converge, and that is reported
        # as it is rather than tuned away.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, label)  # type: ignore[attr-defined]
    out: Float64[np.ndarray, " test"] = model.predict_proba(test)[:, 1]  # type: ignore[attr-defined]
    return out


def _modality_scores(
    data: TrainingData, seed: int, on_fit: Callable[[str], None]
) -> dict[tuple[str, str], Float64[np.ndarray, " patients"]]:
    scores = {
        (m, kind): np.full(data.label.size, np.nan) for m in data.modalities for kind in KINDS
    }
    for m in data.modalities:
        table = data.tables[m]
        fold, labelled = data.fold[table.row], data.labelled[table.row]
        for f in data.folds:
            train, test = np.flatnonzero((fold != f) & labelled), np.flatnonzero(fold == f)
            if not test.size:
                continue
            base = table.raw.take(train)
            x_train, x_test = encode(base, base), encode(base, table.raw.take(test))
            label = data.label[table.row[train]].astype(np.int64)
            for kind in KINDS:
                scores[m, kind][table.row[test]] = _probability(kind, x_train, label, x_test, seed)
            on_fit("baselines")
    return scores


def _early_fusion(
    data: TrainingData, kind: str, seed: int, on_fit: Callable[[str], None]
) -> Float64[np.ndarray, " patients"]:
    out = np.full(data.label.size, np.nan)
    for f in data.folds:
        train, test = (data.fold != f) & data.labelled, data.fold == f
        parts = []
        for m in data.modalities:
            table = data.tables[m]
            base = table.raw.take(np.flatnonzero(train[table.row]))
            encoded = encode(base, table.raw)
            whole = np.full((data.label.size, encoded.shape[1]), np.nan)
            whole[table.row] = encoded
            parts.append(whole)
        x = np.concatenate(parts, axis=1)
        out[test] = _probability(kind, x[train], data.label[train].astype(np.int64), x[test], seed)
        on_fit("baselines")
    return out


def _mean(parts: list[Float64[np.ndarray, " patients"]]) -> Float64[np.ndarray, " patients"]:
    stacked = np.stack(parts, axis=1)
    count = np.isfinite(stacked).sum(axis=1)
    total = np.nansum(stacked, axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def baseline_logits(
    data: TrainingData, *, seed: int, boosted_early_fusion: bool,
    on_fit: Callable[[str], None] = lambda _: None,
) -> Scores:  # fmt: skip
    """Out-of-fold log-odds of every baseline; NaN where a baseline cannot score a patient.

    Args:
        data: the cohort's arrays; only inference modalities are used, fitted on labelled rows.
        seed: for boosting.
        boosted_early_fusion: also fit the slowest one.
        on_fit: called after every fit.
    """
    each = _modality_scores(data, seed, on_fit)
    scores = {f"{m}_{kind}": p for (m, kind), p in each.items()}
    default = {m: LOGISTIC if m == BASE_MODALITY else BOOSTING for m in data.modalities}
    scores[LATE_FUSION] = _mean([each[m, default[m]] for m in data.modalities])
    scores["late_fusion_logistic"] = _mean([each[m, LOGISTIC] for m in data.modalities])
    kinds = KINDS if boosted_early_fusion else (LOGISTIC,)
    for kind in kinds:
        scores[f"early_fusion_{kind}"] = _early_fusion(data, kind, seed, on_fit)
    return {name: to_logit(np.clip(p, EPSILON, 1 - EPSILON)) for name, p in scores.items()}


def strong_late_fusion(
    data: TrainingData, teacher: Mapping[str, Float64[np.ndarray, " patients"]]
) -> Float64[np.ndarray, " patients"]:
    """The inference teachers' out-of-fold log-odds added up; each fold's prior is the others'."""
    each = np.stack([teacher[m] for m in data.modalities], axis=1)
    out = np.empty(data.label.size)
    for f in data.folds:
        inside = data.fold == f
        prior = prior_logit(data.label[~inside & data.labelled].astype(np.int64))
        out[inside] = summed_logit(each[inside], prior)
    return out
