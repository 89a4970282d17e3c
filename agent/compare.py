"""Comparing policies on the same held-out sessions."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from agent.bootstrap import REPLICATES
from agent.bounds import SessionBounds, bound_sessions, expected_gain, session_problems
from agent.contestants import Contestant, Preparation, Progress, check_names, prepare
from agent.equity import equity
from agent.errors import ComparisonError
from agent.policies.files import LEARNED_KINDS
from agent.policies.registry import default_names
from agent.policies.simple import EverythingPolicy
from agent.report.findings import RobustnessScenario
from agent.report.model import ComparisonReport
from agent.report.render import check_report_folder
from agent.results import FoldResult, RewardTerms
from agent.robustness import robustness
from agent.rollout import SessionRecords, run_sessions, without_limits
from agent.sessions import SessionSource
from agent.summary import summarise
from agent.surrogate import surrogates
from carbon.intensity.trace import Trace
from envs.catalogue import ActionCatalogue
from envs.setup import ReviewSetup

ALGORITHMS = ("maskable-ppo", "cloned-ppo")
FIRST_SESSION_SEED = 1_000_000
"""Far from the seeds of training and calibration."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared and on how much.

    Attributes:
        policies: names or policy directories; None for the default list.
        algorithms: learned policies that join the default list; ignored with ``policies``.
        folds: held-out folds, one after the other; None for the last one alone.
        sessions: sessions on each fold.
        training_seeds: how often a learned policy is trained.
        ppo_steps: environment steps of each training; None for the algorithm's own.
        warm_start: which policy ``cloned-ppo`` imitates first; ``none`` for its own choice.
        seed: seeds the random policy, the bootstrap and the first training.
        cases: patients in a session, where it was said; for :meth:`command` alone, the sessions
            are the source's.
        robustness: whether the policies also meet changed conditions.
        replicates: redraws of folds, patients, sessions and training seeds.
    """

    policies: tuple[str, ...] | None = None
    algorithms: tuple[str, ...] = ALGORITHMS
    folds: tuple[int, ...] | None = None
    sessions: int = 200
    training_seeds: int = 3
    ppo_steps: int | None = None
    warm_start: str = "none"
    seed: int = 0
    cases: int | None = None
    robustness: bool = False
    replicates: int = REPLICATES

    def __post_init__(self) -> None:
        for name in ("sessions", "training_seeds", "ppo_steps", "replicates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ComparisonError(f"{name} is {value}; it must be 1 or more.")
        if self.policies is not None and not self.policies:
            raise ComparisonError("No policy was named; leave --policies out for all of them.")
        unknown = [name for name in self.algorithms if name not in LEARNED_KINDS]
        if unknown:
            close = difflib.get_close_matches(unknown[0], LEARNED_KINDS, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ComparisonError(
                f"Unknown algorithm {unknown[0]!r}.{hint} Choose {', '.join(LEARNED_KINDS)}."
            )

    def names(self, catalogue: ActionCatalogue) -> tuple[str, ...]:
        """Every policy to be compared."""
        if self.policies is not None:
            return self.policies
        known = (name for name in default_names(catalogue) if name not in LEARNED_KINDS)
        return (*known, *self.algorithms)

    def command(
        self,
        bundle: Path | str,
        trace: Path | str | Sequence[Path | str] | None,
        out: Path | str,
        *more: str,
    ) -> str:
        """The command that makes the same report again.

        Args:
            bundle: the bundle's folder.
            trace: the trace's file, or several.
            out: the report's folder.
            more: further words, such as ``--preset hard``.
        """
        words = ["greenboard", "compare", "--bundle", str(bundle), "--out", str(out), *more]
        if self.policies is not None:
            words += ["--policies", ",".join(self.policies)]
        elif self.algorithms != ALGORITHMS:
            words += ["--algorithms", ",".join(self.algorithms)]
        if self.folds is not None:
            words += ["--fold", str(self.folds[0]) if len(self.folds) == 1 else "all"]
        several = [trace] if isinstance(trace, (str, Path)) else list(trace or ())
        for one in several:
            words += ["--trace", str(one)]
        words += [
            "--sessions", str(self.sessions), "--seeds", str(self.training_seeds),
            "--seed", str(self.seed),
        ]  # fmt: skip
        for flag, value in (("--ppo-steps", self.ppo_steps), ("--cases", self.cases)):
            if value is not None:
                words += [flag, str(value)]
        if self.warm_start != "none":
            words += ["--warm-start", self.warm_start]
        return shlex.join([*words, "--robustness"] if self.robustness else words)


@dataclass(frozen=True, kw_only=True)
class Companions:
    """What else a comparison may be given.

    Attributes:
        attributes: groups of each row of the evidence table, by attribute; None for no equity.
        other_traces: traces that no policy was prepared on, for robustness.
    """

    attributes: Mapping[str, Sequence[str]] | None = None
    other_traces: Sequence[Trace] = ()


def compare_policies(
    source: SessionSource,
    config: CompareConfig,
    out: Path,
    *,
    command: str,
    created: datetime,
    progress: Progress,
    companions: Companions | None = None,
) -> ComparisonReport:
    """Prepare the policies on each fold's training patients, then compare them on the others.

    Every policy reviews the same sessions: same patients, order, urgencies and hours.

    Args:
        source: bundle, traces, environment.
        config: what is compared and on how much.
        out: receives ``policies/``; the report itself is for the caller to write.
        command: the command line, for the report.
        created: when, for the report.
        progress: told what is being done.
        companions: attributes of the patients, other traces.

    Raises:
        ComparisonError: if a fold is unknown, a policy cannot take part, or ``out`` holds other
            things than a report.
        PolicyError: if a policy is unknown or cannot be opened.
    """
    names = config.names(ActionCatalogue(source.evidence.transfers))
    check_names(names, ActionCatalogue(source.evidence.transfers))
    check_report_folder(out)
    folds = config.folds if config.folds is not None else source.folds[-1:]
    setups = {fold: source.evaluation(fold) for fold in folds}
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
        results.append(compare_fold(prepare(names, how), setup, config.sessions, how))
    provenance = _provenance(source, config, results, command, created)
    progress("statistics", 0, 1)
    rng = np.random.default_rng(config.seed)
    report = summarise(results, provenance, rng, config.replicates)
    progress("statistics", 1, 1)
    return _extend(report, source, config, results, companions or Companions(), progress)


def _extend(  # noqa: PLR0917  (each is one thing that the sections need)
    report: ComparisonReport,
    source: SessionSource,
    config: CompareConfig,
    results: Sequence[FoldResult],
    companions: Companions,
    progress: Progress,
) -> ComparisonReport:
    """Add what goes beyond the figures: equity, words, changed conditions."""
    rng = np.random.default_rng((config.seed, 1))
    fairness = None
    if companions.attributes is not None:
        fairness = equity(results, source.evidence, companions.attributes, rng)
    changed: tuple[RobustnessScenario, ...] = ()
    if config.robustness:
        seeds = range(FIRST_SESSION_SEED, FIRST_SESSION_SEED + config.sessions)
        changed = robustness(
            source, results, seeds, rng, progress=progress, other_traces=companions.other_traces
        )
    words = surrogates(source, results, rng)
    return replace(report, equity=fairness, robustness=changed, surrogates=words)


def compare_fold(
    contestants: Sequence[Contestant], setup: ReviewSetup, sessions: int, how: Preparation
) -> FoldResult:
    """Let every policy review the same sessions of one held-out fold, and bound them.

    Args:
        contestants: the policies.
        setup: the held-out sessions.
        sessions: how many.
        how: whose fold, and who is told of progress.

    Raises:
        ComparisonError: if a policy did not review the same sessions as the others.
    """
    fold, progress = how.held_out, how.progress
    seeds = range(FIRST_SESSION_SEED, FIRST_SESSION_SEED + sessions)
    runs = sum(len(contestant.policies) for contestant in contestants) + 1
    label, total = f"fold {fold}: sessions", runs * sessions

    def report(n: int) -> None:
        progress(label, n, total)

    free = without_limits(setup)
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
