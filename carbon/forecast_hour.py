"""The next hour's middle: two kinds of boosting and, for each hour of the day, a ridge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from jaxtyping import Int64

from carbon.features import Design
from carbon.forecast_models import BoostConfig, Middle, X, Y, fit_middle
from carbon.quality import DAY_H
from carbon.ridge import Ridge, fit_ridge

HOUR_METHOD: Final = "boosting and ridge on lags, calendar and weather"
RIDGE_SHARE: Final = 0.2
HOUR_COLUMN: Final = "utc_hour"


@dataclass(frozen=True, kw_only=True)
class HourModel:
    """Fitted models; ridges by hour of the day (UTC).

    Attributes:
        middles: boostings, which count alike.
        ridges: by hour; where there is none, the boosting speaks for it.
        hour_column: of the features, which holds the hour.
    """

    middles: tuple[Middle, ...]
    ridges: Mapping[int, Ridge]
    hour_column: int

    def predict(self, x: X) -> Y:
        """Log-ratio to the last value."""
        out = np.mean([middle.predict(x) for middle in self.middles], axis=0)
        hours = x[:, self.hour_column]
        for hour, ridge in self.ridges.items():
            rows = hours == hour
            linear = ridge.predict(x[rows].astype(np.float64))
            out[rows] = (1 - RIDGE_SHARE) * out[rows] + RIDGE_SHARE * linear
        return np.asarray(out)


def fit_hour(design: Design, rows: Int64[np.ndarray, " rows"], config: BoostConfig) -> HourModel:
    """Fit on the chosen rows of a design."""
    x, y = design.x[rows], design.y[rows]
    # Random thresholds and larger trees err elsewhere than the plain ones do.
    random = replace(
        config,
        extra_trees=True,
        trees=config.trees * 4 // 3,
        leaves=2 * config.leaves + 1,
        learning_rate=2 * config.learning_rate,
    )
    column = design.names.index(HOUR_COLUMN)
    ridges = {}
    for hour in range(DAY_H):
        fit = x[:, column] == hour
        if np.count_nonzero(fit) >= 2 * DAY_H:
            ridges[hour] = fit_ridge(x[fit].astype(np.float64), y[fit])
    return HourModel(
        middles=(fit_middle(x, y, config), fit_middle(x, y, random)),
        ridges=ridges,
        hour_column=column,
    )
