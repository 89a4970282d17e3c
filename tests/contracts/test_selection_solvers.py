"""What every solver of a selection problem has to keep, whichever it is."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from distill.selection.classical import ExactSolver
from distill.selection.problem import SelectionError, SelectionProblem, Solver, mrmr_problem
from distill.selection.qaoa import QaoaSolver
from distill.selection.solvers import SOLVERS, make_solver

EXTRA = {"anneal": "dwave", "qaoa": "qiskit_aer"}


def small_problem(n: int = 7, k: int = 3, seed: int = 0) -> SelectionProblem:
    rng = np.random.default_rng(seed)
    shared = rng.random((n, n))
    shared = np.triu(shared, 1) + np.triu(shared, 1).T
    return mrmr_problem([f"v{i}" for i in range(n)], rng.random(n), shared, k)


@pytest.fixture(params=list(SOLVERS))
def solver(request: pytest.FixtureRequest) -> Solver:
    name = str(request.param)
    if name in EXTRA and find_spec(EXTRA[name]) is None:
        pytest.skip(f"the extra 'quantum' is not installed ({EXTRA[name]})")
    # QAOA in its quickest form: what it must keep does not depend on how long it looks.
    return QaoaSolver(layers=3, last_shots=512) if name == "qaoa" else make_solver(name)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_it_keeps_the_protocol(solver: Solver) -> None:
    assert isinstance(solver, Solver)
    assert SOLVERS[solver.name]().name == solver.name


@pytest.mark.parametrize("k", [1, 3, 6, 7])
def test_it_chooses_exactly_k_and_names_them(solver: Solver, k: int) -> None:
    problem = small_problem(k=k)
    found = solver.solve(problem, rng())
    assert len(set(found.chosen)) == k
    assert list(found.chosen) == sorted(found.chosen)
    assert found.names == tuple(problem.names[i] for i in found.chosen)
    assert found.solver == solver.name
    assert found.evaluated > 0


def test_its_objective_is_that_of_its_choice_and_not_above_the_optimum(solver: Solver) -> None:
    for seed in range(3):
        problem = small_problem(seed=seed)
        found = solver.solve(problem, rng())
        mask = np.isin(np.arange(problem.n), found.chosen)
        assert found.objective == pytest.approx(float(problem.objective(mask)))
        best = ExactSolver().solve(problem, rng()).objective
        assert found.objective <= best + 1e-12
        if found.optimal:
            assert found.objective == pytest.approx(best)
        if found.expectation is not None:
            assert found.expectation <= found.objective + 1e-12


def test_without_redundancy_it_takes_the_most_relevant(solver: Solver) -> None:
    relevance = np.array([0.1, 0.9, 0.2, 0.8, 0.3, 0.7])
    problem = mrmr_problem(list("abcdef"), relevance, np.zeros((6, 6)), 3)
    assert solver.solve(problem, rng()).names == ("b", "d", "f")


def test_of_two_twins_it_takes_one(solver: Solver) -> None:
    shared = np.zeros((5, 5))
    shared[0, 1] = shared[1, 0] = 1.0
    problem = mrmr_problem(list("abcde"), np.array([0.5, 0.45, 0.4, 0.01, 0.0]), shared, 2)
    names = solver.solve(problem, rng()).names
    assert "c" in names
    assert len({"a", "b"} & set(names)) == 1


def test_the_same_generator_state_gives_the_same_choice(solver: Solver) -> None:
    problem = small_problem()
    assert solver.solve(problem, rng(5)) == solver.solve(problem, rng(5))


def test_it_leaves_the_problem_as_it_was(solver: Solver) -> None:
    problem = small_problem()
    before = problem.relevance.copy(), problem.redundancy.copy()
    solver.solve(problem, rng())
    np.testing.assert_array_equal(problem.relevance, before[0])
    np.testing.assert_array_equal(problem.redundancy, before[1])


def test_one_variable_alone_and_equal_variables_are_no_special_case(solver: Solver) -> None:
    alone = mrmr_problem(["a"], np.array([0.4]), np.zeros((1, 1)), 1)
    assert solver.solve(alone, rng()).names == ("a",)
    equal = mrmr_problem(list("abcd"), np.zeros(4), np.zeros((4, 4)), 2)
    found = solver.solve(equal, rng())
    assert len(found.chosen) == 2
    assert found.objective == 0.0


@pytest.mark.parametrize("name", ["exact", "qaoa"])
def test_more_variables_than_it_takes_are_refused(name: str) -> None:
    with pytest.raises(SelectionError, match="20 variables at most; 21 came"):
        make_solver(name).solve(small_problem(n=21), rng())


@pytest.mark.parametrize("name", list(EXTRA))
def test_without_the_extra_it_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("dimod", "dwave.samplers", "qiskit", "qiskit_aer"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SelectionError, match=r"pip install 'greenboard\[quantum\]'"):
        make_solver(name).solve(small_problem(), rng())


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SelectionError, match=r"Unknown solver 'aneal'.*Did you mean 'anneal'\?"):
        make_solver("aneal")
