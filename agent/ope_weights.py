"""Importance weights of a log under another policy, and whether they can be trusted.

The weight of a case after step t is the product of pi(a|o) / propensity over its decisions so far.
Under the policy that wrote the log its mean is 1 at every step, whatever pi is, if the propensities
are right and the log takes every action that pi takes (overlap). Both are checked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from agent.errors import OffPolicyError
from agent.ope_log import DecisionLog

SUSPICIOUS_Z = 4.0
"""Standard errors from 1 at which a mean weight is not put down to chance."""
MIN_EFFECTIVE = 30.0
"""Effective cases below which nothing is estimated."""


@dataclass(frozen=True, kw_only=True)
class CaseWeights:
    """Weights of each case.

    Attributes:
        so_far: product of ratios up to each step; a case that is over keeps its last.
        taken: whether the case has that step.
    """

    so_far: Float64[np.ndarray, "cases steps"]
    taken: Bool[np.ndarray, "cases steps"]

    @property
    def whole(self) -> Float64[np.ndarray, " cases"]:
        """Of each whole trajectory."""
        return np.asarray(self.so_far[:, -1])

    @property
    def effective(self) -> float:
        """How many cases of weight 1 the weighted ones are worth (Kish 1965)."""
        total = float(self.whole.sum())
        return total**2 / float((self.whole**2).sum()) if total > 0.0 else 0.0


def case_weights(log: DecisionLog, target: Float64[np.ndarray, "decisions actions"]) -> CaseWeights:
    """Weights under a policy that would take each action with these probabilities."""
    ratio = target[np.arange(len(log.action)), log.action] / log.propensity
    taken = log.place >= 0
    each = np.where(taken, ratio[log.place], 1.0)
    return CaseWeights(so_far=np.cumprod(each, axis=1), taken=taken)


def mean_and_error(values: Float64[np.ndarray, " cases"]) -> tuple[float, float]:
    """Mean and its standard error."""
    error = float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else np.inf
    return float(values.mean()), error


def check_overlap(log: DecisionLog, target: Float64[np.ndarray, "decisions actions"]) -> None:
    """Refuse a target that would do what the policy in use never does.

    Certain where the log has all propensities; otherwise left to the mean weight.

    Raises:
        OffPolicyError: naming the actions.
    """
    never = (target > 0.0) & (log.propensities == 0.0)
    if never.any():
        names = [log.catalogue.names[a] for a in np.flatnonzero(never.any(axis=0))]
        raise OffPolicyError(
            f"No overlap: at {int(never.any(axis=1).sum())} of {len(never)} decisions the policy "
            f"would take {', '.join(names)} where {log.behaviour!r} never does, so the log cannot "
            "say what would come of it. Evaluate a policy that stays within what was done, or log "
            "with some exploration of these actions."
        )


def check_weights(weights: CaseWeights) -> None:
    """Refuse weights that are too few or cannot be right.

    Raises:
        OffPolicyError: if too few cases agree with the policy, or a mean weight is not about 1.
    """
    if weights.effective < MIN_EFFECTIVE:
        raise OffPolicyError(
            f"Too little overlap: {len(weights.whole)} cases are worth {weights.effective:.1f} "
            f"under this policy, and at least {MIN_EFFECTIVE:.0f} are needed. Log more cases, or "
            "explore more."
        )
    for step in range(weights.so_far.shape[1]):
        mean, error = mean_and_error(weights.so_far[:, step])
        if abs(mean - 1.0) > SUSPICIOUS_Z * max(error, 1e-12) and abs(mean - 1.0) > 1e-6:
            raise OffPolicyError(
                f"The weights average {mean:.3f} +- {error:.3f} after step {step + 1}, and must "
                "average 1: the logged propensities are wrong, or the policy takes actions that "
                "the log never does."
            )
