"""Many trainings at once: seeds, folds and algorithms in processes of their own."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from agent.algorithms import training_preset
from agent.errors import RlTrainingError
from agent.policies.files import POLICY_FILE, write_atomically
from agent.policies.registry import open_policy
from agent.rollout import run_sessions
from agent.sessions import SessionSource
from agent.studies import train_policies

SUMMARY_FILE = "sweep.json"
EVALUATION_SEED = 2_000_000
REPLICATES = 2000

Progress = Callable[[int, int, str], None]
"""Called with the trainings finished, the trainings in all, and the last one."""


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """What a sweep trains; everything in it can be handed to another process.

    Attributes:
        bundle: folder that ``greenboard train`` wrote.
        out: receives the policies and ``sweep.json``.
        algorithms: names of training presets.
        folds: held-out folds.
        seeds: training seeds.
        env_id: the environment.
        preset: settings of the sessions.
        traces: recorded grids; none for the synthetic one.
        cases: patients in a session; None for the preset's number.
        sessions: held-out sessions to report each policy on.
        overrides: fields that replace the presets' settings.
    """

    bundle: Path
    out: Path
    algorithms: tuple[str, ...]
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    env_id: str
    preset: str | None = None
    traces: tuple[Path, ...] = ()
    cases: int | None = None
    sessions: int = 64
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("algorithms", "folds", "seeds"):
            chosen = getattr(self, name)
            if not chosen or len(set(chosen)) < len(chosen):
                raise RlTrainingError(f"{name} are {list(chosen)}; give one or more, each once.")

    @property
    def jobs(self) -> list[tuple[str, int, int]]:
        """Algorithm, fold and seed of each training."""
        return list(product(self.algorithms, self.folds, self.seeds))

    def source(self) -> SessionSource:
        """The sessions, opened from their files."""
        return SessionSource.open(
            self.bundle, trace=list(self.traces) or None, env_id=self.env_id, preset=self.preset
        ).fitted(self.folds, self.cases)


def sweep(plan: SweepPlan, *, jobs: int, progress: Progress | None = None) -> dict[str, Any]:
    """Train everything that is not trained yet and write one summary.

    A training that fails is reported and stops no other one; what was killed is gone on with when
    the same sweep is run again.

    Args:
        plan: what to train.
        jobs: processes at a time.
        progress: told after every training.

    Returns:
        The summary, as in ``OUT/sweep.json``.

    Raises:
        RlTrainingError: if a preset is unknown, a setting out of range, or ``jobs`` below 1.
        BundleError: if the bundle cannot be read.
    """
    if jobs < 1:
        raise RlTrainingError(f"jobs is {jobs}; give 1 or more.")
    for algorithm in plan.algorithms:
        training_preset(algorithm, **plan.overrides)
    plan.source()
    plan.out.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    # spawn: a forked child would inherit torch's and BLAS's threads in an unknown state
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = {pool.submit(_work, plan, job): job for job in plan.jobs}
        for future in as_completed(waiting):
            runs.append(_result(waiting[future], future))
            if progress is not None:
                progress(len(runs), len(waiting), _label(waiting[future]))
    summary = summarise(plan, sorted(runs, key=_order))
    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    write_atomically(plan.out / SUMMARY_FILE, text.encode())
    return summary


def _work(plan: SweepPlan, job: tuple[str, int, int]) -> dict[str, Any]:
    """One training, in a process of its own."""
    algorithm, fold, seed = job
    with threadpool_limits(1):
        source = plan.source()
        (folder,) = train_policies(
            source, fold, algorithm, (seed,), plan.out, **dict(plan.overrides)
        )
        setup = source.evaluation(fold)
        policy = open_policy(folder, setup.layout, setup.catalogue)
        seeds = range(EVALUATION_SEED, EVALUATION_SEED + plan.sessions)
        records = run_sessions(policy, setup, seeds)
    stored = json.loads((folder / POLICY_FILE).read_text("utf-8"))["provenance"]
    return {
        "policy": folder.name,
        "steps": stored["steps"],
        "validation_reward": max(
            (look["reward"] for look in stored.get("validation", [])), default=None
        ),
        "held_out_reward": float(records.reward.mean()),
        "held_out_auc_gain": float(records.auc_gain.mean()),
        "held_out_g_co2e": float(records.g_co2e.mean()),
    }


def _result(job: tuple[str, int, int], future: Future[dict[str, Any]]) -> dict[str, Any]:
    algorithm, fold, seed = job
    entry: dict[str, Any] = {"algorithm": algorithm, "fold": fold, "seed": seed}
    error = future.exception()
    if error is not None:
        return {**entry, "status": "failed", "error": f"{type(error).__name__}: {error}"}
    return {**entry, "status": "trained", **future.result()}


def _order(run: Mapping[str, Any]) -> tuple[str, int, int]:
    return run["algorithm"], run["fold"], run["seed"]


def _label(job: tuple[str, int, int]) -> str:
    return f"{job[0]}, fold {job[1]}, seed {job[2]}"


def summarise(plan: SweepPlan, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sweep in figures; intervals redraw the trainings, not patients or sessions."""
    keys = ("validation_reward", "held_out_reward", "held_out_auc_gain", "held_out_g_co2e")
    algorithms: dict[str, dict[str, Any]] = {}
    for algorithm in plan.algorithms:
        trained = [r for r in runs if r["algorithm"] == algorithm and r["status"] == "trained"]
        figures = {}
        for key in keys:
            values = [run[key] for run in trained if run[key] is not None]
            if values:
                figures[key] = _figure(np.array(values))
        algorithms[algorithm] = figures
    shown = {
        key: str(value) if isinstance(value, Path) else value for key, value in asdict(plan).items()
    }
    return {
        "plan": {**shown, "traces": [str(path) for path in plan.traces]},
        "interval": "95 % percentile bootstrap over trainings (folds and seeds) alone; choose "
        "settings by validation_reward, held_out figures are for reporting",
        "failed": sum(run["status"] == "failed" for run in runs),
        "algorithms": algorithms,
        "runs": list(runs),
    }


def _figure(values: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    means = rng.choice(values, (REPLICATES, len(values))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(values.mean()), "ci95": [float(low), float(high)], "n": len(values)}
