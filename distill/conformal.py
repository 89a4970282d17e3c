"""Conformal sets: the classes that a patient's log-odds cannot rule out at a stated level.

One threshold a class and mixture of processed modalities (Mondrian in both: Vovk, Gammerman and
Shafer 2005, section 4.5): a class stays in the set unless the log-odds speak more strongly against
it than they do for all but one in ten of the held-out patients of that class. Calibration patients
are weighted by a unit that is exchangeable with the next patient's: the patient, or the hospital
(hierarchical conformal prediction, Lee, Barber and Willett 2023). Applied without torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Shaped

from distill.errors import BundleError, TrainingError
from distill.mixtures import mixture_name, mixture_number, mixture_numbers

LEVEL = 0.9
"""Share of the patients whose class is to be in their set."""
ROUNDING = 1e-9
"""Sums of weights are compared with the level up to this."""
Thresholds = tuple[float, float]
"""How strong log-odds against the negative and against the positive class may be; inf: any."""
NEVER_FITTED: Thresholds = (math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Conformal:
    """Thresholds by mixture; a mixture that was never fitted rules nothing out.

    Attributes:
        modalities: order of the bits in a mixture's number.
        level: share of the patients of each class whose set is to hold their class.
        threshold: mixture number -> strongest log-odds against each class that keep it in.
    """

    modalities: tuple[str, ...]
    level: float
    threshold: Mapping[int, Thresholds]

    def of_masks(self, mask: Float32[np.ndarray, "sets tokens"]) -> Float64[np.ndarray, "sets 2"]:
        """Both classes' thresholds for each mask."""
        numbers = mixture_numbers(mask, len(self.modalities))
        return np.array([self.threshold.get(int(k), NEVER_FITTED) for k in numbers], dtype=float)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``calibration.json``; a threshold that rules nothing out is null."""
        named = {
            mixture_name(number, self.modalities): [q if math.isfinite(q) else None for q in pair]
            for number, pair in sorted(self.threshold.items())
        }
        return {"level": self.level, "threshold": named}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], modalities: Sequence[str]) -> Conformal:
        """Rebuild what :meth:`to_json` gave.

        Raises:
            BundleError: if parts are missing, no numbers, or name an unknown modality.
        """
        try:
            threshold = {
                mixture_number(key, modalities): _pair(value)
                for key, value in data["threshold"].items()
            }
            level = float(data["level"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"calibration.json: conformal is not readable: {error}.") from error
        return cls(modalities=tuple(modalities), level=level, threshold=threshold)


def _pair(value: Sequence[float | None]) -> Thresholds:
    negative, positive = (math.inf if q is None else float(q) for q in value)
    return negative, positive


def members(
    logit: Float[np.ndarray, "*shape"], threshold: Float64[np.ndarray, "*shape 2"]
) -> Bool[np.ndarray, "*shape 2"]:
    """Which classes (negative, positive) each set holds; both where the log-odds are NaN.

    Args:
        logit: calibrated log-odds of the positive class.
        threshold: as :meth:`Conformal.of_masks` gives them.
    """
    against = np.stack([logit, -logit], axis=-1)
    return np.asarray(~(against > threshold))


def threshold(
    strangeness: Float64[np.ndarray, " rows"],
    group: Shaped[np.ndarray, " rows"],
    level: float,
) -> float:
    """The weighted quantile that a new patient's strangeness stays below with this probability.

    Every group weighs 1/(groups + 1), shared by its rows, and the last 1/(groups + 1) stands for
    the new group, at infinity. With one row a group it is split conformal prediction's
    ceil((n + 1) level)-th smallest score.

    Args:
        strangeness: larger is less like the class; finite.
        group: rows that are not independent of each other have the same one.
        level: between 0 and 1.

    Returns:
        The threshold; infinite where there are too few groups for the level.

    Raises:
        TrainingError: for a level outside (0, 1), or without a single finite score.
    """
    if not 0.0 < level < 1.0:
        raise TrainingError(f"A conformal level lies between 0 and 1; this one is {level}.")
    if not strangeness.size or not np.isfinite(strangeness).all():
        raise TrainingError(
            f"Conformal sets need held-out patients with finite log-odds; there are "
            f"{strangeness.size}, {int(np.isfinite(strangeness).sum())} of them finite. Calibrate "
            "on patients of both classes who have the modalities."
        )
    _, member, size = np.unique(group, return_inverse=True, return_counts=True)
    weight = 1.0 / ((size.size + 1.0) * size[member])
    order = np.argsort(strangeness, kind="stable")
    reached = np.flatnonzero(np.cumsum(weight[order]) >= level - ROUNDING)
    return float(strangeness[order[reached[0]]]) if reached.size else math.inf


def fit_conformal(
    modalities: Sequence[str],
    masks: Float32[np.ndarray, "masks tokens"],
    logit: Float64[np.ndarray, "rows masks"],
    label: Int[np.ndarray, " rows"],
    group: Shaped[np.ndarray, " rows"] | None = None,
    *,
    level: float = LEVEL,
) -> Conformal:
    """Thresholds of every mixture and class from held-out, calibrated log-odds.

    Args:
        modalities: names, in the order of the masks' first tokens.
        masks: the masks scored; several of one mixture count as one patient.
        logit: held-out log-odds, NaN where a patient lacks a part.
        label: 0 or 1 per patient.
        group: what is exchangeable, hospitals for example; each patient alone if None.
        level: coverage wanted of each class.

    Raises:
        TrainingError: without a single finite score, or for a level outside (0, 1).
    """
    if not np.isfinite(logit).any():
        raise TrainingError(
            "Conformal sets need held-out patients with finite log-odds; there are none. "
            "Calibrate on patients of folds that the student has not seen."
        )
    numbers = mixture_numbers(masks, len(modalities))
    unit = np.arange(label.size) if group is None else np.asarray(group)
    fitted = {}
    for number in np.unique(numbers):
        scores = logit[:, numbers == number]
        pair = []
        for kind, sign in ((0, 1.0), (1, -1.0)):
            row, column = np.nonzero(np.isfinite(scores) & (label == kind)[:, None])
            # Nobody of a class: nothing is known against it, so it is never ruled out.
            known = row.size > 0
            strange = sign * scores[row, column]
            pair.append(threshold(strange, unit[row], level) if known else math.inf)
        fitted[int(number)] = (pair[0], pair[1])
    return Conformal(modalities=tuple(modalities), level=level, threshold=fitted)
