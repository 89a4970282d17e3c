"""QAOA on a simulator of a gate-based quantum computer (qiskit-aer).

The constraint is kept by the circuit, not by a penalty: it starts in the Dicke state, the even
superposition of all choices of k variables, and mixes by exchanges between neighbours on a ring
(the XY mixer of the quantum alternating operator ansatz: Hadfield et al. 2019, Algorithms 12:34,
section 4.2; Wang et al. 2020, Phys. Rev. A 101:012320). Every sample is a choice of exactly k.
Angles follow a linear ramp fixed in advance (costs grow, exchanges shrink), which needs one circuit
run; COBYLA can improve them on means over samples, as on a device: no state vector is read out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import minimize

from distill.selection.classical import random_choices
from distill.selection.extras import need
from distill.selection.problem import (
    Selection,
    SelectionError,
    SelectionProblem,
    answer,
    check_size,
)

SCALE_DRAWS = 256
PHASE, EXCHANGE = 2.0, 1.0
"""Ends of the ramp, for costs scaled to a spread of 1; set on ten made-up problems of 16 variables
(seeds 1000 to 1009 of ``benchmarks/distill_selection.py``), none of which is reported."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ising:
    """Minus the objective as ``sum_i h_i z_i + sum_{i<j} J_ij z_i z_j`` plus a constant.

    ``z_i = 1 - 2 x_i``, as a qubit's Z has it.
    """

    field: Float64[np.ndarray, " n"]
    coupling: Float64[np.ndarray, "n n"]


def to_ising(problem: SelectionProblem, scale: float = 1.0) -> Ising:
    """The objective's part of the QUBO in spins, divided by ``scale``; no penalty is needed."""
    coupling = problem.weight * problem.redundancy / 4.0
    linear = problem.relevance / 2.0 - coupling.sum(axis=1)
    return Ising(field=linear / scale, coupling=coupling / scale)


def dicke_circuit(n: int, k: int) -> Any:
    """Gates that prepare the even superposition of all strings of n bits with k ones.

    O(nk) gates (Bärtschi & Eidenbenz 2019, Deterministic preparation of Dicke states, FCT 2019,
    section 2).
    """
    qiskit = need("qiskit", QaoaSolver.name)
    rotation = need("qiskit.circuit.library", QaoaSolver.name).RYGate
    circuit = qiskit.QuantumCircuit(n)
    circuit.x(range(n - k, n))
    for size in range(n, 1, -1):
        last = size - 1
        for i in range(1, min(k, last) + 1):
            controls = [last] if i == 1 else [last, last - i + 1]
            angle = 2.0 * float(np.arccos(np.sqrt(i / size)))
            circuit.cx(last - i, last)
            gate = rotation(angle).control(len(controls), annotated=False)
            circuit.append(gate, [*controls, last - i])
            circuit.cx(last - i, last)
    return circuit


def ring(n: int) -> list[tuple[int, int]]:
    """Neighbours on a ring, pairs that share no qubit together where that is possible."""
    if n < 3:
        return [(0, 1)][: n - 1]
    pairs = [(i, (i + 1) % n) for i in range(n)]
    return pairs[0::2] + pairs[1::2]


def ansatz(ising: Ising, k: int, layers: int) -> tuple[Any, Any, Any]:
    """The measured circuit and its free angles: one phase and one exchange angle a layer."""
    vector = need("qiskit.circuit", QaoaSolver.name).ParameterVector
    n = ising.field.size
    phase, exchange = vector("phase", layers), vector("exchange", layers)
    circuit = dicke_circuit(n, k)
    for layer in range(layers):
        for i in range(n):
            circuit.rz(2.0 * float(ising.field[i]) * phase[layer], i)
            for j in range(i):
                if ising.coupling[i, j]:
                    circuit.rzz(2.0 * float(ising.coupling[i, j]) * phase[layer], i, j)
        for i, j in ring(n):
            # Minus: the start is near the top of the exchange's spectrum, so it must be the bottom.
            circuit.rxx(-exchange[layer], i, j)
            circuit.ryy(-exchange[layer], i, j)
    circuit.measure_all()
    return circuit, phase, exchange


@dataclass(frozen=True, kw_only=True)
class QaoaSolver:
    """QAOA with the XY mixer; the best of the last samples, and their mean as ``expectation``.

    Attributes:
        layers: p, cost and mixer layers.
        tries: circuit runs to improve the angles, at least 2p + 2; 0 keeps the ramp.
        shots: samples of each of these runs.
        last_shots: samples of the last run, of which the best is chosen.
    """

    name: ClassVar[str] = "qaoa"
    max_variables: ClassVar[int | None] = 20
    layers: int = 10
    tries: int = 0
    shots: int = 1024
    last_shots: int = 4096

    def __post_init__(self) -> None:
        if self.tries and self.tries < 2 * self.layers + 2:
            raise SelectionError(
                f"{self.tries} tries cannot improve {2 * self.layers} angles; use 0, or "
                f"{2 * self.layers + 2} or more."
            )

    def solve(self, problem: SelectionProblem, rng: np.random.Generator) -> Selection:
        """Improve the angles if asked to, sample, keep the best sample.

        Raises:
            SelectionError: if there are more than 20 variables, or qiskit is not installed.
        """
        check_size(self, problem)
        run = self._sampler(problem, rng)
        best, angles = np.inf, self.first_angles()

        def cost(tried: Float64[np.ndarray, " angles"]) -> float:
            nonlocal best, angles
            mean = -float(problem.objective(run(tried, self.shots)).mean())
            if mean < best:
                best, angles = mean, tried.copy()
            return mean

        if self.tries:
            options = {"maxiter": self.tries, "rhobeg": 0.2}
            minimize(cost, angles, method="COBYLA", options=options)
        drawn = run(angles, self.last_shots)
        value = problem.objective(drawn)
        return answer(
            self.name, problem, np.flatnonzero(drawn[int(np.argmax(value))]),
            evaluated=self.shots * self.tries + self.last_shots, expectation=float(value.mean()),
        )  # fmt: skip

    def first_angles(self) -> Float64[np.ndarray, " angles"]:
        """Phases that grow and exchanges that shrink, linearly."""
        at = (np.arange(self.layers) + 0.5) / self.layers
        return np.concatenate([PHASE * at, EXCHANGE * (1 - at)])

    def _sampler(self, problem: SelectionProblem, rng: np.random.Generator) -> Any:
        """A function from angles to samples; the circuit is translated once."""
        qiskit, aer = need("qiskit", self.name), need("qiskit_aer", self.name)
        spread = float(problem.objective(random_choices(problem, SCALE_DRAWS, rng)).std())
        # Where all choices are equally good there is nothing to scale by.
        ising = to_ising(problem, spread if spread > 0 else 1.0)
        circuit, phase, exchange = ansatz(ising, problem.k, self.layers)
        simulator = aer.AerSimulator(
            method="statevector", max_parallel_threads=1, seed_simulator=int(rng.integers(2**31))
        )
        translated = qiskit.transpile(circuit, simulator, optimization_level=0)

        def run(angles: Float64[np.ndarray, " angles"], shots: int) -> Bool[np.ndarray, "shots n"]:
            values = {phase: angles[: self.layers], exchange: angles[self.layers :]}
            # One variable has no neighbour to exchange with, so its circuit lacks those angles.
            bound = translated.assign_parameters(values, strict=False)
            result = simulator.run(bound, shots=shots).result()
            if not result.success:
                raise RuntimeError(f"qiskit-aer did not run the circuit: {result.status}.")
            return _bits(result.get_counts(), problem.n)

        return run


def _bits(counts: dict[str, int], n: int) -> Bool[np.ndarray, "shots n"]:
    """Samples as rows; qiskit writes qubit 0 last."""
    rows = np.array([[c == "1" for c in reversed(word)] for word in sorted(counts)], dtype=bool)
    return np.repeat(rows.reshape(-1, n), [counts[word] for word in sorted(counts)], axis=0)
