"""Rollouts against the environment itself, and the calibration of the price."""

from __future__ import annotations

import numpy as np
import pytest

from agent.calibration import calibrate_price
from agent.errors import ComparisonError
from agent.policies.registry import make_policy
from agent.rollout import run_sessions
from envs.case_review import CaseReviewEnv
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence


def setup(**settings: object) -> ReviewSetup:
    return build_setup(evidence=toy_evidence(120), n_cases=20, **settings)


@pytest.mark.parametrize("name", ["rule", "price", "always-everything"])
def test_records_are_what_the_environment_says(name: str) -> None:
    """Played again, one step at a time, on the public environment with the same seed."""
    fixed = setup()
    policy = make_policy(name, fixed.layout, fixed.catalogue)
    records = run_sessions(policy, fixed, [5, 6, 7], batch=2)
    env = CaseReviewEnv(evidence=toy_evidence(120), n_cases=20)
    for i, seed in enumerate((5, 6, 7)):
        observation, info = env.reset(seed=seed)
        reward, actions, over = 0.0, [], False
        while not over:
            mask = np.asarray(info["action_mask"], dtype=bool)
            action = int(policy.act(observation[None], mask[None])[0])
            observation, step, over, _, info = env.step(action)
            reward += float(step)
            actions.append(action)
        assert records.reward[i] == pytest.approx(reward, abs=1e-12)
        assert records.auc_base[i] == info["session_auc_base"]
        gain = info["session_auc_final"] - info["session_auc_base"]
        assert records.auc_gain[i] == pytest.approx(gain, abs=1e-12)
        assert records.g_co2e[i] == pytest.approx(info["total_g_co2e"])
        runs = sum(a < fixed.catalogue.n_transfers for a in actions)
        assert records.transfers_per_case[i] == runs / 20


def test_decisions_add_up() -> None:
    fixed = setup()
    records = run_sessions(make_policy("random", fixed.layout, fixed.catalogue), fixed, range(10))
    total = round(20 * 10 * (1 + float(records.transfers_per_case.mean())))
    total += round(20 * 10 * float(records.deferrals_per_case.mean()))
    assert records.by_urgency.sum() == records.by_uncertainty.sum() == total
    assert (records.invalid == 0).all()
    assert (records.finalised_at_once <= 1).all()


def test_never_gains_nothing_and_emits_nothing() -> None:
    fixed = setup()
    records = run_sessions(make_policy("never", fixed.layout, fixed.catalogue), fixed, range(5))
    assert not records.auc_gain.any()
    assert not records.g_co2e.any()
    assert (records.finalised_at_once == 1).all()


def test_batches_do_not_matter() -> None:
    fixed = setup()
    policy = make_policy("price", fixed.layout, fixed.catalogue)
    one, many = (run_sessions(policy, fixed, range(9), batch=b) for b in (1, 9))
    np.testing.assert_array_equal(one.auc_gain, many.auc_gain)
    np.testing.assert_array_equal(one.final_set, many.final_set)


def test_a_calibrated_price_spends_the_budget_and_no_more() -> None:
    fixed = setup(budget_mode="cmdp", budget_fraction=0.1)
    price = calibrate_price(fixed, range(40))
    assert price.binding
    assert 0.9 <= price.spent_share <= 1.0


def test_a_budget_that_never_binds_leaves_the_environments_price() -> None:
    price = calibrate_price(setup(budget_mode="price", budget_fraction=5.0), range(10))
    assert (price.g_per_auc, price.binding) == (500_000.0, False)


def test_calibration_needs_a_budget_that_can_be_exceeded() -> None:
    with pytest.raises(ComparisonError, match="can be exceeded"):
        calibrate_price(setup(), range(10))
