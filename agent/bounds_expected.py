"""The expected-gain bound: the best that can be done on what can be seen.

A session couples its cases by its budget, by the room in its hours and by the AUC itself. Pricing
the first two apart leaves one dynamic programme a case, and any price of at least 0 gives an upper
bound (a Lagrangian relaxation of a weakly coupled Markov decision process: Adelman and Mersereau
2008, Operations Research 56(3), eq. 5 to 7; Hawkins 2003, ch. 2):

    bound = min over prices >= 0 of  sum_i V_i(prices) + price_g budget + sum_h price_h slots

where a modality costs a case the cheapest of its feasible hours, energy x intensity x (price_g +
the reward's own price) + price_h. Those sums are the linear programme over the states of all
cases, solved through its dual.

The AUC is a product of what the positives and what the negatives become. With scores that rank as
their probabilities do it is concave in the distribution of final scores (a Gini mean difference),
so its tangent at any plan is an upper bound too:

    gain(plan) <= sum_i credit_i(plan; others as in x) - (P_x - P_0)(N_x - N_0) / pairs

with credit read against others as plan x leaves them. The plan is averaged (Frank and Wolfe 1956)
until its tangent is lowest. Others enter by their distribution over the pool, not by name: no
policy sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from agent.bounds_knowledge import Knowledge
from agent.bounds_multipliers import Sessions, Spending, cheapest_prices
from agent.bounds_problem import below, pair_weight
from agent.bounds_programme import (
    Corners,
    PriceGrid,
    Programme,
    corners,
    ending,
    read,
    read_own,
    solve,
)

ROUNDS = 4
POINTS = 1500
"""Combinations of prices at which the programme is tabulated, about."""
LOWEST_PRICE = 1e-5

Ending = Float64[np.ndarray, "sets patients"]


def wins_over_others(
    logit: Float64[np.ndarray, "patients sets"],
    ends: Ending,
    weight: Float64[np.ndarray, " patients"],
) -> Float64[np.ndarray, "patients sets"]:
    """Weight of the other patients' final scores below each score of each patient.

    Args:
        logit: scores, NaN where unreachable.
        ends: how often each patient ends with each set.
        weight: of each patient in this.
    """
    share = ends * weight
    known = np.nan_to_num(logit)
    some = share.ravel() > 0.0
    over = below(known, known.T.ravel()[some], share.ravel()[some])
    for k in np.flatnonzero(share.any(axis=1)):
        over -= share[k][:, None] * (np.sign(known - known[:, k : k + 1]) + 1.0) / 2.0
    return over


@dataclass(frozen=True, kw_only=True)
class Tangent:
    """The expected AUC's tangent at a plan.

    Attributes:
        credit: of a case that ends with each set, against its first score.
        offset: to be added once a session.
    """

    credit: Float64[np.ndarray, "patients sets"]
    offset: float


def tangent(knowledge: Knowledge, ends: Ending) -> Tangent:
    """The tangent where the pool's cases end as ``ends`` says."""
    logit, pos = knowledge.logit, knowledge.weight
    neg, pairs = 1.0 - pos, pair_weight(knowledge.weight)
    over_neg = wins_over_others(logit, ends, neg)
    over_pos = wins_over_others(logit, ends, pos)
    gain = pos[:, None] * (over_neg - over_neg[:, :1])
    gain -= neg[:, None] * (over_pos - over_pos[:, :1])
    credit = np.where(np.isfinite(logit), gain, 0.0) * (len(pos) / knowledge.n_cases / pairs)
    start = np.zeros_like(ends)
    start[0] = 1.0
    change = wins_over_others(logit, ends, neg) - wins_over_others(logit, start, neg)
    moved = (ends - start).T * pos[:, None] * np.where(np.isfinite(logit), change, 0.0)
    return Tangent(credit=credit, offset=float(-moved.sum() / pairs))


def price_grid(
    knowledge: Knowledge,
    credit: Float64[np.ndarray, "patients sets"],
    seen: Float64[np.ndarray, "cases sources"] | None,
) -> PriceGrid:
    """Prices from 0 to where nobody pays, closer together where prices were seen."""
    n = max(int(POINTS ** (1.0 / len(knowledge.energy_kwh))), 4)
    top = max(float(credit.max() - credit.min()), 2.0 * LOWEST_PRICE)
    axes = []
    for s in range(len(knowledge.energy_kwh)):
        spread = np.geomspace(LOWEST_PRICE, top, n - 1 if seen is None else (n - 1) // 2)
        axis = [np.zeros(1), spread]
        if seen is not None:
            inner = np.quantile(seen[:, s], np.linspace(0.0, 1.0, n - 1 - len(spread)))
            axis.append(np.clip(inner, 0.0, top))
        axes.append(np.unique(np.concatenate(axis)))
    return PriceGrid.of(axes)


def expected_optimum(
    knowledge: Knowledge,
    sessions: Sessions,
    progress: Callable[[], None] | None = None,
) -> Float64[np.ndarray, " batch"]:
    """The bound of each session; its mean over sessions is what no policy's mean exceeds.

    Args:
        knowledge: the states and the label weights.
        sessions: patients, hours, budgets, price.
        progress: called after each round.
    """
    ends = _halfway(knowledge)
    best, lucky = np.full(len(sessions.patient), np.inf), np.zeros(len(sessions.patient))
    found: Spending | None = None
    for k in range(ROUNDS):
        at = tangent(knowledge, ends)
        seen = None if found is None else found.price.reshape(-1, found.price.shape[-1])
        programme = solve(knowledge, at.credit, price_grid(knowledge, at.credit, seen))
        found = cheapest_prices(programme, knowledge.energy_kwh, sessions, found)
        where = corners(programme.grid, found.price)
        bound = found.value + at.offset
        if bound.mean() < best.mean():
            best, lucky = bound, _score_luck(programme, sessions, where)
        plan = ending(knowledge, programme, sessions.patient, where)
        ends += (plan - ends) * (1.0 if k == 0 else 2.0 / (k + 2.0))
        if progress is not None:
            progress()
    return np.asarray(np.maximum(best + lucky, 0.0))


def _score_luck(
    programme: Programme, sessions: Sessions, where: Corners
) -> Float64[np.ndarray, " batch"]:
    """What the sessions' own patients get beyond what patients like them do; 0 over the pool.

    Policies meet the same patients, so that adding it takes the luck of the draw out of the
    distance to the bound; decisions still do not know who they are about.
    """
    expected, _ = read(programme, sessions.patient, where)
    own = read_own(programme, sessions.patient, where)
    return np.asarray((own - expected).sum(axis=1))


def _halfway(knowledge: Knowledge) -> Ending:
    """Half of the pool as it starts, half with everything."""
    ends = np.zeros((knowledge.logit.shape[1], len(knowledge.logit)))
    ends[0] = 0.5
    fullest = np.zeros(len(knowledge.logit), dtype=np.int64)
    for node, reach in zip(knowledge.nodes, knowledge.reach):
        fullest[reach] = node.sets[-1]
    ends[fullest, np.arange(len(fullest))] += 0.5
    return ends
