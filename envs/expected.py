"""Labels with their luck averaged out: how likely each patient is positive, given all it has.

A realised label is one toss of a coin. For training, and for bounds, each label is replaced by the
probability of the positive class given the patient's first and fullest score, recalibrated on the
pool at hand: three parameters, so that a student that is over- or underconfident on these
hospitals biases nothing, and no patient's own label weighs more than one row of the fit.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import minimize
from scipy.special import expit

from envs.tables import PatientTables

RIDGE = 1e-3
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


def recalibrated(
    known: Float64[np.ndarray, "patients scores"], positives: Int64[np.ndarray, " pos"]
) -> Float64[np.ndarray, " patients"]:
    """Probability of the positive class from several log-odds, fitted to these very patients.

    Logistic regression on a few numbers a patient, with a slight pull to the last score as it is.
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
    fullest = logit[np.arange(len(logit)), fullest_set(tables, logit)]
    return recalibrated(np.stack([logit[:, 0], fullest], axis=1), tables.positives)
