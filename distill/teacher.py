"""Teachers: one supervised, calibrated, frozen model a modality.

Each teacher is a logistic regression, bagged boosted trees, or the mean of their log-odds:
whichever predicts held-out hospitals of the training folds best. Features are screened on training
rows. Targets may be soft: privileged modalities say how much a patient is of a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import lightgbm
import numpy as np
from jaxtyping import Float, Float32, Float64, Int
from scipy.stats import rankdata
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from distill import temperature
from distill.config import TrainConfig
from distill.errors import TrainingError
from distill.preprocess import TablePreprocessor, fit_preprocessor
from distill.table import RawTable
from distill.temperature import fit_temperature, log_loss

LOGISTIC, BOOSTING, BLEND = "logistic", "boosting", "blend"
STRENGTHS = {"strong": 0.003, "medium": 0.02, "light": 0.2}
"""Inverse penalties of the regressions: tables of ten and of hundreds of columns differ."""
CANDIDATES = (
    *(f"{LOGISTIC}_{name}" for name in STRENGTHS),
    BOOSTING,
    *(f"{BLEND}_{name}" for name in STRENGTHS),
)
prior_logit = temperature.prior_logit
MIN_ROWS = 20
MIN_OF_A_CLASS = 5
LOGIT_LIMIT = 8.0


@runtime_checkable
class Learner(Protocol):
    """Anything that gives log-odds for rows of features."""

    def logit(self, features: Float32[np.ndarray, "rows features"]) -> Float64[np.ndarray, " rows"]:
        """Log-odds of the positive class."""
        ...


@dataclass(frozen=True, kw_only=True)
class LogisticLearner:
    """Penalised logistic regression."""

    weights: Float64[np.ndarray, " features"]
    intercept: float

    def logit(self, features: Float32[np.ndarray, "rows features"]) -> Float64[np.ndarray, " rows"]:
        """Log-odds of the positive class."""
        z = features.astype(np.float64) @ self.weights + self.intercept
        return np.asarray(np.clip(z, -LOGIT_LIMIT, LOGIT_LIMIT))


@dataclass(frozen=True, kw_only=True)
class BoostingLearner:
    """Gradient-boosted trees; the mean of several that differ in their seed."""

    boosters: tuple[Any, ...]

    def logit(self, features: Float32[np.ndarray, "rows features"]) -> Float64[np.ndarray, " rows"]:
        """Log-odds of the positive class."""
        each = [b.predict(features, raw_score=True, num_threads=1) for b in self.boosters]
        z = np.mean(np.asarray(each, dtype=np.float64), axis=0)
        return np.asarray(np.clip(z, -LOGIT_LIMIT, LOGIT_LIMIT))


def boost(
    features: Float32[np.ndarray, "rows features"],
    target: Float[np.ndarray, " rows"],
    *,
    rounds: int,
    seed: int,
) -> Any:
    """Gradient-boosted trees on targets from 0 to 1; gives log-odds as raw scores."""
    # One thread: with hundreds of rows the threads would mostly wait for each other, and on a busy
    # machine they wait by spinning.
    params = {
        "objective": "cross_entropy", "learning_rate": 0.05, "num_leaves": 15,
        "min_data_in_leaf": 10, "feature_fraction": 0.4, "bagging_fraction": 0.8,
        "bagging_freq": 1, "lambda_l2": 1.0, "max_bin": 63, "deterministic": True,
        "force_row_wise": True, "verbosity": -1, "seed": seed, "num_threads": 1,
    }  # fmt: skip
    return lightgbm.train(params, lightgbm.Dataset(features, label=target), num_boost_round=rounds)


def screen(
    features: Float32[np.ndarray, "rows features"],
    label: Int[np.ndarray, " rows"],
    config: TrainConfig,
    seed: int,
) -> tuple[int, ...]:
    """The features worth keeping, by mean rank of two importances on these rows.

    Importance in extremely randomised trees and total gain in boosted trees disagree usefully:
    the first sees every weak feature, the second drops what others already say.
    """
    if features.shape[1] <= config.screen_to:
        return tuple(range(features.shape[1]))
    forest = ExtraTreesClassifier(
        n_estimators=config.screen_trees, min_samples_leaf=3, max_features="sqrt",
        random_state=seed, n_jobs=config.n_threads,
    ).fit(features, label)  # fmt: skip
    hard = label.astype(np.float64)
    booster = boost(features, hard, rounds=max(20, config.boosting_rounds // 2), seed=seed)
    gain = booster.feature_importance(importance_type="gain")
    rank = rankdata(-forest.feature_importances_) + rankdata(-gain)
    best = np.argsort(rank, kind="stable")[: config.screen_to]
    return tuple(int(i) for i in np.sort(best))


@dataclass(frozen=True, kw_only=True)
class TeacherFit:
    """Candidates of one modality, fitted on one set of training rows; not yet calibrated."""

    preprocessor: TablePreprocessor
    learners: Mapping[str, Learner]

    def logits(self, raw: RawTable) -> dict[str, Float64[np.ndarray, " rows"]]:
        """Log-odds of every candidate."""
        features = self.preprocessor.transform(raw)
        out = {name: learner.logit(features) for name, learner in self.learners.items()}
        for name in STRENGTHS:
            out[f"{BLEND}_{name}"] = (out[f"{LOGISTIC}_{name}"] + out[BOOSTING]) / 2
        return out


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The chosen candidate with its temperature; frozen."""

    modality: str
    fit: TeacherFit
    choice: str
    temperature: float

    def logit(self, raw: RawTable) -> Float64[np.ndarray, " rows"]:
        """Calibrated log-odds."""
        return self.fit.logits(raw)[self.choice] / self.temperature


def summed_logit(
    logits: Float64[np.ndarray, "*rows teachers"], prior: float
) -> Float64[np.ndarray, "*rows"]:
    """Strong late fusion: evidence of the teachers added up; NaN says nothing.

    Every teacher's log-odds hold the prior once, so it is taken out of each and put back once.
    """
    return np.asarray(prior + np.nansum(logits - prior, axis=-1))


def check_classes(modality: str, label: Int[np.ndarray, " rows"]) -> None:
    """Refuse to learn from next to nothing.

    Raises:
        TrainingError: if there are too few patients, or too few of a class.
    """
    n_pos = int((label == 1).sum())
    least = min(n_pos, label.size - n_pos)
    if label.size < MIN_ROWS or least < MIN_OF_A_CLASS:
        raise TrainingError(
            f"Modality {modality!r}: the training folds hold {label.size} patients, {n_pos} of "
            f"them positive; at least {MIN_ROWS}, and {MIN_OF_A_CLASS} of each class, are needed. "
            'Give it role = "ignored" in cohort.toml, or merge folds.'
        )


def _regress(
    features: Float32[np.ndarray, "rows features"], target: Float[np.ndarray, " rows"], c: float
) -> LogisticLearner:
    """Logistic regression on soft targets: each row is of both classes, by its target's weight."""
    twice = np.concatenate([features, features])
    label = np.repeat([1, 0], target.size)
    weight = np.concatenate([target, 1 - target])
    some = weight > 0
    model = LogisticRegression(C=c, solver="newton-cholesky")
    model.fit(twice[some], label[some], sample_weight=weight[some])
    return LogisticLearner(
        weights=model.coef_[0].astype(np.float64), intercept=float(model.intercept_[0])
    )


def fit_teacher(
    modality: str,
    raw: RawTable,
    label: Int[np.ndarray, " rows"],
    config: TrainConfig,
    seed: int,
    *,
    target: Float64[np.ndarray, " rows"] | None = None,
    everyone: RawTable | None = None,
) -> TeacherFit:
    """Preprocess, screen and fit every candidate on these rows.

    Args:
        modality: for messages.
        raw: labelled training rows.
        label: their classes; they screen the features.
        config: settings.
        seed: of the trees.
        target: what the candidates are fitted on, 0 to 1; the labels if None.
        everyone: rows that preprocessing, which looks at no label, is fitted on; ``raw`` if None.

    Raises:
        TrainingError: if these rows are too few to learn from.
    """
    check_classes(modality, label)
    preprocessor = fit_preprocessor(raw if everyone is None else everyone)
    preprocessor = preprocessor.select(screen(preprocessor.transform(raw), label, config, seed))
    features = preprocessor.transform(raw)
    aim = label.astype(np.float64) if target is None else target
    learners: dict[str, Learner] = {
        f"{LOGISTIC}_{name}": _regress(features, aim, c) for name, c in STRENGTHS.items()
    }
    learners[BOOSTING] = BoostingLearner(
        boosters=tuple(
            boost(features, aim, rounds=config.boosting_rounds, seed=seed + i)
            for i in range(config.boosters)
        )
    )
    return TeacherFit(preprocessor=preprocessor, learners=learners)


def choose(
    held_out: Mapping[str, Float64[np.ndarray, " rows"]], label: Int[np.ndarray, " rows"]
) -> tuple[str, float]:
    """Candidate with the least log-loss on held-out rows after scaling, and its temperature."""
    scored = []
    for name, logit in held_out.items():
        temperature = fit_temperature(logit, label)
        scored.append((log_loss(logit / temperature, label), name, temperature))
    _, name, temperature = min(scored, key=lambda item: item[0])
    return name, temperature
