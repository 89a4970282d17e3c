"""Training a policy on review sessions, killed and resumed at will, exported without pickle."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from agent.algorithms import TrainPpoConfig
from agent.checkpoints import (
    CheckpointState,
    checkpoints,
    pack_training,
    read_checkpoint,
    unpack_training,
    write_checkpoint,
)
from agent.cloning import CloneSettings, clone, demonstrate, teacher_policy, write_guide
from agent.errors import RlTrainingError
from agent.guided_sessions import GuidedSessions
from agent.lagrangian import Multiplier, PricedCost
from agent.network import (
    MaskableScoringPolicy,
    ScoringPolicy,
    network_of,
    network_tensors,
    policy_settings,
)
from agent.policies.features import FeatureIndex
from agent.policies.files import POLICY_FILE
from agent.policies.guide import GUIDE, open_guide
from agent.policies.protocol import Policy
from agent.policies.scoring import ScoringWeights
from agent.policy_export import export_policy
from agent.rollout import start_sessions
from agent.sb3_callback import ScaledReward, SessionLog
from agent.training_task import TrainingTask
from agent.validation import Look, best_look, keeps_failing

CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
BUDGET_SESSIONS = 64
BEST = "best."

Progress = Callable[[int], None]
Model = MaskablePPO | PPO


@dataclass(kw_only=True)
class Run:
    """One training under way.

    Attributes:
        task: what it is trained on.
        config: how.
        model: network, optimiser and rollouts.
        guide: planner whose advice the network reads; None for most.
        priced: the wrapper that prices cost, for ``ppo-lagrangian``.
        chunk: number of the chunk that comes next.
        looks: at the validation sessions, so far.
        best: the network of the best of them.
        agreement: with the imitated policy, on what it showed.
    """

    task: TrainingTask
    config: TrainPpoConfig
    model: Model
    guide: Policy | None
    priced: PricedCost | None
    chunk: int = 0
    looks: list[Look] = field(default_factory=list)
    best: dict[str, np.ndarray] = field(default_factory=dict)
    agreement: float | None = None

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to train, or no use in it."""
        if self.model.num_timesteps >= self.config.total_steps:
            return True
        return keeps_failing(self.looks, self.config.patience)

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same on resuming; more steps may be asked for."""
        settings = {key: value for key, value in asdict(self.config).items() if key != "steps"}
        return {**settings, **self.task.provenance}

    def weights(self) -> ScoringWeights:
        """The network as it is now."""
        return ScoringWeights.of_tensors(network_tensors(network_of(self.model.policy)), "training")

    def chosen(self) -> ScoringWeights:
        """The network to keep: the best one seen, or the last where nobody looked."""
        return ScoringWeights.of_tensors(self.best, "training") if self.best else self.weights()


def chunk_seed(seed: int, chunk: int) -> int:
    """The seed of everything random in one chunk of one run."""
    return int(np.random.SeedSequence((seed, chunk)).generate_state(1)[0])


def new_run(task: TrainingTask, config: TrainPpoConfig, guide: Policy | None = None) -> Run:
    """A network that has learned nothing yet, and its sessions."""
    env, priced = task.env, None
    if guide is not None:
        env = GuidedSessions(env, guide, task.setup.catalogue.n)
    if config.algorithm == "ppo-lagrangian":
        multiplier = Multiplier(value=config.multiplier_start, rate=config.multiplier_rate)
        env = priced = PricedCost(env, multiplier, _mean_budget_g(task))
    return Run(
        task=task,
        config=config,
        model=_new_model(task, config, ScaledReward(env, config.reward_scale)),
        guide=guide,
        priced=priced,
    )


def _mean_budget_g(task: TrainingTask) -> float:
    budget = float(start_sessions(task.setup, range(BUDGET_SESSIONS)).state.budget_g.mean())
    if budget <= 0.0:
        raise RlTrainingError("A budget of 0 cannot be shared out; set budget_fraction above 0.")
    return budget


def _new_model(task: TrainingTask, config: TrainPpoConfig, env: VecEnv) -> Model:
    settings: dict[str, Any] = {
        "learning_rate": config.learning_rate,
        "n_steps": config.n_steps,
        "batch_size": config.batch_size,
        "n_epochs": config.n_epochs,
        "gamma": config.gamma,
        "gae_lambda": config.gae_lambda,
        "clip_range": config.clip_range,
        "target_kl": config.target_kl,
        "ent_coef": config.entropy_coef,
        "policy_kwargs": policy_settings(
            FeatureIndex.of(task.setup.layout),
            config.hidden,
            config.advice_weight if config.guided else None,
        ),
        "seed": config.seed,
        "device": "cpu",
    }
    if config.algorithm == "ppo":
        return PPO(ScoringPolicy, env, **settings)
    return MaskablePPO(MaskableScoringPolicy, env, **settings)


def train_ppo(
    task: TrainingTask,
    config: TrainPpoConfig,
    out: Path,
    *,
    resume: bool = False,
    name: str | None = None,
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
        name: the policy's name in reports; the algorithm's when None.
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
    run = new_run(task, config, _guide(task, config, out, resume=resume))
    if resume:
        _restore(run, out)
    else:
        _begin(run)
        _checkpoint(run, out)
    run.model.set_logger(configure(str(out / TENSORBOARD), ["tensorboard"]))
    log = SessionLog(progress)
    log.start_at(run.model.num_timesteps)
    while not run.ended:
        _train_chunk(run, log)
        _look(run)
        _checkpoint(run, out)
    run.model.logger.close()
    provenance = _provenance(run, time.monotonic() - started)
    return export_policy(
        run.chosen(), task.setup, out, kind=config.algorithm, name=name or config.algorithm,
        provenance=provenance, patients=task.patients,
        guide=config.warm_start if config.guided else None,
    )  # fmt: skip


def _guide(task: TrainingTask, config: TrainPpoConfig, out: Path, *, resume: bool) -> Policy | None:
    """The planner that guides the network, from its folder: as it will be when it serves."""
    if not config.guided:
        return None
    folder = out / GUIDE
    if task.guide is not None:
        shutil.copytree(task.guide, folder, dirs_exist_ok=True)
    elif not resume or not (folder / POLICY_FILE).exists():
        write_guide(task, config, folder)
    return open_guide(out, task.setup.layout, task.setup.catalogue, elsewhere=False)


def _begin(run: Run) -> None:
    config, setup = run.config, run.task.setup
    if config.algorithm == "cloned-ppo":
        how = CloneSettings(
            seed=config.seed, sessions=config.clone_sessions, epochs=config.clone_epochs,
            batch=config.clone_batch, learning_rate=config.clone_learning_rate,
            reward_scale=config.reward_scale, guided=config.guided,
        )  # fmt: skip
        teacher = run.guide or teacher_policy(
            config.warm_start, run.task.teaching, config.seed, config.calibration_sessions
        )
        shown = demonstrate(teacher, setup, config.seed, config.clone_sessions)
        run.agreement = clone(cast(MaskableScoringPolicy, run.model.policy), shown, how)
    _look(run)


def _train_chunk(run: Run, log: SessionLog) -> None:
    """One chunk, from fresh sessions and fresh generators: see :mod:`agent.checkpoints`."""
    model, config = run.model, run.config
    seed = chunk_seed(config.seed, run.chunk)
    model.set_random_seed(seed)
    model._last_obs = None  # SB3 resets the sessions, with the seed just set, only then
    if config.burn_in:
        _run_on(run, np.random.default_rng(seed))
    left = config.total_steps - model.num_timesteps
    model.learn(
        min(config.rollouts_per_chunk * config.rollout_steps, left),
        callback=log,
        reset_num_timesteps=False,
    )
    if run.priced is not None:
        model.logger.record("session/multiplier", run.priced.update().value)
    run.chunk += 1


def _run_on(run: Run, rng: np.random.Generator) -> None:
    """Let the sessions run for a while, so that learning sees them at every stage."""
    env, weights = run.model.get_env(), run.weights()
    if env is None:
        return
    index = FeatureIndex.of(run.task.setup.layout)
    seen = np.asarray(env.reset())
    for _ in range(run.config.burn_in):
        logits = weights.logits(index, seen) + rng.gumbel(size=(env.num_envs, index.n_actions))
        mask = np.stack(env.env_method("action_masks"))
        seen = np.asarray(env.step(np.where(mask, logits, -np.inf).argmax(axis=1))[0])
    run.model._last_obs = seen
    run.model._last_episode_starts = np.zeros(env.num_envs, dtype=np.bool_)


def _look(run: Run) -> None:
    """Look at the validation sessions when it is time to, and keep the best network."""
    validation, every = run.task.validation, run.config.eval_every
    if validation is None or not every or run.chunk % every:
        return
    weights = run.weights()
    reward = float(validation.reward(weights, run.guide).mean())
    run.looks.append(Look(steps=run.model.num_timesteps, reward=reward))
    if best_look(run.looks) == len(run.looks) - 1:
        run.best = {name: tensor.copy() for name, tensor in weights.to_tensors().items()}
    if run.chunk:
        run.model.logger.record("validation/reward", reward)
        run.model.logger.dump(run.model.num_timesteps)


def _checkpoint(run: Run, out: Path) -> None:
    tensors = pack_training(run.model.policy, run.model.policy.optimizer)
    tensors |= {f"{BEST}{name}": torch.as_tensor(array) for name, array in run.best.items()}
    counters = {
        "num_timesteps": run.model.num_timesteps,
        "n_updates": run.model._n_updates,
        "chunk": run.chunk,
        "looks": [asdict(look) for look in run.looks],
        "multiplier": run.priced.multiplier.value if run.priced else None,
        "agreement": run.agreement,
    }
    write_checkpoint(out / CHECKPOINTS, tensors, counters, run.identity)


def _restore(run: Run, out: Path) -> None:
    state, tensors = read_checkpoint(out / CHECKPOINTS, run.identity)
    _check_length(run, state, out)
    unpack_training(tensors, run.model.policy, run.model.policy.optimizer)
    run.model.num_timesteps, run.model._n_updates = state.num_timesteps, state.n_updates
    run.chunk, run.agreement = state.chunk, state.agreement
    run.looks = [Look(**look) for look in state.looks]
    run.best = {k.removeprefix(BEST): t.numpy() for k, t in tensors.items() if k.startswith(BEST)}
    if run.priced is not None and state.multiplier is not None:
        rate = run.config.multiplier_rate
        run.priced.multiplier = Multiplier(value=state.multiplier, rate=rate)


def _check_length(run: Run, state: CheckpointState, out: Path) -> None:
    if state.num_timesteps > run.config.total_steps:
        raise RlTrainingError(
            f"{out} has been trained for {state.num_timesteps} steps; {run.config.steps} are "
            "fewer. Resume with as many steps or more, or choose another --out."
        )


def check_out(out: Path, resume: bool) -> None:
    """Refuse a folder that is not to be written to; to be asked before a long wait.

    :func:`train_ppo` looks for another run alone: the caller may have put a ledger there by then.

    Raises:
        RlTrainingError: if ``out`` holds a policy, an unfinished training not to be resumed, or
            things that are no training's.
    """
    if out.exists() and not out.is_dir():
        raise RlTrainingError(f"{out} is a file; --out names a folder.")
    foreign = not any(
        (out / own).exists() for own in (POLICY_FILE, CHECKPOINTS, TENSORBOARD, GUIDE)
    )
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


def _provenance(run: Run, seconds: float) -> dict[str, Any]:
    config = run.config
    found: Mapping[str, Any] = {
        "agreement_with_imitated": run.agreement,
        "validation": [asdict(look) for look in run.looks],
        "kept_from_step": run.looks[best_look(run.looks)].steps if run.looks else None,
        "multiplier": run.priced.multiplier.value if run.priced else None,
    }
    return {
        "algorithm": config.algorithm,
        "steps": run.model.num_timesteps,
        "seed": config.seed,
        "config": asdict(config),
        **run.task.provenance,
        **{key: value for key, value in found.items() if value not in (None, [])},
        "seconds_of_last_start": round(seconds, 1),
        "versions": {
            package: version(package)
            for package in ("greenboard", "torch", "stable-baselines3", "sb3-contrib", "numpy")
        },
    }
