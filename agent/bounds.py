"""How much a session had to give: what no policy exceeds, and how much of that is foresight.

- ``expected_lp``: the bound to quote. Policies that know what can be seen, and nothing beforehand
  but the intensity of the hours (``agent/bounds_expected.py``).
- ``foresight_lp``: the same linear programme for someone who knows every score of a case
  beforehand, but no label. Never below the first, by construction.
- ``clairvoyant_lp``: labels are known too, session by session (``agent/bounds_foresight.py``).
  Inflated by luck: on held-out patients it picks the transfers whose noise happens to help.

Each is given for the AUC gain under the budget and for the reward, gain - gCO2e / price, where the
mode charges one. ``expected_gain`` is in the currency in which labels count by their probability;
``auc_gain`` adds the luck that a plan made on scores has with the session's labels (what it gains
with them, less what it is expected to gain: 0 on average), so that it can be set beside
realised gains, which share most of that luck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from agent.bounds_expected import expected_optimum
from agent.bounds_foresight import session_optimum
from agent.bounds_hours import visit_hours
from agent.bounds_knowledge import Knowledge, build_knowledge
from agent.bounds_multipliers import Sessions
from agent.bounds_problem import (
    SessionProblem,
    expected_gain,
    session_problems,
    weighted_auc,
)
from agent.rollout import start_sessions
from envs.setup import ReviewSetup

__all__ = [
    "BOUNDS", "CLAIRVOYANT", "DEFINITIONS", "EXPECTED", "FORESIGHT", "BoundFigures",
    "SessionBounds", "SessionProblem", "bound_sessions", "expected_gain", "session_problems",
]  # fmt: skip

EXPECTED = "expected_lp"
FORESIGHT = "foresight_lp"
CLAIRVOYANT = "clairvoyant_lp"
BOUNDS = (EXPECTED, FORESIGHT, CLAIRVOYANT)
DEFINITIONS = {
    EXPECTED: (
        "Most that any policy can expect that sees what policies see, by linear programme over "
        "what can be known of each case: modalities present and processed, current score. "
        "Budget and room in the hours hold on average, each case may use the best of its hours, "
        "and what follows is estimated on the evaluated patients themselves: all that makes it "
        "generous. expected_gain is that; auc_gain adds the luck that a plan made on scores has "
        "with the same sessions' labels, so that it can be set beside realised gains."
    ),
    FORESIGHT: (
        "The same for someone who knows every score beforehand, but no label: how much foresight "
        "would add. Room in the hours is left out."
    ),
    CLAIRVOYANT: (
        "The same with the true labels known beforehand: inflated by luck, quoted only to show "
        "how much luck there is."
    ),
}


@dataclass(frozen=True, kw_only=True)
class BoundFigures:
    """One bound of one session.

    Attributes:
        auc_gain: to be set beside realised AUC gains; shifted by the luck of the
            session's labels.
        expected_gain: with labels averaged out; for ``clairvoyant_lp``, the gain with the labels.
        reward: to be set beside realised rewards; None where it is not the gain less
            priced carbon.
    """

    auc_gain: float
    expected_gain: float
    reward: float | None


@dataclass(frozen=True, kw_only=True)
class SessionBounds:
    """What one session had to give: its three bounds."""

    expected: BoundFigures
    foresight: BoundFigures
    clairvoyant: BoundFigures

    def figures(self, name: str) -> BoundFigures:
        """One of them by its name in reports."""
        return {EXPECTED: self.expected, FORESIGHT: self.foresight}.get(name, self.clairvoyant)


def bound_sessions(
    setup: ReviewSetup, seeds: Sequence[int], progress: Callable[[int], None] | None = None
) -> tuple[SessionBounds, ...]:
    """The bounds of the sessions of these seeds.

    Expected and foresight bounds are of the sessions together: no policy's mean over sessions
    exceeds their mean, while in one session a policy may be luckier with scores.

    Args:
        setup: the environment's fixed numbers.
        seeds: one a session.
        progress: called with the number of sessions finished since the last call.
    """
    problems = list(session_problems(setup, seeds))
    sessions, free = _sessions(setup, seeds)
    expected = _optima(setup, build_knowledge(setup), (sessions, free))
    anyhow = replace(sessions.hours, slots=None)
    roomy = (replace(sessions, hours=anyhow), replace(free, hours=anyhow))
    foresight = _optima(setup, build_knowledge(setup, width=0.0), roomy)
    found = []
    for i, problem in enumerate(problems):
        found.append(_bounds(setup, problem, expected[:, i], foresight[:, i]))
        if progress is not None:
            progress(1)
    return tuple(found)


def _sessions(setup: ReviewSetup, seeds: Sequence[int]) -> tuple[Sessions, Sessions]:
    """The sessions of the gain's bound (within the budget) and of the reward's.

    The reward's keep the budget only where the environment does.
    """
    state = start_sessions(setup, seeds).state
    gain = Sessions(
        patient=state.patient, hours=visit_hours(setup, state), budget_g_co2e=state.budget_g
    )
    held = setup.config.masks_unaffordable
    budget = gain.budget_g_co2e if held else np.full_like(gain.budget_g_co2e, np.inf)
    return gain, replace(gain, budget_g_co2e=budget, price_per_g=setup.price_per_g)


def _optima(
    setup: ReviewSetup, knowledge: Knowledge, sessions: tuple[Sessions, Sessions]
) -> Float64[np.ndarray, "2 sessions"]:
    """Optimum of the gain and of the reward of each session."""
    gain = expected_optimum(knowledge, sessions[0])
    return np.stack(
        [gain, expected_optimum(knowledge, sessions[1]) if _has_reward(setup) else gain]
    )


def _has_reward(setup: ReviewSetup) -> bool:
    """Whether the reward is the AUC gain less priced carbon, so that its optimum can be bounded."""
    return setup.config.charges_price and setup.config.reward == "auc"


def _bounds(
    setup: ReviewSetup,
    problem: SessionProblem,
    expected: Float64[np.ndarray, " 2"],
    foresight: Float64[np.ndarray, " 2"],
) -> SessionBounds:
    label = problem.label.astype(np.float64)
    foreseen = session_optimum(problem, problem.probability).chosen
    luck = _gain(problem, foreseen, label) - _gain(problem, foreseen, problem.probability)
    price = setup.price_per_g if _has_reward(setup) else 0.0
    free = problem if setup.config.masks_unaffordable else problem.without_budget()
    luckiest = session_optimum(problem, label).value
    priced = session_optimum(free, label, price).value if price else 0.0

    def figures(optimum: float, reward: float, shift: float) -> BoundFigures:
        return BoundFigures(
            auc_gain=optimum + shift,
            expected_gain=optimum,
            reward=reward + shift if price else None,
        )

    return SessionBounds(
        expected=figures(float(expected[0]), float(expected[1]), luck),
        foresight=figures(float(foresight[0]), float(foresight[1]), luck),
        clairvoyant=figures(luckiest, priced, 0.0),
    )


def _gain(
    problem: SessionProblem,
    final_set: Int64[np.ndarray, " cases"],
    weight: Float64[np.ndarray, " cases"],
) -> float:
    final = weighted_auc(problem.scores(final_set), weight)
    return final - weighted_auc(problem.logit[:, 0], weight)
