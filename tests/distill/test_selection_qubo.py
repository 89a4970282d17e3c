"""The problem, its QUBO and its spins say the same of every bit string."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.selection.classical import ExactSolver, choices_of
from distill.selection.problem import SelectionError, SelectionProblem, mrmr_problem
from distill.selection.qaoa import to_ising
from distill.selection.qubo import descend, exchange, sufficient_penalty, to_qubo

PARTS = {
    "n": st.integers(1, 8),
    "seed": st.integers(0, 2**32 - 1),
    "size": st.sampled_from([0.01, 1.0, 30.0]),
    "filled": st.sampled_from([0.0, 0.4, 1.0]),
    "level": st.sampled_from([-2.0, 0.0, 2.0]),
    "weight": st.sampled_from([0.0, 0.3, 2.0]),
    "share": st.floats(0, 1),
}


def make(parts: dict[str, float]) -> SelectionProblem:
    """Any size, scale and sign of relevance; redundancy of any size, some of it zero."""
    n = int(parts["n"])
    rng = np.random.default_rng(int(parts["seed"]))
    upper = np.triu(rng.exponential(parts["size"], (n, n)), 1)
    upper *= rng.random((n, n)) < parts["filled"]
    return SelectionProblem(
        names=tuple(f"v{i}" for i in range(n)), relevance=rng.normal(parts["level"], 1.0, n),
        redundancy=upper + upper.T, k=1 + round(parts["share"] * (n - 1)),
        weight=parts["weight"],
    )  # fmt: skip


def all_strings(n: int) -> np.ndarray:
    return np.concatenate([choices_of(n, k) for k in range(n + 1)])


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries(PARTS))
def test_energy_is_minus_the_objective_plus_the_penalty(parts: dict[str, float]) -> None:
    problem = make(parts)
    qubo = to_qubo(problem)
    bits = all_strings(problem.n)
    off = bits.sum(axis=1) - problem.k
    expected = -problem.objective(bits) - qubo.shift * off + qubo.penalty * off**2
    scale = 1 + np.abs(qubo.matrix).sum()
    np.testing.assert_allclose(qubo.energy(bits), expected, atol=1e-12 * scale)
    plain = [sum(problem.relevance[row]) - problem.weight * sum(
        problem.redundancy[i, j] for i in np.flatnonzero(row) for j in np.flatnonzero(row) if i < j
    ) for row in bits]  # fmt: skip
    np.testing.assert_allclose(problem.objective(bits), plain, atol=1e-12 * scale)


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries(PARTS))
def test_every_flip_towards_k_lowers_the_energy(parts: dict[str, float]) -> None:
    """The claim behind the penalty, on every string: none of another size is a local minimum."""
    problem = make(parts)
    qubo = to_qubo(problem)
    bits = all_strings(problem.n)
    size = bits.sum(axis=1)
    energy = qubo.energy(bits)
    for i in range(problem.n):
        towards = np.where(bits[:, i], size > problem.k, size < problem.k)
        flipped = bits.copy()
        flipped[:, i] = ~flipped[:, i]
        assert (qubo.energy(flipped)[towards] < energy[towards]).all()


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries(PARTS))
def test_the_minimum_is_the_optimum_of_exact_enumeration(parts: dict[str, float]) -> None:
    problem = make(parts)
    qubo = to_qubo(problem)
    bits = all_strings(problem.n)
    lowest = bits[int(np.argmin(qubo.energy(bits)))]
    best = ExactSolver().solve(problem, np.random.default_rng(0))
    assert lowest.sum() == problem.k
    assert float(problem.objective(lowest)) == pytest.approx(best.objective, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries(PARTS), st.integers(0, 1000))
def test_any_string_descends_to_k_bits(parts: dict[str, float], seed: int) -> None:
    problem = make(parts)
    start = np.random.default_rng(seed).random(problem.n) < 0.5
    qubo = to_qubo(problem)
    end = descend(qubo, start)
    assert end.sum() == problem.k
    assert qubo.energy(end) <= qubo.energy(start)


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries(PARTS))
def test_spins_differ_from_the_objective_by_a_constant(parts: dict[str, float]) -> None:
    problem = make(parts)
    ising = to_ising(problem, scale=2.0)
    bits = all_strings(problem.n)
    z = 1.0 - 2.0 * bits
    energy = z @ ising.field + 0.5 * ((z @ ising.coupling) * z).sum(axis=1)
    gap = energy + problem.objective(bits) / 2.0
    np.testing.assert_allclose(gap, gap[0], atol=1e-9 * (1 + np.abs(energy).max()))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_to_choose_a_block_is_to_choose_its_variables(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    shared = np.triu(rng.random((8, 8)), 1)
    problem = mrmr_problem([str(i) for i in range(8)], rng.random(8), shared + shared.T, 4)
    blocks = [[0, 5], [1, 2], [3], [7, 4, 6]]
    grouped = problem.grouped(blocks, k)
    member = np.zeros((4, 8), dtype=bool)
    for b, block in enumerate(blocks):
        member[b, block] = True
    chosen = choices_of(4, k)
    np.testing.assert_allclose(
        grouped.objective(chosen), problem.objective(chosen.astype(int) @ member > 0)
    )
    assert grouped.names[1] == "1+2"


def test_the_penalty_is_small_where_variables_are_alike() -> None:
    """Half the spread of what a variable can add, not its size: here 0.505 x 0.01 against 10."""
    relevance = 10.0 + np.linspace(0.0, 0.01, 6)
    weight, shift = sufficient_penalty(mrmr_problem(list("abcdef"), relevance, np.zeros((6, 6)), 2))
    assert weight == pytest.approx(1.01 * 0.005)
    assert shift == pytest.approx(-10.005)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "k is 0; choose 1 to 3 of the 3 variables"),
        ({"k": 4}, "k is 4; choose 1 to 3 of the 3 variables"),
        ({"relevance": np.array([0.1, np.nan, 0.2])}, "must be finite"),
        ({"names": ("a", "b")}, "2 names came with relevance of shape"),
        ({"redundancy": np.triu(np.ones((3, 3)), 1)}, "symmetric with a zero diagonal"),
        ({"redundancy": np.eye(3)}, "symmetric with a zero diagonal"),
        ({"redundancy": np.eye(3) - 1.0}, "must not be negative"),
        ({"weight": -1.0}, "weight of redundancy is -1.0; use 0 or more"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "names": ("a", "b", "c"), "relevance": np.zeros(3), "redundancy": np.zeros((3, 3)), "k": 2,
    }  # fmt: skip
    with pytest.raises(SelectionError, match=message):
        SelectionProblem(**{**good, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("blocks", [[[0, 1], [1]], [[0], []]])
def test_blocks_that_overlap_or_are_empty_are_refused(blocks: list[list[int]]) -> None:
    problem = mrmr_problem(["a", "b"], np.zeros(2), np.zeros((2, 2)), 1)
    with pytest.raises(SelectionError, match="one variable or more, and share none"):
        problem.grouped(blocks, 1)


@settings(max_examples=30, deadline=None)
@given(st.fixed_dictionaries(PARTS))
def test_exchanges_keep_k_and_end_where_none_helps(parts: dict[str, float]) -> None:
    problem = make(parts)
    start = np.arange(problem.n) < problem.k
    end = exchange(problem, start)
    best = float(problem.objective(end))
    assert end.sum() == problem.k
    assert best >= float(problem.objective(start)) - 1e-12
    for i in np.flatnonzero(end):
        for j in np.flatnonzero(~end):
            other = end.copy()
            other[[i, j]] = False, True
            assert float(problem.objective(other)) <= best + 1e-9
