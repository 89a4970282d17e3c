"""Solvers that need nothing but numpy: greedy, L1, exact enumeration, and random as a control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64

from distill.selection.problem import Selection, SelectionProblem, answer, check_size

CHUNK = 1 << 15


@dataclass(frozen=True, kw_only=True)
class GreedySolver:
    """Mutual-information greedy, as published: first the most relevant, then one at a time.

    Each step adds the variable with the largest relevance minus mean redundancy to those chosen
    (mRMR, difference form: Peng, Long & Ding 2005, equation 7). It never takes one back.
    """

    name: ClassVar[str] = "greedy"
    max_variables: ClassVar[int | None] = None

    def solve(self, problem: SelectionProblem, rng: np.random.Generator) -> Selection:
        """Choose; the generator is not used."""
        trade_off = problem.weight * (problem.k - 1) / 2
        free = np.ones(problem.n, dtype=bool)
        shared = np.zeros(problem.n)
        chosen: list[int] = []
        evaluated = 0
        for _ in range(problem.k):
            score = problem.relevance - trade_off * shared / max(len(chosen), 1)
            best = int(np.argmax(np.where(free, score, -np.inf)))
            evaluated += int(free.sum())
            chosen.append(best)
            free[best] = False
            shared = shared + problem.redundancy[best]
        return answer(self.name, problem, np.array(chosen), evaluated=evaluated)


@dataclass(frozen=True, kw_only=True)
class L1Solver:
    """L1: a non-negative lasso on the same relevances and redundancies.

    Minimises ``1/2 w'(a R + I)w - r'w + l sum(w)`` over ``w >= 0``, where a is the trade-off
    between redundancy and relevance, by projected gradient steps; l is bisected to the largest
    value that leaves k weights above zero. With R of correlations this is the lasso on
    standardised variables; with mutual information it is what HSIC lasso does with its kernels
    (Yamada et al. 2014, Neural Computation 26:185-207, equation 4).
    """

    name: ClassVar[str] = "l1"
    max_variables: ClassVar[int | None] = None
    steps: int = 400
    bisections: int = 30

    def solve(self, problem: SelectionProblem, rng: np.random.Generator) -> Selection:
        """Choose; the generator is not used."""
        trade_off = problem.weight * (problem.k - 1) / 2
        gram = trade_off * problem.redundancy + np.eye(problem.n)
        # The largest row sum bounds the largest eigenvalue of a matrix without negative entries.
        rate = 1.0 / float(gram.sum(axis=1).max())
        low, high = 0.0, max(float(problem.relevance.max()), 0.0)
        weights = self._weights(problem, gram, rate, low)
        for _ in range(self.bisections):
            middle = 0.5 * (low + high)
            tried = self._weights(problem, gram, rate, middle)
            if int((tried > 0).sum()) >= problem.k:
                low, weights = middle, tried
            else:
                high = middle
        # Where fewer than k survive even without a penalty, the next to enter fill up.
        entering = problem.relevance - gram @ weights
        order = np.lexsort((-entering, -weights))
        return answer(self.name, problem, order[: problem.k], evaluated=self.bisections + 1)

    def _weights(
        self, problem: SelectionProblem, gram: Float64[np.ndarray, "n n"], rate: float, l1: float
    ) -> Float64[np.ndarray, " n"]:
        w = np.zeros(problem.n)
        for _ in range(self.steps):
            w = np.maximum(w - rate * (gram @ w - problem.relevance + l1), 0.0)
        return w


@dataclass(frozen=True, kw_only=True)
class ExactSolver:
    """Exact: every choice of k variables is scored. The oracle for the others."""

    name: ClassVar[str] = "exact"
    max_variables: ClassVar[int | None] = 20

    def solve(self, problem: SelectionProblem, rng: np.random.Generator) -> Selection:
        """Choose; the generator is not used, the first of equals wins.

        Raises:
            SelectionError: if there are more than 20 variables.
        """
        check_size(self, problem)
        choices = choices_of(problem.n, problem.k)
        best, value = 0, -np.inf
        for start in range(0, len(choices), CHUNK):
            scored = problem.objective(choices[start : start + CHUNK])
            at = int(np.argmax(scored))
            if scored[at] > value:
                best, value = start + at, float(scored[at])
        chosen = np.flatnonzero(choices[best])
        return answer(self.name, problem, chosen, evaluated=len(choices), optimal=True)


@dataclass(frozen=True, kw_only=True)
class RandomSolver:
    """A control: the best of some choices drawn uniformly among those of k variables."""

    name: ClassVar[str] = "random"
    max_variables: ClassVar[int | None] = None
    draws: int = 1024

    def solve(self, problem: SelectionProblem, rng: np.random.Generator) -> Selection:
        """Draw and keep the best."""
        drawn = random_choices(problem, self.draws, rng)
        scored = problem.objective(drawn)
        return answer(
            self.name, problem, np.flatnonzero(drawn[int(np.argmax(scored))]),
            evaluated=self.draws, expectation=float(scored.mean()),
        )  # fmt: skip


def random_choices(
    problem: SelectionProblem, draws: int, rng: np.random.Generator
) -> Bool[np.ndarray, "draws n"]:
    """Uniform among the choices of k variables."""
    out = np.zeros((draws, problem.n), dtype=bool)
    first = np.argsort(rng.random((draws, problem.n)), axis=1)[:, : problem.k]
    np.put_along_axis(out, first, values=True, axis=1)
    return out


def choices_of(n: int, k: int) -> Bool[np.ndarray, "choices n"]:
    """All choices of k of n variables; at most 184,756 up to n = 20."""
    codes = np.arange(1 << n, dtype=np.uint32)
    codes = codes[np.bitwise_count(codes) == k]
    return np.asarray((codes[:, None] >> np.arange(n, dtype=np.uint32)) & 1, dtype=bool)
