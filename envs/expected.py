"""Labels with their luck averaged out: how likely each patient is positive, given all it has.

A realised label is one toss of a coin. For training, and for bounds, each label is replaced by the
probability of the positive class given the patient's scores, recalibrated on the pool at hand: a
handful of parameters, so that a student that is over- or underconfident on these hospitals biases
nothing, and no patient's own label weighs more than one row of the fit.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import minimize
from scipy.special import expit

from envs.tables import PatientTables

RIDGE = 0.1
"""Pull of the fit towards the fullest score as it is; it matters for a handful of patients only."""


def fullest_set(
    tables: PatientTables, logit: Float64[np.ndarray, "cases sets"]
) -> Int64[np.ndarray, " cases"]:
    """The reachable set that processes most modalities, with the most transfers among those."""
    transfers = tables.next_set.shape[1]
    modalities = tables.progress.shape[1] - transfers
    progress = tables.progress.astype(np.int64)
    size = progress[:, :modalities].sum(axis=1) * (transfers + 1)
    size += progress[:, modalities:].sum(axis=1)
    return np.asarray(np.where(np.isfinite(logit), size, -1).argmax(axis=1))


def known_scores(
    tables: PatientTables,
    logit: Float64[np.ndarray, "patients sets"],
    fullest: Int64[np.ndarray, " patients"],
) -> Float64[np.ndarray, "patients scores"]:
    """What the label's probability is fitted on: the first score, each modality's, the fullest.

    A modality's is the log-odds after the first transfer that processes it and nothing else
    besides clinical data, less the fullest; 0 where the patient lacks it. Without these, what one
    modality happens to say rightly of these very patients would count as luck.
    """
    full = logit[np.arange(len(logit)), fullest]
    modalities = tables.progress.shape[1] - tables.next_set.shape[1]
    processed = tables.progress[:, :modalities] > 0.5
    alone = processed.sum(axis=1) == processed[0].sum() + 1
    columns = [logit[:, 0]]
    for source in np.flatnonzero(~processed[0]):
        some = np.flatnonzero(alone & processed[:, source])
        if some.size:
            columns.append(np.nan_to_num(logit[:, some[0]] - full))
    return np.stack([*columns, full], axis=1)


def recalibrated(
    known: Float64[np.ndarray, "patients scores"], positives: Int64[np.ndarray, " pos"]
) -> Float64[np.ndarray, " patients"]:
    """Probability of the positive class from several log-odds, fitted to these very patients.

    Logistic regression on a few numbers a patient, with a slight pull to the last score as it
    is. Fitted to the patients that are evaluated, because a student that is
    over- or underconfident on their hospitals would otherwise bias the expected gain.
    """
    label = np.isin(np.arange(len(known)), positives).astype(np.float64)
    design = np.column_stack([np.ones(len(known)), known])
    stated = np.zeros(design.shape[1])
    stated[-1] = 1.0

    def loss(coefficient: Float64[np.ndarray, " coefficients"]) -> tuple[float, np.ndarray]:
        linear, pull = design @ coefficient, RIDGE * (coefficient - stated)
        value = np.logaddexp(0.0, linear).sum() - label @ linear
        value += (coefficient - stated) @ pull / 2.0
        return float(value), design.T @ (expit(linear) - label) + pull

    fitted = minimize(loss, stated, jac=True, method="L-BFGS-B")
    return np.asarray(expit(design @ fitted.x))


def expected_labels(tables: PatientTables) -> Float64[np.ndarray, " patients"]:
    """Probability of the positive class for every patient of the pool, given all its evidence."""
    logit = tables.logit.reshape(-1, tables.n_sets).astype(np.float64)
    known = known_scores(tables, logit, fullest_set(tables, logit))
    return recalibrated(known, tables.positives)
