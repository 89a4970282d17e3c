"""Units of work of ``policies_review.py``: each leaves one file or folder, whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.bounds import (
    BOUNDS,
    BoundFigures,
    SessionBounds,
    bound_sessions,
    expected_gain,
    session_problems,
)
from agent.compare import FIRST_SESSION_SEED
from agent.contestants import Contestant, Preparation, prepare
from agent.errors import PolicyError
from agent.policies.files import write_atomically
from agent.policies.registry import open_policy
from agent.policies.simple import EverythingPolicy
from agent.results import FoldResult, RewardTerms
from agent.rollout import SessionRecords, run_sessions, without_limits
from agent.sessions import ONESHOT, SEQUENTIAL, WORKLIST, SessionSource

PLANNERS = (
    "never", "always:pathology->clinical", "always-everything", "random", "rule", "myopic",
    "price", "feedback", "dp", "mpc", "planner",
)  # fmt: skip
BOUND_FIELDS = ("auc_gain", "expected_gain", "reward")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Rules and settings under which policies are prepared and compared.

    Attributes:
        env_id: the rules.
        preset: settings.
        budget: share of always processing everything; None for the preset's.
        trained_in: setting whose learned policies are used; None for its own.
    """

    env_id: str
    preset: str
    budget: float | None = None
    trained_in: str | None = None


SETTINGS = {
    "default": Setting(env_id=WORKLIST, preset="default"),
    "hard": Setting(env_id=WORKLIST, preset="hard"),
    "batched": Setting(env_id=WORKLIST, preset="batched"),
    "sequential": Setting(env_id=SEQUENTIAL, preset="default"),
    "oneshot": Setting(env_id=ONESHOT, preset="default"),
    "swing": Setting(env_id=WORKLIST, preset="swing", trained_in="default"),
    "default-10": Setting(env_id=WORKLIST, preset="default", budget=0.1, trained_in="default"),
    "default-40": Setting(env_id=WORKLIST, preset="default", budget=0.4, trained_in="default"),
}
"""Most telling first, so that an interrupted study has them."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the whole study is made of; pickled to the processes that work on it.

    Attributes:
        bundle: the bundle's folder.
        traces: files of the traces that policies are prepared and compared on.
        work: folder of the units.
        seeds: training seeds of each learned policy.
        algorithms: learned policies.
        warm_start: whom the cloned ones imitate first.
        steps: environment steps of each training; None for the algorithm's own.
        sessions: sessions on each fold, all traces together.
        bounded: of those, how many are bounded.
        travelling: algorithms whose policies go to other cohorts as well, trained on the default
            setting with the last fold held out.
        travelling_seeds: how often each of them is trained.
    """

    bundle: Path
    traces: tuple[Path, ...]
    work: Path
    seeds: int
    algorithms: tuple[str, ...]
    warm_start: str
    steps: int | None
    sessions: int
    bounded: int
    travelling: tuple[str, ...] = ("maskable-ppo",)
    travelling_seeds: int = 3

    def facts(self) -> dict[str, Any]:
        """What must stay the same for units to be reused; seeds and settings may be added."""
        return {
            "bundle": str(self.bundle),
            "traces": [str(trace) for trace in self.traces],
            "algorithms": list(self.algorithms),
            "warm_start": self.warm_start,
            "steps": self.steps,
            "seeds": self.seeds,
            "sessions": self.sessions,
            "bounded": self.bounded,
        }

    def source(self, setting: str) -> SessionSource:
        """The sessions of a setting."""
        chosen = SETTINGS[setting]
        source = SessionSource.open(
            self.bundle, trace=self.traces, env_id=chosen.env_id, preset=chosen.preset
        )
        if chosen.budget is not None:
            source = replace(source, config=replace(source.config, budget_fraction=chosen.budget))
        return source

    def preparation(self, setting: str, fold: int, source: SessionSource) -> Preparation:
        """How a setting's policies are prepared with one fold held out."""
        return Preparation(
            source=source,
            held_out=fold,
            out=self.work / setting,
            training_seeds=range(self.seeds),
            ppo_steps=self.steps,
            warm_start=self.warm_start,
            seed=0,
            progress=_silent,
        )


def _silent(stage: str, n: int, total: int) -> None:
    """Say nothing: processes of their own report when a unit is whole."""


def train(study: Study, setting: str, algorithm: str, fold: int, seed: int) -> None:
    """Train one policy; one that is there already is left as it is."""
    how = study.preparation(setting, fold, study.source(setting))
    prepare((algorithm,), replace(how, training_seeds=(seed,)))


def _learned(study: Study, setting: str, fold: int, source: SessionSource) -> list[Contestant]:
    """The trained policies, opened for these sessions' layout."""
    setup = source.evaluation(fold)
    folder = study.work / (SETTINGS[setting].trained_in or setting) / "policies"
    found = []
    for algorithm in study.algorithms:
        policies = tuple(
            open_policy(
                folder / f"{algorithm}-fold{fold}-seed{seed}", setup.layout, setup.catalogue
            )
            for seed in range(study.seeds)
        )
        found.append(Contestant(name=algorithm, policies=policies, learned=True, details={}))
    return found


def play(study: Study, setting: str, fold: int) -> Path:
    """Compare all policies on one fold of a setting; the file is named after it."""
    source = study.source(setting)
    return _play(study, setting, fold, source, f"{setting}-fold{fold}")


def play_trace(study: Study, trace: Path, fold: int) -> Path:
    """The default setting's policies on a trace that none was prepared on."""
    known = study.source("default")
    source = SessionSource.open(study.bundle, trace=trace, env_id=WORKLIST, preset="default")
    how = study.preparation("default", fold, known)
    contestants = [*prepare(PLANNERS, how), *_learned(study, "default", fold, known)]
    return _write(study, f"trace-{trace.name.split('.')[0]}-fold{fold}", fold, source, contestants)


def play_cohort(study: Study, bundle: Path, fold: int) -> Path:
    """The default setting's trained policies on a cohort that training never saw.

    Planners go by a cohort's own transfers: they are calibrated on its other folds.
    """
    opened = SessionSource.open(bundle, trace=study.traces, env_id=WORKLIST, preset="default")
    source = opened.fitted(opened.folds)
    how = replace(study.preparation("default", fold, source), out=study.work / label_of(bundle))
    learned = _travellers(study, source, fold)
    names = [n for n in PLANNERS if not n.startswith("always:")]
    return _write(
        study,
        f"cohort-{label_of(bundle)}-fold{fold}",
        fold,
        source,
        [*prepare(names, how), *learned],
    )


def _travellers(study: Study, source: SessionSource, fold: int) -> list[Contestant]:
    """Policies trained on the first cohort that can act on another one."""
    setup, held_out = source.evaluation(fold), study.source("default").folds[-1]
    folder, found = study.work / "default" / "policies", []
    seeds = dict.fromkeys(study.algorithms, study.seeds)
    seeds |= {name: study.travelling_seeds for name in study.travelling if name not in seeds}
    for algorithm, n in seeds.items():
        folders = [folder / f"{algorithm}-fold{held_out}-seed{seed}" for seed in range(n)]
        try:
            policies = tuple(open_policy(f, setup.layout, setup.catalogue) for f in folders)
        except PolicyError as error:
            print(f"{algorithm} stays at home: {error}", flush=True)
            continue
        found.append(Contestant(name=algorithm, policies=policies, learned=True, details={}))
    return found


def _play(study: Study, setting: str, fold: int, source: SessionSource, name: str) -> Path:
    how = study.preparation(setting, fold, source)
    contestants = [*prepare(PLANNERS, how), *_learned(study, setting, fold, source)]
    return _write(study, name, fold, source, contestants)


def label_of(bundle: Path) -> str:
    """A bundle's name in units and tables: many are called ``bundle``."""
    return f"{bundle.parent.name}-{bundle.name}"


def unit_path(study: Study, name: str) -> Path:
    """Where a played unit lies."""
    return study.work / "units" / f"{name}.npz"


def _write(
    study: Study,
    name: str,
    fold: int,
    source: SessionSource,
    contestants: Sequence[Contestant],
) -> Path:
    setup = source.evaluation(fold)
    seeds = range(FIRST_SESSION_SEED, FIRST_SESSION_SEED + study.sessions)
    bounded = seeds[: study.bounded]
    free = without_limits(setup)
    everything = EverythingPolicy(layout=setup.layout, catalogue=setup.catalogue)
    batch = len(seeds)
    records = {
        c.name: [run_sessions(p, setup, seeds, batch=batch) for p in c.policies]
        for c in contestants
    }
    arrays = _packed({**records, "reference": [run_sessions(everything, free, seeds, batch=batch)]})
    bounds = bound_sessions(setup, bounded)
    for bound in BOUNDS:
        for field in BOUND_FIELDS:
            values = [getattr(b.figures(bound), field) for b in bounds]
            arrays[f"bound|{bound}|{field}"] = np.array(values, dtype=np.float64)
    problems = list(session_problems(setup, bounded))
    for policy, runs in records.items():
        arrays[f"expected|{policy}"] = np.array(
            [[expected_gain(p, run.final_set[i]) for i, p in enumerate(problems)] for run in runs]
        )
    terms = RewardTerms.of(setup)
    header = {
        "fold": fold,
        "n_patients": len(setup.tables.positives) + len(setup.tables.negatives),
        "actions": list(setup.catalogue.names),
        "traces": [trace.name for trace in source.traces],
        "price_per_g": terms.price_per_g,
        "policies": {c.name: c.learned for c in contestants},
        "runs": {policy: len(runs) for policy, runs in records.items()},
        "facts": source.facts(),
    }
    arrays["rows"] = source.rows((fold,))
    arrays["header"] = np.array(json.dumps(header))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path = unit_path(study, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return path


def _packed(records: Mapping[str, Sequence[SessionRecords]]) -> dict[str, Any]:
    return {
        f"record|{policy}|{i}|{field.name}": getattr(run, field.name)
        for policy, runs in records.items()
        for i, run in enumerate(runs)
        for field in fields(SessionRecords)
    }


def load_unit(path: Path) -> tuple[FoldResult, dict[str, Any]]:
    """A played unit as a fold's result, with what was written of its sessions."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    header = json.loads(str(arrays["header"]))

    def record(policy: str, i: int) -> SessionRecords:
        prefix = f"record|{policy}|{i}|"
        return SessionRecords(**{f.name: arrays[prefix + f.name] for f in fields(SessionRecords)})

    def figures(bound: str, i: int) -> BoundFigures:
        values = {f: float(arrays[f"bound|{bound}|{f}"][i]) for f in BOUND_FIELDS}
        return BoundFigures(**values)

    n_bounded = len(arrays[f"bound|{BOUNDS[0]}|{BOUND_FIELDS[0]}"])
    bounds = [
        SessionBounds(**{b.removesuffix("_lp"): figures(b, i) for b in BOUNDS})
        for i in range(n_bounded)
    ]
    result = FoldResult(
        fold=header["fold"],
        n_patients=header["n_patients"],
        rows=arrays["rows"],
        actions=tuple(header["actions"]),
        traces=tuple(header["traces"]),
        terms=RewardTerms(price_per_g=header["price_per_g"], per_late_h=0.0, additive=True),
        contestants=tuple(
            Contestant(name=name, policies=(), learned=learned, details={})
            for name, learned in header["policies"].items()
        ),
        records={
            policy: tuple(record(policy, i) for i in range(n))
            for policy, n in header["runs"].items()
        },
        reference=record("reference", 0),
        bounds=bounds,
        expected_gain={policy: arrays[f"expected|{policy}"] for policy in header["runs"]},
    )
    return result, header["facts"]
