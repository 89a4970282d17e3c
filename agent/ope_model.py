"""What is to be expected of an action: fitted Q evaluation by ridge regression, cross-fitted.

Q(o, a) is the reward still to come in the case when a is done at o and the target policy goes on.
It is linear: an intercept for each action, every field of the observation, and the belief's
fields for each action apart. Fitted backwards in steps (Le, Voloshin and Yue 2019), on the cases of
the other folds, so that no case has a part in its own prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from agent.ope_log import DecisionLog

BELIEF = ("probability", "entropy", "disagreement", "logit")
RIDGE = 1.0


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Out-of-fold predictions.

    Attributes:
        q: of the action that was done [decisions].
        v: of what the target policy would do [decisions].
    """

    q: Float64[np.ndarray, " decisions"]
    v: Float64[np.ndarray, " decisions"]


@dataclass(frozen=True, kw_only=True)
class _Features:
    """Standardised observations and the part that is kept apart for each action."""

    shared: Float64[np.ndarray, "decisions fields"]
    own: Float64[np.ndarray, "decisions parts"]

    def rows(self, action: Int64[np.ndarray, " decisions"], n_actions: int) -> np.ndarray:
        """The design matrix at these actions."""
        parts = self.own.shape[1]
        apart = np.zeros((len(action), n_actions, parts))
        apart[np.arange(len(action)), action] = self.own
        return np.hstack([self.shared, apart.reshape(len(action), n_actions * parts)])

    def all_actions(self, weight: Float64[np.ndarray, " _"], n_actions: int) -> np.ndarray:
        """Predictions for every action [decisions, actions]."""
        width = self.shared.shape[1]
        apart = weight[width:].reshape(n_actions, self.own.shape[1])
        return np.asarray((self.shared @ weight[:width])[:, None] + self.own @ apart.T)


def _features(log: DecisionLog) -> _Features:
    observation = log.observation.astype(np.float64)
    spread = observation.std(axis=0)
    shared = (observation - observation.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    belief = shared[:, [log.layout.index(name) for name in BELIEF]]
    return _Features(shared=shared, own=np.hstack([np.ones((len(belief), 1)), belief]))


def predict(
    log: DecisionLog,
    target: Float64[np.ndarray, "decisions actions"],
    reward: Float64[np.ndarray, " decisions"],
    fold: Int64[np.ndarray, " cases"],
) -> Predictions:
    """Fit on all folds but one, predict on that one.

    Args:
        log: the decisions.
        target: how likely the target policy is to take each action.
        reward: of each decision.
        fold: of each case.
    """
    features, n_actions = _features(log), log.catalogue.n
    design = features.rows(log.action, n_actions)
    case = np.repeat(np.arange(len(log.place)), (log.place >= 0).sum(axis=1))
    goes_on = np.append(case[1:] == case[:-1], False)
    q, v = np.zeros(len(reward)), np.zeros(len(reward))
    for held in np.unique(fold):
        inside = fold[case] != held
        gram = design[inside].T @ design[inside] + RIDGE * np.eye(design.shape[1])
        solve = np.linalg.solve(gram, design[inside].T)
        later = np.zeros(len(reward))
        everywhere = np.zeros((len(reward), n_actions))
        for _ in range(log.place.shape[1]):
            weight = solve @ (reward + later)[inside]
            everywhere = features.all_actions(weight, n_actions)
            ahead = (target * everywhere).sum(axis=1)
            later[:-1] = np.where(goes_on[:-1], ahead[1:], 0.0)
        out = ~inside
        q[out] = everywhere[out, log.action[out]]
        v[out] = (target * everywhere).sum(axis=1)[out]
    return Predictions(q=q, v=v)
