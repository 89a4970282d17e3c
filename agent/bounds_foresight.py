"""Plans of someone who knows one session's scores, or labels, beforehand: knapsacks.

Each linear programme chooses for every patient i a mix x[i, S] of evidence sets, so as to

    maximise   sum x[i, S] v[i, S]
    subject to sum_S x[i, S] = 1,   sum x[i, S] c[i, S] <= budget,   x >= 0,

a multiple-choice knapsack whose relaxation is solved exactly through its dual. ``c[i, S]`` is the
energy of S times the lowest grid intensity at which the rules let the patient be worked on, so no
order of work and no deferral is cheaper. ``v[i, S]`` is the credit for moving the patient from the
first score to the score under S, read against reference scores of the opposite class: half of them
as they start, half as a plan leaves them. Against the references of the plan itself the credits
add up to A(plan) - A(start) exactly, so the programme is solved again with the references of its
own solution until they agree: a plan that no case can improve alone, not a proof that none is
better. Room in the hours is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from agent.bounds_problem import SessionProblem, below, pair_weight, weighted_auc
from agent.errors import ComparisonError

BISECTIONS = 40
ROUNDS = 8


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
    start, rest = problem.logit[:, 0], 1.0 - weight
    scores = np.where(problem.reachable, problem.logit, start[:, None])
    up, down = np.zeros_like(scores), np.zeros_like(scores)
    for own in (start, problem.scores(plan)):
        # Half of what others' scores say, less what a case's own score would say of itself.
        itself = (np.sign(scores - own[:, None]) - np.sign(start - own)[:, None]) / 2.0
        over_neg, over_pos = below(scores, own, rest), below(scores, own, weight)
        up += (over_neg - over_neg[:, :1] - rest[:, None] * itself) / 2.0
        down += (over_pos[:, :1] - over_pos + weight[:, None] * itself) / 2.0
    credit = (weight[:, None] * up + rest[:, None] * down) / pair_weight(weight)
    return np.where(problem.reachable, credit, -np.inf)


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


def session_optimum(
    problem: SessionProblem,
    weight: Float64[np.ndarray, " cases"],
    price_per_g: float = 0.0,
) -> KnapsackOptimum:
    """The best plan found for one session whose scores are known beforehand.

    Args:
        problem: the session.
        weight: how much each case counts as positive: its probability, or its label.
        price_per_g: taken from the gain for each gram; 0 for the gain alone.
    """
    start, rows = weighted_auc(problem.logit[:, 0], weight), np.arange(len(weight))
    nothing = np.zeros_like(problem.fullest)
    plan = problem.fullest if problem.allowed is None else nothing
    best = KnapsackOptimum(value=0.0, chosen=nothing)
    charge = price_per_g * problem.cost_g_co2e
    for _ in range(ROUNDS):
        credit = additive_credit(problem, weight, plan) - charge
        optimum = knapsack_lp(credit, problem.cost_g_co2e, problem.budget_g_co2e)
        settled = np.array_equal(optimum.chosen, plan)
        plan = optimum.chosen
        gain = weighted_auc(problem.scores(plan), weight) - start
        gain -= float(charge[rows, plan].sum())
        if gain > best.value:
            best = KnapsackOptimum(value=gain, chosen=plan)
        if settled:
            value = min(max(best.value, optimum.value), 1.0 - start)
            return replace(best, value=value)
    return best
