"""Random hospital-grouped splits, and intervals that know the splits share their patients.

Twenty random splits of the same patients are not twenty experiments: their training sets overlap,
so the plain interval of the mean is far too narrow. Whatever is compared over such splits is
reported with :func:`corrected_interval`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from scipy.stats import t as student_t

from distill.cohort import Cohort
from distill.errors import CohortError

Split = tuple[Bool[np.ndarray, " patients"], Bool[np.ndarray, " patients"]]
"""Who trains and who is scored; no hospital is in both, and every patient is in one of them."""
CONFIDENCE = 0.95


class CorrectedInterval(NamedTuple):
    """Mean of paired differences with its corrected interval."""

    mean: float
    low: float
    high: float


def corrected_interval(
    differences: Sequence[float],
    n_train: float | int,
    n_test: float | int,
    confidence: float = CONFIDENCE,
) -> CorrectedInterval:
    """Mean and interval of differences over random splits: Nadeau and Bengio's corrected t.

    The variance of the mean is taken as (1/J + n_test/n_train) times the sample variance of the J
    differences, instead of 1/J times it, because training sets that overlap make the differences
    depend on each other (Nadeau & Bengio 2003, Machine Learning 52:239-281, section 3, "corrected
    resampled t-test").

    Args:
        differences: one paired difference a split.
        n_train: training patients a split, a mean where it varies.
        n_test: scored patients a split, likewise.
        confidence: two-sided, between 0 and 1.

    Returns:
        (mean, low, high).

    Raises:
        ValueError: with fewer than two differences, a NaN among them, or impossible sizes.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"{values.size} differences came, {int((~np.isfinite(values)).sum())} of them not "
            "finite; an interval needs at least two, all of them numbers."
        )
    if n_train <= 0 or n_test <= 0 or not 0 < confidence < 1:
        raise ValueError(
            f"n_train {n_train}, n_test {n_test} and confidence {confidence} came; patients must "
            "be more than 0 and the confidence between 0 and 1."
        )
    mean = float(values.mean())
    spread = float(values.var(ddof=1)) * (1 / values.size + n_test / n_train)
    half = float(student_t.ppf(0.5 + confidence / 2, values.size - 1)) * spread**0.5
    return CorrectedInterval(mean, mean - half, mean + half)


def hospital_splits(
    cohort: Cohort, n: int = 20, test_share: float = 0.2, seed: int = 0
) -> list[Split]:
    """Random splits that keep hospitals whole and each class near its share; same seed, same list.

    Hospitals are sorted by the class that most of their patients have, shuffled within it, and
    taken for scoring until the class's share of patients is as near to ``test_share`` as whole
    hospitals allow. So a cohort whose hospitals each hold one class is still split evenly. The
    cohort's own folds are not looked at.

    Args:
        cohort: patients with labels and hospitals.
        n: how many splits, each drawn anew.
        test_share: share of each class to score, between 0 and 1.
        seed: of the shuffles.

    Returns:
        For every split the training patients and the scored ones.

    Raises:
        CohortError: if a class has fewer than two hospitals, so that none would be left.
        ValueError: if ``n`` or ``test_share`` is impossible.
    """
    if n < 1 or not 0 < test_share < 1:
        raise ValueError(
            f"n is {n} and test_share {test_share}; use at least one split and a share between 0 "
            "and 1."
        )
    name, hospital = np.unique(np.array(cohort.group), return_inverse=True)
    size = np.bincount(hospital)
    positive = np.bincount(hospital, weights=cohort.label == 1)
    majority = 2 * positive > size
    for kind in (False, True):
        if int((majority == kind).sum()) < 2:
            raise CohortError(
                f"Cohort {cohort.name!r}: of its {name.size} hospitals "
                f"{int((majority == kind).sum())} have mostly {'positive' if kind else 'negative'} "
                "patients. Splits by hospital need at least two of either kind."
            )
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        chosen = [
            _nearest(np.flatnonzero(majority == kind), size, test_share, rng)
            for kind in (False, True)
        ]
        test = np.isin(hospital, np.concatenate(chosen))
        out.append((~test, test))
    return out


def _nearest(
    hospitals: np.ndarray, size: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """The first so many hospitals of a shuffle whose patients come nearest to the share."""
    order = rng.permutation(hospitals)
    total = np.cumsum(size[order])
    # Neither none nor all of them: both sides need the class.
    best = 1 + int(np.argmin(np.abs(total[:-1] - share * total[-1])))
    return np.asarray(order[:best])
