"""A small seeded evidence table with made-up patients: the shipped double for tests and tries.

Synthetic, and labelled so: each modality is a noisy view of the label, partly missing, and a
transfer adds what its source tells (and a little of its own). No student was trained for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distill.evidence import EvidenceTable
from distill.transfers import BASE_MODALITY, EvidenceSets, all_transfers

HOSPITALS = 10
FOLDS = 5
STRENGTH = {"clinical": 0.6, "genomics": 1.5, "pathology": 1.3, "radiomics": 0.9}
"""Distance between the classes, in standard deviations of one modality's view."""
ENERGY_KWH = {"clinical": 0.0, "genomics": 0.8, "pathology": 0.1, "radiomics": 0.05}


def toy_evidence(
    n_patients: int = 200,
    seed: int = 0,
    modalities: Sequence[str] = ("clinical", "genomics", "pathology"),
) -> EvidenceTable:
    """A synthetic evidence table with informative, partly missing modalities.

    Args:
        n_patients: number of made-up patients, at least 40.
        seed: the table is the same for the same seed.
        modalities: inference modalities; ``clinical`` must lead.

    Raises:
        ValueError: if there are fewer than 40 patients or clinical does not lead.
    """
    if n_patients < 40 or not modalities or modalities[0] != BASE_MODALITY:
        raise ValueError(
            f"toy_evidence needs at least 40 patients and 'clinical' first; it got {n_patients} "
            f"patients and {list(modalities)}."
        )
    rng = np.random.default_rng(seed)
    sets = EvidenceSets.enumerate(all_transfers(modalities))
    label = (rng.random(n_patients) < 0.48).astype(np.int8)
    hospital = rng.integers(0, HOSPITALS, n_patients)
    present = rng.random((n_patients, len(modalities))) < 0.8
    present[:, 0] = True
    quality = np.where(present, rng.uniform(0.6, 1.0, present.shape), 0.0).astype(np.float32)
    view = _views(rng, label, [STRENGTH.get(m, 0.8) for m in modalities])
    bridge = rng.normal(0.0, 0.15, (n_patients, len(sets.transfers)))
    logit, disagreement = _scores(sets, modalities, present, view, bridge)
    return EvidenceTable(
        cohort=f"toy-{n_patients}-{seed}",
        synthetic=True,
        modalities=tuple(modalities),
        sets=sets,
        case_id=tuple(f"toy-{i:05d}" for i in range(n_patients)),
        group=tuple(f"hospital-{h}" for h in hospital),
        fold=(hospital % FOLDS).astype(np.int16),
        label=label,
        present=present,
        quality=quality,
        logit=logit,
        disagreement=disagreement,
        pipeline_kwh=np.array([ENERGY_KWH.get(m, 0.2) for m in modalities]),
        transfer_kwh=np.full(len(sets.transfers), 1e-5),
        meta={"seed": seed, "note": "synthetic toy table; energies made up"},
    )


def _views(rng: np.random.Generator, label: np.ndarray, strength: list[float]) -> np.ndarray:
    """Log-odds that each modality alone would give: calibrated for two equal Gaussians."""
    d = np.array(strength)
    signal = (label[:, None] - 0.5) * d + rng.normal(size=(len(label), len(strength)))
    return np.asarray(signal * d)


def _scores(
    sets: EvidenceSets,
    modalities: Sequence[str],
    present: np.ndarray,
    view: np.ndarray,
    bridge: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and disagreement [patients, sets]; NaN log-odds where a source is absent."""
    processed = sets.processed(modalities)
    logit = view @ processed.T.astype(float) + bridge @ sets.membership.T.astype(float)
    logit[(~present).astype(int) @ processed.T.astype(int) > 0] = np.nan
    count = processed.sum(axis=1)
    mean = (view @ processed.T.astype(float)) / count
    square = ((view**2) @ processed.T.astype(float)) / count
    spread = np.sqrt(np.maximum(square - mean**2, 0.0))
    return logit.astype(np.float32), spread.astype(np.float32)
