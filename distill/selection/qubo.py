"""The selection problem without its constraint: a quadratic function of bits to be minimised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from distill.selection.problem import SelectionProblem

HEADROOM = 1.01
"""Strictly more than the bound, so that rounding cannot undo the proof."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Qubo:
    """Energy ``offset + sum_{i<=j} Q_ij x_i x_j`` of bit strings x.

    Attributes:
        matrix: ``Q``, upper triangular; the diagonal holds the linear terms.
        offset: what the empty string costs.
        penalty: weight P of ``(|x| - k)^2`` in it.
        shift: weight of ``-(|x| - k)`` in it.
    """

    matrix: Float64[np.ndarray, "n n"]
    offset: float
    penalty: float
    shift: float

    def energy(self, bits: Bool[np.ndarray, "*rows n"]) -> Float64[np.ndarray, "*rows"]:
        """Energy of each row; the less the better."""
        x = bits.astype(np.float64)
        return np.asarray(((x @ self.matrix) * x).sum(axis=-1) + self.offset)


class Penalty(NamedTuple):
    """Weights of ``(|x| - k)^2`` and of ``-(|x| - k)`` that keep every minimum at k bits."""

    weight: float
    shift: float


def sufficient_penalty(problem: SelectionProblem) -> Penalty:
    """The weights with which no violation of "exactly k" can pay; derived, not tuned.

    Let f be the objective and E(x) = -f(x) - s (|x| - k) + P (|x| - k)^2, so E = -f where |x| = k,
    whatever s and P are. With w the weight of redundancy, and R not negative, let

        U = max_i (r_i - w * sum of the k smallest R_ij, j != i),
        L = max_i (w * sum of the k - 1 largest R_ij - r_i),
        s = (L - U) / 2.

    Claim: if P > (L + U) / 2 and P > 0, then from every x with |x| != k *every* flip towards k
    lowers E.

    - |x| = m > k: drop any chosen i. At least k others are chosen, so f loses r_i - w sum R_ij
      <= U. E changes by at most U + s - P (2 (m - k) - 1) <= (L + U) / 2 - P < 0.
    - |x| = m < k: add any i. At most k - 1 are chosen, so f loses w sum R_ij - r_i <= L. E changes
      by at most L - s - P (2 (k - m) - 1) <= (L + U) / 2 - P < 0.

    So no string of another size is even a local minimum under single flips: all local minima, the
    global ones among them, have exactly k bits. The shift is what keeps P small, half the spread
    of what a variable can add instead of its largest value, and a small P is what lets annealing
    exchange one variable for another.

    Returns:
        P = 1.01 (L + U) / 2, or 1 where that is 0 or less, when any positive P will do; and s.
    """
    n, k = problem.n, problem.k
    # The zero diagonal is the smallest entry of its row; it is no other variable.
    ordered = np.sort(problem.redundancy + np.diag(np.full(n, np.inf)), axis=1)[:, : n - 1]
    least = ordered[:, :k].sum(axis=1)
    most = ordered[:, max(n - k, 0) :].sum(axis=1)
    upper = float((problem.relevance - problem.weight * least).max())
    lower = float((problem.weight * most - problem.relevance).max())
    bound = 0.5 * (lower + upper)
    return Penalty(HEADROOM * bound if bound > 0 else 1.0, 0.5 * (lower - upper))


def to_qubo(problem: SelectionProblem) -> Qubo:
    """The problem as a QUBO: its minima are the problem's optima, with minus the objective there.

    ``(|x| - k)^2 = k^2 + (1 - 2k) sum_i x_i + 2 sum_{i<j} x_i x_j``, since ``x_i^2 = x_i``.
    """
    penalty, shift = sufficient_penalty(problem)
    k = problem.k
    matrix = np.triu(problem.weight * problem.redundancy + 2.0 * penalty, k=1)
    np.fill_diagonal(matrix, -problem.relevance - shift + penalty * (1 - 2 * k))
    return Qubo(matrix=matrix, offset=penalty * k**2 + shift * k, penalty=penalty, shift=shift)


def descend(qubo: Qubo, bits: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Steepest single flips until none lowers the energy: ends at a string of exactly k bits.

    The latter by :func:`sufficient_penalty`'s claim; it turns any solver's sample into a choice.
    """
    symmetric = qubo.matrix + qubo.matrix.T
    linear = np.diag(qubo.matrix)
    np.fill_diagonal(symmetric, 0.0)
    # A flip must gain more than rounding, or equal strings would take turns for ever.
    least = 1e-12 * max(1.0, float(np.abs(qubo.matrix).max()) * bits.size)
    current = bits.copy()
    slope = linear + symmetric @ current
    while True:
        change = np.where(current, -slope, slope)
        best = int(np.argmin(change))
        if change[best] >= -least:
            return current
        slope = slope + symmetric[best] * (-1.0 if current[best] else 1.0)
        current[best] = not current[best]


def exchange(problem: SelectionProblem, bits: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Steepest exchanges of a chosen variable for another until none raises the objective.

    Single flips must climb over the penalty between one choice of k and the next; exchanges need
    not, which is what a walk among hundreds of variables lacks.
    """
    current = bits.copy()
    size = np.abs(problem.relevance) + problem.weight * problem.redundancy.sum(axis=1)
    # As in :func:`descend`: more than rounding, which grows with what is added up.
    least = 1e-12 * max(1.0, float(size.max()))
    while True:
        inside, outside = np.flatnonzero(current), np.flatnonzero(~current)
        if not inside.size or not outside.size:
            return current
        worth = problem.relevance - problem.weight * (problem.redundancy @ current)
        gain = worth[outside] - worth[inside][:, None]
        # The newcomer was counted against the one that leaves.
        gain += problem.weight * problem.redundancy[np.ix_(inside, outside)]
        leaves, enters = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if gain[leaves, enters] <= least:
            return current
        current[inside[leaves]], current[outside[enters]] = False, True
