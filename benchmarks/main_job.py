"""The main job on real patients, end to end; writes one JSON.

    python benchmarks/main_job.py --cohort ../shared/data/tcga_nsclc \
        --trace ../shared/data/carbon/em_gb.csv.gz --out runs/bench

Runs the commands that a user would run, in processes of their own: check the cohort, train the
bundle, compare policies on every held-out fold (rules, planners and PPO, each fitted to the other
folds), serve the bundle and review real cases through HTTP. OUT/main_job.json holds every figure
that the README quotes of it, what was to be reached, and whether it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from api.cli.local_server import ReviewClient, local_server
from distill.cohort import Cohort, read_cohort
from distill.evidence import EvidenceTable

MB = 1e6
TARGETS = {
    "full_auc_at_least": 0.90,
    "full_auc_at_least_late_fusion": True,
    "train_seconds_at_most": 600.0,
    "bundle_mb_at_most": 10.0,
    "inference_ms_at_most": 5.0,
}
LATENCY = """
import json, sys, time
from pathlib import Path
import numpy as np
from api.inputs import cohort_features
from distill.cohort import read_cohort
from distill.runtime import StudentRuntime
bundle, folder = sys.argv[1:]
student = StudentRuntime.open(Path(bundle))
cohort = read_cohort(Path(folder))
rows = [cohort_features(cohort, case, student.modalities) for case in cohort.case_id[:50]]
cases = [student.prepare(row) for row in rows]
steps = [[], [student.transfers[0].name]]
seconds = []
for case in cases * 4:
    for run in steps:
        if run and student.transfers[0].source not in case.present:
            continue
        start = time.perf_counter()
        student.assess(case, run)
        seconds.append(time.perf_counter() - start)
print(json.dumps({"median_ms": 1e3 * float(np.median(seconds)),
                  "p99_ms": 1e3 * float(np.quantile(seconds, 0.99)), "n": len(seconds)}))
"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cohort", type=Path, default=Path("../shared/data/tcga_nsclc"))
    parser.add_argument("--trace", type=Path, default=Path("../shared/data/carbon/em_gb.csv.gz"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sessions", type=int, default=200, help="sessions on each fold")
    parser.add_argument("--algorithm", default="maskable-ppo", help="learned policy to compare")
    parser.add_argument("--ppo-seeds", type=int, default=3, help="trainings on each fold")
    parser.add_argument("--reviews", type=int, default=25, help="cases posted through HTTP")
    return parser.parse_args()


def greenboard(*words: str) -> float:
    """Run one command, show what it says, and give the seconds it took."""
    print(f"$ greenboard {' '.join(words)}", flush=True)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "api.cli", *words], check=True)
    return time.monotonic() - start


def trained(args: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    """Check the cohort, train on it, and say what the bundle holds."""
    greenboard("cohort", "check", str(args.cohort))
    seconds = greenboard(
        "train", "--cohort", str(args.cohort), "--out", str(bundle), "--seed", str(args.seed)
    )
    metrics = json.loads((bundle / "metrics.json").read_text(encoding="utf-8"))
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    return {
        "seconds": seconds,
        "bundle_mb": size / MB,
        "full": metrics["full"],
        "single_auc": {name: card["auc"] for name, card in metrics["single"].items()},
        "baselines_auc": {name: card["auc"] for name, card in metrics["baselines"].items()},
        "best_baseline": metrics["best_baseline"],
        "teachers_auc": {name: card["auc"] for name, card in metrics["teachers"].items()},
        "training": metrics["training"],
    }


def latency(args: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    """One case's student inference in a process that is held to one core."""
    code = f"import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n{LATENCY}"
    answer = subprocess.run(
        [sys.executable, "-c", code, str(bundle), str(args.cohort)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(answer.stdout)
    return figures


def compared(args: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    """Policies on every held-out fold, from the report that a user would get."""
    out = args.out / "report"
    seconds = greenboard(
        "compare", "--bundle", str(bundle), "--out", str(out), "--fold", "all",
        "--trace", str(args.trace), "--sessions", str(args.sessions),
        "--seeds", str(args.ppo_seeds), "--algorithms", args.algorithm, "--seed", str(args.seed),
    )  # fmt: skip
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    keys = ("auc_gain", "g_co2e", "reward")
    return {
        "seconds": seconds,
        "report": str(out / "report.html"),
        "policies": {
            name: {key: figures[key] for key in keys}
            for name, figures in report["policies"].items()
        },
        "bounds": {name: bound["auc_gain"] for name, bound in report["bounds"].items()},
    }


def reviewed(args: argparse.Namespace, bundle: Path) -> dict[str, Any]:
    """Real cases through the real server: posted, followed, decided, read back.

    The cases are of the cohort that the bundle was trained on, so what is measured is that the
    service works and how long it takes, never how well the student does.
    """
    cohort = read_cohort(args.cohort)
    chosen = _chosen(cohort, EvidenceTable.load(bundle / "evidence.npz"), args.reviews, args.seed)
    ready_ms, statuses, transfers = [], [], []
    serve = ("--bundle", str(bundle), "--cohort", str(args.cohort), "--policy", "planner",
             "--trace", str(args.trace), "--state", str(args.out / "state"))  # fmt: skip
    with local_server(serve, args.out / "serve.log", reviewer="benchmark") as (url, key):
        client = ReviewClient(url, key)
        for case_id in chosen:
            start = time.monotonic()
            case = client.post("/v1/cases", {"case_id": case_id, "urgency": 0.2})["id"]
            client.follow(case, until="awaiting_clinician", wake=True)
            ready_ms.append(1e3 * (time.monotonic() - start))
            client.post(f"/v1/cases/{case}/decision", {"action": "accept"})
            after = client.get(f"/v1/cases/{case}")
            statuses.append(after["status"])
            transfers.append(len(after["transfers_run"]))
    return {
        "n": len(chosen),
        "all_recorded": all(status == "recorded" for status in statuses),
        "ready_ms_median": float(np.median(ready_ms)),
        "ready_ms_max": float(np.max(ready_ms)),
        "transfers_per_case": float(np.mean(transfers)),
        "decisions": "accepted by this benchmark, simulated",
        "note": "cases of the training cohort: a test of the service, not of the student",
    }


def _chosen(cohort: Cohort, evidence: EvidenceTable, n: int, seed: int) -> list[str]:
    """Cases at random, one that has nothing but clinical data among them if there is one."""
    rng = np.random.default_rng(seed)
    chosen = [str(c) for c in rng.choice(cohort.case_id, size=n, replace=False)]
    bare = np.flatnonzero(evidence.present.sum(axis=1) == 1)
    return [*chosen[:-1], evidence.case_id[bare[0]]] if bare.size else chosen


def verdicts(result: dict[str, Any]) -> dict[str, bool]:
    """Which of the targets were reached."""
    student = result["train"]["full"]["auc"]["value"]
    late = result["train"]["baselines_auc"]["late_fusion"]["value"]
    return {
        "full_auc_at_least": student >= TARGETS["full_auc_at_least"],
        "full_auc_at_least_late_fusion": student >= late,
        "train_seconds_at_most": result["train"]["seconds"] <= TARGETS["train_seconds_at_most"],
        "bundle_mb_at_most": result["train"]["bundle_mb"] <= TARGETS["bundle_mb_at_most"],
        "inference_ms_at_most": (
            result["inference_one_core"]["median_ms"] <= TARGETS["inference_ms_at_most"]
        ),
    }


def main() -> None:
    """Run all steps and write the JSON."""
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    bundle = args.out / "bundle"
    result: dict[str, Any] = {
        "cohort": str(args.cohort), "trace": str(args.trace), "seed": args.seed,
        "train": trained(args, bundle),
        "inference_one_core": latency(args, bundle),
        "compare": compared(args, bundle),
        "reviews": reviewed(args, bundle),
        "targets": TARGETS,
    }  # fmt: skip
    result["reached"] = verdicts(result)
    target = args.out / "main_job.json"
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({"reached": result["reached"], "written": str(target)}, indent=1))


if __name__ == "__main__":
    main()
