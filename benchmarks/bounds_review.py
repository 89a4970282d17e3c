"""How near the policies come to the bounds, fold by fold, and how much of the rest is foresight.

    python benchmarks/bounds_review.py --bundle BUNDLE --trace TRACE --env ID [--preset P]

Policies are calibrated on four folds' patients and review the fifth's. The share of the bound is
in label-averaged gain, mean over folds; its interval redraws sessions within folds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from agent.bounds import BOUNDS, bound_sessions, expected_gain, session_problems
from agent.contestants import Preparation, prepare
from agent.rollout import run_sessions
from agent.sessions import SessionSource

FIRST_SEED = 1_000_000
POLICIES = "always:pathology->clinical,price,feedback,dp,mpc,planner"


def fold_figures(
    source: SessionSource, fold: int, args: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Label-averaged gain of each policy and bound in each session of one fold."""
    setup, seeds = source.evaluation(fold), range(FIRST_SEED, FIRST_SEED + args.sessions)
    begun = time.perf_counter()
    bounds = bound_sessions(setup, seeds)
    print(f"fold {fold}: bounds in {time.perf_counter() - begun:.1f} s", file=sys.stderr)
    problems = list(session_problems(setup, seeds))
    found = {n: np.array([b.figures(n).expected_gain for b in bounds]) for n in BOUNDS}
    with tempfile.TemporaryDirectory() as folder:
        how = Preparation(
            source=source, held_out=fold, out=Path(folder), training_seeds=range(1),
            ppo_steps=None, warm_start="none", seed=0, progress=lambda *_: None,
        )  # fmt: skip
        for contestant in prepare(args.policies.split(","), how):
            records = run_sessions(contestant.policies[0], setup, seeds)
            found[contestant.name] = np.array(
                [expected_gain(p, final) for p, final in zip(problems, records.final_set)]
            )
    return found


def summary(folds: list[dict[str, np.ndarray]], rng: np.random.Generator) -> dict[str, object]:
    """Means over folds and shares of the expected bound, with intervals over sessions."""
    n = len(next(iter(folds[0].values())))
    draws = rng.integers(0, n, (500, len(folds), n))
    report: dict[str, object] = {}
    for name in folds[0]:
        gain = np.mean([f[name].mean() for f in folds])
        share = gain / np.mean([f[BOUNDS[0]].mean() for f in folds])
        redrawn = [
            np.mean([f[name][d].mean() for f, d in zip(folds, draw)])
            / np.mean([f[BOUNDS[0]][d].mean() for f, d in zip(folds, draw)])
            for draw in draws
        ]
        low, high = np.percentile(redrawn, [2.5, 97.5])
        report[name] = {
            "expected_gain": round(float(gain), 4),
            "share_of_expected_lp": {"value": round(float(share), 3),
                                     "ci95": [round(float(low), 3), round(float(high), 3)],
                                     "n": n * len(folds)},
            "by_fold": [round(float(f[name].mean()), 4) for f in folds],
        }  # fmt: skip
    return report


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--env", default="greenboard/CaseReviewSequential-v1")
    parser.add_argument("--preset")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--policies", default=POLICIES)
    args = parser.parse_args()
    source = SessionSource.open(args.bundle, trace=args.trace, env_id=args.env, preset=args.preset)
    folds = [fold_figures(source, fold, args) for fold in source.folds]
    report = {"env": args.env, "preset": args.preset, "sessions_a_fold": args.sessions,
              "figures": summary(folds, np.random.default_rng(0))}  # fmt: skip
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
