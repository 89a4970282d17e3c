"""Everything about the patients that a session needs, computed once, indexed ever after.

Stepping then is gathering and adding: nothing transcendental is left, which is what makes the
batched environment bit-identical to single ones (vectorised ``exp`` may differ in the last bit
between batch sizes; additions and products do not).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from distill.evidence import EvidenceTable
from envs.catalogue import ActionCatalogue
from envs.errors import SessionError
from envs.observation import ObservationLayout

MAX_KWH = 4096.0
"""Largest energy of one transfer that the observation can show."""


@dataclass(frozen=True, kw_only=True)
class PatientTables:
    """Numbers of the pool's patients (P), evidence sets (K), transfers (T), modalities (M).

    Attributes:
        positives: pool indices of the positive class.
        negatives: pool indices of the negative class.
        n_sets: K; flat arrays are indexed ``patient * n_sets + set``.
        logit: log-odds of each patient and set, flat; NaN where unreachable.
        belief: scaled ``probability entropy disagreement logit`` of each patient and set, flat.
        traits: scaled ``present_*`` and ``quality_*`` of each patient.
        has_source: whether the patient has the transfer's source.
        everything_kwh: energy of processing all that the patient has, once.
        next_set: set after a transfer; -1 where closed.
        is_open: ``next_set >= 0``.
        progress: scaled ``processed_*`` and ``run_*`` of each set.
        step_kwh: energy of a transfer in a set: its pipeline if not processed yet, its bridge.
        step_root_kwh: scaled ``energy_*``: the square root of ``step_kwh``.
    """

    positives: Int64[np.ndarray, " pos"]
    negatives: Int64[np.ndarray, " neg"]
    n_sets: int
    logit: Float32[np.ndarray, " patients_sets"]
    belief: Float32[np.ndarray, "patients_sets 4"]
    traits: Float32[np.ndarray, "patients traits"]
    has_source: Bool[np.ndarray, "patients transfers"]
    everything_kwh: Float64[np.ndarray, " patients"]
    next_set: Int32[np.ndarray, "sets transfers"]
    is_open: Bool[np.ndarray, "sets transfers"]
    progress: Float32[np.ndarray, "sets progress"]
    step_kwh: Float64[np.ndarray, "sets transfers"]
    step_root_kwh: Float32[np.ndarray, "sets transfers"]


def patient_tables(
    evidence: EvidenceTable, rows: Int64[np.ndarray, " rows"], layout: ObservationLayout
) -> PatientTables:
    """Compute the tables for these rows of the evidence.

    Raises:
        SessionError: if an energy is negative, not finite, or too large to be shown; if a
            patient has no first score, or a quality or disagreement out of range.
    """
    catalogue = ActionCatalogue(evidence.transfers)
    step_kwh = transfer_kwh(evidence)
    if not (np.isfinite(step_kwh).all() and (step_kwh >= 0).all() and step_kwh.max() < MAX_KWH):
        raise SessionError(
            f"Transfer energies must be finite, from 0 to {MAX_KWH:g} kWh; the evidence table has "
            f"{step_kwh.min():g} to {step_kwh.max():g}. Check the pipelines in cohort.toml."
        )
    _check_patients(evidence, rows)
    present = evidence.present[rows]
    label = evidence.label[rows]
    return PatientTables(
        positives=np.flatnonzero(label == 1),
        negatives=np.flatnonzero(label == 0),
        n_sets=len(evidence.sets.bits),
        logit=np.ascontiguousarray(evidence.logit[rows]).ravel(),
        belief=_belief(evidence, rows, layout),
        traits=np.hstack([present, evidence.quality[rows]]).astype(np.float32),
        has_source=catalogue.available(evidence.modalities, present),
        everything_kwh=(present * evidence.pipeline_kwh).sum(axis=1),
        next_set=evidence.sets.next_set,
        is_open=evidence.sets.next_set >= 0,
        progress=np.hstack([evidence.processed, evidence.sets.membership]).astype(np.float32),
        step_kwh=step_kwh,
        step_root_kwh=np.sqrt(step_kwh).astype(np.float32),
    )


def _check_patients(evidence: EvidenceTable, rows: Int64[np.ndarray, " rows"]) -> None:
    """What the evidence table itself does not promise, and an observation needs."""
    reach, quality = evidence.reachable[rows], evidence.quality[rows]
    spread = np.where(reach, evidence.disagreement[rows], 0.0)
    problems = {
        "a score from clinical data alone": reach[:, 0],
        "qualities from 0 to 1": ((quality >= 0.0) & (quality <= 1.0)).all(axis=1),
        "finite disagreements, not negative": (np.isfinite(spread) & (spread >= 0)).all(axis=1),
    }
    for what, good in problems.items():
        if not good.all():
            raise SessionError(
                f"{int((~good).sum())} of {len(rows)} patients of {evidence.cohort!r} lack {what}. "
                "Train the bundle again."
            )


def transfer_kwh(evidence: EvidenceTable) -> Float64[np.ndarray, "sets transfers"]:
    """Energy of each transfer in each set: the source's pipeline if it is new, and the bridge."""
    source = [evidence.modalities.index(t.source) for t in evidence.transfers]
    new = ~evidence.processed[:, source]
    return np.asarray(evidence.transfer_kwh + new * evidence.pipeline_kwh[source])


def binary_entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of a yes-or-no probability, bits."""
    p = np.clip(probability, 1e-12, 1.0 - 1e-12)
    return np.asarray(-(p * np.log2(p) + (1.0 - p) * np.log2(1.0 - p)))


def _belief(
    evidence: EvidenceTable, rows: Int64[np.ndarray, " rows"], layout: ObservationLayout
) -> Float32[np.ndarray, "patients_sets 4"]:
    # Unreachable sets hold NaN; nobody gets there, and zeros keep the table finite.
    logit = np.nan_to_num(evidence.logit[rows].astype(np.float64)).ravel()
    probability = 1.0 / (1.0 + np.exp(-logit))
    spread = np.nan_to_num(evidence.disagreement[rows].astype(np.float64)).ravel()
    columns = [probability, binary_entropy(probability), spread, logit]
    scaled = [layout.scale_field(n, c) for n, c in zip(layout.names[:4], columns)]
    return np.stack(scaled, axis=1)
