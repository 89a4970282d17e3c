"""One number for performance and carbon together, among the policies of one comparison.

After the "environmentally sustainable performance" (ESPer) of "Ecologically sustainable
benchmarking of AI models for histopathology", npj Digital Medicine 7 (2024),
doi 10.1038/s41746-024-01397-x. Its inference score (iESPer) combines a performance metric and the
CO2e of inference, each range-normalised over the models that are compared, with a weight chosen
beforehand. The equation itself could not be read in full from public text, so the form taken here
is the plain one with those ingredients:

    score[i] = w M'[i] + (1 - w) (1 - C'[i]),     X' = (X - min X) / (max X - min X).

1 is the best performance at the least carbon, 0 the opposite. It depends on who takes part.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

from agent.errors import ComparisonError

WEIGHT = 0.5


def _in_range(values: Float[np.ndarray, "*batch models"]) -> Float64[np.ndarray, "*batch models"]:
    """Range-normalised along the last axis; 0 everywhere where all are equal."""
    low, high = values.min(axis=-1, keepdims=True), values.max(axis=-1, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    return np.asarray((values - low) / span, dtype=np.float64)


def esper(
    performance: Float[np.ndarray, "*batch models"],
    g_co2e: Float[np.ndarray, "*batch models"],
    weight: float = WEIGHT,
) -> Float64[np.ndarray, "*batch models"]:
    """The score of each model or policy among those compared.

    Args:
        performance: more is better.
        g_co2e: emissions, g; less is better.
        weight: of performance, 0 to 1; the rest is carbon's.

    Raises:
        ComparisonError: if the weight is not from 0 to 1.
    """
    if not 0.0 <= weight <= 1.0:
        raise ComparisonError(f"The weight of performance is {weight:g}; give 0 to 1.")
    return np.asarray(weight * _in_range(performance) + (1.0 - weight) * (1.0 - _in_range(g_co2e)))
