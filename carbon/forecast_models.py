"""Models of a change in log intensity: boosting for the middle and the bounds, two named forests.

All run on one thread: threads that spin on a shared machine cost more than they gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64

from carbon.features import Design

X = Float32[np.ndarray, "rows features"]
Y = Float64[np.ndarray, " rows"]

LOSSES: Final = ("regression_l1", "huber")
"""The middle is the mean of both: one aims at the median, the other resists less and moves more."""


@dataclass(frozen=True, kw_only=True)
class BoostConfig:
    """Size and pace of the boosted trees.

    Attributes:
        trees: of each of the four models.
        learning_rate: per tree.
        leaves: per tree.
        quantile_trees: of each of the two bounds.
        feature_fraction: share of the features that each tree looks at.
        extra_trees: split at random thresholds, which is quicker and makes smoother models.
        seed: of the sampling of rows and features.
    """

    trees: int = 300
    learning_rate: float = 0.05
    leaves: int = 31
    quantile_trees: int = 150
    feature_fraction: float = 0.5
    extra_trees: bool = False
    seed: int = 0


@runtime_checkable
class Booster(Protocol):
    """What is used of a fitted LightGBM model."""

    def predict(self, data: X) -> Any:
        """One value a row."""
        ...


def boost(x: X, y: Y, loss: str, config: BoostConfig, alpha: float | None = None) -> Booster:
    """Fit one LightGBM model; ``alpha`` is the level of a quantile loss."""
    # LightGBM takes a second to import, and `carbon` must stay light.
    import lightgbm  # noqa: PLC0415

    parameters: dict[str, Any] = {
        "objective": loss,
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": 30,
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "max_bin": 127,
        "num_threads": 1,
        "force_col_wise": True,
        "deterministic": True,
        "seed": config.seed,
        "extra_trees": config.extra_trees,
        "verbosity": -1,
        "alpha": 0.5 if alpha is None else alpha,
    }
    trees = config.trees if alpha is None else config.quantile_trees
    fitted: Booster = lightgbm.train(parameters, lightgbm.Dataset(x, y), trees)
    return fitted


@dataclass(frozen=True, kw_only=True)
class Middle:
    """Mean of an L1 and a Huber model."""

    models: tuple[Booster, ...]
    scale: float

    def predict(self, x: X) -> Y:
        """Log-ratio to the last value."""
        return np.asarray(np.mean([m.predict(x) for m in self.models], axis=0) * self.scale)


def fit_middle(x: X, y: Y, config: BoostConfig) -> Middle:
    """Fit both losses on the target over its standard deviation, in which Huber's bend is 0.5."""
    scale = max(float(np.std(y)), 1e-9)
    return Middle(models=tuple(boost(x, y / scale, loss, config) for loss in LOSSES), scale=scale)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Two quantile models."""

    low: Booster
    high: Booster

    def predict(self, x: X) -> tuple[Y, Y]:
        """Lower and upper bound, ordered."""
        low, high = np.asarray(self.low.predict(x)), np.asarray(self.high.predict(x))
        return np.minimum(low, high), np.maximum(low, high)


def fit_bounds(x: X, y: Y, config: BoostConfig, level: float = 0.9) -> Bounds:
    """Fit the bounds of an interval that should hold ``level`` of the values."""
    tail = (1 - level) / 2
    return Bounds(
        low=boost(x, y, "quantile", config, tail), high=boost(x, y, "quantile", config, 1 - tail)
    )


FOREST_COLUMNS: Final = ("local_hour", "weekday", "year_sin", "year_cos")
FOREST_PREFIXES: Final = ("wind_", "temp_", "dswrf_", "dewpt_", "cloud_", "solar_")
LAG_COLUMNS: Final = ("lag_2h", "lag_3h", "lag_24h", "lag_48h", "lag_168h")


def forest_inputs(design: Design, *, lagged: bool) -> X:
    """Inputs of the named baselines: calendar and weather; with ``lagged`` past levels as well."""
    at = {name: i for i, name in enumerate(design.names)}
    chosen = [
        i for name, i in at.items()
        if name in FOREST_COLUMNS
        or (name.startswith(FOREST_PREFIXES) and name.endswith((".then", ".now")))
    ]  # fmt: skip
    parts = [design.x[:, chosen]]
    if lagged:
        lags = [design.x[:, at[name]] + design.last for name in LAG_COLUMNS if name in at]
        parts.append(np.exp(np.stack([design.last, *lags], axis=1)))
    joined: X = np.nan_to_num(np.concatenate(parts, axis=1)).astype(np.float32)
    return joined


def fit_forest(x: X, y: Y, *, trees: int, seed: int) -> Booster:
    """``RandomForestRegressor`` on finite numbers; its defaults but for leaves of three rows."""
    from sklearn.ensemble import RandomForestRegressor  # noqa: PLC0415

    forest = RandomForestRegressor(
        n_estimators=trees, min_samples_leaf=3, max_features=0.5, n_jobs=1, random_state=seed
    )
    fitted: Booster = forest.fit(x, y)
    return fitted


def library_versions() -> Mapping[str, str]:
    """Versions of what the figures depend on."""
    import lightgbm  # noqa: PLC0415
    import sklearn  # noqa: PLC0415

    return {
        "lightgbm": lightgbm.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
    }
