"""How clean the electricity may still become before a case is due, by the forecast at hand."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from envs.config import LEADS_H

HORIZON_H = LEADS_H[-1]
ERROR_POWER = 0.3
"""The simulated and the measured forecasts' errors grow about like lead to this power."""


def hourly_forecast(
    intensity: Float64[np.ndarray, "batch leads"], uncertainty: Float64[np.ndarray, " batch"]
) -> Float64[np.ndarray, "batch hours"]:
    """Intensity now and in each of the next 24 hours: between leads linear, shrunk to the mean.

    The lowest of several noisy forecasts is too low. Each is pulled to the mean of all by the
    share of their spread that error alone would make.

    Args:
        intensity: now, then at the leads of the observation, gCO2e/kWh.
        uncertainty: relative standard deviation of the error 24 h ahead.
    """
    known = np.array([0, *LEADS_H])
    hours = np.arange(HORIZON_H + 1)
    after = np.minimum(np.searchsorted(known, hours, side="right"), len(known) - 1)
    before = after - 1
    weight = (hours - known[before]) / (known[after] - known[before])
    path = intensity[:, before] * (1.0 - weight) + intensity[:, after] * weight
    mean = path.mean(axis=1, keepdims=True)
    sd = uncertainty[:, None] * (hours / HORIZON_H) ** ERROR_POWER * mean
    spread = path.var(axis=1, keepdims=True)
    error = sd**2
    trust = np.maximum(spread - error, 0.0) / np.where(spread > 0.0, spread, 1.0)
    trust[:, 0] = 1.0
    return np.asarray(mean + trust * (path - mean))


def clean_hour(
    path: Float64[np.ndarray, "batch hours"],
    window_h: Float64[np.ndarray, " batch"],
    rank: Float64[np.ndarray, " batch"],
) -> Float64[np.ndarray, " batch"]:
    """Intensity of the ``rank``-th cleanest hour from the next one to the window's end.

    The cleanest hour has room for a few cases only: a case that shares the wait with many has to
    reckon with a later choice.

    Args:
        path: intensity now and in the hours after.
        window_h: hours ahead that may still be used; none below 1.
        rank: 0 for the cleanest.

    Returns:
        That intensity, infinite where the window holds no hour.
    """
    ahead = path[:, 1:]
    within = np.arange(1, path.shape[1]) <= window_h[:, None]
    ordered = np.sort(np.where(within, ahead, np.inf), axis=1)
    last = np.maximum(within.sum(axis=1) - 1, 0)
    chosen = np.minimum(np.maximum(rank, 0.0).astype(np.int64), last)
    return np.asarray(ordered[np.arange(len(path)), chosen])
