"""What another policy would have made of the cases in a log, without running it.

For a hospital that has only its own log. Three estimates of the target policy's mean reward a case,
each with a percentile bootstrap interval that redraws cases:

- ``snips``: whole trajectories weighted by how much likelier the target makes them, divided by the
  sum of weights (self-normalised inverse propensity: Swaminathan and Joachims 2015);
- ``snips_per_decision``: each reward weighted by the decisions up to it only, normalised step by
  step (Precup, Sutton and Singh 2000; Thomas 2015, ch. 3);
- ``doubly_robust``: a cross-fitted model of the reward, corrected by the weighted residuals (Jiang
  and Li 2016, eq. 10; weights normalised as by Thomas and Brunskill 2016, eq. 8): right if the
  propensities are, less noisy if the model is any good.

Where final scores and labels were logged, ``auc`` and ``auc_gain`` weigh each pair of cases by the
product of their weights, so that they need no reward at all.

What is weighted is the case's own decisions. What other cases' decisions change for it (the budget
left, the hour) stays as it was when the log was written: the estimate is of the target policy in
the circumstances that the logging policy left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from agent.errors import OffPolicyError
from agent.ope_log import DecisionLog
from agent.ope_model import predict
from agent.ope_replay import Chooser, action_probabilities
from agent.ope_weights import (
    CaseWeights,
    case_weights,
    check_overlap,
    check_weights,
    mean_and_error,
)
from agent.policies.protocol import Policy
from agent.statistics import Estimate

CHUNK = 100


@dataclass(frozen=True, kw_only=True)
class OffPolicyConfig:
    """How estimates are made.

    Attributes:
        redraws: bootstrap redraws of cases.
        folds: folds of cases that the reward model is cross-fitted over.
        seed: seeds the folds and the redraws.
    """

    redraws: int = 500
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.redraws < 1 or self.folds < 2:
            raise OffPolicyError(
                f"{self.redraws} redraws over {self.folds} folds were asked for; at least 1 and 2 "
                "are needed."
            )


@dataclass(frozen=True, kw_only=True)
class OffPolicyReport:
    """What a log says of a policy.

    Attributes:
        target: name of the policy evaluated.
        behaviour: name of the policy that wrote the log.
        reward_unit: of the estimates, a case.
        estimates: by name: ``logged`` (what the logging policy got), ``snips``,
            ``snips_per_decision``, ``doubly_robust``; ``auc``, ``auc_gain`` where scores and
            labels were logged.
        weight: mean weight of a case, about 1 if propensities are right.
        effective_cases: how many cases of weight 1 the weighted ones are worth.
        n_cases: cases used.
        n_decisions: decisions of theirs.
        n_unknown: cases left out of the rewards because a reward is not known.
    """

    target: str
    behaviour: str
    reward_unit: str
    estimates: dict[str, Estimate]
    weight: Estimate
    effective_cases: float
    n_cases: int
    n_decisions: int
    n_unknown: int

    def to_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "target": self.target,
            "behaviour": self.behaviour,
            "reward": {"unit": f"{self.reward_unit}, a case"},
            "estimates": {name: e.to_json() for name, e in self.estimates.items()},
            "mean_weight": self.weight.to_json(),
            "effective_cases": self.effective_cases,
            "n_cases": self.n_cases,
            "n_decisions": self.n_decisions,
            "n_cases_reward_unknown": self.n_unknown,
        }


def evaluate_offline(
    log: DecisionLog, policy: Policy | Chooser, config: OffPolicyConfig | None = None
) -> OffPolicyReport:
    """Estimate what a policy would have made of the log's cases.

    Args:
        log: decisions with propensities.
        policy: the target; it sees the logged observations and masks.
        config: redraws, folds, seed.

    Raises:
        OffPolicyError: if the policy does what the log never does, too few cases agree with it, or
            the weights show that propensities are wrong.
    """
    how = config or OffPolicyConfig()
    target = action_probabilities(policy, log.observation, log.mask)
    check_overlap(log, target)
    weights = case_weights(log, target)
    check_weights(weights)
    counts = _redraws(len(log.place), how)
    known = _known(log)
    estimates: dict[str, Estimate] = {}
    if known.any():
        estimates |= _rewards(log, target, weights, counts * known, how)
    estimates |= _pairs(log, weights, counts)
    if not estimates:
        raise OffPolicyError("The log knows neither a case's rewards nor final scores and labels.")
    mean, error = mean_and_error(weights.whole)
    return OffPolicyReport(
        target=policy.name,
        behaviour=log.behaviour,
        reward_unit=log.reward_unit,
        estimates=estimates,
        weight=Estimate(value=mean, low=mean - 1.96 * error, high=mean + 1.96 * error,
                        n=len(log.place)),
        effective_cases=weights.effective,
        n_cases=len(log.place),
        n_decisions=len(log.action),
        n_unknown=int((~known).sum()),
    )  # fmt: skip


def _redraws(n: int, how: OffPolicyConfig) -> Float64[np.ndarray, "redraws cases"]:
    """How often each case is in each bootstrap redraw."""
    rng = np.random.default_rng(how.seed)
    return rng.multinomial(n, np.full(n, 1.0 / n), size=how.redraws).astype(np.float64)


def _known(log: DecisionLog) -> np.ndarray:
    """Cases whose every reward is known."""
    return np.asarray((np.isfinite(log.reward[log.place]) | (log.place < 0)).all(axis=1))


def _rewards(
    log: DecisionLog,
    target: Float64[np.ndarray, "decisions actions"],
    weights: CaseWeights,
    counts: Float64[np.ndarray, "redraws cases"],
    how: OffPolicyConfig,
) -> dict[str, Estimate]:
    """Estimates of the mean reward a case."""
    reward = np.nan_to_num(log.reward)
    each = np.where(weights.taken, reward[log.place], 0.0)
    known = _known(log).astype(np.float64)
    redraws = np.vstack([known, counts])
    fold = np.random.default_rng(how.seed + 1).permutation(len(log.place)) % how.folds
    model = predict(log, target, reward, fold.astype(np.int64))
    q = np.where(weights.taken, model.q[log.place], 0.0)
    v = np.where(weights.taken, model.v[log.place], 0.0)
    later = np.hstack([v[:, 1:], np.zeros((len(v), 1))])
    surprise = np.where(weights.taken, each + later - q, 0.0)
    whole, once = weights.whole[:, None], np.ones((len(each), 1))
    n = int(known.sum())
    found = {
        "logged": _ratio(redraws, once, each.sum(axis=1, keepdims=True)),
        "snips": _ratio(redraws, whole, each.sum(axis=1, keepdims=True)),
        "snips_per_decision": _ratio(redraws, weights.so_far, each),
        "doubly_robust": _ratio(redraws, once, v[:, :1])
        + _ratio(redraws, weights.so_far, surprise),
    }
    return {name: _estimate(values, n) for name, values in found.items()}


def _ratio(
    counts: Float64[np.ndarray, "redraws cases"],
    weight: Float64[np.ndarray, "cases steps"],
    value: Float64[np.ndarray, "cases steps"],
) -> Float64[np.ndarray, " redraws"]:
    """Self-normalised mean at each step, summed over steps."""
    total = counts @ weight
    ratio = np.divide(counts @ (weight * value), total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(ratio.sum(axis=1))


def _estimate(values: Float64[np.ndarray, " redraws"], n: int) -> Estimate:
    """The first is the estimate, the others are redraws."""
    return Estimate.of(float(values[0]), values[1:], n)


def _pairs(
    log: DecisionLog, weights: CaseWeights, counts: Float64[np.ndarray, "redraws cases"]
) -> dict[str, Estimate]:
    """AUC under the target policy, from the final scores of weighted pairs of cases."""
    last = log.place.max(axis=1)
    score, label = log.score[last], log.label[last]
    known = np.isfinite(score) & np.isfinite(label)
    if not known.any() or len(np.unique(label[known])) < 2:
        return {}
    first = log.layout.physical(log.observation[log.place[known, 0]], "logit")
    redraws = np.vstack([np.ones(len(last)), counts])[:, known] * weights.whole[known]
    positive = label[known] > 0.5
    after = _weighted_auc(score[known], positive, redraws)
    before = _weighted_auc(np.asarray(first, dtype=np.float64), positive, redraws)
    n = int(known.sum())
    return {"auc": _estimate(after, n), "auc_gain": _estimate(after - before, n)}


def _weighted_auc(
    score: Float64[np.ndarray, " cases"],
    positive: np.ndarray,
    weight: Float64[np.ndarray, "redraws cases"],
) -> Float64[np.ndarray, " redraws"]:
    """AUC over pairs weighted by the product of weights, ties counted half."""
    order = np.argsort(score[~positive], kind="stable")
    ordered = score[~positive][order]
    left: Int64[np.ndarray, " pos"] = np.searchsorted(ordered, score[positive], side="left")
    right: Int64[np.ndarray, " pos"] = np.searchsorted(ordered, score[positive], side="right")
    found = []
    for start in range(0, len(weight), CHUNK):
        part = weight[start : start + CHUNK]
        ours, theirs = part[:, positive], part[:, ~positive][:, order]
        below = np.hstack([np.zeros((len(part), 1)), np.cumsum(theirs, axis=1)])
        won = (ours * (below[:, left] + below[:, right])).sum(axis=1) / 2.0
        total = ours.sum(axis=1) * theirs.sum(axis=1)
        found.append(np.divide(won, total, out=np.full(len(part), 0.5), where=total > 0))
    return np.concatenate(found)
