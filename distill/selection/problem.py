"""What is to be chosen, how good a choice is, and what a solver gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int

from distill.errors import DistillError

SYMMETRY_TOLERANCE = 1e-9


class SelectionError(DistillError, ValueError):
    """A selection that cannot be made: k out of range, unknown solver, an extra not installed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectionProblem:
    """Choose exactly ``k`` of ``n`` variables so that the objective is largest.

    The objective of a choice ``x`` is ``sum_i r_i x_i - weight * sum_{i<j} R_ij x_i x_j``.

    Attributes:
        names: one per variable.
        relevance: ``r``: what a variable says of the label.
        redundancy: ``R``: what two variables say twice; symmetric, not negative, zero diagonal.
        k: how many to choose, 1 to n.
        weight: what a chosen pair's redundancy costs, not negative.

    Raises:
        SelectionError: if any of this does not hold.
    """

    names: tuple[str, ...]
    relevance: Float64[np.ndarray, " n"]
    redundancy: Float64[np.ndarray, "n n"]
    k: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        n = len(self.names)
        if not 1 <= self.k <= n:
            raise SelectionError(f"k is {self.k}; choose 1 to {n} of the {n} variables.")
        if self.relevance.shape != (n,) or self.redundancy.shape != (n, n):
            raise SelectionError(
                f"{n} names came with relevance of shape {self.relevance.shape} and redundancy of "
                f"shape {self.redundancy.shape}; ({n},) and ({n}, {n}) are needed."
            )
        if not (np.isfinite(self.relevance).all() and np.isfinite(self.redundancy).all()):
            raise SelectionError("Relevance and redundancy must be finite; some are not.")
        if not np.isfinite(self.weight) or self.weight < 0:
            raise SelectionError(f"The weight of redundancy is {self.weight}; use 0 or more.")
        uneven = np.abs(self.redundancy - self.redundancy.T).max(initial=0.0)
        if uneven > SYMMETRY_TOLERANCE or np.diag(self.redundancy).any():
            raise SelectionError("Redundancy must be symmetric with a zero diagonal.")
        if (self.redundancy < 0).any():
            # The bound behind the QUBO's penalty rests on it.
            raise SelectionError("Redundancy must not be negative; take absolute values.")

    @property
    def n(self) -> int:
        """Number of variables."""
        return len(self.names)

    def objective(self, chosen: Bool[np.ndarray, "*rows n"]) -> Float64[np.ndarray, "*rows"]:
        """Relevance minus weighted redundancy of each row's choice, whatever its size."""
        x = chosen.astype(np.float64)
        # Every pair stands twice in the symmetric matrix.
        pairs = 0.5 * ((x @ self.redundancy) * x).sum(axis=-1)
        return np.asarray(x @ self.relevance - self.weight * pairs)

    def grouped(self, blocks: Sequence[Sequence[int]], k: int) -> SelectionProblem:
        """The same objective over blocks: to choose a block is to choose all its variables.

        Args:
            blocks: variables of each block; no variable in two of them.
            k: how many blocks to choose.

        Raises:
            SelectionError: if blocks are empty or share a variable, or k is out of range.
        """
        flat = [i for block in blocks for i in block]
        if len(set(flat)) != len(flat) or not all(blocks):
            raise SelectionError("Blocks must hold one variable or more, and share none.")
        member = np.zeros((len(blocks), self.n))
        for b, block in enumerate(blocks):
            member[b, list(block)] = 1.0
        pairs = member @ self.redundancy @ member.T
        inside = 0.5 * np.diag(pairs)
        return SelectionProblem(
            names=tuple("+".join(self.names[i] for i in block) for block in blocks),
            relevance=member @ self.relevance - self.weight * inside,
            # The product of three matrices is symmetric only up to rounding.
            redundancy=0.5 * (pairs + pairs.T) * (1 - np.eye(len(blocks))),
            k=k,
            weight=self.weight,
        )


def mrmr_problem(
    names: Sequence[str],
    relevance: Float64[np.ndarray, " n"],
    redundancy: Float64[np.ndarray, "n n"],
    k: int,
    trade_off: float = 1.0,
) -> SelectionProblem:
    """Max-relevance, min-redundancy: k x (mean relevance - trade_off x mean pairwise redundancy).

    This is the difference form of Peng, Long & Ding (2005), IEEE TPAMI 27:1226-1238, equation 6,
    with the mean redundancy taken over pairs of different variables.

    Raises:
        SelectionError: if the parts do not fit together, or k or trade_off is out of range.
    """
    if not trade_off >= 0:  # NaN is refused as well
        raise SelectionError(f"trade_off is {trade_off}; use 0 (relevance alone) or more.")
    return SelectionProblem(
        names=tuple(names), relevance=relevance, redundancy=redundancy, k=k,
        weight=2.0 * trade_off / (k - 1) if k > 1 else 0.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A solver's answer.

    Attributes:
        solver: its name.
        chosen: k positions, ascending.
        names: of the chosen variables.
        objective: of this choice.
        evaluated: choices that the solver scored or sampled on the way.
        optimal: whether no choice of k variables is better, by proof.
        expectation: mean objective of what a sampling solver draws in the end; None for others.
    """

    solver: str
    chosen: tuple[int, ...]
    names: tuple[str, ...]
    objective: float
    evaluated: int
    optimal: bool = False
    expectation: float | None = None


@runtime_checkable
class Solver(Protocol):
    """Anything that answers a selection problem with exactly k variables."""

    @property
    def name(self) -> str:
        """What it is called in commands and reports."""
        ...

    @property
    def max_variables(self) -> int | None:
        """The most variables that it takes; None: no limit of its own."""
        ...

    def solve(self, problem: SelectionProblem, rng: np.random.Generator) -> Selection:
        """Choose; the same problem and generator state give the same choice.

        Raises:
            SelectionError: if there are too many variables, or an extra is not installed.
        """
        ...


def check_size(solver: Solver, problem: SelectionProblem) -> None:
    """Refuse more variables than a solver takes.

    Raises:
        SelectionError: if there are more.
    """
    most = solver.max_variables
    if most is not None and problem.n > most:
        raise SelectionError(
            f"Solver {solver.name!r} takes {most} variables at most; {problem.n} came. Preselect "
            "fewer, or take 'greedy' or 'anneal'."
        )


def answer(
    solver: str,
    problem: SelectionProblem,
    chosen: Int[np.ndarray, " k"],
    *,
    evaluated: int,
    optimal: bool = False,
    expectation: float | None = None,
) -> Selection:
    """Put an answer together, its objective computed anew."""
    positions = tuple(sorted(int(i) for i in chosen))
    mask = np.zeros(problem.n, dtype=bool)
    mask[list(positions)] = True
    return Selection(
        solver=solver, chosen=positions, names=tuple(problem.names[i] for i in positions),
        objective=float(problem.objective(mask)), evaluated=evaluated, optimal=optimal,
        expectation=expectation,
    )  # fmt: skip
