"""The best AUC that any score can reach on the synthetic cohort, for every evidence set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8
from scipy.special import expit

from distill.errors import CohortError
from distill.metrics import Figure, auc
from distill.synthetic_likelihood import (
    TIMED,
    Evidence,
    best_logit,
    best_logit_blind,
    where_present,
)
from distill.synthetic_model import delay_quantiles
from distill.transfers import JOIN

TRUTH = "truth.json"
MODALITIES = ("clinical", "genomics", "pathology", "radiomics", "proteomics")
FULL = "full"
"""Key of the optimum with whichever inference modalities each patient has."""
FORMAT = 1
N_BATCHES = 20
BLIND_SHARE = 4
N_DELAYS = 40
Z95 = 1.959963984540054
METHOD = (
    "Exact likelihood of the generating model (hidden state, patient noise, hospital shifts and "
    "mutation burden integrated out; missing cells dropped). auc: that optimal score on simulated "
    "patients of new hospitals, each counted as both classes by its exact probability, in 20 "
    "batches. auc_time_blind: the same when the days from scan to surgery are not told. auc_here: "
    "the optimal score on this cohort's own patients, DeLong interval. A score is taken to see one "
    "patient at a time and no hospital."
)


def expected_auc(score: Float64[np.ndarray, " n"], logit: Float64[np.ndarray, " n"]) -> float:
    """AUC of a score when each patient is both classes, weighted by its exact probability.

    This needs no labels, so it has less sampling noise than drawn ones: ``P(s+ > s-)`` with
    weights ``p`` and ``1 - p``, a patient never compared with itself, ties counted half.

    Args:
        score: whatever orders the patients.
        logit: exact log-odds of the positive class given at least what the score has seen.
    """
    _, where = np.unique(score, return_inverse=True)
    p = expit(logit)
    positive = np.bincount(where, weights=p)
    negative = np.bincount(where, weights=1 - p)
    below = np.cumsum(negative) - negative
    own = float((p * (1 - p)).sum())
    wins = float((positive * (below + negative / 2)).sum()) - own / 2
    return wins / (float(p.sum()) * float((1 - p).sum()) - own)


@dataclass(frozen=True, kw_only=True)
class BestAuc:
    """The best AUC that any score can reach with one set of processed modalities.

    Attributes:
        auc: expected over new patients of new hospitals, with its Monte-Carlo interval; ``n``
            is the number of simulated patients.
        auc_time_blind: the same without the days to surgery (equal where radiomics is not in).
        auc_here: the optimal score's AUC on this very cohort's patients that have the set.
        standard_error: Monte-Carlo standard error of ``auc``.
    """

    auc: Figure
    auc_time_blind: Figure
    auc_here: Figure
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What can be known at best about a synthetic cohort; written beside it as ``truth.json``."""

    cohort: str
    seed: int
    n_patients: int
    best: Mapping[str, BestAuc]
    method: str

    def auc_for(self, modalities: Iterable[str]) -> float:
        """Best possible AUC with these modalities processed, in any order.

        Raises:
            CohortError: if a modality is not of the synthetic cohort, or none is given.
        """
        value = self.best[set_name(modalities)].auc.value
        return float("nan") if value is None else value

    @property
    def full(self) -> BestAuc:
        """The optimum over all patients, each with the inference modalities that it has."""
        return self.best[FULL]

    def to_json(self) -> dict[str, Any]:
        """The JSON of ``truth.json``."""
        return {
            "format": FORMAT,
            "synthetic": True,
            "cohort": self.cohort,
            "seed": self.seed,
            "n_patients": self.n_patients,
            "method": self.method,
            "evidence": {
                name: {
                    "auc": best.auc.to_json(),
                    "standard_error": best.standard_error,
                    "auc_time_blind": best.auc_time_blind.to_json(),
                    "auc_here": best.auc_here.to_json(),
                }
                for name, best in self.best.items()
            },
        }

    @classmethod
    def load(cls, folder: Path) -> Truth:
        """Read ``truth.json`` of a synthetic cohort folder.

        Raises:
            CohortError: if there is none, or it is not one of this version.
        """
        path = folder / TRUTH
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw["format"] != FORMAT:
                raise ValueError(f"format {raw['format']!r}, this version reads {FORMAT}")
            best = {name: _best_of(entry) for name, entry in raw["evidence"].items()}
            return cls(
                cohort=raw["cohort"], seed=raw["seed"], n_patients=raw["n_patients"],
                best=best, method=raw["method"],
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CohortError(
                f"{path} is not the truth of a synthetic cohort ({error}). "
                "'greenboard cohort synth' writes one beside the cohort."
            ) from error


def _best_of(entry: Mapping[str, Any]) -> BestAuc:
    def figure(name: str) -> Figure:
        raw = entry[name]
        ci95 = None if raw["ci95"] is None else (float(raw["ci95"][0]), float(raw["ci95"][1]))
        return Figure(value=raw["value"], ci95=ci95, n=raw["n"], reason=raw.get("reason"))

    return BestAuc(
        auc=figure("auc"),
        auc_time_blind=figure("auc_time_blind"),
        auc_here=figure("auc_here"),
        standard_error=float(entry["standard_error"]),
    )


def compute_best(
    simulated: Evidence,
    incomplete: Evidence,
    here: Evidence,
    label: Int8[np.ndarray, " patients"],
    inference: Sequence[str],
) -> dict[str, BestAuc]:
    """Best AUC of every set of modalities, and of all that each patient has (``full``).

    Args:
        simulated: many patients of new hospitals, with every modality.
        incomplete: the same with modalities missing as in the cohort, NaN there.
        here: the cohort's own patients, NaN where one lacks a modality.
        label: the cohort's labels.
        inference: the modalities that may be processed at review.
    """
    full = _best(where_present(incomplete), where_present(here), label, tuple(inference))
    sets = {set_name(chosen): _best(simulated, here, label, chosen) for chosen in all_sets()}
    return {FULL: full, **sets}


def _best(
    simulated: Evidence, here: Evidence, label: np.ndarray, chosen: tuple[str, ...]
) -> BestAuc:
    told = best_logit(simulated, chosen)
    values = _over_batches(told)
    best, error = _figure(float(values.mean()), values, told.size)
    blind = best
    if TIMED in chosen:
        fewer = simulated.first(simulated.n_patients // BLIND_SHARE)
        score = best_logit_blind(fewer, chosen, delay_quantiles(N_DELAYS))
        told_fewer = told[: score.size]
        # The difference on the same patients is far sharper than either figure.
        loss = _over_batches(told_fewer) - _over_batches(told_fewer, score)
        blind, _ = _figure(float(values.mean() - loss.mean()), loss, score.size)
    own = best_logit(here, chosen)
    has = ~np.isnan(own)
    return BestAuc(
        auc=best,
        auc_time_blind=blind,
        auc_here=auc(label[has].astype(np.int64), own[has]),
        standard_error=error,
    )


def _over_batches(
    logit: np.ndarray, score: np.ndarray | None = None
) -> Float64[np.ndarray, " batches"]:
    score = logit if score is None else score
    parts = np.array_split(np.arange(score.size), N_BATCHES)
    return np.array([expected_auc(score[part], logit[part]) for part in parts])


def _figure(value: float, spread: np.ndarray, n: int) -> tuple[Figure, float]:
    error = float(spread.std(ddof=1) / np.sqrt(spread.size))
    return Figure(value=value, ci95=(value - Z95 * error, value + Z95 * error), n=n), error


def set_name(modalities: Iterable[str]) -> str:
    """Processed modalities joined by ``+`` in the cohort's order.

    Raises:
        CohortError: if a modality is not of the synthetic cohort, or none is given.
    """
    given = set(modalities)
    unknown = sorted(given - set(MODALITIES))
    if unknown or not given:
        came = f"unknown modality {unknown[0]!r}" if unknown else "no modality"
        raise CohortError(f"Truth: {came}; the synthetic cohort has {', '.join(MODALITIES)}.")
    return JOIN.join(name for name in MODALITIES if name in given)


def all_sets() -> list[tuple[str, ...]]:
    """Every non-empty set of modalities, small ones first."""
    sizes = range(1, len(MODALITIES) + 1)
    return [chosen for size in sizes for chosen in combinations(MODALITIES, size)]
