"""Calibration of the student: one temperature for every mixture of processed modalities.

How sure the log-odds may be depends on what they were made of, so clinical data alone and all
modalities together get temperatures of their own. Bridges bring no new measurement and share them.
Read and applied without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64

from distill.errors import BundleError
from distill.temperature import fit_temperature
from distill.transfers import BASE_MODALITY, Transfer

CARD_WORDS = "temperature per mixture of processed modalities, crossfitted by hospital"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Temperatures by mixture; a mixture that was never fitted takes the default.

    Attributes:
        modalities: order of the bits in a mixture's number.
        temperature: mixture number -> temperature (bit j: modality j is processed).
        default: temperature of any other mixture.
    """

    modalities: tuple[str, ...]
    temperature: Mapping[int, float]
    default: float = 1.0

    def of_masks(self, mask: Float32[np.ndarray, "sets tokens"]) -> Float64[np.ndarray, " sets"]:
        """The temperature of each mask."""
        numbers = mixture_numbers(mask, len(self.modalities))
        return np.array([self.temperature.get(int(k), self.default) for k in numbers])

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``calibration.json``."""
        named = {
            "+".join(m for j, m in enumerate(self.modalities) if number >> j & 1): value
            for number, value in sorted(self.temperature.items())
        }
        return {
            "modalities": list(self.modalities), "default": self.default, "temperature": named,
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
                sum(1 << names.index(m) for m in key.split("+")): float(value)
                for key, value in data["temperature"].items()
            }
            return cls(modalities=names, temperature=temperature, default=float(data["default"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"calibration.json is not readable: {error}.") from error


def mixture_numbers(
    mask: Float32[np.ndarray, "sets tokens"], modalities: int
) -> Int64[np.ndarray, " sets"]:
    """Which modalities each mask has processed, as a number."""
    weights = 1 << np.arange(modalities, dtype=np.int64)
    return np.asarray((mask[:, :modalities] > 0).astype(np.int64) @ weights)


def calibration_masks(
    modalities: Sequence[str], transfers: Sequence[Transfer]
) -> Float32[np.ndarray, "masks tokens"]:
    """Masks to fit on: each mixture with clinical, and each modality alone.

    Every mixture comes twice, with no bridge and with all of them; where only one of the two can
    occur in a review (bridges come with processing) the other is a close neighbour.
    """
    m = len(modalities)
    base = list(modalities).index(BASE_MODALITY)
    others = [j for j in range(m) if j != base]
    mixtures = [(base, *c) for size in range(m) for c in combinations(others, size)]
    mixtures += [(j,) for j in others]
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
    """Fit every mixture's temperature on held-out log-odds; NaN where a patient lacks a part."""
    numbers = mixture_numbers(masks, len(modalities))
    temperature = {
        int(number): fit_temperature(
            logit[:, numbers == number].ravel(), np.repeat(label, int((numbers == number).sum()))
        )
        for number in np.unique(numbers)
    }
    return Calibration(
        modalities=tuple(modalities),
        temperature=temperature,
        default=float(np.exp(np.mean(np.log(list(temperature.values()))))),
    )


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
