from __future__ import annotations

import numpy as np
import pytest

from agent.bounds import BOUNDS, bound_sessions, expected_gain, session_problems
from agent.policies.registry import make_policy
from agent.rollout import run_sessions
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence

SEEDS = range(16)
POLICIES = ("always-everything", "always:pathology->clinical", "price", "rule", "random")


def toy_setup(rules: str, **settings: object) -> ReviewSetup:
    merged = {"n_cases": 24, "budget_fraction": 0.2, **settings}
    return build_setup(evidence=toy_evidence(90, seed=3), rules=rules, **merged)  # type: ignore[arg-type]


@pytest.mark.parametrize("rules", ["oneshot", "sequential", "worklist"])
def test_policies_expected_foresight_clairvoyant_come_in_this_order(
    rules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A coarser grid of prices only loosens the bounds.
    monkeypatch.setattr("agent.bounds_expected.POINTS", 300)
    setup = toy_setup(rules, slots_per_hour=1 if rules == "worklist" else 4)
    problems, found = list(session_problems(setup, SEEDS)), bound_sessions(setup, SEEDS)
    mean = {
        name: np.mean([bound.figures(name).expected_gain for bound in found]) for name in BOUNDS
    }
    assert mean["expected_lp"] <= mean["foresight_lp"] <= mean["clairvoyant_lp"]
    # Both currencies of a bound differ by the same luck with labels.
    luck = np.mean([bound.expected.auc_gain - bound.expected.expected_gain for bound in found])
    reward = np.mean([bound.expected.reward or 0.0 for bound in found]) - luck
    assert reward <= mean["expected_lp"]
    for name in POLICIES:
        policy = make_policy(name, setup.layout, setup.catalogue)
        records = run_sessions(policy, setup, SEEDS)
        gain = np.mean([expected_gain(p, f) for p, f in zip(problems, records.final_set)])
        assert gain <= mean["expected_lp"]
        assert gain - records.g_co2e.mean() * setup.price_per_g <= reward


def test_without_a_price_there_is_no_bound_of_the_reward() -> None:
    found = bound_sessions(toy_setup("oneshot", budget_mode="mask"), range(2))
    assert all(b.figures(name).reward is None for b in found for name in BOUNDS)
