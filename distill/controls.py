"""Controls of a claim that a teacher helps: each changes the lesson in one respect.

- the twin: no teacher and no unlabelled patient; same network, same number of steps;
- self-training: the same unlabelled patients, labelled by the student's own modality instead;
- the permuted teacher: the same soft labels, each given to another unlabelled patient.

If the student beats the first only, more data would do; if not the second, no other modality is
needed; if the third does as well, the soft labels carry nothing about the patient.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float64
from scipy.special import expit

from distill.single import Lesson


def twin(lesson: Lesson, label: Float64[np.ndarray, " rows"]) -> Lesson:
    """The supervised twin's lesson: labelled patients and their hard labels, no teacher at all.

    Args:
        lesson: the student's lesson.
        label: 0 or 1 a row; those of unlabelled rows are not looked at.
    """
    kept = np.flatnonzero(lesson.labelled)
    return Lesson(
        modality=lesson.modality, raw=lesson.raw.take(kept), target=label[kept],
        labelled=lesson.labelled[kept], matched=False,
    )  # fmt: skip


def self_training(
    lesson: Lesson, label: Float64[np.ndarray, " rows"], own_logit: Float64[np.ndarray, " rows"]
) -> Lesson:
    """The student's lesson with the own modality's opinion in the teacher's place.

    Args:
        lesson: the student's lesson.
        label: 0 or 1 a row; those of unlabelled rows are not looked at.
        own_logit: log-odds by a model of the same modality that was fitted on the labelled rows
            (the twin, or trees); those of labelled rows are not looked at.
    """
    return replace(lesson, target=np.where(lesson.labelled, label, expit(own_logit)))


def permuted_teacher(
    lesson: Lesson, label: Float64[np.ndarray, " rows"], rng: np.random.Generator
) -> Lesson:
    """The student's lesson with the soft labels of unlabelled patients in a random order.

    So their distribution, and with it the classes' counts, stays as it was. Labelled patients keep
    their hard label and lose the privileged modality's softening.

    Args:
        lesson: the student's lesson.
        label: 0 or 1 a row; those of unlabelled rows are not looked at.
        rng: source of the order.
    """
    target = np.where(lesson.labelled, label, lesson.target)
    target[~lesson.labelled] = rng.permutation(target[~lesson.labelled])
    return replace(lesson, target=target)
