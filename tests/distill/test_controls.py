from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from distill.cohort import Cohort
from distill.config import TrainConfig
from distill.controls import permuted_teacher, self_training, twin
from distill.crossfit import TeacherLattice, TrainingData
from distill.errors import TrainingError
from distill.metrics import auc_value
from distill.semi import keep_labels
from distill.single import Lesson, SingleStudent, fit_single, lesson_of, steps_for
from distill.train import training_data

EXCLUDED = frozenset({4})


@pytest.fixture(scope="module")
def few(make_cohort: Callable[..., Cohort]) -> TrainingData:
    return keep_labels(training_data(make_cohort()), 50, seed=1)


@pytest.fixture(scope="module")
def lesson(few: TrainingData, tiny_config: TrainConfig) -> Lesson:
    return lesson_of(TeacherLattice(data=few, config=tiny_config), "pathology", EXCLUDED)


@pytest.fixture(scope="module")
def label(few: TrainingData, lesson: Lesson) -> np.ndarray:
    """What a control may see: the labels that are kept, zeros elsewhere."""
    row = few.tables["pathology"].row
    target = TeacherLattice(data=few, config=TrainConfig()).target(EXCLUDED)[row]
    return few.label[row[np.isfinite(target)]].astype(np.float64) * lesson.labelled


def weights(student: SingleStudent) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in student.model.state_dict().items()}


def same(first: SingleStudent, second: SingleStudent) -> bool:
    a, b = weights(first), weights(second)
    return all(np.array_equal(a[k], b[k]) for k in a) and a.keys() == b.keys()


def test_a_lesson_holds_labels_and_what_the_privileged_teacher_says_of_the_rest(
    few: TrainingData, lesson: Lesson
):
    kept = few.labelled & (few.fold != 4)
    having = np.isin(np.arange(200), few.tables["pathology"].row)
    assert lesson.labelled.sum() == (kept & having).sum()
    soft = lesson.target[~lesson.labelled]
    assert ((soft > 0) & (soft < 1)).all()
    assert soft.size > 60


def test_labels_of_scored_hospitals_and_labels_that_are_not_kept_reach_no_lesson(
    few: TrainingData, lesson: Lesson, tiny_config: TrainConfig
):
    unseen = ~few.labelled | (few.fold == 4)
    turned = replace(few, label=np.where(unseen, 1 - few.label, few.label).astype(np.int8))
    other = lesson_of(TeacherLattice(data=turned, config=tiny_config), "pathology", EXCLUDED)
    assert np.array_equal(lesson.target, other.target)


def test_the_student_learns_from_patients_without_labels(
    few: TrainingData, lesson: Lesson, label: np.ndarray, tiny_config: TrainConfig
):
    steps = steps_for(len(lesson.raw), tiny_config)
    table = few.tables["pathology"]
    inside = np.flatnonzero(few.fold[table.row] == 4)
    scored, truth = table.raw.take(inside), few.label[table.row[inside]].astype(np.int64)
    student = fit_single(lesson, tiny_config, 0, steps=steps)
    shuffled = permuted_teacher(lesson, label, np.random.default_rng(0))
    misled = fit_single(shuffled, tiny_config, 0, steps=steps)
    assert auc_value(truth, student.logit(scored)) > 0.7
    assert auc_value(truth, student.logit(scored)) > auc_value(truth, misled.logit(scored))


def test_permutation_keeps_class_counts_and_labels(lesson: Lesson, label: np.ndarray):
    shuffled = permuted_teacher(lesson, label, np.random.default_rng(0))
    silent = ~lesson.labelled
    assert np.array_equal(np.sort(shuffled.target[silent]), np.sort(lesson.target[silent]))
    assert (shuffled.target[silent] > 0.5).sum() == (lesson.target[silent] > 0.5).sum()
    assert not np.array_equal(shuffled.target[silent], lesson.target[silent])
    assert np.array_equal(shuffled.target[~silent], label[~silent])
    assert np.array_equal(shuffled.labelled, lesson.labelled)


def test_self_training_puts_the_own_opinion_in_the_teachers_place(
    lesson: Lesson, label: np.ndarray
):
    own = np.linspace(-2, 2, label.size)
    taught = self_training(lesson, label, own)
    assert np.array_equal(taught.target[lesson.labelled], label[lesson.labelled])
    assert np.allclose(taught.target[~lesson.labelled], 1 / (1 + np.exp(-own[~lesson.labelled])))


def test_without_a_teacher_the_student_is_the_twin_bit_for_bit(
    few: TrainingData, lesson: Lesson, label: np.ndarray, tiny_config: TrainConfig
):
    alone = replace(few, privileged=())
    nobody = lesson_of(TeacherLattice(data=alone, config=tiny_config), "pathology", EXCLUDED)
    student = fit_single(replace(nobody, matched=False), tiny_config, 0, steps=20)
    control = fit_single(twin(lesson, label), tiny_config, 0, steps=20)
    assert nobody.labelled.all()
    assert same(student, control)
    assert not same(student, fit_single(lesson, tiny_config, 0, steps=20))


def test_the_twin_has_the_students_size_and_sees_labelled_patients_only(
    lesson: Lesson, label: np.ndarray
):
    control = twin(lesson, label)
    assert control.labelled.all()
    assert len(control.raw) == lesson.labelled.sum()
    assert set(control.target) == {0.0, 1.0}


def test_a_lesson_of_one_class_is_refused(lesson: Lesson, tiny_config: TrainConfig):
    with pytest.raises(TrainingError, match="of each class"):
        fit_single(replace(lesson, target=np.ones_like(lesson.target)), tiny_config, 0, steps=5)
