"""Training a masked PPO on review sessions, killed and resumed at will, exported without pickle."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from agent.checkpoints import (
    checkpoints,
    pack_training,
    read_checkpoint,
    unpack_training,
    write_checkpoint,
)
from agent.cloning import clone_price_policy
from agent.errors import RlTrainingError
from agent.policies.files import POLICY_FILE, PolicyFile, pack_weights, write_policy
from agent.policies.learned import tensor_names
from agent.sb3_callback import SessionLog
from envs.setup import ReviewSetup

WarmStart = Literal["none", "price"]
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"

Progress = Callable[[int], None]


def warm_start_named(name: str) -> WarmStart:
    """The way to start training that goes by this name.

    Raises:
        RlTrainingError: if there is none.
    """
    for known in get_args(WarmStart):
        if name == known:
            return cast(WarmStart, known)
    names = ", ".join(get_args(WarmStart))
    raise RlTrainingError(f"Unknown warm start {name!r}; choose one of {names}.")


@dataclass(frozen=True, kw_only=True)
class TrainPpoConfig:
    """How PPO is trained; the defaults take well under a minute on one core.

    Attributes:
        steps: environment steps, rounded up to whole rollouts.
        seed: determines the network's start, the sessions and every draw.
        num_envs: sessions side by side.
        n_steps: steps of each session between updates.
        batch_size: samples in one gradient step.
        n_epochs: passes over each rollout.
        learning_rate: Adam's step size.
        clip_range: PPO's bound on the ratio of probabilities.
        target_kl: an update stops early beyond this divergence.
        entropy_coef: weight of the entropy bonus.
        gae_lambda: trace decay of the advantage estimate.
        gamma: 1: the AUC credits add up to the session's gain only undiscounted.
        hidden: widths of the tanh layers, for the policy and the value network each.
        reward_scale: factor on the reward in training; keeps the value loss of order 1.
        rollouts_per_chunk: rollouts between checkpoints; each chunk starts from new sessions.
        warm_start: ``price`` first imitates the price policy; ``none`` starts from nothing.
    """

    steps: int = 400_000
    seed: int = 0
    num_envs: int = 64
    n_steps: int = 128
    batch_size: int = 2048
    n_epochs: int = 4
    learning_rate: float = 5e-4
    clip_range: float = 0.2
    target_kl: float = 0.03
    entropy_coef: float = 0.002
    gae_lambda: float = 0.97
    gamma: float = 1.0
    hidden: tuple[int, ...] = (64, 64)
    reward_scale: float = 3.0
    rollouts_per_chunk: int = 4
    warm_start: WarmStart = "none"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.seed < 0:
            raise RlTrainingError(
                f"steps must be 1 or more and seed 0 or more; they are {self.steps} and "
                f"{self.seed}."
            )

    @property
    def rollout_steps(self) -> int:
        """Environment steps in one rollout."""
        return self.num_envs * self.n_steps

    @property
    def total_steps(self) -> int:
        """``steps`` rounded up to whole rollouts."""
        return -(-self.steps // self.rollout_steps) * self.rollout_steps


@dataclass(frozen=True, kw_only=True)
class TrainingTask:
    """What a policy is trained on.

    Attributes:
        env: sessions of TRAINING patients and hours, as a ``VecEnv`` with action masks.
        setup: the same sessions' fixed numbers.
        provenance: environment, folds, trace, bundle: what names these sessions for good.
        patients: hashed case ids of the training patients, to keep with the policy.
    """

    env: VecEnv
    setup: ReviewSetup
    provenance: Mapping[str, Any]
    patients: frozenset[str]


def chunk_seed(seed: int, chunk: int) -> int:
    """The seed of everything random in one chunk of one run."""
    return int(np.random.SeedSequence((seed, chunk)).generate_state(1)[0])


def _new_model(task: TrainingTask, config: TrainPpoConfig) -> MaskablePPO:
    return MaskablePPO(
        "MlpPolicy",
        task.env,
        learning_rate=config.learning_rate,
        n_steps=config.n_steps,
        batch_size=config.batch_size,
        n_epochs=config.n_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_range,
        target_kl=config.target_kl,
        ent_coef=config.entropy_coef,
        policy_kwargs={"net_arch": list(config.hidden)},
        seed=config.seed,
        device="cpu",
    )


def _run_identity(task: TrainingTask, config: TrainPpoConfig) -> dict[str, Any]:
    """What must be the same on resuming; more steps may be asked for."""
    settings = {key: value for key, value in asdict(config).items() if key != "steps"}
    return {**settings, **task.provenance}


def _train_chunk(model: MaskablePPO, config: TrainPpoConfig, chunk: int, log: SessionLog) -> None:
    """One chunk, from fresh sessions and fresh generators: see :mod:`agent.checkpoints`."""
    seed = chunk_seed(config.seed, chunk)
    model.set_random_seed(seed)
    model._last_obs = None  # SB3 resets the sessions, with the seed just set, only then
    left = config.total_steps - model.num_timesteps
    model.learn(
        min(config.rollouts_per_chunk * config.rollout_steps, left),
        callback=log,
        reset_num_timesteps=False,
    )


def train_ppo(
    task: TrainingTask,
    config: TrainPpoConfig,
    out: Path,
    *,
    resume: bool = False,
    name: str = "ppo",
    progress: Progress | None = None,
) -> Path:
    """Train, checkpoint after every chunk, and export the policy.

    A run that was killed at any moment and resumed with the same arguments exports the same
    bytes as one that was left alone.

    Args:
        task: what it is trained on.
        config: how.
        out: receives ``checkpoints/``, ``tensorboard/`` and, at the end, the policy itself.
        resume: go on from the newest checkpoint in ``out``.
        name: the policy's name in reports.
        progress: called with the number of environment steps since the last call.

    Returns:
        ``out``, now a policy directory.

    Raises:
        RlTrainingError: if ``out`` holds another run, there is nothing to resume, or it has been
            trained for longer already.
    """
    _check_run(out, resume)
    torch.set_num_threads(1)  # with small networks a second thread only waits
    started = time.monotonic()
    task = replace(task, env=SessionLog.scaled(task.env, config.reward_scale))
    model = _new_model(task, config)
    run = _run_identity(task, config)
    chunk = _restore(model, out, run, config) if resume else _begin(model, task, config)
    model.set_logger(configure(str(out / TENSORBOARD), ["tensorboard"]))
    log = SessionLog(progress)
    log.start_at(model.num_timesteps)
    while model.num_timesteps < config.total_steps:
        _train_chunk(model, config, chunk, log)
        chunk += 1
        counters = {
            "num_timesteps": model.num_timesteps, "n_updates": model._n_updates, "chunk": chunk,
        }  # fmt: skip
        tensors = pack_training(model.policy, model.policy.optimizer)
        write_checkpoint(out / CHECKPOINTS, tensors, counters, run)
    model.logger.close()
    provenance = _provenance(model, config, task, time.monotonic() - started)
    return export_policy(model, task, out, name=name, provenance=provenance)


def check_out(out: Path, resume: bool) -> None:
    """Refuse a folder that is not to be written to; to be asked before a long wait.

    :func:`train_ppo` looks for another run alone: the caller may have put a ledger there by then.

    Raises:
        RlTrainingError: if ``out`` holds a policy, an unfinished training not to be resumed, or
            things that are no training's.
    """
    if out.exists() and not out.is_dir():
        raise RlTrainingError(f"{out} is a file; --out names a folder.")
    foreign = not any((out / own).exists() for own in (POLICY_FILE, CHECKPOINTS, TENSORBOARD))
    if foreign and out.exists() and any(out.iterdir()):
        raise RlTrainingError(f"{out} holds other things than a policy; choose another --out.")
    _check_run(out, resume)


def _check_run(out: Path, resume: bool) -> None:
    if (out / POLICY_FILE).exists() and not resume:
        raise RlTrainingError(f"{out} already holds a policy; choose another --out or remove it.")
    if checkpoints(out / CHECKPOINTS) and not resume:
        raise RlTrainingError(
            f"{out} holds an unfinished training; go on with --resume, or remove it."
        )


def _begin(model: MaskablePPO, task: TrainingTask, config: TrainPpoConfig) -> int:
    if config.warm_start == "price":
        clone_price_policy(model, task.setup, seed=config.seed, reward_scale=config.reward_scale)
    return 0


def _restore(model: MaskablePPO, out: Path, run: Mapping[str, Any], config: TrainPpoConfig) -> int:
    state, tensors = read_checkpoint(out / CHECKPOINTS, run)
    if state.num_timesteps > config.total_steps:
        raise RlTrainingError(
            f"{out} has been trained for {state.num_timesteps} steps; {config.steps} are fewer. "
            "Resume with as many steps or more, or choose another --out."
        )
    unpack_training(tensors, model.policy, model.policy.optimizer)
    model.num_timesteps, model._n_updates = state.num_timesteps, state.n_updates
    return state.chunk


def _provenance(
    model: MaskablePPO, config: TrainPpoConfig, task: TrainingTask, seconds: float
) -> dict[str, Any]:
    return {
        "algorithm": "MaskablePPO",
        "steps": model.num_timesteps,
        "seed": config.seed,
        "config": asdict(config),
        **task.provenance,
        "seconds_of_last_start": round(seconds, 1),
        "versions": {
            package: version(package)
            for package in ("greenboard", "torch", "stable-baselines3", "sb3-contrib", "numpy")
        },
    }


def policy_tensors(model: MaskablePPO, hidden_layers: int) -> dict[str, np.ndarray]:
    """The policy network's weights under the names that the NumPy forward reads."""
    linear = [m for m in model.policy.mlp_extractor.policy_net if isinstance(m, torch.nn.Linear)]
    layers = [*linear, model.policy.action_net]
    tensors: dict[str, np.ndarray] = {}
    for names, layer in zip(tensor_names(hidden_layers), layers, strict=True):
        for name, parameter in zip(names, layer.parameters(), strict=True):
            tensors[name] = parameter.detach().numpy().astype(np.float32)
    return tensors


def export_policy(
    model: MaskablePPO,
    task: TrainingTask,
    out: Path,
    *,
    name: str,
    provenance: Mapping[str, Any],
) -> Path:
    """Write the trained network as a policy directory that needs neither torch nor SB3."""
    hidden_layers = len(model.policy.net_arch)
    content, entry = pack_weights(policy_tensors(model, hidden_layers))
    stored = PolicyFile.for_layout(
        task.setup.layout,
        task.setup.catalogue,
        kind="ppo",
        name=name,
        hidden_layers=hidden_layers,
        weights=entry,
        provenance=dict(provenance),
    )
    return write_policy(out, stored, content, patients=task.patients)
