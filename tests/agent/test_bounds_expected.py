from __future__ import annotations

import numpy as np
import pytest

from agent.bounds import BOUNDS, bound_sessions, expected_gain, session_problems
from agent.policies.registry import make_policy
from agent.rollout import run_sessions
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence

SEEDS = range(24)
POLICIES = ("always-everything", "always:pathology->clinical", "price", "rule", "random")


def toy_setup(rules: str, **settings: object) -> ReviewSetup:
    merged = {"n_cases": 24, "budget_fraction": 0.2, **settings}
    return build_setup(evidence=toy_evidence(120, seed=3), rules=rules, **merged)  # type: ignore[arg-type]


@pytest.mark.parametrize("rules", ["oneshot", "sequential", "worklist"])
def test_policies_expected_foresight_clairvoyant_come_in_this_order(rules: str) -> None:
    setup = toy_setup(rules, slots_per_hour=1 if rules == "worklist" else 4)
    problems, found = list(session_problems(setup, SEEDS)), bound_sessions(setup, SEEDS)
    mean = {
        name: np.mean([bound.figures(name).expected_gain for bound in found]) for name in BOUNDS
    }
    assert mean["expected_lp"] <= mean["foresight_lp"] <= mean["clairvoyant_lp"]
    reward = np.mean([bound.expected.reward for bound in found])
    assert reward <= np.mean([bound.expected.auc_gain for bound in found])
    for name in POLICIES:
        policy = make_policy(name, setup.layout, setup.catalogue)
        records = run_sessions(policy, setup, SEEDS)
        gains = [expected_gain(p, final) for p, final in zip(problems, records.final_set)]
        assert np.mean(gains) <= mean["expected_lp"]
        assert records.reward.mean() <= reward
