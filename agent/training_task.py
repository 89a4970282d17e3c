"""What a policy is trained on: sessions of training patients and hours, and who looks on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from agent.algorithms import TrainPpoConfig
from agent.errors import RlTrainingError
from agent.sessions import SessionSource
from agent.validation import VALIDATION_SEED, Validation, split_hours, validation_fold
from carbon.intensity.trace import Trace
from envs.config import SessionConfig
from envs.sb3 import Sb3VecEnv
from envs.setup import ReviewSetup, build_setup


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """What a policy is trained on.

    Attributes:
        env: sessions of TRAINING patients and hours, as a ``VecEnv`` with action masks.
        setup: the same sessions' fixed numbers.
        provenance: environment, folds, trace, bundle: what names these sessions for good.
        patients: hashed case ids of the training patients, those looked at included.
        teaching: all training patients and hours, with the environment's own reward: what a
            planner to imitate is calibrated on.
        validation: sessions to look at now and then; None to train on all patients and hours.
        guide: folder of a planner that was calibrated already; None to calibrate one.
    """

    env: VecEnv
    setup: ReviewSetup
    provenance: Mapping[str, Any]
    patients: frozenset[str]
    teaching: ReviewSetup
    validation: Validation | None = None
    guide: Path | None = None


def training_task(source: SessionSource, held_out: int, config: TrainPpoConfig) -> TrainingTask:
    """Sessions to train one policy on, with one fold held out.

    Args:
        source: bundle, traces, environment and its settings.
        held_out: the fold whose patients are never read.
        config: how training is done; its seed turns the validation fold.

    Raises:
        ComparisonError: if there is no such fold, or no other one.
        RlTrainingError: if a validation fold is wanted and there are too few folds.
        EnvsError: if the patients or the hours cannot fill a session.
    """
    folds = source.other_folds(held_out)
    sessions = replace(
        source.config,
        reward=config.reward,
        budget_mode="cmdp" if config.algorithm == "ppo-lagrangian" else source.config.budget_mode,
    )
    validation, learn, traces, period = None, folds, source.traces, "train"
    if config.eval_every:
        fold = _looked_at(folds, config.seed)
        learn, period = tuple(f for f in folds if f != fold), "all"
        parts = [split_hours(trace) for trace in source.traces]
        traces = tuple(part[0] for part in parts)
        validation = _validation(source, fold, learn, [part[1] for part in parts], config)
    env = Sb3VecEnv(
        config.num_envs, evidence=source.evidence, folds=learn, fit_folds=learn,
        trace=traces, period=period, config=sessions, rules=source.rules,
    )  # fmt: skip
    return TrainingTask(
        env=env,
        setup=env.envs.setup,
        provenance={
            **source.facts(), "period": "train", "held_out_fold": held_out, "folds": list(folds),
            "validation_fold": None if validation is None else validation.fold,
        },
        patients=source.patients(folds),
        teaching=source.training(held_out),
        validation=validation,
    )  # fmt: skip


def _looked_at(folds: Sequence[int], seed: int) -> int:
    if len(folds) < 2:
        raise RlTrainingError(
            f"Folds {list(folds)} are all there is to train on; looking at validation patients "
            "takes one of two or more. Use --eval-every 0."
        )
    return validation_fold(folds, seed)


def _validation(
    source: SessionSource,
    fold: int,
    learn: Sequence[int],
    traces: Sequence[Trace],
    config: TrainPpoConfig,
) -> Validation:
    setup = build_setup(
        evidence=source.evidence, folds=(fold,), fit_folds=learn, trace=tuple(traces),
        period="all", config=_fitting(source, fold), rules=source.rules,
    )  # fmt: skip
    seeds = range(VALIDATION_SEED, VALIDATION_SEED + config.eval_sessions)
    return Validation(setup=setup, fold=fold, seeds=seeds)


def _fitting(source: SessionSource, fold: int) -> SessionConfig:
    """Sessions that this fold's patients can fill: half of them where it has too few."""
    most = len(source.rows((fold,)))
    if source.config.n_cases <= most:
        return source.config
    return replace(source.config, n_cases=max(2, most // 2))
