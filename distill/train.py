"""Cohort to bundle: crossfit, calibrate, score out of fold, fit for serving, export, seal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64
from scipy.special import expit

from distill.arrays import training_data, usable
from distill.attribution import feature_importance
from distill.baselines import baseline_logits, strong_late_fusion
from distill.calibrate import (
    Calibration,
    calibration_masks,
    disagreement,
    fit_calibration,
    lacking,
)
from distill.carbon_aware import CarbonRun
from distill.choice import CANDIDATES, Chooser
from distill.cohort import Cohort
from distill.cohort_folds import with_folds
from distill.config import TrainConfig
from distill.coverage import conformal_sets
from distill.crossfit import (
    Folds,
    TeacherLattice,
    TrainingData,
    inner_groups,
)
from distill.figures import best_by_auc, cards, student_figures
from distill.fit import FittedStudent, fit_student
from distill.masks import everything_masks, set_masks, single_masks
from distill.semi import check_labels, keep_labels
from distill.transfers import EvidenceSets, all_transfers

Progress = Callable[[int, int, str], None]
"""Called with (steps finished, steps in all, what is being done)."""
EMPTY: Folds = frozenset()


def no_progress(finished: int, total: int, stage: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """What students that never saw a patient's fold say of the patient.

    Attributes:
        full: with everything that the patient has.
        evidence: per evidence set, NaN where the patient lacks a source.
        disagreement: between the tokens of each set, NaN likewise.
        single: per modality alone, NaN where the patient lacks it.
        teacher: calibrated log-odds of each modality's teacher (privileged ones too).
        calibration: of each fold; what makes sets of classes of its patients' log-odds.
    """

    full: Float64[np.ndarray, " patients"]
    evidence: Float64[np.ndarray, "patients sets"]
    disagreement: Float64[np.ndarray, "patients sets"]
    single: Float64[np.ndarray, "patients modalities"]
    teacher: Mapping[str, Float64[np.ndarray, " patients"]]
    calibration: Mapping[int, Calibration]


@dataclass(frozen=True, kw_only=True)
class FoldScores:
    """One fold's patients under some masks, and with everything that each has."""

    logit: Float64[np.ndarray, "rows masks"]
    disagreement: Float64[np.ndarray, "rows masks"]
    full: Float64[np.ndarray, " rows"]
    calibration: Calibration


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Everything that a bundle is written from.

    Attributes:
        cohort: the patients, folds filled in.
        data: the same as arrays.
        config: settings and seed.
        sets: the evidence sets.
        out_of_fold: what unseen patients got.
        baselines: log-odds of each baseline from the same folds.
        student: the one fitted on all patients, for serving.
        calibration: its temperatures.
        metrics: figures of the out-of-fold scores.
        teacher_choice: which kind of model teaches each modality.
        seconds: wall time.
    """

    cohort: Cohort
    data: TrainingData
    config: TrainConfig
    sets: EvidenceSets
    out_of_fold: OutOfFold
    baselines: Mapping[str, Float64[np.ndarray, " patients"]]
    student: FittedStudent
    calibration: Calibration
    metrics: Mapping[str, Any]
    teacher_choice: Mapping[str, str]
    seconds: float


@dataclass(kw_only=True)
class Trainer:
    """Runs the stages in order and tells how far it is; students are remembered by fold set."""

    data: TrainingData
    config: TrainConfig
    progress: Progress = no_progress
    carbon: CarbonRun | None = None

    def __post_init__(self) -> None:
        self.lattice = TeacherLattice(data=self.data, config=self.config, on_fit=self._step)
        self.chooser = Chooser(lattice=self.lattice, on_fit=self._step)
        if self.carbon is not None:
            self.lattice.attend = self.carbon.attend
            self.carbon.students = len(self._unseen()[0])
        self.sets = EvidenceSets.enumerate(all_transfers(self.data.modalities))
        self._students: dict[tuple[Folds, int], FittedStudent] = {}
        check_labels(self.data, sorted(self._unseen()[1], key=len, reverse=True))
        self._finished, self._total = 0, self._count()

    def _calibration_groups(self, excluded: Folds) -> tuple[Folds, ...]:
        """The folds that are held out, one after the other, to fit temperatures."""
        groups = inner_groups(set(self.data.folds) - excluded)
        n = self.config.calibration_folds
        if n >= len(groups) or not excluded:
            return groups
        # Neighbouring folds are paired, so that the two of a pair share one student.
        order = list(self.data.folds)
        at = order.index(min(excluded)) ^ 1
        first = next((g for g in groups if at < len(order) and order[at] in g), groups[0])
        return (first, *(g for g in groups if g != first))[:n]

    def _unseen(self) -> tuple[set[Folds], set[Folds]]:
        """The sets of folds that students, and that teachers, are fitted without."""
        folds = self.data.folds
        students = {EMPTY} | {frozenset({f}) for f in folds}
        for f in folds:
            students |= {frozenset({f}) | g for g in self._calibration_groups(frozenset({f}))}
        teachers = set(students) | self._short_fits()
        for e in tuple(teachers):
            teachers |= {e | g for g in inner_groups(set(folds) - e)}
        return students, teachers

    def _count(self) -> int:
        """Number of fits to come: teachers, students and baselines."""
        students, teachers = self._unseen()
        folds = self.data.folds
        names = len(self.data.modalities) + len(self.data.privileged)
        fusions = 2 if self.config.boosted_baselines else 1
        baselines = len(folds) * (len(self.data.modalities) + fusions)
        choices = len(self._short_fits()) * (len(CANDIDATES) + 1)
        return len(teachers) * names + len(students) + choices + baselines + 1

    def _short_fits(self) -> set[Folds]:
        """The sets of folds that short fits leave out, to choose the objective's weights."""
        if not self.config.choose_weights:
            return set()
        scored = (EMPTY, *(frozenset({f}) for f in self.data.folds))
        return {e | g for e in scored for g in self.chooser.groups(e)}

    def _step(self, stage: str) -> None:
        self._finished += 1
        if self.carbon is not None:
            self.carbon.charge()
        self.progress(min(self._finished, self._total), self._total, stage)

    def fit_teachers(self) -> None:
        """All teachers and the choice of weights, before any student.

        A carbon budget plans the students' steps with what they leave.
        """
        for excluded in sorted(self._unseen()[0], key=sorted):
            for modality in (*self.data.modalities, *self.data.privileged):
                self.lattice.teacher(modality, excluded)
        for scored in (EMPTY, *(frozenset({f}) for f in self.data.folds)):
            self.chooser.choice(scored)

    def student(self, excluded: Folds, chosen_for: Folds | None = None) -> FittedStudent:
        """The student that has not seen these folds.

        Args:
            excluded: the folds.
            chosen_for: whose choice of weights it is fitted with; by default that of ``excluded``.
                A student that helps to calibrate another one has the other one's weights.
        """
        choice = self.chooser.choice(excluded if chosen_for is None else chosen_for)
        key = (excluded, choice.variant)
        if key not in self._students:
            self._students[key] = fit_student(
                self.lattice, excluded, choice.config, variant=choice.variant
            )
            self._step("student")
        return self._students[key]

    def calibration(self, excluded: Folds) -> Calibration:
        """Temperatures and thresholds for the student of ``excluded``, from other folds' patients.

        The scored fold itself takes no part, neither its features nor its labels.
        """
        masks, logit = self.held_out(excluded)
        label = self.data.label.astype(np.int64)
        return fit_calibration(self.data.modalities, masks, logit, label)

    def held_out(
        self, excluded: Folds
    ) -> tuple[Float32[np.ndarray, "masks tokens"], Float64[np.ndarray, "patients masks"]]:
        """Masks to calibrate on, and log-odds of the patients outside ``excluded``, NaN else.

        Students that also leave out one more fold score that fold.
        """
        data = self.data
        masks = calibration_masks(data.modalities, self.sets.transfers)
        logit = np.full((data.label.size, masks.shape[0]), np.nan)
        for group in self._calibration_groups(excluded):
            student = self.student(excluded | group, excluded)
            rows = np.flatnonzero(np.isin(data.fold, sorted(group)))
            x = student.features(data)[rows]
            logit[rows] = student.logits(x, masks[None])[0]
        logit[lacking(masks, data.present())] = np.nan
        logit[~data.labelled] = np.nan
        return masks, logit

    def out_of_fold(self) -> OutOfFold:
        """Score every patient by the student and the teachers of the other folds."""
        data, n = self.data, self.data.label.size
        masks = np.concatenate([
            set_masks(self.sets, data.modalities),
            single_masks(data.modalities, self.sets.transfers),
        ])  # fmt: skip
        k = len(self.sets.bits)
        logit, spread = np.full((n, len(masks)), np.nan), np.full((n, k), np.nan)
        full, calibration = np.full(n, np.nan), {}
        for f in data.folds:
            rows = np.flatnonzero(data.fold == f)
            scored = self.score_fold(f, masks)
            logit[rows], full[rows] = scored.logit, scored.full
            spread[rows], calibration[f] = scored.disagreement[:, :k], scored.calibration
        absent = lacking(masks, data.present())
        logit[absent] = np.nan
        spread[absent[:, :k]] = np.nan
        return OutOfFold(
            full=full, evidence=logit[:, :k], disagreement=spread, single=logit[:, k:],
            teacher={m: self._teacher_logits(m) for m in (*data.modalities, *data.privileged)},
            calibration=calibration,
        )  # fmt: skip

    def score_fold(self, fold: int, masks: Float32[np.ndarray, "masks tokens"]) -> FoldScores:
        """Calibrated log-odds of one fold's patients by the student that has not seen the fold.

        Nothing of the fold's labels, and nothing of its features but the rows being scored, takes
        part.
        """
        data, excluded = self.data, frozenset({fold})
        rows = np.flatnonzero(data.fold == fold)
        student, calibration = self.student(excluded), self.calibration(excluded)
        x = student.features(data)[rows]
        everything = everything_masks(data.present()[rows], data.modalities, self.sets.transfers)
        logit, token = student.logits(x, masks[None])
        full = student.logits(x, everything[:, None])[0][:, 0]
        return FoldScores(
            logit=logit / calibration.of_masks(masks),
            disagreement=disagreement(token, masks),
            full=full / calibration.of_masks(everything),
            calibration=calibration,
        )

    def _teacher_logits(self, modality: str) -> Float64[np.ndarray, " patients"]:
        out = np.full(self.data.label.size, np.nan)
        table = self.data.tables[modality]
        for f in self.data.folds:
            inside = np.flatnonzero(self.data.fold[table.row] == f)
            teacher, _ = self.lattice.teacher(modality, frozenset({f}))
            out[table.row[inside]] = teacher.logit(table.raw.take(inside))
        return out

    def baselines(self) -> dict[str, Float64[np.ndarray, " patients"]]:
        """The baselines' out-of-fold log-odds."""
        return baseline_logits(
            self.data, seed=self.config.seed, on_fit=self._step,
            boosted_early_fusion=self.config.boosted_baselines,
        )  # fmt: skip

    def objective(self) -> dict[str, Any]:
        """The weights that were chosen: for each scored fold's student, and for serving."""
        folds = {str(f): self.chooser.choice(frozenset({f})).to_json() for f in self.data.folds}
        serving = self.chooser.choice(EMPTY).to_json()
        return {"chosen": self.config.choose_weights, "serving": serving, "folds": folds}

    def finish(self) -> None:
        """Report the last step."""
        self._finished = self._total - 1
        self._step("bundle")


def fit(
    cohort: Cohort, config: TrainConfig, progress: Progress = no_progress,
    carbon: CarbonRun | None = None,
) -> Trained:  # fmt: skip
    """Everything up to, and without, writing files.

    Sets torch's number of threads, which is part of what makes a run repeatable. ``carbon`` minds
    the grid: every student is trained under its control.

    Raises:
        BudgetSpentError: if the run's carbon budget does not reach.
        TrainingError: if the cohort is too small or has too few folds.
    """
    start = time.monotonic()
    torch.set_num_threads(config.torch_threads)
    cohort = with_folds(cohort, seed=config.seed)
    data = usable(keep_labels(training_data(cohort), config.labels, config.seed))
    trainer = Trainer(data=data, config=config, progress=progress, carbon=carbon)
    trainer.fit_teachers()
    baselines = trainer.baselines()
    scores = trainer.out_of_fold()
    baselines["strong_late_fusion"] = strong_late_fusion(data, scores.teacher)
    student, calibration = trainer.student(EMPTY), trainer.calibration(EMPTY)
    metrics = _metrics(
        data, trainer.sets, scores, baselines, seed=config.seed, group=cohort.named_group
    )
    importance = feature_importance(
        student, calibration, data, cohort.named_group, seed=config.seed
    )
    trainer.finish()
    return Trained(
        cohort=cohort, data=data, config=config, sets=trainer.sets, out_of_fold=scores,
        baselines=baselines, student=student, calibration=calibration,
        metrics={**metrics, "importance": importance, "objective": trainer.objective()},
        teacher_choice={
            m: trainer.lattice.teacher(m, EMPTY)[0].choice
            for m in (*data.modalities, *data.privileged)
        },
        seconds=time.monotonic() - start,
    )  # fmt: skip


def _metrics(
    data: TrainingData,
    sets: EvidenceSets,
    scores: OutOfFold,
    baselines: Mapping[str, Float64[np.ndarray, " patients"]],
    *,
    seed: int,
    group: tuple[str, ...] | None,
) -> dict[str, Any]:
    inside = conformal_sets(
        scores.calibration, data.fold, data.present(), sets=sets, modalities=data.modalities,
        full=scores.full, evidence=scores.evidence, single=scores.single,
    )  # fmt: skip
    figures = student_figures(
        data.label, sets=sets, modalities=data.modalities, full=scores.full,
        evidence=scores.evidence, single=scores.single, seed=seed, group=group, inside=inside,
    )  # fmt: skip
    compared = cards(data.label, baselines, seed + 3)
    return {
        **figures,
        "teachers": cards(data.label, scores.teacher, seed + 4),
        "baselines": compared,
        "best_baseline": best_by_auc(compared, data.label.size),
        "positive_rate": float(data.label.mean()),
        "mean_probability": float(np.mean(expit(scores.full))),
    }
