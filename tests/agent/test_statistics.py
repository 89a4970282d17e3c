from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import trim_mean

from agent.errors import ComparisonError
from agent.esper import esper
from agent.statistics import (
    FoldedSample,
    bootstrap_iqm,
    bootstrap_mean,
    dominated_by,
    holm,
    interquartile_mean,
    kendall_tau,
    paired_difference,
    pareto_front,
    probability_of_improvement,
    two_sided_p,
)


def sample(*blocks: object) -> FoldedSample:
    return FoldedSample(blocks=tuple(np.array(b, dtype=np.float64) for b in blocks))


def test_the_mean_of_folds_weighs_every_fold_the_same() -> None:
    assert sample([[0.0, 0.0]], [[3.0]]).mean == 1.5
    assert sample([[0.0, 0.0]], [[3.0]]).n == 3


def test_a_constant_has_an_interval_of_no_width() -> None:
    estimate = bootstrap_mean(sample([[2.0] * 9] * 3), np.random.default_rng(0))
    assert (estimate.value, estimate.n) == (2.0, 27)
    assert (estimate.low, estimate.high) == pytest.approx((2.0, 2.0))


def test_the_interval_has_the_width_of_the_normal_theory() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(1, 4000))
    estimate = bootstrap_mean(sample(values), rng, replicates=4000)
    standard_error = values.std() / np.sqrt(4000)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * standard_error, rel=0.05)


@pytest.mark.parametrize("draw", ["normal", "exponential"])
def test_the_interval_covers_the_known_mean_as_often_as_it_says(draw: str) -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        values = rng.normal(1.0, 1.0, (1, 60)) if draw == "normal" else rng.exponential(1, (1, 60))
        estimate = bootstrap_mean(sample(values), rng, replicates=400)
        covered += estimate.low <= 1.0 <= estimate.high
    assert 0.89 <= covered / 300 <= 0.98


def test_training_seeds_that_differ_widen_the_interval() -> None:
    """Two-way effects: 10 x 40 figures taken as 400 independent ones would cover too seldom."""
    rng = np.random.default_rng(3)
    covered = naive = 0
    for _ in range(200):
        table = rng.normal(size=(10, 1)) + rng.normal(size=(1, 40))
        clustered = bootstrap_mean(sample(table), rng, replicates=300)
        flat = bootstrap_mean(sample(table.reshape(1, -1)), rng, replicates=300)
        covered += clustered.low <= 0 <= clustered.high
        naive += flat.low <= 0 <= flat.high
    assert covered / 200 >= 0.85
    assert naive / 200 <= 0.6


def test_a_paired_difference_cancels_what_the_sessions_share() -> None:
    rng = np.random.default_rng(4)
    session = rng.normal(0, 10, (1, 50))
    estimate = paired_difference(sample(session + 1), sample(session), rng)
    assert estimate.value == pytest.approx(1)
    assert estimate.high - estimate.low == pytest.approx(0, abs=1e-9)
    assert estimate.excludes_zero


def test_a_learned_policy_meets_the_baseline_with_every_training_seed() -> None:
    learned, baseline = sample([[1.0, 2.0], [3.0, 4.0]]), sample([[1.0, 1.0]])
    np.testing.assert_array_equal(learned.minus(baseline).blocks[0], [[0, 1], [2, 3]])


def test_differences_on_other_sessions_are_refused() -> None:
    with pytest.raises(ComparisonError, match="same sessions"):
        sample([[1.0]]).minus(sample([[1.0, 2.0]]))
    with pytest.raises(ComparisonError, match="nothing to average"):
        FoldedSample(blocks=())


def test_same_generator_same_interval() -> None:
    values = sample(np.random.default_rng(5).normal(size=(3, 20)))
    first = bootstrap_mean(values, np.random.default_rng(6))
    assert first == bootstrap_mean(values, np.random.default_rng(6))
    assert first.to_json() == {
        "value": first.value, "ci95": [first.low, first.high], "n": 60,
    }  # fmt: skip


def test_pareto_front_by_hand() -> None:
    gain = np.array([0.0, 0.10, 0.10, 0.08, 0.12, 0.10])
    carbon = np.array([0.0, 50.0, 60.0, 70.0, 90.0, 50.0])
    # 1 and 5 are equal: neither dominates the other; 2 costs more than 1; 3 is worse than 1 in both
    np.testing.assert_array_equal(pareto_front(gain, carbon), [1, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(np.flatnonzero(dominated_by(gain, carbon)[2]), [1, 5])
    np.testing.assert_array_equal(np.flatnonzero(dominated_by(gain, carbon)[3]), [1, 2, 5])


def test_interquartile_mean_by_hand() -> None:
    """Eight values: two are cut off at either end."""
    values = np.array([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0])
    assert interquartile_mean(values) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([1.0, 2.0, 9.0])) == 4.0  # a quarter of three is none
    np.testing.assert_allclose(
        interquartile_mean(np.random.default_rng(0).normal(size=(3, 41))),
        [trim_mean(row, 0.25) for row in np.random.default_rng(0).normal(size=(3, 41))],
    )


def test_the_interval_of_the_interquartile_mean_covers_a_known_centre() -> None:
    rng, covered = np.random.default_rng(8), 0
    for _ in range(120):
        estimate = bootstrap_iqm(sample(rng.standard_t(2, (1, 40))), rng, replicates=150)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.88 <= covered / 120 <= 1.0


def test_holm_by_hand() -> None:
    """Sorted .01 .02 .03 .04 times 4 3 2 1: .04 .06 .06 .04, made monotone: .04 .06 .06 .06."""
    found = holm(np.array([0.03, 0.01, 0.04, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1.0, 1.0])
    assert holm(np.array([])).shape == (0,)


def test_probability_of_improvement_by_hand() -> None:
    ours, theirs = np.array([[1.0, 2.0], [3.0, 2.0]]), np.array([[2.0, 2.0]])
    assert probability_of_improvement(ours, theirs) == (0 + 0.5 + 1 + 0.5) / 4
    assert probability_of_improvement(theirs, ours) == 0.5


def test_a_p_value_is_never_nil_and_says_where_the_interval_would_touch_zero() -> None:
    assert two_sided_p(np.full(999, 1.0)) == pytest.approx(2 / 1000)
    assert two_sided_p(np.zeros(99)) == 1.0
    redraws = np.concatenate([np.full(49, -1.0), np.full(950, 1.0)])
    assert two_sided_p(redraws) == pytest.approx(2 * 50 / 1000)


def test_kendalls_tau_by_hand() -> None:
    first = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    second = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [2.0, 1.0, 3.0]])
    np.testing.assert_allclose(kendall_tau(first, second), [1, -1, 1 / 3])
    with pytest.raises(ComparisonError, match="no order"):
        kendall_tau(np.ones(1), np.ones(1))


def test_esper_by_hand() -> None:
    gain, carbon = np.array([0.0, 0.1, 0.2]), np.array([100.0, 0.0, 50.0])
    np.testing.assert_allclose(esper(gain, carbon), [0.0, 0.75, 0.75])
    np.testing.assert_allclose(esper(gain, carbon, weight=1.0), [0.0, 0.5, 1.0])
    np.testing.assert_allclose(esper(np.ones(2), np.ones(2)), [0.5, 0.5])
    with pytest.raises(ComparisonError, match="give 0 to 1"):
        esper(gain, carbon, weight=2.0)
