"""What no policy can exceed on a session: linear programmes over patients and evidence sets.

Both bounds choose for every patient i a mix x[i, S] of evidence sets, so as to

    maximise   sum x[i, S] v[i, S]
    subject to sum_S x[i, S] = 1,   sum x[i, S] c[i, S] <= budget,   x >= 0:

a multiple-choice knapsack whose relaxation is solved exactly through its dual. ``c[i, S]`` is
the energy of S times the lowest grid intensity at which the patient can be visited in that
session, so no order of work and no deferral is cheaper. ``v[i, S]`` is the credit for moving the
patient from the first score to the score under S, read against the opposite class's scores,
half of them as they start and half with all that those patients have: on that path the credits
of everybody moving to everything add up to the exact change of the session's AUC.

- ``expected``: every score is known beforehand, labels are not: each patient counts as positive
  with the calibrated probability under S. No luck with labels, but still more than a policy
  sees, which must pay for a transfer before its score is known.
- ``clairvoyant``: labels are known as well. Inflated by luck: on held-out patients it picks the
  transfers whose noise happens to help.

The additive credit is exact where nobody or everybody moves and approximate in between, so a
lucky session can exceed the expected bound; each policy's additive expected gain cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Int64

from agent.errors import ComparisonError
from agent.rollout import start_sessions
from envs.setup import ReviewSetup
from envs.tables import PatientTables

BISECTIONS = 60
EXPECTED = "expected_lp"
CLAIRVOYANT = "clairvoyant_lp"
DEFINITIONS = {
    EXPECTED: (
        "Linear programme on expected gain under the session's budget: each case may have any "
        "mix of its evidence sets at the cheapest hour at which it can be visited; every score "
        "is known beforehand, labels count by their calibrated probability."
    ),
    CLAIRVOYANT: (
        "The same linear programme with the true labels known beforehand: inflated by luck, "
        "quoted only to show how much luck there is."
    ),
}


@dataclass(frozen=True, kw_only=True)
class SessionProblem:
    """One session as the bounds see it.

    Attributes:
        logit: log-odds of each case under each evidence set; NaN where it cannot be reached.
        fullest: index of the set with all that the case has.
        label: 1 for the positive class.
        cost_g_co2e: cheapest emissions of each case's sets, g.
        budget_g_co2e: the session's budget, g; infinite where there is none.
    """

    logit: Float64[np.ndarray, "cases sets"]
    fullest: Int64[np.ndarray, " cases"]
    label: Int8[np.ndarray, " cases"]
    cost_g_co2e: Float64[np.ndarray, "cases sets"]
    budget_g_co2e: float

    @property
    def reachable(self) -> Bool[np.ndarray, "cases sets"]:
        """Which sets each case can have."""
        return np.asarray(np.isfinite(self.logit))


def set_energy_kwh(tables: PatientTables) -> Float64[np.ndarray, " sets"]:
    """Energy of reaching each evidence set from the empty one, kWh; the order does not matter."""
    energy = np.zeros(tables.n_sets)
    for k, following in enumerate(tables.next_set):
        opened = following >= 0
        energy[following[opened]] = energy[k] + tables.step_kwh[k, opened]
    return energy


def fullest_set(
    tables: PatientTables, logit: Float64[np.ndarray, "cases sets"]
) -> Int64[np.ndarray, " cases"]:
    """The reachable set that processes most modalities, with the most transfers among those."""
    transfers = tables.next_set.shape[1]
    modalities = tables.progress.shape[1] - transfers
    progress = tables.progress.astype(np.int64)
    size = progress[:, :modalities].sum(axis=1) * (transfers + 1)
    size += progress[:, modalities:].sum(axis=1)
    return np.asarray(np.where(np.isfinite(logit), size, -1).argmax(axis=1))


def session_problems(setup: ReviewSetup, seeds: Sequence[int]) -> Iterator[SessionProblem]:
    """The sessions of these seeds as the bounds see them, one after the other."""
    state, tables, config = start_sessions(setup, seeds).state, setup.tables, setup.config
    logit = tables.logit.reshape(-1, tables.n_sets)
    energy = set_energy_kwh(tables)
    n = config.n_cases
    label = (np.arange(n) < setup.n_pos).astype(np.int8)
    visit_hour = np.arange(config.max_visits) // config.slots_per_hour
    for row in range(len(seeds)):
        g_per_kwh = state.g_per_kwh[row][visit_hour]
        first = np.empty(n)
        first[state.queue[row, :n]] = g_per_kwh[:n]
        cheapest = np.minimum(first, g_per_kwh[n:].min())
        scores = logit[state.patient[row]].astype(np.float64)
        yield SessionProblem(
            logit=scores,
            fullest=fullest_set(tables, scores),
            label=label,
            cost_g_co2e=cheapest[:, None] * energy[None, :],
            budget_g_co2e=float(state.budget_g[row]),
        )


def _below(
    scores: Float[np.ndarray, "cases sets"],
    reference: Float[np.ndarray, " others"],
    weight: Float[np.ndarray, " others"],
) -> Float64[np.ndarray, "cases sets"]:
    """Weighted share of reference scores below each score, ties counted half."""
    order = np.argsort(reference, kind="stable")
    ordered = reference[order]
    cumulative = np.concatenate([[0.0], np.cumsum(weight[order])])
    left = cumulative[np.searchsorted(ordered, scores, side="left")]
    right = cumulative[np.searchsorted(ordered, scores, side="right")]
    return np.asarray((left + right) / (2.0 * cumulative[-1]))


def additive_credit(
    problem: SessionProblem, *, clairvoyant: bool
) -> Float64[np.ndarray, "cases sets"]:
    """AUC credit of moving each case to each of its sets; -inf where it cannot be reached.

    Args:
        problem: the session.
        clairvoyant: whether the true labels are used instead of calibrated probabilities.

    Raises:
        ComparisonError: if the session lacks a class.
    """
    n_pos = int(problem.label.sum())
    n_neg = len(problem.label) - n_pos
    if min(n_pos, n_neg) == 0:
        raise ComparisonError("A session with one class has no AUC; draw more cases.")
    start = problem.logit[:, 0]
    full = problem.logit[np.arange(len(start)), problem.fullest]
    reference = np.concatenate([start, full])
    scores = np.where(problem.reachable, problem.logit, 0.0)
    known = problem.label[:, None].astype(np.float64)
    positive = known if clairvoyant else 1.0 / (1.0 + np.exp(-scores))
    weight = known[:, 0] if clairvoyant else 1.0 / (1.0 + np.exp(-full))
    weights = np.concatenate([weight, weight])
    over_neg = _below(scores, reference, 1.0 - weights)
    over_pos = _below(scores, reference, weights)
    up, down = over_neg - over_neg[:, :1], over_pos[:, :1] - over_pos
    credit = positive * up / n_pos + (1.0 - positive) * down / n_neg
    return np.where(problem.reachable, credit, -np.inf)


def knapsack_lp(
    value: Float64[np.ndarray, "cases sets"],
    cost: Float64[np.ndarray, "cases sets"],
    budget: float,
) -> float:
    """Optimum of the multiple-choice knapsack's linear relaxation.

    The dual is one price per gram: L(price) = sum_i max_S (v - price c) + price budget. It is
    convex and piecewise linear; its minimum is found by bisection on the slope and equals the
    linear programme's optimum. Any price gives an upper bound, so rounding only loosens it.

    Args:
        value: value of each choice, -inf where it is not allowed; column 0 costs nothing.
        cost: cost of each choice, at least 0.
        budget: what all choices together may cost.

    Raises:
        ComparisonError: if the budget is negative or not a number.
    """
    if not budget >= 0:
        raise ComparisonError(f"The budget is {budget} g; it must be 0 or more.")
    rows = np.arange(len(value))

    def dual(price: float) -> tuple[float, float]:
        net = value - price * cost
        best = net.argmax(axis=1)
        spent = float(cost[rows, best].sum())
        return float(net[rows, best].sum()) + (price * budget if price else 0.0), budget - spent

    bound, slope = dual(0.0)
    if slope >= 0:
        return bound
    high = 1e-9
    while dual(high)[1] < 0:
        high *= 4.0
    low = 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        here, slope = dual(middle)
        bound = min(bound, here)
        low, high = (middle, high) if slope < 0 else (low, middle)
    return min(bound, dual(high)[0])


def session_bounds(problem: SessionProblem) -> dict[str, float]:
    """Both bounds on the AUC gain of one session, by the keys of the report."""
    return {
        key: knapsack_lp(
            additive_credit(problem, clairvoyant=key == CLAIRVOYANT),
            problem.cost_g_co2e,
            problem.budget_g_co2e,
        )
        for key in (EXPECTED, CLAIRVOYANT)
    }
