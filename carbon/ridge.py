"""Ridge regression on features of which some may be unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float64

RIDGE_ALPHA: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """One linear model on standardised features."""

    mean: Float64[np.ndarray, " features"]
    scale: Float64[np.ndarray, " features"]
    weights: Float64[np.ndarray, " features"]
    intercept: float

    def predict(self, x: Float64[np.ndarray, "rows features"]) -> Float64[np.ndarray, " rows"]:
        """One value a row."""
        # Features far outside of what was seen may not carry a line to anywhere.
        z = np.clip(np.where(np.isfinite(x), x - self.mean, 0.0) / self.scale, -4, 4)
        return np.asarray(self.intercept + z @ self.weights)


def fit_ridge(x: Float64[np.ndarray, "rows features"], y: Float64[np.ndarray, " rows"]) -> Ridge:
    """Fit on what is known of each feature; an unknown value counts as its mean."""
    known = np.isfinite(x)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, x, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (x - mean) ** 2, 0.0).sum(axis=0) / count)
    scale = np.where(spread > 1e-6, spread, np.inf)
    z = np.where(known, x - mean, 0.0) / scale
    intercept = float(y.mean())
    gram = z.T @ z + RIDGE_ALPHA * np.eye(z.shape[1])
    return Ridge(
        mean=mean, scale=scale, weights=np.linalg.solve(gram, z.T @ (y - intercept)),
        intercept=intercept,
    )  # fmt: skip
