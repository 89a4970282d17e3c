"""The study of policies on real patients: every rule set and preset, five folds, three traces.

    python benchmarks/policies_review.py --bundle BUNDLE --trace GB --trace CISO --trace DE \
        --new-trace ISNE --new-bundle OTHER --out runs/policies_review.json --jobs 2

For every setting and fold, planners are calibrated and policies trained on the patients of the
four other folds and the first 70 % of each trace; all then review the same sessions of the fold's
patients in the other 30 %. Every unit of work is one file or folder under ``--work``, written
whole: a killed study goes on where it was. The JSON is written anew after each setting.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
for name in THREADS:  # before NumPy is read in, here and in the processes started from here
    os.environ.setdefault(name, "1")

from review_analysis import Analysed, analyse, targets  # noqa: E402
from review_units import (  # noqa: E402
    SETTINGS,
    Study,
    label_of,
    load_unit,
    play,
    play_cohort,
    play_trace,
    train,
    unit_path,
)

from agent.policies.files import POLICY_FILE, write_atomically  # noqa: E402

Task = tuple[str, Callable[..., Any], tuple[Any, ...]]
TRACE, COHORT = "trace", "cohort"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--trace", type=Path, action="append", required=True)
    parser.add_argument("--new-trace", type=Path, action="append", default=[])
    parser.add_argument("--new-bundle", type=Path, action="append", default=[])
    parser.add_argument("--out", type=Path, default=Path("runs/policies_review.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/policies_review"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--algorithms", default="cloned-ppo")
    parser.add_argument("--warm-start", default="planner")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--sessions", type=int, default=180, help="a fold, all traces together")
    parser.add_argument("--bounded", type=int, default=60, help="of those, with bounds")
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--shipped", default="planner", help="the policy that is the default")
    parser.add_argument(
        "--only", action="append", choices=[*SETTINGS, TRACE, COHORT], help="repeatable"
    )
    return parser.parse_args()


def study_of(args: argparse.Namespace) -> Study:
    """The study, and a work folder that belongs to it."""
    study = Study(
        bundle=args.bundle.resolve(),
        traces=tuple(trace.resolve() for trace in args.trace),
        work=args.work.resolve(),
        seeds=args.seeds,
        algorithms=tuple(name for name in args.algorithms.split(",") if name),
        warm_start=args.warm_start,
        steps=args.steps,
        sessions=args.sessions,
        bounded=args.bounded,
    )
    study.work.mkdir(parents=True, exist_ok=True)
    marker = study.work / "study.json"
    if marker.exists() and json.loads(marker.read_text()) != study.facts():
        raise SystemExit(f"{study.work} belongs to another study: choose another --work.")
    write_atomically(marker, (json.dumps(study.facts(), indent=1) + "\n").encode())
    return study


def run_all(tasks: Sequence[Task], jobs: int, title: str) -> None:
    """Run tasks in processes of their own, printing how far they are."""
    if not tasks:
        return
    started = time.monotonic()
    with ProcessPoolExecutor(max_workers=jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(work, *given): name for name, work, given in tasks}
        for i, task in enumerate(as_completed(running), start=1):
            task.result()
            passed = time.monotonic() - started
            left = passed / i * (len(tasks) - i)
            print(
                f"{title}: {i} of {len(tasks)} ({running[task]}), {passed:.0f} s, "
                f"about {left:.0f} s left",
                flush=True,
            )


def training_tasks(study: Study, setting: str, folds: Sequence[int]) -> list[Task]:
    """Trainings of a setting that are not there yet."""
    own = SETTINGS[setting].trained_in or setting
    tasks: list[Task] = []
    for algorithm in study.algorithms:
        for seed in range(study.seeds):
            for fold in folds:
                name = f"{algorithm}-fold{fold}-seed{seed}"
                if not (study.work / own / "policies" / name / POLICY_FILE).exists():
                    tasks.append((name, train, (study, own, algorithm, fold, seed)))
    return tasks


def travelling_tasks(study: Study, folds: Sequence[int]) -> list[Task]:
    """Trainings of what goes to other cohorts, where they are not there yet."""
    tasks: list[Task] = []
    for algorithm in study.travelling:
        for seed in range(study.travelling_seeds):
            name = f"{algorithm}-fold{folds[-1]}-seed{seed}"
            if not (study.work / "default" / "policies" / name / POLICY_FILE).exists():
                tasks.append((name, train, (study, "default", algorithm, folds[-1], seed)))
    return tasks


def playing_tasks(study: Study, setting: str, folds: Sequence[int]) -> list[Task]:
    """Folds of a setting that have not been played yet."""
    names = {fold: f"{setting}-fold{fold}" for fold in folds}
    return [
        (name, play, (study, setting, fold))
        for fold, name in names.items()
        if not unit_path(study, name).exists()
    ]


def strange_units(
    study: Study, args: argparse.Namespace, folds: Sequence[int]
) -> dict[str, list[tuple[str, Task]]]:
    """Units of what training never saw, by name."""
    from agent.sessions import WORKLIST, SessionSource

    found: dict[str, list[tuple[str, Task]]] = {}
    for trace in args.new_trace if wanted(args, TRACE) else ():
        label = trace.name.split(".")[0]
        units = [(f"trace-{label}-fold{fold}", fold) for fold in folds]
        found[f"trace {label}"] = [
            (unit, (unit, play_trace, (study, trace.resolve(), fold))) for unit, fold in units
        ]
    for bundle in args.new_bundle if wanted(args, COHORT) else ():
        there = SessionSource.open(bundle, trace=study.traces, env_id=WORKLIST).folds
        label = label_of(bundle.resolve())
        units = [(f"cohort-{label}-fold{fold}", fold) for fold in there]
        found[f"cohort {label}"] = [
            (unit, (unit, play_cohort, (study, bundle.resolve(), fold))) for unit, fold in units
        ]
    return found


def wanted(args: argparse.Namespace, name: str) -> bool:
    """Whether this part was asked for."""
    return args.only is None or name in args.only


def analysed(study: Study, names: Sequence[str], replicates: int) -> Analysed:
    """The played units of these names as one setting."""
    loaded = [load_unit(unit_path(study, name)) for name in names]
    return analyse([result for result, _ in loaded], loaded[0][1], replicates)


def write(
    args: argparse.Namespace,
    study: Study,
    found: dict[str, Analysed],
    strange: dict[str, Analysed],
    seconds: float,
) -> list[dict[str, Any]]:
    """The JSON as far as the study has come."""
    table = targets(found, strange, args.shipped)
    content = {
        "study": {**study.facts(), "replicates": args.replicates, "shipped": args.shipped},
        "intervals": "95 %, percentile; folds, patients, sessions and training seeds redrawn "
        "(bounds, regret, shares of bounds and of everything, lateness: folds or sessions and "
        "seeds only)",
        "targets": table,
        "settings": {name: dict(one.figures) for name, one in found.items()},
        "never_seen_in_training": {name: dict(one.figures) for name, one in strange.items()},
        "seconds": round(seconds, 1),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"
    write_atomically(args.out, text.encode())
    return table


def show(table: Sequence[dict[str, Any]]) -> None:
    """The targets as lines."""
    for line in table:
        low, high = line["ci95"]
        print(
            f"{'yes' if line['reached'] else 'NO ':3}  {line['what']}: {line['value']:.4f} "
            f"[{low:.4f}, {high:.4f}] (n {line['n']}); target {line['target']}"
        )


def main() -> None:
    """Train, play and analyse setting by setting."""
    args = arguments()
    study, started = study_of(args), time.monotonic()
    folds = study.source("default").folds
    found: dict[str, Analysed] = {}
    strange: dict[str, Analysed] = {}
    for setting in SETTINGS:
        if not wanted(args, setting):
            continue
        run_all(training_tasks(study, setting, folds), args.jobs, f"{setting}: train")
        run_all(playing_tasks(study, setting, folds), args.jobs, f"{setting}: play")
        names = [f"{setting}-fold{fold}" for fold in folds]
        found[setting] = analysed(study, names, args.replicates)
        write(args, study, found, strange, time.monotonic() - started)
        print(f"{setting}: done after {time.monotonic() - started:.0f} s", flush=True)
    if args.new_bundle and wanted(args, COHORT):
        run_all(travelling_tasks(study, folds), args.jobs, "for other cohorts: train")
    for name, units in strange_units(study, args, folds).items():
        run_all([t for unit, t in units if not unit_path(study, unit).exists()], args.jobs, name)
        strange[name] = analysed(study, [unit for unit, _ in units], args.replicates)
    show(write(args, study, found, strange, time.monotonic() - started))
    print(args.out)


if __name__ == "__main__":
    main()
