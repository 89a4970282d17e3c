"""Whether the int8 student decides as the float32 one does, on every patient and evidence set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from distill.bundle import Precision
from distill.calibrate import lacking
from distill.masks import everything_masks, set_masks
from distill.runtime import StudentRuntime
from distill.transfers import EvidenceSets

LOGIT_LIMIT = 0.02
"""Largest difference of calibrated log-odds at which the int8 student may be served."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Two students compared on the same patients.

    Attributes:
        patients: how many there were.
        compared: pairs of a patient and an evidence set, everything that a patient has included.
        max_logit_difference: largest difference of calibrated log-odds.
        decisions_changed: pairs whose probability crosses 0.5.
        patients_changed: patients whose decision on everything that they have is another.
        sets_changed: pairs whose conformal set is another.
    """

    patients: int
    compared: int
    max_logit_difference: float
    decisions_changed: int
    patients_changed: int
    sets_changed: int

    @property
    def problems(self) -> tuple[str, ...]:
        """What forbids serving one for the other; nothing if parity holds."""
        found = []
        if not self.max_logit_difference <= LOGIT_LIMIT:
            found.append(
                f"log-odds differ by up to {self.max_logit_difference:.2g} (at most {LOGIT_LIMIT})"
            )
        if self.decisions_changed:
            found.append(f"{self.decisions_changed} of {self.compared} decisions change")
        if self.sets_changed:
            found.append(f"{self.sets_changed} of {self.compared} conformal sets change")
        return tuple(found)

    @property
    def holds(self) -> bool:
        """Whether one may be served for the other."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``metrics.json``."""
        return {
            "n_patients": self.patients,
            "n_compared": self.compared,
            "max_logit_difference": self.max_logit_difference,
            "max_logit_difference_allowed": LOGIT_LIMIT,
            "decisions_changed": self.decisions_changed,
            "patients_changed": self.patients_changed,
            "conformal_sets_changed": self.sets_changed,
            "holds": self.holds,
        }


@dataclass(frozen=True, kw_only=True)
class Everywhere:
    """One student's answers for every patient, under each evidence set and with everything."""

    logit: Float64[np.ndarray, "patients columns"]
    conformal: Bool[np.ndarray, "patients columns classes"]
    reachable: Bool[np.ndarray, "patients columns"]


def answers(
    runtime: StudentRuntime,
    x: Float32[np.ndarray, "patients inputs features"],
    present: Bool[np.ndarray, "patients modalities"],
    sets: EvidenceSets,
) -> Everywhere:
    """Score all evidence sets, and in the last column everything that each patient has."""
    masks = set_masks(sets, runtime.modalities)
    everything = everything_masks(present, runtime.modalities, runtime.transfers)
    logit = runtime.score(x, masks[None]).logit
    full = runtime.score(x, everything[:, None]).logit
    reachable = ~lacking(masks, present)
    of_sets = runtime.calibration.members(logit, masks)
    of_all = runtime.calibration.members(full[:, 0], everything)
    return Everywhere(
        logit=np.concatenate([logit, full], axis=1),
        conformal=np.concatenate([of_sets, of_all[:, None]], axis=1),
        reachable=np.concatenate([reachable, np.ones_like(reachable[:, :1])], axis=1),
    )


def compare(reference: Everywhere, candidate: Everywhere) -> Parity:
    """Hold one student's answers against another's, wherever a patient has what a set needs."""
    counted = reference.reachable
    difference = np.abs(candidate.logit - reference.logit)[counted]
    crossed = ((candidate.logit >= 0) != (reference.logit >= 0)) & counted
    other_set = (reference.conformal != candidate.conformal).any(axis=-1) & counted
    return Parity(
        patients=len(counted),
        compared=int(counted.sum()),
        max_logit_difference=float(difference.max(initial=0.0)),
        decisions_changed=int(crossed.sum()),
        patients_changed=int(crossed[:, -1].sum()),
        sets_changed=int(other_set.sum()),
    )


def choose(parity: Parity) -> tuple[Precision, str]:
    """Which student is served by default, and why."""
    if parity.holds:
        return "int8", (
            f"same decision on all {parity.patients} patients and {parity.compared} evidence sets"
        )
    return "fp32", "; ".join(parity.problems)


def card_lines(serving: Mapping[str, Any]) -> Sequence[str]:
    """The model card's section on serving."""
    parity, rounding = serving["parity_int8"], serving["rounding"]
    size = serving["graphs"]
    lines = [
        "## Serving",
        "",
        f"Served by default: {serving['precision']} ({serving['reason']}).",
        "",
        f"Graphs: float32 {size['fp32']['bytes'] / 1e3:.0f} kB, int8 weights "
        f"{size['int8']['bytes'] / 1e3:.0f} kB. Int8 against float32 on {parity['n_patients']} "
        f"patients, {parity['n_compared']} evidence sets: log-odds differ by at most "
        f"{parity['max_logit_difference']:.2g}, {parity['decisions_changed']} decisions change.",
    ]
    if rounding is not None:
        lines += [
            "",
            "Both hold the weights rounded to int8, which is what all figures above are of. "
            f"Rounding changed log-odds by at most {rounding['max_logit_difference']:.2g} and "
            f"{rounding['decisions_changed']} of {rounding['n_compared']} decisions, "
            f"{rounding['patients_changed']} of them with everything that a patient has.",
        ]
    return [*lines, ""]
