"""Masks: which tokens each evidence set shows to the student. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from distill.transfers import EvidenceSets, Transfer


def set_masks(sets: EvidenceSets, modalities: Sequence[str]) -> Float32[np.ndarray, "sets tokens"]:
    """One mask per evidence set: processed modalities, then the transfers run."""
    parts = [sets.processed(modalities), sets.membership]
    return np.concatenate(parts, axis=1).astype(np.float32)


def single_masks(
    modalities: Sequence[str], transfers: Sequence[Transfer]
) -> Float32[np.ndarray, "modalities tokens"]:
    """One mask per modality: its own token alone, clinical masked like the rest."""
    m = len(modalities)
    return np.eye(m, m + len(transfers), dtype=np.float32)


def everything_masks(
    present: Bool[np.ndarray, "rows modalities"],
    modalities: Sequence[str],
    transfers: Sequence[Transfer],
) -> Float32[np.ndarray, "rows tokens"]:
    """All modalities that each patient has, and all bridges from them."""
    source = [list(modalities).index(t.source) for t in transfers]
    return np.concatenate([present, present[:, source]], axis=1).astype(np.float32)
