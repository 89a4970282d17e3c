from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from agent.bounds import expected_gain
from agent.bounds_foresight import additive_credit, knapsack_lp, session_optimum
from agent.bounds_problem import (
    SessionProblem,
    session_problems,
    set_energy_kwh,
    weighted_auc,
)
from agent.errors import ComparisonError
from agent.policies.registry import make_policy
from agent.rollout import run_sessions
from envs.expected import recalibrated
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
    assert knapsack_lp(value, cost, budget).value == pytest.approx(
        by_linprog(value, cost, budget), abs=1e-8
    )


def test_knapsack_by_hand() -> None:
    value = np.array([[0.0, 6.0], [0.0, 4.0]])
    cost = np.array([[0.0, 3.0], [0.0, 4.0]])
    assert knapsack_lp(value, cost, 0.0).value == pytest.approx(0.0, abs=1e-6)
    assert knapsack_lp(value, cost, 3.0).value == pytest.approx(6.0)
    assert knapsack_lp(value, cost, 5.0).value == pytest.approx(6.0 + 0.5 * 4.0)
    assert knapsack_lp(value, cost, np.inf).value == pytest.approx(10.0)
    with pytest.raises(ComparisonError, match="0 or more"):
        knapsack_lp(value, cost, -1.0)


def problem(seed: int = 0, n: int = 16, share: float = 0.4) -> SessionProblem:
    setup = build_setup(evidence=toy_evidence(80, seed=seed), n_cases=n, budget_fraction=share)
    return next(session_problems(setup, [seed]))


def weight_of(case: SessionProblem, key: str) -> np.ndarray:
    return case.label.astype(np.float64) if key == "clairvoyant" else case.probability


def exact_auc(scores: np.ndarray, label: np.ndarray) -> float:
    pairs = np.sign(scores[label == 1][:, None] - scores[label == 0][None, :])
    return float(pairs.mean() / 2 + 0.5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_the_whole_choices_keep_the_budget(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    value, cost = rng.normal(0, 0.01, (6, 5)), rng.uniform(0, 900, (6, 5))
    value[:, 0] = cost[:, 0] = 0.0
    budget = share * float(cost.max(axis=1).sum())
    chosen = knapsack_lp(value, cost, budget).chosen
    rows = np.arange(6)
    assert cost[rows, chosen].sum() <= budget
    assert value[rows, chosen].sum() <= knapsack_lp(value, cost, budget).value + 1e-12


def random_plan(case: SessionProblem, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(np.flatnonzero(row)) for row in case.reachable])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("key", ["expected", "clairvoyant"])
def test_credits_against_a_plans_own_references_add_up_to_its_gain(seed: int, key: str) -> None:
    case = problem(seed)
    weight, plan = weight_of(case, key), random_plan(case, seed)
    credit = additive_credit(case, weight, plan)[np.arange(len(plan)), plan].sum()
    start = weighted_auc(case.logit[:, 0], weight)
    assert credit == pytest.approx(weighted_auc(case.scores(plan), weight) - start, abs=1e-12)


def test_with_labels_as_weights_it_is_the_auc() -> None:
    case = problem(2)
    scores = case.scores(case.fullest)
    assert weighted_auc(scores, weight_of(case, "clairvoyant")) == pytest.approx(
        exact_auc(scores, case.label)
    )


def test_more_budget_never_lowers_a_bound_and_knowing_the_labels_raises_it() -> None:
    shares = (0.0, 0.2, 0.5, 2.0)
    found: dict[str, list[float]] = {"expected": [], "clairvoyant": []}
    for case in (problem(3, share=share) for share in shares):
        for key, series in found.items():
            series.append(session_optimum(case, weight_of(case, key)).value)
    for series in found.values():
        assert series == sorted(series)
        assert series[0] == 0.0
    assert all(c >= e for e, c in zip(found["expected"], found["clairvoyant"]))


def brute_force(case: SessionProblem, key: str) -> float:
    """The best whole plan of a tiny session, by trying all of them."""
    weight, rows = weight_of(case, key), np.arange(len(case.label))
    start = weighted_auc(case.logit[:, 0], weight)
    options = [np.flatnonzero(row) for row in case.reachable]
    best = 0.0
    for choice in itertools.product(*options):
        plan = np.array(choice)
        if case.cost_g_co2e[rows, plan].sum() <= case.budget_g_co2e:
            best = max(best, weighted_auc(case.scores(plan), weight) - start)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_tiny_sessions_against_brute_force(seed: int) -> None:
    """Five cases, four sets each: what is found is close to the best plan, and rarely below it."""
    whole = problem(seed, n=12)
    cases, sets = [0, 1, 2, 6, 7], [0, *np.flatnonzero(whole.reachable[0])[-3:]]
    small = SessionProblem(
        logit=np.where(whole.reachable, whole.logit, np.nan)[np.ix_(cases, sets)],
        fullest=np.zeros(5, dtype=np.int64),
        label=whole.label[cases],
        probability=whole.probability[cases],
        cost_g_co2e=whole.cost_g_co2e[np.ix_(cases, sets)],
        budget_g_co2e=whole.budget_g_co2e * 5 / 12,
    )
    best = session_optimum(small, small.probability).value
    assert best >= brute_force(small, "expected") - 0.02


def test_a_session_of_one_class_is_refused() -> None:
    case = problem(0)
    with pytest.raises(ComparisonError, match="one class"):
        replace(case, label=np.ones_like(case.label))


def test_recalibration_mends_an_overconfident_student() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, 4000)
    positives = np.flatnonzero(rng.random(4000) < 1 / (1 + np.exp(-truth)))
    stated = 3.0 * truth + 1.0
    mended = recalibrated(stated[:, None], positives)
    np.testing.assert_allclose(mended, 1 / (1 + np.exp(-truth)), atol=0.05)


def test_energy_of_a_set_counts_each_pipeline_once() -> None:
    evidence = toy_evidence(60)
    energy = set_energy_kwh(build_setup(evidence=evidence, n_cases=8).tables)
    both = evidence.sets.index_of(["genomics->pathology", "genomics->clinical"])
    assert energy[0] == 0.0
    assert energy[both] == pytest.approx(0.8 + 2e-5)


def test_no_policy_gains_more_than_foresight_in_any_session() -> None:
    setup = build_setup(evidence=toy_evidence(120), n_cases=24, budget_mode="mask")
    seeds = range(10)
    problems = list(session_problems(setup, seeds))
    foresight = [session_optimum(case, case.probability).value for case in problems]
    clairvoyant = [session_optimum(case, case.label.astype(float)).value for case in problems]
    for name in ("always-everything", "rule", "price", "random"):
        policy = make_policy(name, setup.layout, setup.catalogue)
        records = run_sessions(policy, setup, seeds)
        for i, case in enumerate(problems):
            assert expected_gain(case, records.final_set[i]) <= foresight[i] + 1e-12
            assert records.auc_gain[i] <= clairvoyant[i] + 1e-12
