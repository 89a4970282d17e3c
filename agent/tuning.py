"""Looking for better training settings by validation patients, never by the held-out ones.

A study is an SQLite file that optuna reads and writes as rows and JSON, without pickle. A killed
study goes on where it was: finished trials stay, the one that was under way is tried again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from agent.algorithms import TrainPpoConfig
from agent.errors import RlTrainingError
from agent.policies.files import POLICY_FILE
from agent.sessions import SessionSource
from agent.studies import policy_folder, train_policies

STUDY_FILE = "study.sqlite"
STUDY = "rl-tune"
RUN_KEY = "run"
EPOCHS = (2, 6)
CLIP_RANGES = (0.1, 0.2, 0.3)
LAMBDAS = (0.9, 0.95, 0.97, 1.0)
RATES, ENTROPIES = (1e-4, 3e-3), (1e-4, 2e-2)

Progress = Callable[[int, int], None]
"""Called with the trials finished and the trials wanted."""


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """What a study tries.

    Attributes:
        source: bundle, traces, environment and its settings.
        held_out: the fold whose patients are never read.
        base: settings that the trials change a little; ``eval_every`` must be 1 or more.
        trials: how many trials the study is to have in the end.
        rotations: validation folds, one after the other, that each trial is averaged over.
        seed: of the search.
    """

    source: SessionSource
    held_out: int
    base: TrainPpoConfig
    trials: int
    rotations: int
    seed: int

    def __post_init__(self) -> None:
        n_folds = len(self.source.other_folds(self.held_out))
        if not 1 <= self.rotations <= n_folds or self.trials < 1:
            raise RlTrainingError(
                f"{self.trials} trials over {self.rotations} validation folds: give one trial or "
                f"more, and from 1 to {n_folds} folds."
            )
        if not self.base.eval_every:
            raise RlTrainingError(
                "Tuning goes by validation patients; set eval_every to 1 or more."
            )

    @property
    def identity(self) -> str:
        """What must be the same on resuming."""
        same = {
            "settings": asdict(self.base),
            "sessions": self.source.facts(),
            "held_out": self.held_out,
            "rotations": self.rotations,
            "seed": self.seed,
        }
        return json.dumps(same, sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a study found.

    Attributes:
        config: the best settings.
        reward: their mean validation reward.
        rewards: of each validation fold.
        trials: finished trials.
    """

    config: TrainPpoConfig
    reward: float
    rewards: tuple[float, ...]
    trials: int


def tune(plan: TuningPlan, out: Path, *, progress: Progress | None = None) -> Tuned:
    """Run the study, or what is left of it, and name the best settings.

    Args:
        plan: what to try.
        out: receives ``study.sqlite``; networks are thrown away.
        progress: told after every trial.

    Raises:
        RlTrainingError: if ``out`` holds another study.
        ComparisonError: if the fold cannot be held out.
    """
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _open_study(plan, out)
    while (n := len(_finished(study))) < plan.trials:
        if progress is not None:
            progress(n, plan.trials)
        # the search is seeded anew at each trial, so that a resumed study goes on as it would have
        study.sampler = optuna.samplers.TPESampler(seed=plan.seed + n, n_startup_trials=4)
        trial = study.ask()
        rewards = _try(plan, suggested(trial, plan.base), out / f"trial-{trial.number}")
        trial.set_user_attr("rewards", rewards)
        study.tell(trial, float(np.mean(rewards)))
    if progress is not None:
        progress(plan.trials, plan.trials)
    best = study.best_trial
    return Tuned(
        config=suggested(optuna.trial.FixedTrial(best.params), plan.base),
        reward=float(study.best_value),
        rewards=tuple(best.user_attrs["rewards"]),
        trials=len(_finished(study)),
    )


def suggested(trial: Any, base: TrainPpoConfig) -> TrainPpoConfig:
    """The settings of one trial; everything that is not searched stays as it is."""
    return replace(
        base,
        learning_rate=trial.suggest_float("learning_rate", *RATES, log=True),
        entropy_coef=trial.suggest_float("entropy_coef", *ENTROPIES, log=True),
        n_epochs=trial.suggest_int("n_epochs", *EPOCHS),
        clip_range=trial.suggest_categorical("clip_range", CLIP_RANGES),
        gae_lambda=trial.suggest_categorical("gae_lambda", LAMBDAS),
    )


def _open_study(plan: TuningPlan, out: Path) -> optuna.Study:
    path = out / STUDY_FILE
    storage = RDBStorage(f"sqlite:///{path}")
    study = optuna.create_study(
        storage=storage, study_name=STUDY, direction="maximize", load_if_exists=True
    )
    known = study.user_attrs.get(RUN_KEY)
    if known is not None and known != plan.identity:
        raise RlTrainingError(
            f"{path} is a study of other settings, sessions or folds; choose another --out, or "
            "give the same arguments to go on with it."
        )
    study.set_user_attr(RUN_KEY, plan.identity)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        shutil.rmtree(out / f"trial-{trial.number}", ignore_errors=True)
    return study


def _finished(study: optuna.Study) -> Sequence[optuna.trial.FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def _try(plan: TuningPlan, config: TrainPpoConfig, folder: Path) -> list[float]:
    """Best validation reward on each of the validation folds; the networks are not kept."""
    rewards = []
    for seed in range(plan.rotations):
        train_policies(plan.source, plan.held_out, config.algorithm, (seed,), folder, config=config)
        stored = policy_folder(folder, config.algorithm, plan.held_out, seed) / POLICY_FILE
        looks = json.loads(stored.read_text("utf-8"))["provenance"]["validation"]
        rewards.append(max(look["reward"] for look in looks))
    shutil.rmtree(folder)
    return rewards
