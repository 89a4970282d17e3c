"""Solvers by name."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from distill.selection.annealing import AnnealingSolver
from distill.selection.classical import ExactSolver, GreedySolver, L1Solver, RandomSolver
from distill.selection.problem import SelectionError, Solver
from distill.selection.qaoa import QaoaSolver

SOLVERS: dict[str, Callable[[], Solver]] = {
    "greedy": GreedySolver,
    "l1": L1Solver,
    "exact": ExactSolver,
    "anneal": AnnealingSolver,
    "qaoa": QaoaSolver,
    "random": RandomSolver,
}


def make_solver(name: str) -> Solver:
    """The solver of that name with its default settings.

    Raises:
        SelectionError: if there is none, with the nearest name.
    """
    if name not in SOLVERS:
        near = get_close_matches(name, SOLVERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SelectionError(f"Unknown solver {name!r}; choose one of {', '.join(SOLVERS)}.{hint}")
    return SOLVERS[name]()
