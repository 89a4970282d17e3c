"""A student of one modality, for the question whether teachers of other modalities help it.

The same network, objective and loop as the fused student's, with one modality, one evidence set and
no bridge. What it is taught is a :class:`Lesson`, so that a control differs from it in the lesson
and in nothing else (:mod:`distill.controls`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from distill.batches import Batches
from distill.config import TrainConfig
from distill.crossfit import Folds, TeacherLattice
from distill.fit import student_loss
from distill.loop import train_student
from distill.preprocess import TablePreprocessor, fit_preprocessor
from distill.sampling import swapped_rows
from distill.student import Student, StudentShape
from distill.table import RawTable
from distill.teacher import BoostingLearner, boost, check_classes, prior_logit, screen


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What one student of one modality is taught.

    Attributes:
        modality: its name.
        raw: the training patients' values in it.
        target: probability of the positive class: the label where there is one, else what somebody
            says who does not know it.
        labelled: where the target rests on the patient's own label.
        matched: whether boosted trees fitted on the lesson also label synthetic rows for it.
    """

    modality: str
    raw: RawTable
    target: Float64[np.ndarray, " rows"]
    labelled: Bool[np.ndarray, " rows"]
    matched: bool = True


@dataclass(frozen=True, kw_only=True)
class SingleStudent:
    """A fitted student of one modality behind its preprocessing."""

    model: Student
    preprocessor: TablePreprocessor

    @torch.no_grad()
    def logit(self, raw: RawTable) -> Float64[np.ndarray, " rows"]:
        """Uncalibrated log-odds of these patients."""
        x = torch.from_numpy(self.preprocessor.transform(raw)).unsqueeze(1)
        out = self.model(x, torch.ones(len(raw), 1, 1)).logit[:, 0]
        return np.asarray(out.numpy(), dtype=np.float64)


def lesson_of(lattice: TeacherLattice, modality: str, excluded: Folds) -> Lesson:
    """What the lattice's privileged teachers make of the patients outside the excluded folds.

    Patients whom nobody labels are left out.
    """
    target = lattice.target(excluded)
    table = lattice.data.tables[modality]
    inside = np.flatnonzero(np.isfinite(target[table.row]))
    rows = table.row[inside]
    return Lesson(
        modality=modality, raw=table.raw.take(inside), target=target[rows],
        labelled=lattice.data.labelled[rows],
    )  # fmt: skip


def steps_for(rows: int, config: TrainConfig) -> int:
    """Optimiser steps that this many patients get; a control gets as many with fewer patients."""
    return config.epochs * math.ceil(rows / config.batch)


def fit_single(lesson: Lesson, config: TrainConfig, seed: int, *, steps: int) -> SingleStudent:
    """Fit one student.

    Args:
        lesson: what it is taught.
        config: settings; one evidence set a patient is drawn, there being only one.
        seed: of trees, synthetic rows, weights and batches.
        steps: optimiser steps, rounded up to whole passes over the lesson.

    Raises:
        TrainingError: if the lesson holds too few patients to learn from.
    """
    preprocessor, synthetic_x, synthetic_logit = _matching(lesson, config, seed)
    x = preprocessor.transform(lesson.raw)
    batch = min(config.batch, len(x))
    fitted = replace(
        config,
        sets_per_patient=1,
        batch=batch,
        epochs=math.ceil(steps / math.ceil(len(x) / batch)),
        match_weight=config.match_weight if lesson.matched else 0.0,
        fused_match_weight=config.fused_match_weight if lesson.matched else 0.0,
    )
    shape = StudentShape(
        modalities=(lesson.modality,), transfers=(), features=x.shape[1], width=config.width,
        latent=config.latent, token=config.token, heads=config.heads, dropout=config.dropout,
    )  # fmt: skip
    batches = _batches(lesson, x, synthetic_x, synthetic_logit, config.latent)
    model = train_student(batches, shape, fitted, seed, loss=student_loss)
    return SingleStudent(model=model, preprocessor=preprocessor)


def _matching(
    lesson: Lesson, config: TrainConfig, seed: int
) -> tuple[
    TablePreprocessor, Float32[np.ndarray, "synthetic features"], Float64[np.ndarray, " synthetic"]
]:
    """The student's features, and synthetic rows with what trees fitted on the lesson say of them.

    Features are screened on the lesson. Without trees one row stands in, at weight 0.
    """
    hard = (lesson.target > 0.5).astype(np.int64)
    check_classes(lesson.modality, hard)
    plain = fit_preprocessor(lesson.raw)
    kept = plain.select(screen(plain.transform(lesson.raw), hard, config, seed))
    if not lesson.matched:
        return kept, kept.transform(lesson.raw.take(np.arange(1))), np.zeros(1)
    x = kept.transform(lesson.raw)
    trees = BoostingLearner(
        boosters=tuple(
            boost(x, lesson.target, rounds=config.boosting_rounds, seed=seed + i)
            for i in range(config.boosters)
        )
    )
    rng = np.random.default_rng(seed)
    rows = swapped_rows(lesson.raw, config.synthetic_rows, config.swap_rate, rng)
    synthetic = kept.transform(rows)
    return kept, synthetic, trees.logit(synthetic)


def _batches(
    lesson: Lesson,
    x: Float32[np.ndarray, "rows features"],
    synthetic_x: Float32[np.ndarray, "synthetic features"],
    synthetic_logit: Float64[np.ndarray, " synthetic"],
    latent: int,
) -> Batches:
    target = _tensor(lesson.target)
    n = len(x)
    return Batches(
        x=torch.from_numpy(x).unsqueeze(1),
        present=np.ones((n, 1), dtype=bool),
        target=target,
        label=target,
        labelled=_tensor(lesson.labelled),
        teacher=torch.full((n, 1), 0.5),
        latent=torch.zeros(n, 1, latent),
        synthetic_x=torch.from_numpy(synthetic_x).unsqueeze(1),
        synthetic_logit=_tensor(synthetic_logit).unsqueeze(1),
        prior=prior_logit((lesson.target > 0.5).astype(np.int64)),
    )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
