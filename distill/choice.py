"""Which of the teachers' terms train the student: chosen on hospitals that it is not scored on.

For every set of training hospitals the objective starts from the settings' weights. Each candidate
changes one term: switches it off, or an optional one on. Short fits that leave out one more fold of
hospitals score that fold with and without the change, and the change is adopted where its log-loss
is better by more than one standard error over the held-out folds. The folds that the result is
scored on take no part, neither their labels nor their features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from distill.config import TrainConfig
from distill.crossfit import Folds, TeacherLattice, inner_groups
from distill.fit import FittedStudent, fit_student, student_inputs
from distill.masks import everything_masks, single_masks
from distill.objective import weights_of
from distill.temperature import fit_temperature
from distill.transfers import all_transfers

BASE = "as set"
Losses = Mapping[str, Float64[np.ndarray, " _"]]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One change of the objective's weights."""

    name: str
    weights: Mapping[str, float]

    def applied(self, config: TrainConfig) -> TrainConfig:
        """The settings with this change."""
        return replace(config, **dict(self.weights))  # type: ignore[arg-type]


def _candidate(name: str, **weights: float) -> Candidate:
    return Candidate(name=name, weights=MappingProxyType(weights))


CANDIDATES = (
    _candidate("no soft labels", soft_share=0.0, doubt_share=0.0, bridge_soft_weight=0.0),
    _candidate("no function matching", match_weight=0.0, fused_match_weight=0.0),
    _candidate("no latent regression", bridge_latent_weight=0.0),
    _candidate("InfoNCE alignment", contrast_weight=0.1),
    _candidate("relational distance", relational_weight=0.5),
)
"""Tried in this order; those that pass are adopted together."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The weights chosen for the student of some training hospitals.

    Attributes:
        config: the settings with the adopted changes.
        adopted: names of the changes.
        gain: per candidate the mean improvement of the held-out log-loss, and its standard error.
        variant: a number that tells one set of adopted changes from another; 0 for none.
    """

    config: TrainConfig
    adopted: tuple[str, ...] = ()
    gain: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    variant: int = 0

    def to_json(self) -> dict[str, Any]:
        """Weights, adopted changes, and what each candidate brought."""
        return {
            "weights": weights_of(self.config),
            "adopted": list(self.adopted),
            "log_loss_gain": {n: {"mean": m, "se": se} for n, (m, se) in self.gain.items()},
        }


def decide(
    config: TrainConfig,
    losses: Iterable[Losses],
    candidates: tuple[Candidate, ...] = CANDIDATES,
) -> Choice:
    """Adopt every candidate whose paired gain is more than one standard error above 0.

    Args:
        config: settings that the candidates change.
        losses: for every held-out fold, per candidate (and :data:`BASE`) each held-out patient's
            log-loss.
        candidates: what was tried.
    """
    parts = list(losses)
    gain, adopted, variant = {}, [], 0
    chosen = config
    for i, candidate in enumerate(candidates):
        paired = [part[BASE] - part[candidate.name] for part in parts]
        mean, se = mean_and_error(paired)
        gain[candidate.name] = (mean, se)
        if mean > se:
            adopted.append(candidate.name)
            chosen = candidate.applied(chosen)
            variant |= 1 << i
    return Choice(config=chosen, adopted=tuple(adopted), gain=gain, variant=variant)


def mean_and_error(paired: list[Float64[np.ndarray, " _"]]) -> tuple[float, float]:
    """Mean of the folds' mean differences and its standard error; over patients for one fold."""
    means = np.array([part.mean() for part in paired])
    spread = means if means.size > 1 else paired[0]
    return float(means.mean()), float(spread.std(ddof=1) / np.sqrt(spread.size))


@dataclass(kw_only=True)
class Chooser:
    """Chooses the weights for every set of excluded folds; short fits are shared between them."""

    lattice: TeacherLattice
    on_fit: Callable[[str], None] = lambda _: None
    _students: dict[Folds, dict[str, FittedStudent]] = field(default_factory=dict)
    _choices: dict[Folds, Choice] = field(default_factory=dict)

    def groups(self, excluded: Folds) -> tuple[Folds, ...]:
        """The further folds that are held out, one after the other, to choose.

        They follow the excluded fold around the circle of folds, so that every pair of folds is
        left out together for the choice of both.
        """
        folds = list(self.lattice.data.folds)
        rest = inner_groups(set(folds) - excluded)
        n = min(self.lattice.config.choice_folds, len(rest))
        at = folds.index(min(excluded)) if excluded else 0
        order = sorted(rest, key=lambda g: _apart(at, folds.index(min(g)), len(folds)))
        return tuple(order[:n])

    def choice(self, excluded: Folds) -> Choice:
        """The weights for the student of the patients outside ``excluded``."""
        config = self.lattice.config
        if not config.choose_weights:
            return Choice(config=config)
        if excluded not in self._choices:
            losses = [
                {name: held_out_loss(s, self.lattice, group) for name, s in students.items()}
                for group in self.groups(excluded)
                for students in [self._short_fits(excluded | group)]
            ]
            self._choices[excluded] = decide(config, losses)
        return self._choices[excluded]

    def _short_fits(self, unseen: Folds) -> dict[str, FittedStudent]:
        """A student of the patients outside ``unseen`` for every candidate, and one for none."""
        if unseen not in self._students:
            config = self.lattice.config
            short = replace(config, epochs=config.choice_epochs)
            inputs = student_inputs(self.lattice, unseen)
            fitted = {}
            for candidate in (Candidate(name=BASE, weights={}), *CANDIDATES):
                settings = candidate.applied(short)
                # Nobody attends: these fits are neither waited with nor resumed.
                fitted[candidate.name] = fit_student(
                    self.lattice, unseen, settings, inputs, attended=False
                )
                self.on_fit("choice of the objective's weights")
            self._students[unseen] = fitted
        return self._students[unseen]


def _apart(first: int, second: int, n: int) -> tuple[int, int]:
    around = (second - first) % n
    return min(around, n - around), around


def held_out_loss(
    student: FittedStudent, lattice: TeacherLattice, held: Folds
) -> Float64[np.ndarray, " patients"]:
    """Log-loss of the held-out patients, mean over everything they have and each modality alone.

    Every mixture's log-odds are scaled by a temperature of their own first: calibration is mended
    later, and must not decide here.
    """
    data = lattice.data
    rows = np.flatnonzero(np.isin(data.fold, sorted(held)) & data.labelled)
    present, transfers = data.present()[rows], all_transfers(data.modalities)
    everything = everything_masks(present, data.modalities, transfers)[:, None]
    alone = np.repeat(single_masks(data.modalities, transfers)[None], rows.size, axis=0)
    masks: Float32[np.ndarray, "rows sets tokens"] = np.concatenate([everything, alone], axis=1)
    logit = student.logits(student.features(data)[rows], masks)[0]
    known = np.concatenate([np.ones((rows.size, 1), dtype=bool), present], axis=1)
    label = data.label[rows].astype(np.int64)
    loss = np.zeros(logit.shape)
    for j in range(logit.shape[1]):
        have = known[:, j]
        if not have.any():
            continue
        scaled = logit[have, j] / fit_temperature(logit[have, j], label[have])
        loss[have, j] = np.logaddexp(0.0, np.where(label[have] == 1, -scaled, scaled))
    return np.asarray(loss.sum(axis=1) / known.sum(axis=1))
