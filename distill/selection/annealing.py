"""Simulated annealing on the QUBO, by dwave-samplers. A classical algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distill.selection.extras import need
from distill.selection.problem import Selection, SelectionProblem, answer
from distill.selection.qubo import descend, exchange, to_qubo


@dataclass(frozen=True, kw_only=True)
class AnnealingSolver:
    """Simulated annealing of the penalised QUBO; the best of several reads.

    Attributes:
        reads: independent runs.
        sweeps: passes over all bits a run.
    """

    name: ClassVar[str] = "anneal"
    max_variables: ClassVar[int | None] = None
    reads: int = 512
    sweeps: int = 500

    def solve(self, problem: SelectionProblem, rng: np.random.Generator) -> Selection:
        """Anneal, walk each read down to its local minimum, keep the best and polish it.

        The walk is what makes every read a choice of exactly k: see
        :func:`distill.selection.qubo.sufficient_penalty`. The polish exchanges pairs in the best
        read; ``expectation`` is the reads' mean before it.

        Raises:
            SelectionError: if dwave-samplers is not installed.
        """
        dimod, samplers = need("dimod", self.name), need("dwave.samplers", self.name)
        qubo = to_qubo(problem)
        linear = np.diag(qubo.matrix)
        model = dimod.BinaryQuadraticModel(
            linear, np.triu(qubo.matrix, k=1), qubo.offset, dimod.BINARY
        )
        reads = samplers.SimulatedAnnealingSampler().sample(
            model, num_reads=self.reads, num_sweeps=self.sweeps,
            seed=int(rng.integers(1, 2**31)),
        )  # fmt: skip
        order = np.argsort(list(reads.variables))
        bits = np.asarray(reads.record.sample[:, order], dtype=bool)
        settled = np.stack([descend(qubo, row) for row in bits])
        value = problem.objective(settled)
        best = exchange(problem, settled[int(np.argmax(value))])
        return answer(
            self.name, problem, np.flatnonzero(best),
            evaluated=self.reads * self.sweeps * problem.n, expectation=float(value.mean()),
        )  # fmt: skip
