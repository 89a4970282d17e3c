"""A policy of your own, beside doing nothing and taking whatever seems to gain.

    python examples/hand_written_policy.py
    python examples/hand_written_policy.py --evidence BUNDLE/evidence.npz --preset hard

The rule buys a transfer only where its predicted gain is worth its carbon, at a price that rises
where the budget runs out faster than the cases, and waits where the grid is about to be cleaner.
Reviewed are the patients of one fold, with gains predicted from the other folds, over hours of the
grid that training never touches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

import envs  # noqa: F401  (registers the ids)
from envs.case_review import CaseReviewEnv
from envs.toy import toy_evidence

WAIT_BELOW = 0.9
"""Wait where the forecast 3 h ahead is below this share of the intensity now."""

Rule = Callable[[CaseReviewEnv, np.ndarray, np.ndarray], int]


def nothing(env: CaseReviewEnv, observation: np.ndarray, mask: np.ndarray) -> int:
    """Clinical data alone."""
    return env.catalogue.finalise


def greedy(env: CaseReviewEnv, observation: np.ndarray, mask: np.ndarray) -> int:
    """The open transfer with the highest predicted gain, while there is any."""
    return best(env, env.layout.physical(observation, "gain"), mask)


def frugal(env: CaseReviewEnv, observation: np.ndarray, mask: np.ndarray) -> int:
    """Gain less priced carbon; waits for a cleaner hour."""

    def seen(name: str) -> np.ndarray:
        return env.layout.physical(observation, name)

    cases_left = float(seen("cases_left")) / env.config.n_cases
    pressure = cases_left / max(float(seen("budget_left")), 0.01)
    priced = seen("g_co2e") * max(pressure, 1.0) / env.config.g_per_auc
    action = best(env, seen("gain") - priced, mask)
    cleaner_soon = seen("intensity_lead_3h") < WAIT_BELOW * seen("intensity_now")
    may_wait = cleaner_soon and mask[env.catalogue.defer] and seen("slack_h") > 3.0
    return env.catalogue.defer if action != env.catalogue.finalise and may_wait else action


def best(env: CaseReviewEnv, worth: np.ndarray, mask: np.ndarray) -> int:
    """The open transfer that is worth most, or ``finalise`` where none is worth anything."""
    worth = np.where(mask[: env.catalogue.n_transfers], worth, -np.inf)
    return int(worth.argmax()) if worth.max() > 0.0 else env.catalogue.finalise


def review(env: CaseReviewEnv, rule: Rule, seed: int) -> dict[str, float]:
    """One session: AUC gained, carbon spent, cases closed late."""
    observation, info = env.reset(seed=seed)
    ended = False
    while not ended:
        action = rule(env, observation, info["action_mask"])
        observation, _, ended, _, info = env.step(action)
    gain = info["session_auc_final"] - info["session_auc_base"]
    return {"gain": gain, "g_co2e": info["total_g_co2e"], "late": info["n_late"]}


def interval(values: Sequence[float], rng: np.random.Generator) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, over sessions."""
    drawn = rng.choice(np.asarray(values), (2000, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Review the same sessions by each rule and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evidence", help="BUNDLE/evidence.npz; left out: synthetic patients")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--trace", help="recorded carbon intensity; left out: synthetic")
    parser.add_argument("--sessions", type=int, default=30)
    chosen = parser.parse_args(arguments)
    env: Any = gymnasium.make(
        "greenboard/CaseReview-v1",
        evidence=chosen.evidence or toy_evidence(500, seed=0),
        folds=[0],
        fit_folds=[1, 2, 3, 4],
        trace=chosen.trace,
        period="eval",
        preset=chosen.preset,
    ).unwrapped
    print("synthetic patients" if env.setup.synthetic else env.setup.cohort, chosen.preset)
    rng, results = np.random.default_rng(0), {}
    for rule in (nothing, greedy, frugal):
        played = [review(env, rule, seed) for seed in range(chosen.sessions)]
        mean = {key: float(np.mean([one[key] for one in played])) for key in played[0]}
        low, high = interval([one["gain"] for one in played], rng)
        print(
            f"{rule.__name__:8} AUC gain {mean['gain']:.4f} [{low:.4f}, {high:.4f}], "
            f"{mean['g_co2e']:,.0f} gCO2e, {mean['late']:.1f} late "
            f"(mean of {len(played)} sessions; interval over sessions of the same patients)"
        )
        results[rule.__name__] = mean
    return results


if __name__ == "__main__":
    main()
