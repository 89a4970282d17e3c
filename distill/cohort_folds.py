"""Folds for cohorts that bring none: hospitals stay whole, classes stay balanced."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Int16
from sklearn.model_selection import StratifiedGroupKFold

from distill.cohort import Cohort
from distill.errors import CohortError


def assign_folds(cohort: Cohort, n_folds: int = 5, seed: int = 0) -> Int16[np.ndarray, " patients"]:
    """Hospital-grouped, class-balanced folds, the same for the same seed.

    Args:
        cohort: patients with labels and hospitals; given folds are not looked at.
        n_folds: how many folds, at least 2.
        seed: shuffles the hospitals.

    Raises:
        CohortError: if there are fewer hospitals, or fewer cases of a class, than folds.
    """
    hospitals = len(set(cohort.group))
    smallest = int(np.bincount(cohort.label, minlength=2).min())
    if not 2 <= n_folds <= min(hospitals, smallest):
        raise CohortError(
            f"Cohort {cohort.name!r} cannot be cut into {n_folds} folds: it has {hospitals} "
            f"hospitals and {smallest} cases of the smaller class. Ask for 2 to "
            f"{min(hospitals, smallest)} folds."
        )
    splitter = StratifiedGroupKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    fold = np.full(cohort.n_patients, -1, dtype=np.int16)
    for k, (_, held_out) in enumerate(
        splitter.split(np.zeros(cohort.n_patients), cohort.label, np.array(cohort.group))
    ):
        fold[held_out] = k
    return fold


def with_folds(cohort: Cohort, n_folds: int = 5, seed: int = 0) -> Cohort:
    """The cohort with its given folds, or with :func:`assign_folds` where it has none.

    Raises:
        CohortError: if the given folds put everyone into one, or no folds can be made.
    """
    if cohort.fold is not None:
        if np.unique(cohort.fold).size < 2:
            raise CohortError(
                f"Cohort {cohort.name!r} has all its patients in fold {int(cohort.fold[0])}, so "
                "nothing can be held out. Remove 'fold' from cohort.toml to have folds assigned."
            )
        return cohort
    return replace(cohort, fold=assign_folds(cohort, n_folds, seed))
