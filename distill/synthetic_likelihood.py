"""The exact likelihood of a synthetic patient's rows, and so the best possible score.

The optimum is that of a score which sees one patient at a time: its rows as written (missing cells
missing) and the days from scan to surgery, but neither its hospital's shifts nor other patients
of that hospital.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64
from scipy.special import logsumexp

from distill.synthetic_model import (
    BURDEN_SHARE,
    CLINICAL_CATEGORIES,
    CLINICAL_NUMBERS,
    KAPPA,
    PREVALENCE,
    ClinicalCategory,
    GaussianModality,
    fidelity,
    gaussian_modalities,
    genome,
)

TIMED = "radiomics"
PRIOR_LOGIT = float(np.log(PREVALENCE / (1 - PREVALENCE)))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What patients' rows say, by modality, in the few numbers that are sufficient for it.

    Attributes:
        llr: log-likelihood ratio of the label, of modalities that depend on the label alone.
        precision: information about the hidden state in the filled cells, of a scan on the day.
        pull: the matching linear statistic; given ``z`` it is ``N(a z precision, precision)``.
        fidelity: share ``a`` of the state that the scan shows; 1 for tissue.
    """

    llr: Mapping[str, Float64[np.ndarray, " n"]]
    precision: Mapping[str, Float64[np.ndarray, " n"]]
    pull: Mapping[str, Float64[np.ndarray, " n"]]
    fidelity: Mapping[str, Float64[np.ndarray, " n"]]

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return next(iter(self.llr.values())).size

    def first(self, n: int) -> Evidence:
        """The same for the first ``n`` patients."""
        parts = (self.llr, self.precision, self.pull, self.fidelity)
        llr, precision, pull, shown = ({m: v[:n] for m, v in part.items()} for part in parts)
        return Evidence(llr=llr, precision=precision, pull=pull, fidelity=shown)


def clinical_llr(frame: pd.DataFrame) -> Float64[np.ndarray, " n"]:
    """Log-likelihood ratio of clinical rows: a sum over the filled columns."""
    total = np.zeros(len(frame))
    for number in CLINICAL_NUMBERS:
        low, high = number.mean
        x = frame[number.name].to_numpy(dtype=np.float64)
        term = (high - low) * (x - (low + high) / 2) / number.spread**2
        total += np.nan_to_num(term, nan=0.0)
    for category in CLINICAL_CATEGORIES:
        total += _category_llr(category, frame)
    return total


def _category_llr(category: ClinicalCategory, frame: pd.DataFrame) -> np.ndarray:
    negative, positive = (np.array(p) for p in category.probability)
    ratio = np.log(positive / negative)
    names: Sequence[Any] = category.categories
    if category.numeric:
        names = [float(name) for name in names]
    term = frame[category.name].map(dict(zip(names, ratio, strict=True)))
    return term.to_numpy(dtype=np.float64, na_value=0.0)


def genomics_llr(mutated: Float64[np.ndarray, "n genes"]) -> Float64[np.ndarray, " n"]:
    """Log-likelihood ratio of mutation rows, the unseen burden summed out exactly."""
    log_odds = genome().log_odds
    filled = (~np.isnan(mutated)).astype(np.float64)
    ones = np.nan_to_num(mutated, nan=0.0)
    # log P(x | class, burden) = sum of x * log-odds - filled * log(1 + odds)
    by_class = [
        logsumexp(ones @ odds.T - filled @ np.logaddexp(0.0, odds).T + np.log(BURDEN_SHARE), axis=1)
        for odds in log_odds
    ]
    return np.asarray(by_class[1] - by_class[0])


def measured(
    model: GaussianModality, rows: Float64[np.ndarray, "n columns"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Precision and pull of measured rows (NaN where missing), noise and shifts integrated out."""
    filled = ~np.isnan(rows)
    standard = np.where(filled, (rows - model.location) / model.scale, 0.0)
    precision, cross, inner = _information(model, filled)
    outer = standard @ model.loadings.T
    return precision, standard @ model.signal - _weighted(inner, cross, outer)


def information(
    model: GaussianModality, filled: Bool[np.ndarray, "n columns"]
) -> Float64[np.ndarray, " n"]:
    """Information about the hidden state in the filled cells, for a scan on the day."""
    return _information(model, filled)[0]


def _information(
    model: GaussianModality, filled: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # Woodbury: the covariance of the filled cells is I + U'U with few rows in U.
    weight = filled.astype(np.float64)
    u = model.loadings
    rank = u.shape[0]
    pairs = (u[:, None, :] * u[None, :, :]).reshape(rank * rank, -1)
    inner = np.eye(rank) + (weight @ pairs.T).reshape(-1, rank, rank)
    cross = (weight * model.signal) @ u.T
    return weight @ model.signal**2 - _weighted(inner, cross, cross), cross, inner


def _weighted(inner: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.asarray((left * np.linalg.solve(inner, right[:, :, None])[:, :, 0]).sum(axis=1))


def where_present(evidence: Evidence) -> Evidence:
    """The same with modalities that a patient lacks saying nothing, instead of NaN."""

    def silent(part: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.nan_to_num(value, nan=0.0) for name, value in part.items()}

    return Evidence(
        llr=silent(evidence.llr),
        precision=silent(evidence.precision),
        pull=silent(evidence.pull),
        fidelity=evidence.fidelity,
    )


def best_logit(evidence: Evidence, modalities: Iterable[str]) -> Float64[np.ndarray, " n"]:
    """The Bayes-optimal log-odds given some modalities and the days to surgery.

    ``z | y ~ N(+-KAPPA/2, 1)`` and the pulls are Gaussian in ``z``, so integrating ``z`` out leaves
    ``KAPPA * sum(pull) / (1 + sum(precision))``; label-only modalities add their own term.
    """
    chosen = list(modalities)
    logit = PRIOR_LOGIT + sum((evidence.llr[m] for m in chosen if m in evidence.llr), 0.0)
    states = [m for m in chosen if m in evidence.pull]
    pull = sum((evidence.fidelity[m] * evidence.pull[m] for m in states), 0.0)
    precision = sum((evidence.fidelity[m] ** 2 * evidence.precision[m] for m in states), 0.0)
    return np.asarray(logit + KAPPA * pull / (1.0 + precision), dtype=np.float64)


def best_logit_blind(
    evidence: Evidence, modalities: Iterable[str], days: Float64[np.ndarray, " days"]
) -> Float64[np.ndarray, " n"]:
    """The optimum of a score that is not told the days to surgery, only their distribution.

    Args:
        evidence: as for :func:`best_logit`.
        modalities: among them ``radiomics``.
        days: equally likely values that stand for the distribution.
    """
    chosen = list(modalities)
    still = [m for m in chosen if m in evidence.pull and m != TIMED]
    logit = PRIOR_LOGIT + sum((evidence.llr[m] for m in chosen if m in evidence.llr), 0.0)
    pull = sum((evidence.pull[m] for m in still), 0.0)
    precision = sum((evidence.precision[m] for m in still), 0.0)
    shown = fidelity(days)
    j = 1.0 + np.add(precision, 0.0 * evidence.pull[TIMED])[:, None]
    j = j + shown**2 * evidence.precision[TIMED][:, None]
    t = np.add(pull, 0.0 * evidence.pull[TIMED])[:, None] + shown * evidence.pull[TIMED][:, None]
    by_class = [
        logsumexp((t + sign * KAPPA / 2) ** 2 / (2 * j) - np.log(j) / 2, axis=1)
        for sign in (-1.0, 1.0)
    ]
    return np.asarray(logit + by_class[1] - by_class[0], dtype=np.float64)


def evidence_of(
    tables: Mapping[str, pd.DataFrame], days: Float64[np.ndarray, " n"], case_id: Sequence[str]
) -> Evidence:
    """Sufficient numbers of patients' rows, NaN for patients that lack the modality."""
    index = pd.Index(case_id)
    frames = {name: frame.reindex(index) for name, frame in tables.items()}
    absent = {name: ~index.isin(tables[name].index) for name in tables}
    llr = {
        "clinical": clinical_llr(frames["clinical"]),
        "genomics": genomics_llr(frames["genomics"].to_numpy(dtype=np.float64)),
    }
    states = {
        name: measured(model, frames[name].to_numpy(dtype=np.float64))
        for name, model in gaussian_modalities().items()
    }
    return Evidence(
        llr={name: np.where(absent[name], np.nan, value) for name, value in llr.items()},
        precision={name: np.where(absent[name], np.nan, s[0]) for name, s in states.items()},
        pull={name: np.where(absent[name], np.nan, s[1]) for name, s in states.items()},
        fidelity={
            name: fidelity(days) if name == TIMED else np.ones(len(index)) for name in states
        },
    )
