"""Mixtures: which modalities an evidence set has processed, as a number and as a name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64


def mixture_name(number: int, modalities: Sequence[str]) -> str:
    """A mixture's modalities joined by +, from its number."""
    return "+".join(m for j, m in enumerate(modalities) if number >> j & 1)


def mixture_number(name: str, modalities: Sequence[str]) -> int:
    """The inverse of :func:`mixture_name` (bit j: modality j is processed).

    Raises:
        ValueError: if it names an unknown modality.
    """
    return sum(1 << list(modalities).index(m) for m in name.split("+"))


def mixture_numbers(
    mask: Float32[np.ndarray, "sets tokens"], modalities: int
) -> Int64[np.ndarray, " sets"]:
    """Which modalities each mask has processed, as a number."""
    weights = 1 << np.arange(modalities, dtype=np.int64)
    return np.asarray((mask[:, :modalities] > 0).astype(np.int64) @ weights)
