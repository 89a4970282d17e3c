"""The circuit prepares and keeps choices of k, and its angles are worth something."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from distill.selection.classical import ExactSolver, choices_of
from distill.selection.problem import SelectionError, mrmr_problem
from distill.selection.qaoa import QaoaSolver, ansatz, dicke_circuit, ring, to_ising

qiskit = pytest.importorskip("qiskit", reason="the extra 'quantum' is not installed")
pytest.importorskip("qiskit_aer", reason="the extra 'quantum' is not installed")


def problem_of(n: int, k: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    shared = np.triu(rng.random((n, n)), 1)
    return mrmr_problem([str(i) for i in range(n)], rng.random(n), shared + shared.T, k)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (4, 2), (5, 1), (6, 5), (7, 3), (4, 4)])
def test_the_dicke_state_is_even_over_the_choices_and_nothing_else(n: int, k: int) -> None:
    from qiskit.quantum_info import Statevector

    amplitude = np.asarray(Statevector(dicke_circuit(n, k)).data)
    ones = np.bitwise_count(np.arange(1 << n))
    np.testing.assert_allclose(amplitude[ones == k], comb(n, k) ** -0.5, atol=1e-12)
    np.testing.assert_allclose(amplitude[ones != k], 0.0, atol=1e-12)


def test_the_circuit_is_the_product_of_phases_and_exchanges() -> None:
    """Against plain matrices: phases by the objective itself, then exchanges pair by pair."""
    from qiskit.quantum_info import Statevector
    from scipy.linalg import expm

    n, k = 4, 2
    problem = problem_of(n, k)
    circuit, phase, exchange = ansatz(to_ising(problem), k, layers=1)
    circuit.remove_final_measurements()
    bound = circuit.assign_parameters({phase: [0.7], exchange: [0.4]})
    seen = Statevector(bound).probabilities()

    bits = ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1).astype(bool)
    state = np.where(bits.sum(axis=1) == k, comb(n, k) ** -0.5, 0.0).astype(complex)
    state *= np.exp(0.7j * problem.objective(bits))
    x, y = np.array([[0, 1], [1, 0]]), np.array([[0, -1j], [1j, 0]])
    for i, j in ring(n):
        hop = sum(_on(g, i, n) @ _on(g, j, n) for g in (x, y)) / 2
        state = expm(0.4j * hop) @ state
    np.testing.assert_allclose(seen, np.abs(state) ** 2, atol=1e-9)


def _on(gate: np.ndarray, qubit: int, n: int) -> np.ndarray:
    out = np.eye(1)
    for q in reversed(range(n)):  # qubit 0 is the last factor
        out = np.kron(out, gate if q == qubit else np.eye(2))
    return out


@pytest.mark.parametrize("n", range(1, 8))
def test_the_ring_joins_every_qubit_once_with_each_neighbour(n: int) -> None:
    pairs = ring(n)
    assert len({frozenset(p) for p in pairs}) == len(pairs) == (n if n > 2 else n - 1)


@pytest.mark.parametrize("tries", [0, 12])
def test_its_angles_draw_better_choices_than_even_ones(tries: int) -> None:
    problem = problem_of(8, 4, seed=3)
    even = float(problem.objective(choices_of(8, 4)).mean())
    best = ExactSolver().solve(problem, np.random.default_rng(0)).objective
    solver = QaoaSolver(layers=3, tries=tries, shots=512)
    found = solver.solve(problem, np.random.default_rng(0))
    assert found.expectation is not None
    assert found.expectation > even + 0.25 * (best - even)
    assert found.objective == pytest.approx(best)


def test_too_few_tries_for_the_angles_are_refused() -> None:
    with pytest.raises(SelectionError, match="3 tries cannot improve 8 angles; use 0, or 10"):
        QaoaSolver(layers=4, tries=3)
