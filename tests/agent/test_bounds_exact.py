"""Bounds against optima that can be worked out: brute force, and linear programmes by scipy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import expit

from agent.bounds_expected import expected_optimum, price_grid, tangent
from agent.bounds_hours import VisitHours
from agent.bounds_knowledge import Knowledge, build_knowledge, mixing
from agent.bounds_multipliers import Sessions, cheapest_prices
from agent.bounds_problem import weighted_auc
from agent.bounds_programme import Programme, solve
from distill.evidence import EvidenceTable
from envs.setup import build_setup
from envs.toy import toy_evidence

OUTCOMES = {-1.0: (-3.0, -1.5, 2.0), 1.0: (-2.0, 1.5, 3.0)}
COPIES, G_PER_KWH = 10, 100.0
KINDS = tuple(OUTCOMES)


def discrete_evidence() -> EvidenceTable:
    """Two first scores; each leads to one of three, equally often; nothing else tells them."""
    table = toy_evidence(60, modalities=("clinical", "pathology"))
    first = np.repeat([-1.0, 1.0], 3 * COPIES)
    last = np.repeat([s for ends in OUTCOMES.values() for s in ends], COPIES)
    runs = table.processed[:, 1]
    logit = np.where(runs[None, :], last[:, None], first[:, None]).astype(np.float32)
    return replace(
        table,
        present=np.ones_like(table.present),
        quality=np.ones_like(table.quality),
        logit=logit,
        label=(last > 0).astype(np.int8),
    )


def discrete_bound(n: int, tests: int) -> float:
    """The bound of sessions of n such cases with a budget for so many tests, a mean over many."""
    setup = build_setup(evidence=discrete_evidence(), rules="sequential", n_cases=n)
    # Width 0: only equal scores are alike, which is all there is to know here.
    knowledge = build_knowledge(setup, width=0.0)
    knowledge = replace(knowledge, weight=expit(knowledge.logit[:, -1]))
    rng = np.random.default_rng(0)
    everyone = np.tile(np.arange(6 * COPIES), 40 * n)
    patient = rng.permutation(everyone)[: len(everyone) // n * n].reshape(-1, n)
    hours = VisitHours(
        g_per_kwh=np.full((len(patient), 1), G_PER_KWH),
        feasible=np.ones((len(patient), n, 1), dtype=np.bool_),
        slots=None,
    )
    budget = np.full(len(patient), tests * float(knowledge.energy_kwh[0]) * G_PER_KWH)
    sessions = Sessions(patient=patient, hours=hours, budget_g_co2e=budget)
    return float(expected_optimum(knowledge, sessions).mean())


def pair_gains() -> np.ndarray:
    """Gain of a pair of cases [kind, tested, kind, tested], a share of the mean pair's weight."""
    table = np.zeros((2, 2, 2, 2))
    for i, a, j, b in product(range(2), repeat=4):
        first = np.array([KINDS[i], KINDS[j]])
        for ends in product(OUTCOMES[KINDS[i]], OUTCOMES[KINDS[j]]):
            final = np.where([a, b], ends, first)
            p = expit(np.array(ends))
            for x, y in ((0, 1), (1, 0)):
                won = (np.sign(final[x] - final[y]) - np.sign(first[x] - first[y])) / 2.0
                table[i, a, j, b] += p[x] * (1.0 - p[y]) * won / 9.0
    share = float(expit(np.array([s for ends in OUTCOMES.values() for s in ends])).mean())
    return table / (2.0 * share * (1.0 - share))


def gain_of_policy(does: Callable[[int, int, int], bool], n: int, tests: int) -> float:
    """Exact expected gain of a policy of (kind, place, tests left), over all first scores."""
    pairs, total = pair_gains(), 0.0
    for kinds in product(range(2), repeat=n):
        left, tested = tests, []
        for place, kind in enumerate(kinds):
            tested.append(int(left > 0 and does(kind, place, left)))
            left -= tested[-1]
        each = pairs[kinds, tested][:, kinds, tested]
        total += (each.sum() - np.trace(each)) / (n * (n - 1))
    return float(total / 2**n)


@pytest.mark.parametrize("tests", [0, 1, 2])
def test_the_best_of_all_policies_of_a_tiny_session(tests: int) -> None:
    """Three cases. A shared budget makes cases' tests exclude each other, which pays a little.

    The bound treats cases as independent but for prices, so it may fall short by that: of the
    order of one case in n, here 3.
    """
    seen = [
        (kind, place, left)
        for place in range(3)
        for left in range(max(tests - place, 1), tests + 1)
        for kind in range(2)
    ]
    best = 0.0
    for answers in product((False, True), repeat=len(seen)):
        table = dict(zip(seen, answers, strict=True))
        best = max(best, gain_of_policy(lambda *at, t=table: t[at], 3, tests))
    assert 0.85 * best - 1e-9 <= discrete_bound(3, tests) <= 1.1 * best + 1e-9


@pytest.mark.parametrize("tests", [3, 6])
def test_larger_sessions_come_close(tests: int) -> None:
    """Twelve cases: test one kind, or both, first come first served.

    What cases' excluding each other pays is down to 2 % here (0.3 % with 24 cases).
    """
    n = 12
    rules: list[Callable[[int, int, int], bool]] = [
        lambda kind, place, left: kind == 0,
        lambda kind, place, left: kind == 1,
        lambda kind, place, left: True,
        lambda kind, place, left: kind == 0 or left >= n - place,
        lambda kind, place, left: kind == 1 or left >= n - place,
    ]
    best = max(gain_of_policy(rule, n, tests) for rule in rules)
    bound = discrete_bound(n, tests)
    assert 0.0 < best <= 1.02 * bound
    assert bound <= 1.1 * best


def one_step(seed: int) -> tuple[Knowledge, Programme]:
    """One decision a case over toy patients, at some plan's tangent."""
    setup = build_setup(evidence=toy_evidence(100, seed=seed), rules="oneshot", n_cases=20)
    knowledge = build_knowledge(setup)
    ends = np.zeros((knowledge.logit.shape[1], len(knowledge.logit)))
    ends[0] = 1.0
    at = tangent(knowledge, ends)
    return knowledge, solve(knowledge, at.credit, price_grid(knowledge, at.credit, None))


def options(knowledge: Knowledge, programme: Programme, patient: np.ndarray) -> np.ndarray:
    """What each case may expect of stopping and of each modality [cases, 1 + sources]."""
    n = len(knowledge.energy_kwh)
    points = programme.grid.points
    dear = np.array([axis[-1] for axis in programme.grid.axes])
    stop = programme.first[patient, np.flatnonzero((points == dear).all(axis=1))[0]]
    found = [stop]
    for s in range(n):
        wanted = np.where(np.arange(n) == s, 0.0, dear)
        at = np.flatnonzero((points == wanted).all(axis=1))[0]
        found.append(programme.first[patient, at])
    return np.stack(found, axis=1)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_one_decision_a_case_is_the_knapsack_of_linprog(share: float) -> None:
    knowledge, programme = one_step(0)
    rng = np.random.default_rng(1)
    patient, n = rng.permutation(100)[:20], len(knowledge.energy_kwh)
    g = rng.uniform(50, 300, 20)
    grams = np.hstack([np.zeros((20, 1)), g[:, None] * knowledge.energy_kwh])
    budget = share * float(grams.max(axis=1).sum())
    worth = options(knowledge, programme, patient)
    exact = linprog(
        -worth.ravel(), A_ub=grams.reshape(1, -1), b_ub=[budget],
        A_eq=np.kron(np.eye(20), np.ones(1 + n)), b_eq=np.ones(20), bounds=(0, 1),
    )  # fmt: skip
    hours = VisitHours(
        g_per_kwh=np.sort(g)[None], feasible=(np.sort(g) == g[:, None])[None], slots=None
    )
    sessions = Sessions(patient=patient[None], hours=hours, budget_g_co2e=np.array([budget]))
    found = float(cheapest_prices(programme, knowledge.energy_kwh, sessions).value[0])
    assert -exact.fun - 1e-9 <= found <= -exact.fun * 1.005


@pytest.mark.parametrize("slots", [1, 2])
def test_full_hours_are_the_assignment_of_linprog(slots: int) -> None:
    """Twenty cases that arrive over eight hours with one or two slots each, and a budget."""
    knowledge, programme = one_step(2)
    rng = np.random.default_rng(3)
    patient, n, n_hours = rng.permutation(100)[:20], len(knowledge.energy_kwh), 8
    g, arrives = rng.uniform(50, 300, n_hours), rng.integers(0, n_hours, 20)
    feasible = np.arange(n_hours) >= arrives[:, None]
    worth = options(knowledge, programme, patient)
    gain = (worth[:, 1:] - worth[:, :1])[:, None, :] + np.zeros((1, n_hours, 1))
    grams = np.broadcast_to(g[None, :, None] * knowledge.energy_kwh, gain.shape)
    budget = 0.3 * float(grams.mean(axis=1).max(axis=1).sum())
    of_case = np.kron(np.eye(20), np.ones(n_hours * n))
    of_hour = np.tile(np.kron(np.eye(n_hours), np.ones(n)), 20)
    exact = linprog(
        -gain.ravel(),
        A_ub=np.vstack([of_case, of_hour, grams.reshape(1, -1)]),
        b_ub=np.concatenate([np.ones(20), np.full(n_hours, slots), [budget]]),
        bounds=[(0, 1 if ok else 0) for ok in np.repeat(feasible.ravel(), n)],
    )  # fmt: skip
    best = float(worth[:, 0].sum() - exact.fun)
    hours = VisitHours(g_per_kwh=g[None], feasible=feasible[None], slots=slots)
    sessions = Sessions(patient=patient[None], hours=hours, budget_g_co2e=np.array([budget]))
    found = float(cheapest_prices(programme, knowledge.energy_kwh, sessions).value[0])
    assert best - 1e-9 <= found <= best * 1.02


def test_smoothing_moves_no_total_and_mixes_only_what_is_alike() -> None:
    rng = np.random.default_rng(0)
    score, pattern = rng.normal(0, 2, 60), rng.integers(0, 3, 60)
    score[pattern == 2] = np.nan
    mix = mixing(score, pattern, 0.6)
    some = np.isfinite(score)
    np.testing.assert_allclose(mix[some].sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(mix, mix.T, atol=1e-12)
    assert not mix[~some].any()
    assert not mix[pattern[:, None] != pattern[None, :]].any()
    assert np.array_equal(mixing(score, pattern, 0.0), np.diag(some.astype(float)))


@pytest.mark.parametrize("seed", range(3))
def test_the_tangent_touches_the_gain_of_its_plan(seed: int) -> None:
    setup = build_setup(evidence=toy_evidence(60, seed=seed), n_cases=20)
    knowledge = build_knowledge(setup)
    rng = np.random.default_rng(seed)
    patients = np.arange(len(knowledge.logit))

    def plan() -> np.ndarray:
        reach = np.isfinite(knowledge.logit)
        chosen = np.array([rng.choice(np.flatnonzero(row)) for row in reach])
        ends = np.zeros(knowledge.logit.T.shape)
        ends[chosen, patients] = 1.0
        return ends

    def gain(ends: np.ndarray) -> float:
        final = np.nansum(np.where(ends.T > 0, knowledge.logit, 0.0), axis=1)
        start = weighted_auc(knowledge.logit[:, 0], knowledge.weight)
        return weighted_auc(final, knowledge.weight) - start

    here = plan()
    at = tangent(knowledge, here)
    scale = 20 / len(patients)
    assert scale * (at.credit * here.T).sum() + at.offset == pytest.approx(gain(here), abs=1e-9)
