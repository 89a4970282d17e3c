"""Which features moved the student: integrated gradients, per patient and over a cohort.

Sundararajan, Taly and Yan 2017, eq. 1, from the mean patient to each patient along a straight
line, by the midpoint rule: attributions add up to the difference of the log-odds (completeness),
and are w (x - mean) for a linear model. They say what the student made of a feature, which is an
association in the training cohort and never a cause. Training only: needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Shaped

from distill.calibrate import Calibration
from distill.crossfit import TrainingData
from distill.fit import FittedStudent
from distill.masks import everything_masks
from distill.student import Student

STEPS = 24
CHUNK = 128
TOP = 10
RESAMPLES = 400
TINY = 1e-12


def mean_patient(
    x: Float32[np.ndarray, "rows inputs features"], present: Bool[np.ndarray, "rows modalities"]
) -> Float32[np.ndarray, "inputs features"]:
    """Mean features of each modality over those who have it; 0 where nobody has."""
    out = np.zeros(x.shape[1:], dtype=np.float32)
    for j in range(present.shape[1]):
        if present[:, j].any():
            out[j] = x[present[:, j], j].mean(axis=0)
    return out


def integrated_gradients(
    model: Student,
    x: Float32[np.ndarray, "rows inputs features"],
    mask: Float32[np.ndarray, "rows tokens"],
    baseline: Float32[np.ndarray, "inputs features"],
    steps: int = STEPS,
) -> Float64[np.ndarray, "rows modalities features"]:
    """Each feature's share of the uncalibrated log-odds' difference from the baseline's.

    Args:
        model: the student.
        x: preprocessed features, and the row of times where the student has a gate.
        mask: the evidence set of each patient; features of masked modalities get 0.
        baseline: features that everybody starts from; times stay as they are.
        steps: points on the line; more are more exact.
    """
    m = len(model.shape.modalities)
    model.eval()
    out = np.zeros((x.shape[0], m, x.shape[2]))
    for start in range(0, x.shape[0], CHUNK):
        part = slice(start, start + CHUNK)
        end, sets = torch.from_numpy(x[part]), torch.from_numpy(mask[part]).unsqueeze(1)
        first = end.clone()
        first[:, :m] = torch.from_numpy(baseline[:m])
        total = torch.zeros_like(end)
        for k in range(steps):
            point = (first + (k + 0.5) / steps * (end - first)).requires_grad_(True)
            (gradient,) = torch.autograd.grad(model(point, sets).logit.sum(), point)
            total += gradient
        out[part] = ((end - first) * total / steps)[:, :m].double().numpy()
    return out


def calibrated_attributions(
    student: FittedStudent,
    calibration: Calibration,
    x: Float32[np.ndarray, "rows inputs features"],
    present: Bool[np.ndarray, "rows modalities"],
    baseline: Float32[np.ndarray, "inputs features"],
) -> Float64[np.ndarray, "rows modalities features"]:
    """Attributions of calibrated log-odds, with everything that each patient has."""
    mask = everything_masks(present, student.shape.modalities, student.shape.transfers)
    share = integrated_gradients(student.model, x, mask, baseline)
    return np.asarray(share / calibration.of_masks(mask)[:, None, None])


def feature_importance(
    student: FittedStudent,
    calibration: Calibration,
    data: TrainingData,
    group: Sequence[str] | None,
    *,
    seed: int,
    top: int = TOP,
) -> dict[str, Any]:
    """The features that moved the student most, per modality, over the patients who have it.

    ``effect_per_sd`` is the signed effect: the slope of the attribution on the feature, in
    log-odds per standard deviation (a linear model's weight times that), with an interval that
    draws whole hospitals for the one student. ``mean_abs_log_odds``, the mean size of the
    attribution, orders them.
    """
    x, present = student.features(data), data.present()
    baseline = mean_patient(x, present)
    share = calibrated_attributions(student, calibration, x, present, baseline)
    unit = np.arange(data.label.size) if group is None else np.array(group)
    out = {}
    for j, (name, fitted) in enumerate(zip(data.modalities, student.preprocessors)):
        rows = present[:, j]
        size = np.abs(share[rows, j]).mean(axis=0)
        best = np.argsort(-size, kind="stable")[: min(top, len(fitted.selected))]
        effects = _effects(
            share[rows, j][:, best], x[rows, j][:, best] - baseline[j, best], unit[rows],
            np.random.default_rng([seed, j]),
        )  # fmt: skip
        out[name] = [
            {
                "feature": fitted.feature_names[k],
                "mean_abs_log_odds": float(size[k]),
                "effect_per_sd": effect,
            }
            for k, effect in zip(best, effects)
        ]
    return out


def _effects(
    share: Float64[np.ndarray, "rows features"],
    away: Float32[np.ndarray, "rows features"],
    unit: Shaped[np.ndarray, " rows"],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Slopes through the mean patient, in log-odds per standard deviation, with intervals."""
    far = away.astype(np.float64)
    _, back = np.unique(unit, return_inverse=True)
    units = int(back.max()) + 1
    product, square = np.zeros((units, far.shape[1])), np.zeros((units, far.shape[1]))
    np.add.at(product, back, share * far)
    np.add.at(square, back, far**2)
    times = rng.multinomial(units, np.full(units, 1.0 / units), size=RESAMPLES)
    sd = far.std(axis=0)
    drawn = sd * (times @ product) / np.maximum(times @ square, TINY)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    value = sd * product.sum(axis=0) / np.maximum(square.sum(axis=0), TINY)
    return [
        {"value": float(v), "ci95": [float(a), float(b)], "n": int(far.shape[0])}
        for v, a, b in zip(value, low, high)
    ]
