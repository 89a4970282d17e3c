"""Calibration of the student: a temperature and conformal thresholds for every mixture.

How sure the log-odds may be depends on what they were made of, so clinical data alone and all
modalities together get temperatures and thresholds of their own. Bridges bring no new measurement
and share them. Read and applied without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from distill.conformal import Conformal, fit_conformal, members
from distill.errors import BundleError
from distill.mixtures import mixture_name, mixture_number, mixture_numbers
from distill.temperature import fit_temperature, prior_logit
from distill.transfers import Transfer

CARD_WORDS = "temperature per mixture of processed modalities, crossfitted by hospital"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Temperatures by mixture; a mixture that was never fitted takes the default.

    Attributes:
        modalities: order of the bits in a mixture's number.
        temperature: mixture number -> temperature (bit j: modality j is processed).
        default: temperature of any other mixture.
        prior_logit: log-odds of the positive class among the patients it was fitted on: what is
            said of a patient of whom nothing is known.
        conformal: what rules classes out; None in a bundle of an earlier version.
    """

    modalities: tuple[str, ...]
    temperature: Mapping[int, float]
    default: float = 1.0
    prior_logit: float = 0.0
    conformal: Conformal | None = None

    @property
    def level(self) -> float | None:
        """The conformal sets' level, None where there are none."""
        return None if self.conformal is None else self.conformal.level

    def of_masks(self, mask: Float32[np.ndarray, "sets tokens"]) -> Float64[np.ndarray, " sets"]:
        """The temperature of each mask."""
        numbers = mixture_numbers(mask, len(self.modalities))
        return np.array([self.temperature.get(int(k), self.default) for k in numbers])

    def apply(
        self, logit: Float[np.ndarray, " sets"], mask: Float32[np.ndarray, "sets tokens"]
    ) -> Float64[np.ndarray, " sets"]:
        """Calibrated log-odds, one mask each."""
        return np.asarray(logit / self.of_masks(mask), dtype=np.float64)

    def members(
        self, logit: Float64[np.ndarray, "*rows sets"], mask: Float32[np.ndarray, "sets tokens"]
    ) -> Bool[np.ndarray, "*rows sets 2"]:
        """Whether the negative and the positive class stay in the set of calibrated log-odds.

        Without thresholds both always do: nothing is known that could rule one out.
        """
        if self.conformal is None:
            return np.ones((*logit.shape, 2), dtype=bool)
        limits = self.conformal.of_masks(mask)
        return members(logit, np.broadcast_to(limits, (*logit.shape, 2)))

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``calibration.json``."""
        named = {
            mixture_name(number, self.modalities): value
            for number, value in sorted(self.temperature.items())
        }
        return {
            "modalities": list(self.modalities), "default": self.default, "temperature": named,
            "prior_logit": self.prior_logit,
            "conformal": None if self.conformal is None else self.conformal.to_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Calibration:
        """Rebuild what :meth:`to_json` gave.

        Raises:
            BundleError: if parts are missing or name an unknown modality.
        """
        try:
            names = tuple(data["modalities"])
            temperature = {
                mixture_number(key, names): float(value)
                for key, value in data["temperature"].items()
            }
            default, prior = float(data["default"]), float(data.get("prior_logit", 0.0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"calibration.json is not readable: {error}.") from error
        sets = data.get("conformal")
        return cls(
            modalities=names, temperature=temperature, default=default, prior_logit=prior,
            conformal=None if sets is None else Conformal.from_json(sets, names),
        )  # fmt: skip


def calibration_masks(
    modalities: Sequence[str], transfers: Sequence[Transfer]
) -> Float32[np.ndarray, "masks tokens"]:
    """Masks to fit on: every mixture of modalities, with and without clinical data.

    Every mixture comes twice, with no bridge and with all of them; where only one of the two can
    occur in a review (bridges come with processing) the other is a close neighbour. Mixtures
    without clinical data occur where a contribution is asked for.
    """
    m = len(modalities)
    mixtures = [c for size in range(1, m + 1) for c in combinations(range(m), size)]
    rows = []
    for mixture in mixtures:
        processed = np.isin(np.arange(m), mixture)
        bridges = np.array([modalities[j] for j in mixture])
        run = np.isin([t.source for t in transfers], bridges)
        rows += [np.concatenate([processed, run & False]), np.concatenate([processed, run])]
    return np.array(rows, dtype=np.float32)


def fit_calibration(
    modalities: Sequence[str],
    masks: Float32[np.ndarray, "masks tokens"],
    logit: Float64[np.ndarray, "rows masks"],
    label: Int[np.ndarray, " rows"],
) -> Calibration:
    """Fit every mixture's temperature and conformal thresholds on held-out log-odds.

    Args:
        modalities: names, in the order of the masks' first tokens.
        masks: as :func:`calibration_masks` gives them.
        logit: uncalibrated log-odds of patients that the model has not seen; NaN where a patient
            lacks a part or is not held out.
        label: their classes.

    Raises:
        TrainingError: if nobody is held out.
    """
    numbers = mixture_numbers(masks, len(modalities))
    temperature = {
        int(number): fit_temperature(
            logit[:, numbers == number].ravel(), np.repeat(label, int((numbers == number).sum()))
        )
        for number in np.unique(numbers)
    }
    fitted = Calibration(
        modalities=tuple(modalities),
        temperature=temperature,
        default=float(np.exp(np.mean(np.log(list(temperature.values()))))),
        prior_logit=prior_logit(label[np.isfinite(logit).any(axis=1)]),
    )
    scaled = logit / fitted.of_masks(masks)
    return replace(fitted, conformal=fit_conformal(modalities, masks, scaled, label))


def lacking(
    mask: Float32[np.ndarray, "sets tokens"], present: Bool[np.ndarray, "rows modalities"]
) -> Bool[np.ndarray, "rows sets"]:
    """Where a patient has not all the modalities that a mask processes."""
    needs = mask[:, : present.shape[1]].T > 0
    return np.asarray((~present).astype(np.int64) @ needs.astype(np.int64) > 0)


def disagreement(
    token_logit: Float[np.ndarray, "rows tokens"], mask: Float32[np.ndarray, "sets tokens"]
) -> Float64[np.ndarray, "rows sets"]:
    """Standard deviation of the log-odds between the tokens of each set; 0 for a single token."""
    z, weight = token_logit.astype(np.float64), mask.astype(np.float64).T
    count = np.maximum(weight.sum(axis=0), 1.0)
    mean = z @ weight / count
    return np.asarray(np.sqrt(np.maximum(z**2 @ weight / count - mean**2, 0.0)))
