"""What the student is trained on: random evidence sets, and synthetic rows for its teachers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from distill.student import StudentShape
from distill.table import RawTable

EVERYTHING = 0.25
"""Share of draws with all that the patient has, the case that is asked for most."""
ALONE = 0.15
"""Share of draws in which clinical data are masked and another modality speaks by itself."""


def random_sets(
    present: Bool[np.ndarray, "batch modalities"],
    shape: StudentShape,
    sets: int,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "batch sets tokens"]:
    """Masks of random evidence sets, each one that the patient's modalities allow.

    Every mixture of processed modalities and of bridges from them occurs, clinical alone and each
    other modality without clinical included.
    """
    batch, m = present.shape
    if m == 1:  # a student of one modality: there is one set
        return np.ones((batch, sets, 1 + len(shape.transfers)), dtype=np.float32)
    draws = (batch, sets)
    everything = rng.random(draws) < EVERYTHING
    processed = (rng.random((*draws, m)) < 0.5) | everything[..., None]
    processed &= present[:, None, :]
    base = shape.modalities.index("clinical")
    alone = (rng.random(draws) < ALONE) & ~everything
    others = np.delete(processed, base, axis=-1).any(axis=-1)
    processed[..., base] = present[:, None, base] & ~(alone & others)
    rate = rng.choice(np.array([0.0, 0.3, 0.7, 1.0]), size=draws)
    rate[everything] = 1.0
    run = rng.random((*draws, len(shape.transfers))) < rate[..., None]
    run &= processed[..., list(shape.sources)]
    return np.concatenate([processed, run], axis=-1).astype(np.float32)


def swapped_rows(raw: RawTable, rows: int, rate: float, rng: np.random.Generator) -> RawTable:
    """Synthetic rows: real ones with some cells taken from a random partner.

    Raw columns are swapped, so whatever is derived from them is derived anew. The rows keep each
    column's distribution and loosen the columns' dependence, which is where teachers and student
    would otherwise never be compared.
    """
    first = raw.take(rng.integers(0, len(raw), rows))
    partner = raw.take(rng.integers(0, len(raw), rows))
    swap_numbers = rng.random(first.numbers.shape) < rate
    swap_texts = rng.random(first.texts.shape) < rate
    return RawTable(
        schema=raw.schema,
        numbers=np.where(swap_numbers, partner.numbers, first.numbers),
        texts=np.where(swap_texts, partner.texts, first.texts),
    )
