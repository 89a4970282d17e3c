"""How often conformal sets hold the patient's class: overall, by class, and hospital by hospital.

Patients of one hospital are alike, so intervals draw whole hospitals, and the spread between
hospitals is told beside the mean: coverage is promised on average, never for each hospital.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int8, Shaped
from scipy.stats import beta

from distill.calibrate import Calibration
from distill.masks import everything_masks, set_masks, single_masks
from distill.metrics import Figure, means_over_hospitals
from distill.transfers import EvidenceSets

MIN_PATIENTS = 10
"""Hospitals with fewer are too small to have a coverage of their own."""
SPREAD_DRAWS = 2000
NAMES = ("coverage", "mean_set_size", "singletons", "undecided", "empty",
         "coverage_negative", "coverage_positive")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ConformalSets:
    """Which classes (negative, positive) every patient's set holds, per evidence.

    Attributes:
        level: the share aimed at.
        full: with everything that the patient has.
        evidence: per evidence set.
        single: per modality alone.
    """

    level: float
    full: Bool[np.ndarray, "patients 2"]
    evidence: Bool[np.ndarray, "patients sets 2"]
    single: Bool[np.ndarray, "patients modalities 2"]


def conformal_sets(
    calibration: Mapping[int, Calibration],
    fold: Int[np.ndarray, " patients"],
    present: Bool[np.ndarray, "patients modalities"],
    *,
    sets: EvidenceSets,
    modalities: Sequence[str],
    full: Float64[np.ndarray, " patients"],
    evidence: Float64[np.ndarray, "patients sets"],
    single: Float64[np.ndarray, "patients modalities"],
) -> ConformalSets | None:
    """Every patient's sets by the calibration of the patient's fold; None without thresholds.

    Args:
        calibration: fold -> a calibration that has not seen the fold.
        fold: fold of each patient.
        present: who has which modality.
        sets: the evidence sets.
        modalities: names, clinical first.
        full: calibrated log-odds with everything that each patient has.
        evidence: of each evidence set, NaN where out of reach.
        single: of each modality alone, NaN likewise.
    """
    levels = {c.level for c in calibration.values()}
    if len(levels) != 1 or None in levels:
        return None
    masks = set_masks(sets, modalities)
    alone = single_masks(modalities, sets.transfers)
    every = everything_masks(present, modalities, sets.transfers)
    out = ConformalSets(
        level=float(levels.pop() or 0.0),
        full=np.ones((*full.shape, 2), dtype=bool),
        evidence=np.ones((*evidence.shape, 2), dtype=bool),
        single=np.ones((*single.shape, 2), dtype=bool),
    )
    for f, fitted in calibration.items():
        rows = np.flatnonzero(fold == f)
        out.full[rows] = fitted.members(full[rows], every[rows])
        out.evidence[rows] = fitted.members(evidence[rows], masks)
        out.single[rows] = fitted.members(single[rows], alone)
    return out


def coverage_card(
    label: Int[np.ndarray, " n"],
    inside: Bool[np.ndarray, "n 2"],
    group: Shaped[np.ndarray, " n"] | None,
    rng: np.random.Generator,
    level: float,
) -> dict[str, Any]:
    """Coverage, size and kind of these patients' sets, each with an interval over hospitals.

    ``singletons`` is the share that names one class, ``undecided`` both and ``empty`` none.
    """
    size = inside.sum(axis=1)
    covered = inside[np.arange(label.size), label] if label.size else size
    value = np.stack(
        [covered, size, size == 1, size == 2, size == 0, covered, covered], axis=1
    ).astype(np.float64)
    counted = np.ones(value.shape, dtype=bool)
    counted[:, -2], counted[:, -1] = label == 0, label == 1
    figures = means_over_hospitals(value, counted, group, rng)
    return {"level": level, **{k: f.to_json() for k, f in zip(NAMES, figures)}}


def hospital_spread(
    label: Int[np.ndarray, " n"],
    inside: Bool[np.ndarray, "n 2"],
    group: Sequence[str] | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Coverage of every hospital with ten patients or more, and whether chance explains the spread.

    ``dispersion`` is the variance between hospitals over the binomial one (1: patients of a
    hospital are no more alike than any others); its interval is what binomial draws of the pooled
    coverage give, so a value above it says that hospitals do differ. Exact (Clopper-Pearson)
    intervals for each hospital.
    """
    if group is None:
        return {"hospitals": [], "reason": "the cohort names no hospitals"}
    covered = inside[np.arange(label.size), label]
    names, back, size = np.unique(np.array(group), return_inverse=True, return_counts=True)
    hits = np.bincount(back, weights=covered, minlength=names.size).astype(np.int64)
    large = np.flatnonzero(size >= MIN_PATIENTS)
    if large.size < 2:
        return {"hospitals": [], "reason": f"fewer than two hospitals with {MIN_PATIENTS} patients"}
    listed = [
        {"hospital": str(names[h]), **_exact(int(hits[h]), int(size[h])).to_json()} for h in large
    ]
    share = hits[large] / size[large]
    return {
        "hospitals": sorted(listed, key=lambda row: row["value"]),
        "min": float(share.min()),
        "median": float(np.median(share)),
        "max": float(share.max()),
        "dispersion": _dispersion(hits[large], size[large], rng).to_json(),
    }


def _exact(hits: int, n: int) -> Figure:
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return Figure(value=hits / n, ci95=(low, high), n=n)


def _dispersion(
    hits: Int[np.ndarray, " hospitals"],
    size: Int[np.ndarray, " hospitals"],
    rng: np.random.Generator,
) -> Figure:
    pooled = hits.sum() / size.sum()
    if not 0.0 < pooled < 1.0:
        return Figure(value=None, ci95=None, n=int(size.size), reason="no variance at all")

    def ratio(counts: Int[np.ndarray, "*draws hospitals"]) -> Float64[np.ndarray, "*draws"]:
        p = counts.sum(axis=-1, keepdims=True) / size.sum()
        variance = np.maximum(size * p * (1 - p), 1e-12)
        return np.asarray(((counts - size * p) ** 2 / variance).sum(axis=-1) / (size.size - 1))

    drawn = ratio(rng.binomial(size, pooled, size=(SPREAD_DRAWS, size.size)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(value=float(ratio(hits)), ci95=(float(low), float(high)), n=int(size.size))


def with_coverage(
    cards: Mapping[str, Mapping[str, Any]],
    label: Int8[np.ndarray, " patients"],
    logit: Float64[np.ndarray, "patients columns"],
    inside: Bool[np.ndarray, "patients columns 2"],
    group: Sequence[str] | None,
    *,
    level: float,
    seed: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """The score cards with ``conformal`` added; a column a card, patients with NaN left out."""
    names = None if group is None else np.array(group)
    out = {}
    for k, (name, card) in enumerate(cards.items()):
        seen = np.isfinite(logit[:, k])
        y = label[seen].astype(np.int64)
        rng = np.random.default_rng([*seed, k])
        unit = None if names is None else names[seen]
        out[name] = {
            **card, "conformal": coverage_card(y, inside[seen, k], unit, rng, level)
        }  # fmt: skip
    return out
