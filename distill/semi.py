"""Few labels: which patients keep theirs, and whether that is enough to go on.

A label costs a pathologist's time; a profile that says nearly as much (a privileged modality) is
often there for everyone. So training can keep a few labels, fit the teachers on them, and let the
teachers label the other patients for the student.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from distill.crossfit import Folds, TrainingData
from distill.errors import TrainingError
from distill.teacher import MIN_OF_A_CLASS, MIN_ROWS

SEED_LABELS = 7
"""Keeps the draw of labels apart from every other use of the run's seed."""
SPARE = 1.2
"""Labels asked for beyond the exact proportion: whole patients fall unevenly on folds."""


def draw_labels(data: TrainingData, count: int, seed: int) -> Bool[np.ndarray, " patients"]:
    """Choose whose label is kept: each class in proportion, and each fold within the class.

    So every set of training hospitals holds its share of the labels. The same seed draws the same
    patients. The draw looks at labels only to keep the classes' proportion.

    Args:
        data: the patients.
        count: labels to keep.
        seed: of the draw.

    Raises:
        TrainingError: if there are not that many labels, or none is asked for.
    """
    n = int(data.label.size)
    if not 1 <= count <= n:
        raise TrainingError(
            f"{count} labels were asked for; the cohort has {n}. Keep between 1 and {n}, or leave "
            "--labels out to use them all."
        )
    rng = np.random.default_rng([seed, SEED_LABELS])
    cell = data.fold.astype(np.int64) * 2 + data.label
    names, size = np.unique(cell, return_counts=True)
    kept = np.zeros(n, dtype=bool)
    for name, k in zip(names, _shares(size, count)):
        kept[rng.permutation(np.flatnonzero(cell == name))[:k]] = True
    return kept


def _shares(size: Int[np.ndarray, " cells"], count: int) -> Int[np.ndarray, " cells"]:
    """Whole numbers in proportion to the sizes that add up to the count (largest remainders)."""
    exact = size * (count / size.sum())
    share = np.floor(exact + 1e-9).astype(np.int64)
    first = np.argsort(share - exact, kind="stable")[: count - int(share.sum())]
    share[first] += 1
    return np.asarray(share)


def keep_labels(data: TrainingData, count: int | None, seed: int) -> TrainingData:
    """The same patients, all but ``count`` of them unlabelled; None keeps every label.

    Raises:
        TrainingError: if there are not that many labels.
    """
    if count is None:
        return data
    return replace(data, label_kept=draw_labels(data, count, seed))


def check_labels(data: TrainingData, excluded: Iterable[Folds]) -> None:
    """Refuse what cannot be learnt from before anything is fitted.

    Args:
        data: the patients, with the labels that are kept.
        excluded: the sets of folds that some teacher is fitted without.

    Raises:
        TrainingError: if a fold's patients are all of one class, some teacher would have too few of
            them, or a privileged teacher has no unlabelled patient to teach by.
    """
    check_fold_classes(data)
    if data.label_kept is None or data.label_kept.all():
        return
    _check_teachers(data, tuple(excluded))
    for modality in data.privileged:
        _check_pairs(data, modality)


def check_fold_classes(data: TrainingData) -> None:
    """Refuse a fold whose patients are all of one class: nothing can be scored on it.

    Raises:
        TrainingError: naming the fold.
    """
    for fold in data.folds:
        inside = data.label[data.fold == fold]
        if np.unique(inside).size < 2:
            raise TrainingError(
                f"Fold {fold} has {inside.size} patients, all of class {int(inside[0])}. Every "
                "fold needs both classes: merge folds, or remove 'fold' from cohort.toml to have "
                "balanced ones assigned."
            )


@dataclass(frozen=True, kw_only=True)
class _Shortage:
    """How far one modality's labels are from enough in one training set.

    ``lacks`` is the share that is missing, 0 or less if they are enough; ``enough`` the labels that
    the whole cohort has to keep for this training set to expect as many as it needs.
    """

    modality: str
    unseen: Folds
    labels: int
    rarer: int
    lacks: float
    enough: float


def _check_teachers(data: TrainingData, excluded: tuple[Folds, ...]) -> None:
    """Name the modality that lacks most, so that what is said to be enough is enough for all."""
    found = [
        _shortage(data, modality, folds)
        for modality in (*data.modalities, *data.privileged)
        for folds in excluded
    ]
    worst = max(found, key=lambda s: s.lacks)
    if worst.lacks <= 0:
        return
    used = int(data.labelled.sum())
    enough = min(data.label.size, int(np.ceil(SPARE * max(s.enough for s in found))))
    raise TrainingError(
        f"{used} labels are too few for modality {worst.modality!r}: without folds "
        f"{', '.join(map(str, sorted(worst.unseen))) or 'none'} it has {worst.labels} labelled "
        f"patients, {worst.rarer} of the rarer class; at least {MIN_ROWS}, and {MIN_OF_A_CLASS} of "
        f'each class, are needed. Keep about {enough} labels, or give it role = "ignored".'
    )


def _shortage(data: TrainingData, modality: str, folds: Folds) -> _Shortage:
    having = np.zeros(data.label.size, dtype=bool)
    having[data.tables[modality].row] = True
    having &= data.rows(folds)
    label = data.label[having & data.labelled]
    rarer = int(np.bincount(label, minlength=2).min())
    everyone = np.bincount(data.label[having], minlength=2)
    share = np.array([everyone.sum(), everyone.min()]) / data.label.size
    return _Shortage(
        modality=modality, unseen=folds, labels=int(label.size), rarer=rarer,
        lacks=1 - min(label.size / MIN_ROWS, rarer / MIN_OF_A_CLASS),
        enough=float(np.max(np.array([MIN_ROWS, MIN_OF_A_CLASS]) / np.maximum(share, 1e-9))),
    )  # fmt: skip


def _check_pairs(data: TrainingData, modality: str) -> None:
    """A privileged teacher speaks to the student only through patients that have both."""
    row = data.tables[modality].row
    paired = data.present()[row].any(axis=1) & ~data.labelled[row]
    if not paired.any():
        raise TrainingError(
            f"Privileged modality {modality!r} has no unlabelled patient who also has a modality "
            f"of {', '.join(data.modalities)}: there is nobody for its teacher to label. Keep "
            'fewer labels, or give it role = "ignored" in cohort.toml.'
        )
