"""Comparing policies on the same held-out sessions."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from agent.bounds import SessionBounds, bound_sessions, expected_gain, session_problems
from agent.contestants import Contestant, Preparation, Progress, check_names, prepare
from agent.errors import ComparisonError
from agent.policies.registry import default_names
from agent.policies.simple import EverythingPolicy
from agent.report.model import ComparisonReport
from agent.report.render import check_report_folder
from agent.results import FoldResult, RewardTerms
from agent.rollout import SessionRecords, run_sessions
from agent.sessions import SessionSource
from agent.summary import summarise
from envs.catalogue import ActionCatalogue
from envs.setup import ReviewSetup

FIRST_SESSION_SEED = 1_000_000
"""Far from the seeds of training and calibration."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared and on how much.

    Attributes:
        policies: names or policy directories; None for the default list.
        folds: held-out folds, one after the other; None for the last one alone.
        sessions: sessions on each fold.
        training_seeds: how often a learned policy is trained.
        ppo_steps: environment steps of each training.
        warm_start: ``none``, or ``price`` to imitate the price policy first.
        seed: seeds the random policy, the bootstrap and the first training.
        cases: patients in a session, where it was said; for :meth:`command` alone, the sessions
            are the source's.
    """

    policies: tuple[str, ...] | None = None
    folds: tuple[int, ...] | None = None
    sessions: int = 200
    training_seeds: int = 3
    ppo_steps: int = 400_000
    warm_start: str = "none"
    seed: int = 0
    cases: int | None = None

    def __post_init__(self) -> None:
        for name in ("sessions", "training_seeds", "ppo_steps"):
            if getattr(self, name) < 1:
                raise ComparisonError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.policies is not None and not self.policies:
            raise ComparisonError("No policy was named; leave --policies out for all of them.")

    def command(self, bundle: Path | str, trace: Path | str | None, out: Path | str) -> str:
        """The command that makes the same report again."""
        words = ["greenboard", "compare", "--bundle", str(bundle), "--out", str(out)]
        if self.policies is not None:
            words += ["--policies", ",".join(self.policies)]
        if self.folds is not None:
            words += ["--fold", str(self.folds[0]) if len(self.folds) == 1 else "all"]
        if trace is not None:
            words += ["--trace", str(trace)]
        words += [
            "--sessions", str(self.sessions), "--seeds", str(self.training_seeds),
            "--ppo-steps", str(self.ppo_steps), "--seed", str(self.seed),
        ]  # fmt: skip
        if self.cases is not None:
            words += ["--cases", str(self.cases)]
        if self.warm_start != "none":
            words += ["--warm-start", self.warm_start]
        return shlex.join(words)


def compare_policies(
    source: SessionSource,
    config: CompareConfig,
    out: Path,
    *,
    command: str,
    created: datetime,
    progress: Progress,
) -> ComparisonReport:
    """Prepare the policies on each fold's training patients, then compare them on the others.

    Every policy reviews the same sessions: same patients, order, urgencies and hours.

    Args:
        source: bundle and trace.
        config: what is compared and on how much.
        out: receives ``policies/``; the report itself is for the caller to write.
        command: the command line, for the report.
        created: when, for the report.
        progress: told what is being done.

    Raises:
        ComparisonError: if a fold is unknown, a policy cannot take part, or ``out`` holds other
            things than a report.
        PolicyError: if a policy is unknown or cannot be opened.
    """
    check_names(config.policies or (), ActionCatalogue(source.evidence.transfers))
    check_report_folder(out)
    folds = config.folds if config.folds is not None else source.folds[-1:]
    setups = {fold: source.evaluation(fold) for fold in folds}
    names = config.policies or default_names(next(iter(setups.values())).catalogue)
    results = []
    for fold, setup in setups.items():
        how = Preparation(
            source=source,
            held_out=fold,
            out=out,
            training_seeds=range(config.seed, config.seed + config.training_seeds),
            ppo_steps=config.ppo_steps,
            warm_start=config.warm_start,
            seed=config.seed,
            progress=progress,
        )
        results.append(_compare_fold(prepare(names, how), setup, config, how))
    provenance = _provenance(source, config, results, command, created)
    return summarise(results, provenance, np.random.default_rng(config.seed))


def _compare_fold(
    contestants: Sequence[Contestant],
    setup: ReviewSetup,
    config: CompareConfig,
    how: Preparation,
) -> FoldResult:
    fold, progress = how.held_out, how.progress
    seeds = range(FIRST_SESSION_SEED, FIRST_SESSION_SEED + config.sessions)
    runs = sum(len(contestant.policies) for contestant in contestants) + 1
    label, total = f"fold {fold}: sessions", runs * config.sessions

    def report(n: int) -> None:
        progress(label, n, total)

    free = replace(setup, config=replace(setup.config, budget_mode="price"))
    everything = EverythingPolicy(layout=setup.layout, catalogue=setup.catalogue)
    reference = run_sessions(everything, free, seeds, progress=report)
    records = {
        c.name: tuple(run_sessions(p, setup, seeds, progress=report) for p in c.policies)
        for c in contestants
    }
    for name, runs_of in records.items():
        if not all(np.array_equal(r.auc_base, reference.auc_base) for r in runs_of):
            raise ComparisonError(f"{name} did not review the same sessions as the others.")
    bounds, expected = _bounds(setup, seeds, records, fold, progress)
    return FoldResult(
        fold=fold,
        n_patients=len(setup.tables.positives) + len(setup.tables.negatives),
        rows=how.source.rows((fold,)),
        traces=tuple(trace.name for trace in how.source.traces),
        terms=RewardTerms.of(setup),
        actions=setup.catalogue.names,
        contestants=tuple(contestants),
        records=records,
        reference=reference,
        bounds=tuple(bounds),
        expected_gain=expected,
    )


def _bounds(
    setup: ReviewSetup,
    seeds: Sequence[int],
    records: Mapping[str, Sequence[SessionRecords]],
    fold: int,
    progress: Progress,
) -> tuple[Sequence[SessionBounds], dict[str, Float64[np.ndarray, "seeds sessions"]]]:
    """Bounds of each session, and each policy's gain with labels averaged out."""

    def report(n: int) -> None:
        progress(f"fold {fold}: bounds", n, len(seeds))

    bounds = bound_sessions(setup, seeds, report)
    expected = {name: np.zeros((len(runs), len(seeds))) for name, runs in records.items()}
    for i, problem in enumerate(session_problems(setup, seeds)):
        for name, runs in records.items():
            for j, run in enumerate(runs):
                expected[name][j, i] = expected_gain(problem, run.final_set[i])
    return bounds, expected


def _provenance(
    source: SessionSource,
    config: CompareConfig,
    results: Sequence[FoldResult],
    command: str,
    created: datetime,
) -> dict[str, Any]:
    return {
        **source.facts(),
        "folds": [result.fold for result in results],
        "patients_held_out": {str(result.fold): result.n_patients for result in results},
        "sessions": {"n_per_fold": config.sessions, "first_seed": FIRST_SESSION_SEED},
        "seed": config.seed,
        "command": command,
        "created_utc": created.isoformat(timespec="seconds"),
        "evidence": dict(source.evidence.meta),
        "versions": {name: version(name) for name in ("greenboard", "numpy", "scipy", "gymnasium")},
    }
