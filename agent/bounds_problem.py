"""The sessions as the bounds see them: scores, label weights, what a set costs at the least.

With label weights p[i] (positive) and q[i] = 1 - p[i], and final scores s, a session's AUC is

    A(s) = sum_{i != j} p[i] q[j] psi(s[i], s[j]) / sum_{i != j} p[i] q[j],

psi = 1, 1/2 (tie) or 0. With the labels themselves as weights that is the AUC; with probabilities
it is the AUC whose luck with labels is averaged out, the *expected* AUC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Int64

from agent.bounds_hours import cheapest_g_per_kwh, visit_hours
from agent.errors import ComparisonError
from agent.rollout import start_sessions
from envs.expected import expected_labels, fullest_set
from envs.setup import ReviewSetup
from envs.tables import PatientTables


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
        allowed: sets that the rules let a case have; None for all of them.
    """

    logit: Float64[np.ndarray, "cases sets"]
    fullest: Int64[np.ndarray, " cases"]
    label: Int8[np.ndarray, " cases"]
    probability: Float64[np.ndarray, " cases"]
    cost_g_co2e: Float64[np.ndarray, "cases sets"]
    budget_g_co2e: float
    allowed: Bool[np.ndarray, " sets"] | None = None

    def __post_init__(self) -> None:
        if self.label.min() == self.label.max():
            raise ComparisonError("A session with one class has no AUC; draw more cases.")

    @property
    def reachable(self) -> Bool[np.ndarray, "cases sets"]:
        """Which sets each case can have."""
        finite = np.isfinite(self.logit)
        return np.asarray(finite if self.allowed is None else finite & self.allowed)

    def without_budget(self) -> SessionProblem:
        """The same session where any emissions may be paid."""
        return replace(self, budget_g_co2e=np.inf)

    def scores(self, chosen: Int64[np.ndarray, " cases"]) -> Float64[np.ndarray, " cases"]:
        """Scores when each case has the chosen set."""
        return np.asarray(self.logit[np.arange(len(chosen)), chosen])


@dataclass(frozen=True, kw_only=True)
class PoolScores:
    """What the bounds know of the patients that sessions are drawn from.

    Attributes:
        logit: log-odds of each patient under each evidence set; NaN where it cannot be reached.
        fullest: index of the set with all that the patient has.
        label: 1 for the positive class.
        probability: of the positive class given the patient's scores, recalibrated.
    """

    logit: Float64[np.ndarray, "patients sets"]
    fullest: Int64[np.ndarray, " patients"]
    label: Int8[np.ndarray, " patients"]
    probability: Float64[np.ndarray, " patients"]


def pool_scores(tables: PatientTables) -> PoolScores:
    """Scores of the pool, labels averaged out by the recalibrated probability."""
    logit = tables.logit.reshape(-1, tables.n_sets).astype(np.float64)
    label = np.isin(np.arange(len(logit)), tables.positives).astype(np.int8)
    return PoolScores(
        logit=logit,
        fullest=fullest_set(tables, logit),
        label=label,
        probability=expected_labels(tables),
    )


def n_transfers_of(tables: PatientTables) -> Int64[np.ndarray, " sets"]:
    """Transfers in each evidence set."""
    transfers = tables.next_set.shape[1]
    run = tables.progress[:, tables.progress.shape[1] - transfers :]
    return np.asarray(run.sum(axis=1).astype(np.int64))


def allowed_sets(setup: ReviewSetup) -> Bool[np.ndarray, " sets"]:
    """The sets that the rules let a case have: at most one transfer in one-shot reviews."""
    most = 1 if setup.rules == "oneshot" else setup.catalogue.n_transfers
    return np.asarray(n_transfers_of(setup.tables) <= most)


def set_energy_kwh(
    tables: PatientTables, setup_kwh: float | Float64[np.ndarray, "sets transfers"] = 0.0
) -> Float64[np.ndarray, " sets"]:
    """Energy of reaching each evidence set from the empty one, kWh; the order does not matter.

    Args:
        tables: the pool's tables.
        setup_kwh: a case's least share of starting the runs that a transfer needs.
    """
    energy = np.zeros(tables.n_sets)
    step = tables.step_kwh + setup_kwh
    for k, following in enumerate(tables.next_set):
        opened = following >= 0
        energy[following[opened]] = energy[k] + step[k, opened]
    return energy


def least_setup_kwh(setup: ReviewSetup) -> float | Float64[np.ndarray, "sets transfers"]:
    """A case's least share of starting a transfer's pipeline, kWh: full runs, never an emptier one.

    A run serves the cases processed within one hour, at most ``slots_per_hour`` of them, so each
    pays at least ``setup_factor / slots_per_hour`` times the pipeline.
    """
    return setup.setup_kwh / setup.config.slots_per_hour if setup.has_setup else 0.0


def session_problems(setup: ReviewSetup, seeds: Sequence[int]) -> Iterator[SessionProblem]:
    """The sessions of these seeds as the bounds see them, one after the other."""
    state, pool, allowed = start_sessions(setup, seeds).state, pool_scores(setup.tables), None
    if setup.rules == "oneshot":
        allowed = allowed_sets(setup)
    energy = set_energy_kwh(setup.tables, least_setup_kwh(setup))
    cheapest = cheapest_g_per_kwh(visit_hours(setup, state))
    label = (np.arange(setup.config.n_cases) < setup.n_pos).astype(np.int8)
    for row in range(len(seeds)):
        patient = state.patient[row]
        yield SessionProblem(
            logit=pool.logit[patient],
            fullest=pool.fullest[patient],
            label=label,
            probability=pool.probability[patient],
            cost_g_co2e=cheapest[row][:, None] * energy[None, :],
            budget_g_co2e=float(state.budget_g[row]),
            allowed=allowed,
        )


def below(
    scores: Float[np.ndarray, "cases sets"],
    reference: Float[np.ndarray, " others"],
    weight: Float[np.ndarray, " others"],
) -> Float64[np.ndarray, "cases sets"]:
    """Weight of the reference scores below each score, ties counted half."""
    order = np.argsort(reference, kind="stable")
    ordered = reference[order]
    cumulative = np.concatenate([[0.0], np.cumsum(weight[order])])
    left = cumulative[np.searchsorted(ordered, scores, side="left")]
    right = cumulative[np.searchsorted(ordered, scores, side="right")]
    return np.asarray((left + right) / 2.0)


def pair_weight(weight: Float64[np.ndarray, " cases"]) -> float:
    """Total weight of the pairs of two different cases, one positive and one negative."""
    return float(weight.sum() * (1.0 - weight).sum() - weight @ (1.0 - weight))


def weighted_auc(
    scores: Float64[np.ndarray, " cases"], weight: Float64[np.ndarray, " cases"]
) -> float:
    """A(s): AUC where each case counts as positive by its weight and negative by the rest."""
    won = below(scores[:, None], scores, 1.0 - weight)[:, 0] @ weight
    return float((won - weight @ (1.0 - weight) / 2.0) / pair_weight(weight))


def expected_gain(problem: SessionProblem, final_set: Int64[np.ndarray, " cases"]) -> float:
    """A policy's AUC gain in one session with the luck of the labels averaged out."""
    weight = problem.probability
    final = weighted_auc(problem.scores(final_set), weight)
    return final - weighted_auc(problem.logit[:, 0], weight)
