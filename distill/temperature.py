"""Temperature scaling: one positive number that log-odds are divided by (Guo et al. 2017, eq. 9).

It changes how sure a model says it is and never the order of the patients.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

LOWEST, HIGHEST = 0.2, 8.0
"""Outside this range the held-out rows are too few or too easy to say."""
PRIOR_ROWS = 10.0
"""Pull of the logarithm of the temperature towards 0, in patients' worth of evidence."""


def log_loss(logit: Float[np.ndarray, " rows"], label: Int[np.ndarray, " rows"]) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    sign = np.where(label == 1, -1.0, 1.0)
    return float(np.logaddexp(0.0, sign * logit).mean())


def fit_temperature(logit: Float[np.ndarray, " rows"], label: Int[np.ndarray, " rows"]) -> float:
    """The temperature that makes these held-out log-odds most likely; 1.0 without rows.

    Args:
        logit: log-odds of patients that the model has not seen; NaN entries are left out.
        label: their classes.
    """
    # A third of the time that a server takes to start, and serving fits nothing.
    from scipy.optimize import minimize_scalar  # noqa: PLC0415

    seen = np.isfinite(logit)
    z, y = logit[seen].astype(np.float64), label[seen]
    if not z.size:
        return 1.0

    def loss(log_t: float) -> float:
        return log_loss(z / np.exp(log_t), y) + float(PRIOR_ROWS / z.size * 0.5 * log_t**2)

    best = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(best.x))


def prior_logit(label: Int[np.ndarray, " rows"]) -> float:
    """Log-odds of the positive class before anything is known, with half a patient of each."""
    n_pos = float((label == 1).sum())
    return float(np.log((n_pos + 0.5) / (label.size - n_pos + 0.5)))
