"""The figures of ``metrics.json`` and of ``greenboard evaluate``: same keys, same definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int8

from distill.coverage import ConformalSets, hospital_spread, with_coverage
from distill.metrics import auc_over_hospitals, score_card
from distill.transfers import EvidenceSets

HOSPITALS = 1_000
"""Keeps the redraws of hospitals apart from those of the score cards."""
CONFORMAL = 2_000
"""Likewise for the redraws behind coverages."""
Card = dict[str, Any]
Logits = Mapping[str, Float64[np.ndarray, " patients"]]


def cards(label: Int8[np.ndarray, " patients"], logits: Logits, seed: int) -> dict[str, Card]:
    """A score card (AUC, Brier, calibration error) a name; NaN log-odds leave a patient out."""
    y = label.astype(np.int64)
    return {
        name: score_card(y, logit, np.random.default_rng([seed, k]))
        for k, (name, logit) in enumerate(logits.items())
    }


def student_figures(
    label: Int8[np.ndarray, " patients"],
    *,
    sets: EvidenceSets,
    modalities: tuple[str, ...],
    full: Float64[np.ndarray, " patients"],
    evidence: Float64[np.ndarray, "patients sets"],
    single: Float64[np.ndarray, "patients modalities"],
    seed: int,
    group: Sequence[str] | None,
    inside: ConformalSets | None = None,
) -> dict[str, Any]:
    """``full``, ``evidence.<set>`` and ``single.<modality>``.

    ``full`` is every patient with all that the patient has; a set or a single modality is scored
    on the patients who have what it needs. ``single`` shows the student that modality's own token
    and nothing else: clinical data are masked too, and no bridge is run. ``full`` also has
    ``auc_over_hospitals``, the AUC with an interval that redraws whole hospitals (``group``; None
    where the cohort names none). ``inside`` adds ``conformal`` to every card: coverage, size and
    kind of the sets, and for ``full`` the coverage of every hospital.
    """
    rng = np.random.default_rng([seed, HOSPITALS])
    over = auc_over_hospitals(label.astype(np.int64), full, group, rng).to_json()
    by_set = {sets.name(k): evidence[:, k] for k in range(evidence.shape[1])}
    by_modality = {m: single[:, j] for j, m in enumerate(modalities)}
    figures = {
        "full": cards(label, {"full": full}, seed),
        "evidence": cards(label, by_set, seed + 1),
        "single": cards(label, by_modality, seed + 2),
    }
    figures["full"]["full"]["auc_over_hospitals"] = over
    if inside is not None:
        parts = {
            "full": (full[:, None], inside.full[:, None]),
            "evidence": (evidence, inside.evidence),
            "single": (single, inside.single),
        }
        for k, (name, (logit, members)) in enumerate(parts.items()):
            figures[name] = with_coverage(
                figures[name], label, logit, members, group,
                level=inside.level, seed=(seed, CONFORMAL, k),
            )  # fmt: skip
        spread = hospital_spread(label.astype(np.int64), inside.full, group, rng)
        figures["full"]["full"]["conformal"]["over_hospitals"] = spread
    return {**figures, "full": figures["full"]["full"]}


def best_by_auc(figures: Mapping[str, Card], patients: int) -> str | None:
    """The name with the highest AUC among those that score all patients."""
    scored = {
        name: card["auc"]["value"]
        for name, card in figures.items()
        if card["auc"]["value"] is not None and card["auc"]["n"] == patients
    }
    return max(scored, key=lambda name: scored[name]) if scored else None
