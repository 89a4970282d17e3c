"""What each processed modality contributes to one assessment: leave it out and look.

A modality's contribution is the change of the calibrated log-odds when its token and every bridge
from it are left out of the evidence. It is exact, it needs no gradient, and all of a patient's
contributions are sets of one call. Contributions do not add up to the log-odds where modalities
tell the same thing or interact. Applied without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64

from distill.transfers import ARROW, Transfer


def without_each(
    mask: Float32[np.ndarray, " tokens"],
    modalities: Sequence[str],
    transfers: Sequence[Transfer],
) -> tuple[tuple[str, ...], Float32[np.ndarray, "processed tokens"]]:
    """The processed modalities, and for each the mask without it and without its bridges."""
    names = tuple(m for j, m in enumerate(modalities) if mask[j] > 0)
    source = np.array([*modalities, *(t.source for t in transfers)])
    kept = [np.where(source == name, np.float32(0.0), mask) for name in names]
    return names, np.array(kept, dtype=np.float32).reshape(len(names), mask.size)


def contributions(
    logit: float,
    names: Sequence[str],
    without: Float64[np.ndarray, " processed"],
    masks: Float32[np.ndarray, "processed tokens"],
    prior_logit: float,
) -> dict[str, float]:
    """Calibrated log-odds with everything minus those without each modality.

    Where nothing at all would be left the comparison is with the prior: what is said of a patient
    of whom nothing is known.

    Args:
        logit: calibrated log-odds of the whole evidence set.
        names: processed modalities.
        without: calibrated log-odds without each of them.
        masks: the masks that gave ``without``.
        prior_logit: log-odds of the positive class among training patients.
    """
    left = np.where(masks.sum(axis=1) > 0, without, prior_logit)
    return {name: float(logit - z) for name, z in zip(names, left)}


def by_source(share: Mapping[str, float]) -> dict[str, float]:
    """Shares of tokens, summed over each modality and the bridges from it."""
    total: dict[str, float] = {}
    for name, value in share.items():
        source = Transfer.parse(name).source if ARROW in name else name
        total[source] = total.get(source, 0.0) + value
    return total
