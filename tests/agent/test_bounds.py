from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from agent.bounds import (
    CLAIRVOYANT,
    EXPECTED,
    SessionProblem,
    additive_credit,
    knapsack_lp,
    session_bounds,
    session_problems,
    set_energy_kwh,
)
from agent.errors import ComparisonError
from agent.policies.registry import make_policy
from agent.rollout import run_sessions
from envs.setup import build_setup
from envs.toy import toy_evidence


def by_linprog(value: np.ndarray, cost: np.ndarray, budget: float) -> float:
    n, k = value.shape
    allowed = np.isfinite(value)
    one_each = np.kron(np.eye(n), np.ones(k))
    result = linprog(
        -np.where(allowed, value, 0).ravel(),
        A_ub=cost.reshape(1, -1), b_ub=[budget],
        A_eq=one_each, b_eq=np.ones(n),
        bounds=[(0, 1 if ok else 0) for ok in allowed.ravel()],
    )  # fmt: skip
    assert result.success
    return float(-result.fun)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1.2))
def test_the_dual_equals_the_linear_programme(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    value, cost = rng.normal(0, 0.01, (6, 5)), rng.uniform(0, 900, (6, 5))
    value[:, 0] = cost[:, 0] = 0.0
    value[:, 1:][rng.random((6, 4)) < 0.2] = -np.inf
    budget = share * float(cost.max(axis=1).sum())
    assert knapsack_lp(value, cost, budget) == pytest.approx(
        by_linprog(value, cost, budget), abs=1e-9
    )


def test_knapsack_by_hand() -> None:
    value = np.array([[0.0, 6.0], [0.0, 4.0]])
    cost = np.array([[0.0, 3.0], [0.0, 4.0]])
    assert knapsack_lp(value, cost, 0.0) == pytest.approx(0.0, abs=1e-6)
    assert knapsack_lp(value, cost, 3.0) == pytest.approx(6.0)
    assert knapsack_lp(value, cost, 5.0) == pytest.approx(6.0 + 0.5 * 4.0)
    assert knapsack_lp(value, cost, np.inf) == pytest.approx(10.0)
    with pytest.raises(ComparisonError, match="0 or more"):
        knapsack_lp(value, cost, -1.0)


def problem(seed: int = 0, n: int = 16, share: float = 0.4) -> SessionProblem:
    setup = build_setup(evidence=toy_evidence(80, seed=seed), n_cases=n, budget_fraction=share)
    return next(session_problems(setup, [seed]))


def exact_auc(scores: np.ndarray, label: np.ndarray) -> float:
    pairs = np.sign(scores[label == 1][:, None] - scores[label == 0][None, :])
    return float(pairs.mean() / 2 + 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_clairvoyant_credits_of_everybody_to_everything_add_up_to_the_auc_change(
    seed: int,
) -> None:
    case = problem(seed)
    rows = np.arange(len(case.label))
    credit = additive_credit(case, clairvoyant=True)[rows, case.fullest].sum()
    full = exact_auc(case.logit[rows, case.fullest], case.label)
    assert credit == pytest.approx(full - exact_auc(case.logit[:, 0], case.label), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 500), share=st.floats(0.05, 1.0))
def test_no_affordable_choice_of_sets_exceeds_the_bound(seed: int, share: float) -> None:
    case = problem(seed % 7, share=share)
    rng = np.random.default_rng(seed)
    bounds = session_bounds(case)
    for key in (EXPECTED, CLAIRVOYANT):
        credit = additive_credit(case, clairvoyant=key == CLAIRVOYANT)
        left, total = case.budget_g_co2e, 0.0
        for i in rng.permutation(len(case.label)):
            affordable = case.reachable[i] & (case.cost_g_co2e[i] <= left)
            chosen = rng.choice(np.flatnonzero(affordable))
            left -= case.cost_g_co2e[i, chosen]
            total += credit[i, chosen]
        assert total <= bounds[key] + 1e-12


def test_more_budget_never_lowers_a_bound_and_knowing_the_labels_raises_it() -> None:
    values = [session_bounds(problem(3, share=share)) for share in (0.0, 0.2, 0.5, 2.0)]
    for key in (EXPECTED, CLAIRVOYANT):
        series = [v[key] for v in values]
        assert series == sorted(series)
    assert all(v[CLAIRVOYANT] >= v[EXPECTED] for v in values[1:])


def test_a_session_of_one_class_is_refused() -> None:
    case = problem(0)
    lonely = SessionProblem(
        logit=case.logit, fullest=case.fullest, label=np.ones_like(case.label),
        cost_g_co2e=case.cost_g_co2e, budget_g_co2e=1.0,
    )  # fmt: skip
    with pytest.raises(ComparisonError, match="one class"):
        session_bounds(lonely)


def test_energy_of_a_set_counts_each_pipeline_once() -> None:
    evidence = toy_evidence(60)
    energy = set_energy_kwh(build_setup(evidence=evidence, n_cases=8).tables)
    both = evidence.sets.index_of(["genomics->pathology", "genomics->clinical"])
    assert energy[0] == 0.0
    assert energy[both] == pytest.approx(0.8 + 2e-5)


@pytest.mark.parametrize("name", ["always-everything", "rule", "price", "random"])
def test_no_policy_gains_more_in_expectation_than_the_bound(name: str) -> None:
    setup = build_setup(evidence=toy_evidence(120), n_cases=24, budget_mode="mask")
    seeds = range(12)
    records = run_sessions(make_policy(name, setup.layout, setup.catalogue), setup, seeds)
    rows = np.arange(24)
    for i, case in enumerate(session_problems(setup, seeds)):
        bounds = session_bounds(case)
        for key in bounds:
            credit = additive_credit(case, clairvoyant=key == CLAIRVOYANT)
            assert credit[rows, records.final_set[i]].sum() <= bounds[key] + 1e-12
