"""Training many policies: several seeds of one algorithm, for a comparison or a sweep."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agent.algorithms import TrainPpoConfig, training_preset
from agent.checkpoints import checkpoints
from agent.cloning import write_guide
from agent.errors import RlTrainingError
from agent.policies.files import POLICY_FILE
from agent.sessions import SessionSource
from agent.training import CHECKPOINTS, Progress, train_ppo
from agent.training_task import TrainingTask, training_task


def train_policies(
    source: SessionSource,
    held_out: int,
    algorithm: str,
    seeds: Sequence[int],
    out: Path,
    *,
    config: TrainPpoConfig | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> tuple[Path, ...]:
    """Train one policy for each seed, with one fold held out; go on where a killed call stopped.

    What is in ``out`` already and was trained on the same sessions in the same way is not trained
    again; what was trained otherwise is replaced. Safe to call in a process of its own.

    Args:
        source: bundle, traces, environment and its settings.
        held_out: the fold whose patients are never read.
        algorithm: name of a training preset (``cloned-ppo``, ...); the policies' name in reports.
        seeds: one policy each.
        out: receives one policy directory a seed.
        config: settings instead of the preset's; its seed is replaced.
        progress: called with environment steps since the last call.
        overrides: fields that replace the preset's.

    Returns:
        The policy directories, in the order of ``seeds``.

    Raises:
        RlTrainingError: if a preset or a setting is unknown or out of range.
        ComparisonError: if the fold cannot be held out.
    """
    base = replace(config, **overrides) if config else training_preset(algorithm, **overrides)
    return tuple(
        _train_one(
            source, held_out, replace(base, seed=seed), name=algorithm, out=out, progress=progress
        )
        for seed in seeds
    )


def policy_folder(out: Path, algorithm: str, held_out: int, seed: int) -> Path:
    """Where :func:`train_policies` puts one policy."""
    return out / f"{algorithm}-fold{held_out}-seed{seed}"


def _train_one(
    source: SessionSource,
    held_out: int,
    config: TrainPpoConfig,
    *,
    name: str,
    out: Path,
    progress: Progress | None,
) -> Path:
    folder = policy_folder(out, name, held_out, config.seed)
    task = training_task(source, held_out, config)
    if config.guided:
        task = replace(task, guide=_shared_guide(task, config, out))
    if _holds(folder, {"config": asdict(config), **task.provenance}):
        if progress is not None:
            progress(config.total_steps)
        return folder
    if checkpoints(folder / CHECKPOINTS) and not (folder / POLICY_FILE).exists():
        try:
            return train_ppo(task, config, folder, resume=True, name=name, progress=progress)
        except RlTrainingError:
            # of another run: begin anew
            task = replace(training_task(source, held_out, config), guide=task.guide)
    shutil.rmtree(folder, ignore_errors=True)
    return train_ppo(task, config, folder, name=name, progress=progress)


def _shared_guide(task: TrainingTask, config: TrainPpoConfig, out: Path) -> Path:
    """The planner of one held-out fold, calibrated once for all seeds and processes."""
    fold = task.provenance["held_out_fold"]
    folder = out / f"guide-{config.warm_start}-fold{fold}"
    same = {key: value for key, value in task.provenance.items() if key != "validation_fold"}
    first = replace(task, provenance=same)
    facts = {**same, "calibration_sessions": config.calibration_sessions}
    if not _holds(folder, facts):
        partial = out / f".{folder.name}.{os.getpid()}.tmp"
        write_guide(first, replace(config, seed=0), partial)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            partial.rename(folder)
        except OSError:
            if not _holds(folder, facts):
                raise
            shutil.rmtree(partial)  # another process was faster, with the same planner
    return folder


def _holds(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the folder holds a policy with these facts in its provenance."""
    path = folder / POLICY_FILE
    if not path.is_file():
        return False
    stored = json.loads(path.read_text("utf-8")).get("provenance", {})
    facts = json.loads(json.dumps(dict(wanted)))
    return all(stored.get(key) == value for key, value in facts.items())
