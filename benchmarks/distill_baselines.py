"""Baselines of one split for every mixture of modalities: what a user would fit instead.

Single modalities by logistic regression, histogram boosting and LightGBM; mixtures by late fusion
(mean probability), strong late fusion (LightGBM per modality, log-odds summed) and early fusion
(one LightGBM on the tables side by side, gaps left to the trees).
"""

from __future__ import annotations

from itertools import combinations

import lightgbm
import numpy as np
from scipy.special import expit
from scipy.special import logit as to_logit

from distill.baselines import BOOSTING, EPSILON, LOGISTIC, _probability, encode
from distill.crossfit import TrainingData
from distill.teacher import prior_logit, summed_logit
from distill.transfers import BASE_MODALITY

TREES = "lightgbm"
SINGLE_KINDS = (LOGISTIC, BOOSTING, TREES)
FULL = "full"
LIGHTGBM = {
    "objective": "binary", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 10,
    "feature_fraction": 0.4, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 1.0,
    "max_bin": 63, "verbosity": -1, "num_threads": 1, "deterministic": True,
    "force_row_wise": True,
}  # fmt: skip
"""Kinder to hundreds of rows than LightGBM's defaults, which lose to it by 0.01 AUC and more."""
ROUNDS = 150


def subsets_of(modalities: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Every mixture by name, and ``full``: all that each patient has."""
    out = {}
    for size in range(1, len(modalities) + 1):
        for members in combinations(range(len(modalities)), size):
            chosen = np.zeros(len(modalities), dtype=bool)
            chosen[list(members)] = True
            out["+".join(modalities[j] for j in members)] = chosen
    out[FULL] = np.ones(len(modalities), dtype=bool)
    return out


def baseline_logits(
    data: TrainingData, train: np.ndarray, test: np.ndarray, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Log-odds of the scored patients by every baseline, per mixture; NaN where not applicable."""
    label, n = data.label.astype(np.int64), data.label.size
    encoded, single = {}, {}
    for m in data.modalities:
        table = data.tables[m]
        inside, outside = np.flatnonzero(train[table.row]), np.flatnonzero(test[table.row])
        base = table.raw.take(inside)
        x = encode(base, table.raw)
        encoded[m] = np.full((n, x.shape[1]), np.nan)
        encoded[m][table.row] = x
        y = label[table.row[inside]]
        for kind in SINGLE_KINDS:
            score = np.full(n, np.nan)
            score[table.row[outside]] = _scores(kind, x[inside], y, x[outside], seed)
            single[m, kind] = score[test]
    prior = prior_logit(label[train])
    out: dict[str, dict[str, np.ndarray]] = {}
    for name, chosen in subsets_of(data.modalities).items():
        members = [m for j, m in enumerate(data.modalities) if chosen[j]]
        for rule, score in _fused(members, single, prior).items():
            out.setdefault(rule, {})[name] = _whole(score, members, single, name)
        if len(members) > 1:
            x = np.concatenate([encoded[m] for m in members], axis=1)
            early = _scores(TREES, x[train], label[train], x[test], seed)
            out.setdefault("early_fusion", {})[name] = _whole(early, members, single, name)
        else:
            for kind in SINGLE_KINDS:
                out.setdefault(kind, {})[name] = single[members[0], kind]
    return out


def _scores(
    kind: str, x: np.ndarray, label: np.ndarray, scored: np.ndarray, seed: int
) -> np.ndarray:
    if kind != TREES:
        p = _probability(kind, x, label, scored, seed)
        return np.asarray(to_logit(np.clip(p, EPSILON, 1 - EPSILON)))
    trees = lightgbm.train({**LIGHTGBM, "seed": seed}, lightgbm.Dataset(x, label=label), ROUNDS)
    return np.asarray(trees.predict(scored, raw_score=True), dtype=np.float64)


def _fused(
    members: list[str], single: dict[tuple[str, str], np.ndarray], prior: float
) -> dict[str, np.ndarray]:
    default = {m: LOGISTIC if m == BASE_MODALITY else BOOSTING for m in members}
    late = np.stack([expit(single[m, default[m]]) for m in members], axis=1)
    logistic = np.stack([expit(single[m, LOGISTIC]) for m in members], axis=1)
    trees = np.stack([single[m, TREES] for m in members], axis=1)
    return {
        "late_fusion": _mean(late),
        "late_fusion_logistic": _mean(logistic),
        "strong_late_fusion": summed_logit(trees, prior),
    }


def _mean(parts: np.ndarray) -> np.ndarray:
    known = np.isfinite(parts)
    total = np.where(known, parts, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(known.sum(axis=1), 1))


def _whole(
    score: np.ndarray, members: list[str], single: dict[tuple[str, str], np.ndarray], name: str
) -> np.ndarray:
    """NaN for patients who lack a part of the mixture; ``full`` takes everyone as they are."""
    if name == FULL:
        return score
    have = np.all([np.isfinite(single[m, LOGISTIC]) for m in members], axis=0)
    return np.where(have, score, np.nan)
