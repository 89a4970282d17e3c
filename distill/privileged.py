"""Soft labels by privileged modalities, for the teachers of the other modalities to learn from.

A measurement that is never available at review may still say *how much* a patient is of a class: a
borderline tumour gets a borderline target. Teachers of the inference modalities are fitted on the
mean of the hard label and this soft one (learning using privileged information: Vapnik & Vashist
2009; as soft labels: Lopez-Paz et al. 2016).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int
from sklearn.linear_model import LogisticRegression

from distill.preprocess import fit_preprocessor
from distill.table import RawTable

PENALTY_C = 0.01
SHARE = 0.5
"""Weight of the privileged soft label in the target; the rest is the hard label's."""
MIN_OF_A_CLASS = 5


def held_out_probability(
    raw: RawTable, label: Int[np.ndarray, " rows"], fold: Int[np.ndarray, " rows"]
) -> Float64[np.ndarray, " rows"]:
    """Probability of the positive class for each fold's rows by a regression of the other folds.

    NaN where the other folds hold too few patients of a class to learn from. Preprocessing looks at
    no label, so it is fitted on all rows at once.

    Args:
        raw: one privileged modality's values.
        label: the rows' classes.
        fold: the rows' folds; each is held out once.
    """
    out = np.full(label.size, np.nan)
    if not label.size:
        return out
    features = fit_preprocessor(raw).transform(raw)
    for held in np.unique(fold):
        other = fold != held
        if np.bincount(label[other], minlength=2).min() < MIN_OF_A_CLASS:
            continue
        model = LogisticRegression(C=PENALTY_C, solver="newton-cholesky")
        model.fit(features[other], label[other])
        out[~other] = model.predict_proba(features[~other])[:, 1]
    return out


def plain_log_odds(
    raw: RawTable,
    label: Int[np.ndarray, " rows"],
    labelled: Bool[np.ndarray, " rows"],
) -> Float64[np.ndarray, " rows"]:
    """Log-odds of the unlabelled rows by a regression of all labelled ones; NaN for the latter.

    NaN throughout where too few of a class are labelled to learn from.

    Args:
        raw: one privileged modality's values.
        label: the rows' classes; those of unlabelled rows are not looked at.
        labelled: which rows' labels may be seen.
    """
    out = np.full(label.size, np.nan)
    known = label[labelled]
    if labelled.all() or np.bincount(known, minlength=2).min() < MIN_OF_A_CLASS:
        return out
    features = fit_preprocessor(raw).transform(raw)
    model = LogisticRegression(C=PENALTY_C, solver="newton-cholesky").fit(features[labelled], known)
    out[~labelled] = model.decision_function(features[~labelled])
    return out


def softened(
    label: Float64[np.ndarray, " rows"], voices: Float64[np.ndarray, "rows privileged"]
) -> Float64[np.ndarray, " rows"]:
    """Half the hard label, half the mean of the privileged voices; the label where none speaks."""
    known = np.isfinite(voices)
    count = known.sum(axis=1)
    mean = np.where(known, voices, 0.0).sum(axis=1) / np.maximum(count, 1)
    return np.where(count > 0, (1 - SHARE) * label + SHARE * mean, label)
