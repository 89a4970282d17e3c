"""Off-policy estimates against exact replay: bias and how often intervals cover.

    python benchmarks/ope_replay.py [--logs 40]

Logs are written by ``price`` with half of its decisions explored, on made-up patients, with a
priced budget (nothing is masked). The exact value is the target's mean over the sessions of all
logs.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from agent.errors import OffPolicyError
from agent.ope import OffPolicyConfig, OffPolicyReport, evaluate_offline
from agent.ope_replay import Exploring, log_sessions
from agent.policies.registry import make_policy
from agent.rollout import run_sessions
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence

CASES, SESSIONS = 16, 120
TARGETS = ("price", "never", "always:pathology->clinical")
ESTIMATES = ("snips", "snips_per_decision", "doubly_robust", "auc_gain")


def one(rules: str, reward: str, logs: int) -> dict[str, object]:
    """Bias and coverage of every estimate of every target under these rules."""
    setup = build_setup(
        evidence=toy_evidence(200, seed=1), rules=rules, n_cases=CASES, budget_mode="price",
        g_per_auc=1e6, reward=reward,
    )  # fmt: skip
    behaviour = Exploring(
        policy=make_policy("price", setup.layout, setup.catalogue),
        catalogue=setup.catalogue,
        share=0.5,
    )
    found: dict[str, list[OffPolicyReport]] = {name: [] for name in TARGETS}
    refused = dict.fromkeys(TARGETS, 0)
    for i in range(logs):
        seeds = range(i * SESSIONS, (i + 1) * SESSIONS)
        log = log_sessions(behaviour, setup, seeds, np.random.default_rng(i))
        for name in TARGETS:
            policy = make_policy(name, setup.layout, setup.catalogue)
            try:
                how = OffPolicyConfig(redraws=200, seed=i)
                found[name].append(evaluate_offline(log, policy, how))
            except OffPolicyError:
                refused[name] += 1
    return {
        name: {"refused": refused[name], **figures(setup, name, found[name], logs)}
        for name in TARGETS
    }


def figures(
    setup: ReviewSetup, name: str, reports: list[OffPolicyReport], logs: int
) -> dict[str, object]:
    """Against exact replay."""
    policy = make_policy(name, setup.layout, setup.catalogue)
    exact = run_sessions(policy, setup, range(logs * SESSIONS))
    result: dict[str, object] = {"logs": len(reports)}
    for key in ESTIMATES if reports else ():
        truth = exact.auc_gain.mean() if key == "auc_gain" else exact.reward.mean() / CASES
        estimates = [report.estimates[key] for report in reports]
        error = np.array([e.value - truth for e in estimates])
        result[key] = {
            "exact": round(float(truth), 5),
            "bias": round(float(error.mean()), 5),
            "standard_error_of_bias": round(float(error.std() / len(error) ** 0.5), 5),
            "covered": float(np.mean([e.low - 1e-9 <= truth <= e.high + 1e-9 for e in estimates])),
        }
    return result


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=40)
    args = parser.parse_args()
    print(
        json.dumps(
            {
                f"{rules}, {reward}": one(rules, reward, args.logs)
                for rules in ("oneshot", "sequential")
                for reward in ("brier", "auc")
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
