"""How much a session had to give: linear programmes over patients and evidence sets.

With label weights p[i] (positive) and q[i] = 1 - p[i], and final scores s, the session's AUC is

    A(s) = sum_ij p[i] q[j] psi(s[i], s[j]) / (sum p  sum q),   psi = 1, 1/2 (tie) or 0.

Each linear programme chooses for every patient i a mix x[i, S] of evidence sets, so as to

    maximise   sum x[i, S] v[i, S]
    subject to sum_S x[i, S] = 1,   sum x[i, S] c[i, S] <= budget,   x >= 0:

a multiple-choice knapsack whose relaxation is solved exactly through its dual. ``c[i, S]`` is
the energy of S times the lowest grid intensity at which the patient can be visited in that
session, so no order of work and no deferral is cheaper. ``v[i, S]`` is the credit for moving the
patient from the first score to the score under S, read against reference scores of the opposite
class: half of them as they start, half as a plan leaves them. Against the references of the plan
itself the credits add up to A(plan) - A(start) exactly, so the programme is solved again with the
references of its own solution until they agree: a plan that no case can improve alone.

- ``expected``: every score is known beforehand, labels are not: p[i] is the probability given
  the patient's first and fullest score, recalibrated (three parameters) on the evaluated
  patients. No luck with labels, but more than a policy sees, which pays before it knows a score.
- ``clairvoyant``: p[i] is the label. Inflated by luck: on held-out patients it picks the
  transfers whose noise happens to help.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Int64
from scipy.optimize import minimize
from scipy.special import expit

from agent.errors import ComparisonError
from agent.rollout import start_sessions
from envs.setup import ReviewSetup
from envs.tables import PatientTables

BISECTIONS = 40
ROUNDS = 8
RIDGE = 1e-3
EXPECTED = "expected_lp"
CLAIRVOYANT = "clairvoyant_lp"
DEFINITIONS = {
    EXPECTED: (
        "Best plan on expected gain under the session's budget, by linear programme: each case "
        "may have any mix of its evidence sets at the cheapest hour at which it can be visited; "
        "every score is known beforehand, labels count by their probability given the first and "
        "the fullest score. expected_gain is that; auc_gain adds the luck that full evidence had "
        "with the same sessions' labels, so that it can be set beside realised gains."
    ),
    CLAIRVOYANT: (
        "The same with the true labels known beforehand: inflated by luck, quoted only to show "
        "how much luck there is."
    ),
}


@dataclass(frozen=True, kw_only=True)
class SessionProblem:
    """One session as the bounds see it.

    Attributes:
        logit: log-odds of each case under each evidence set; NaN where it cannot be reached.
        fullest: index of the set with all that the case has.
        label: 1 for the positive class.
        probability: of the positive class, given all the evidence that the case has.
        cost_g_co2e: cheapest emissions of each case's sets, g.
        budget_g_co2e: the session's budget, g; infinite where there is none.
    """

    logit: Float64[np.ndarray, "cases sets"]
    fullest: Int64[np.ndarray, " cases"]
    label: Int8[np.ndarray, " cases"]
    probability: Float64[np.ndarray, " cases"]
    cost_g_co2e: Float64[np.ndarray, "cases sets"]
    budget_g_co2e: float

    def __post_init__(self) -> None:
        if self.label.min() == self.label.max():
            raise ComparisonError("A session with one class has no AUC; draw more cases.")

    @property
    def reachable(self) -> Bool[np.ndarray, "cases sets"]:
        """Which sets each case can have."""
        return np.asarray(np.isfinite(self.logit))

    def weight(self, key: str) -> Float64[np.ndarray, " cases"]:
        """How much each case counts as positive in this bound."""
        return self.label.astype(np.float64) if key == CLAIRVOYANT else self.probability

    def scores(self, chosen: Int64[np.ndarray, " cases"]) -> Float64[np.ndarray, " cases"]:
        """Scores when each case has the chosen set."""
        return np.asarray(self.logit[np.arange(len(chosen)), chosen])


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


def recalibrated(
    known: Float64[np.ndarray, "patients scores"], positives: Int64[np.ndarray, " pos"]
) -> Float64[np.ndarray, " patients"]:
    """Probability of the positive class from several log-odds, fitted to these very patients.

    Logistic regression on a few numbers a patient, with a slight pull to the last score as it
    is. Fitted to the patients that are evaluated, because a student that is
    over- or underconfident on their hospitals would otherwise bias the expected gain.
    """
    label = np.isin(np.arange(len(known)), positives).astype(np.float64)
    design = np.column_stack([np.ones(len(known)), known])
    stated = np.zeros(design.shape[1])
    stated[-1] = 1.0

    def loss(coefficient: Float64[np.ndarray, " coefficients"]) -> tuple[float, np.ndarray]:
        linear, pull = design @ coefficient, RIDGE * (coefficient - stated)
        value = np.logaddexp(0.0, linear).sum() - label @ linear
        value += (coefficient - stated) @ pull / 2.0
        return float(value), design.T @ (expit(linear) - label) + pull

    fitted = minimize(loss, stated, jac=True, method="L-BFGS-B")
    return np.asarray(expit(design @ fitted.x))


def session_problems(setup: ReviewSetup, seeds: Sequence[int]) -> Iterator[SessionProblem]:
    """The sessions of these seeds as the bounds see them, one after the other."""
    state, tables, config = start_sessions(setup, seeds).state, setup.tables, setup.config
    logit = tables.logit.reshape(-1, tables.n_sets).astype(np.float64)
    fullest = fullest_set(tables, logit)
    known = np.stack([logit[:, 0], logit[np.arange(len(logit)), fullest]], axis=1)
    probability = recalibrated(known, tables.positives)
    energy = set_energy_kwh(tables)
    n = config.n_cases
    label = (np.arange(n) < setup.n_pos).astype(np.int8)
    visit_hour = np.arange(config.max_visits) // config.slots_per_hour
    for row in range(len(seeds)):
        g_per_kwh = state.g_per_kwh[row][visit_hour]
        first = np.empty(n)
        first[state.queue[row, :n]] = g_per_kwh[:n]
        cheapest = np.minimum(first, g_per_kwh[n:].min())
        patient = state.patient[row]
        yield SessionProblem(
            logit=logit[patient],
            fullest=fullest[patient],
            label=label,
            probability=probability[patient],
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


def weighted_auc(
    scores: Float64[np.ndarray, " cases"], weight: Float64[np.ndarray, " cases"]
) -> float:
    """A(s): AUC where each case counts as positive by its weight and negative by the rest."""
    below = _below(scores[:, None], scores, 1.0 - weight)[:, 0]
    return float(below @ weight / weight.sum())


def additive_credit(
    problem: SessionProblem,
    weight: Float64[np.ndarray, " cases"],
    plan: Int64[np.ndarray, " cases"],
) -> Float64[np.ndarray, "cases sets"]:
    """Credit v[i, S] against the references of a plan; -inf where a set cannot be reached.

    Args:
        problem: the session.
        weight: how much each case counts as positive.
        plan: the set that the plan gives to each case.
    """
    start = problem.logit[:, 0]
    reference = np.concatenate([start, problem.scores(plan)])
    weights = np.concatenate([weight, weight])
    scores = np.where(problem.reachable, problem.logit, start[:, None])
    over_neg = _below(scores, reference, 1.0 - weights)
    over_pos = _below(scores, reference, weights)
    up, down = over_neg - over_neg[:, :1], over_pos[:, :1] - over_pos
    share_pos = (weight / weight.sum())[:, None]
    share_neg = ((1.0 - weight) / (1.0 - weight).sum())[:, None]
    return np.where(problem.reachable, share_pos * up + share_neg * down, -np.inf)


@dataclass(frozen=True, kw_only=True)
class KnapsackOptimum:
    """Optimum of the relaxation, and the whole choices that it mixes at most one of.

    Attributes:
        value: the linear programme's optimum.
        chosen: one choice a case that keeps the budget.
    """

    value: float
    chosen: Int64[np.ndarray, " cases"]


def knapsack_lp(
    value: Float64[np.ndarray, "cases sets"],
    cost: Float64[np.ndarray, "cases sets"],
    budget: float,
) -> KnapsackOptimum:
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

    def dual(price: float) -> tuple[float, float, Int64[np.ndarray, " cases"]]:
        net = value - price * cost
        best = net.argmax(axis=1)
        spent = float(cost[rows, best].sum())
        total = float(net[rows, best].sum()) + (price * budget if price else 0.0)
        return total, budget - spent, best

    bound, slope, chosen = dual(0.0)
    if slope >= 0:
        return KnapsackOptimum(value=bound, chosen=chosen)
    low, high = 0.0, 1e-9
    while dual(high)[1] < 0:
        high *= 4.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        here, slope, _ = dual(middle)
        bound = min(bound, here)
        low, high = (middle, high) if slope < 0 else (low, middle)
    here, _, chosen = dual(high)
    return KnapsackOptimum(value=min(bound, here), chosen=chosen)


def session_optimum(problem: SessionProblem, key: str) -> float:
    """AUC gain of the best plan found: see the module's text.

    Args:
        problem: the session.
        key: ``expected_lp`` or ``clairvoyant_lp``.
    """
    weight = problem.weight(key)
    start = weighted_auc(problem.logit[:, 0], weight)
    plan, best = problem.fullest, 0.0
    for _ in range(ROUNDS):
        credit = additive_credit(problem, weight, plan)
        optimum = knapsack_lp(credit, problem.cost_g_co2e, problem.budget_g_co2e)
        settled = np.array_equal(optimum.chosen, plan)
        plan = optimum.chosen
        best = max(best, weighted_auc(problem.scores(plan), weight) - start)
        if settled:
            return min(max(best, optimum.value), 1.0 - start)
    return best


@dataclass(frozen=True, kw_only=True)
class SessionBounds:
    """What one session had to give.

    Attributes:
        expected_gain: optimum with labels averaged out; compare with :func:`expected_gain`.
        expected: the same, to be set beside realised AUC gains: shifted by the luck that full
            evidence had with this session's labels (its realised minus its expected gain, 0 on
            average), since every policy's realised gain shares most of that luck.
        clairvoyant: optimum with the labels known.
    """

    expected_gain: float
    expected: float
    clairvoyant: float


def session_bounds(problem: SessionProblem) -> SessionBounds:
    """The optima of one session."""
    label, start = problem.weight(CLAIRVOYANT), problem.logit[:, 0]
    everything = weighted_auc(problem.scores(problem.fullest), label)
    everything -= weighted_auc(start, label)
    luck = everything - expected_gain(problem, problem.fullest)
    expected = session_optimum(problem, EXPECTED)
    clairvoyant = session_optimum(problem, CLAIRVOYANT)
    return SessionBounds(
        expected_gain=expected,
        expected=min(max(expected + luck, 0.0), clairvoyant),
        clairvoyant=clairvoyant,
    )


def expected_gain(problem: SessionProblem, final_set: Int64[np.ndarray, " cases"]) -> float:
    """A policy's AUC gain in one session with the luck of the labels averaged out."""
    weight = problem.weight(EXPECTED)
    final = weighted_auc(problem.scores(final_set), weight)
    return final - weighted_auc(problem.logit[:, 0], weight)
