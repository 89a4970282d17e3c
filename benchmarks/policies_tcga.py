"""Policies on real patients: every fold held out once, over a recorded grid; writes one JSON.

    python benchmarks/policies_tcga.py --bundle BUNDLE --trace TRACE --out runs/policies_tcga

BUNDLE is what ``greenboard train --cohort ../shared/data/tcga_nsclc`` wrote. The page and the
full figures are written beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.compare import CompareConfig, compare_policies
from agent.policies.files import write_atomically
from agent.report.headline import headline
from agent.report.model import ComparisonReport
from agent.report.render import write_report
from agent.sessions import SessionSource

SHOWN = ("auc_gain", "g_co2e", "carbon_share", "reward", "expected_gain")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/policies_tcga"))
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ppo-steps", type=int, default=400_000)
    parser.add_argument("--warm-start", default="none")
    return parser.parse_args()


def short(report: ComparisonReport, seconds: float) -> dict[str, Any]:
    """The figures that the README quotes."""
    return {
        "headline": list(headline(report)),
        "policies": {
            policy.name: {metric: policy.figures[metric].to_json() for metric in SHOWN}
            for policy in report.policies
        },
        "bounds": {name: bound.to_json() for name, bound in report.bounds.items()},
        "everything_without_budget": {k: e.to_json() for k, e in report.everything.items()},
        "provenance": dict(report.provenance),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Compare on all folds, write page and JSON."""
    args = arguments()
    source = SessionSource.open(args.bundle, trace=args.trace)
    config = CompareConfig(
        folds=source.folds,
        sessions=args.sessions,
        training_seeds=args.seeds,
        ppo_steps=args.ppo_steps,
        warm_start=args.warm_start,
    )
    started, stage_now = time.monotonic(), ""

    def progress(stage: str, _n: int, _total: int) -> None:
        nonlocal stage_now
        if stage != stage_now:
            stage_now = stage
            print(f"{time.monotonic() - started:6.0f} s  {stage}", flush=True)

    report = compare_policies(
        source,
        config,
        args.out,
        command=config.command(args.bundle, args.trace, args.out),
        created=datetime.now(UTC),
        progress=progress,
    )
    page, _ = write_report(report, args.out)
    result = short(report, time.monotonic() - started)
    write_atomically(
        args.out / "policies_tcga.json", (json.dumps(result, indent=2) + "\n").encode()
    )
    print("\n".join(headline(report)))
    print(f"{page}\n{args.out / 'policies_tcga.json'}")


if __name__ == "__main__":
    main()
