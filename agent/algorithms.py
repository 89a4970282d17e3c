"""How a policy is trained: the algorithms, their settings and the presets that ship."""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any, Literal, cast, get_args

from agent.errors import RlTrainingError
from agent.policies.files import LEARNED_KINDS, LearnedKind
from envs.config import REWARDS, RewardKind

WarmStart = Literal["none", "price", "feedback", "dp", "mpc", "planner"]
NO_TEACHER: Literal["none"] = "none"

BOUNDS: dict[str, tuple[float, float, bool]] = {
    "steps": (1, 10**12, True),
    "seed": (0, 2**31 - 1, True),
    "num_envs": (1, 65_536, True),
    "n_steps": (1, 65_536, True),
    "batch_size": (2, 10**7, True),
    "n_epochs": (1, 1000, True),
    "learning_rate": (0.0, 1.0, False),
    "clip_range": (0.0, 1.0, False),
    "target_kl": (0.0, 100.0, False),
    "entropy_coef": (0.0, 10.0, False),
    "gae_lambda": (0.0, 1.0, False),
    "gamma": (0.0, 1.0, False),
    "reward_scale": (1e-9, 1e9, False),
    "rollouts_per_chunk": (1, 10_000, True),
    "advice_weight": (0.0, 100.0, False),
    "calibration_sessions": (1, 100_000, True),
    "burn_in": (0, 100_000, True),
    "clone_sessions": (1, 100_000, True),
    "clone_epochs": (0, 1000, True),
    "clone_batch": (2, 10**6, True),
    "clone_learning_rate": (0.0, 1.0, False),
    "multiplier_rate": (0.0, 1e3, False),
    "multiplier_start": (0.0, 1e6, False),
    "eval_every": (0, 10_000, True),
    "eval_sessions": (1, 100_000, True),
    "patience": (1, 10_000, True),
}
"""Lowest and highest value of each number, and whether it is a whole one."""
CHOICES: dict[str, tuple[str, ...]] = {
    "algorithm": LEARNED_KINDS, "warm_start": get_args(WarmStart), "reward": REWARDS,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainPpoConfig:
    """How PPO is trained; the defaults take well under a minute on one core.

    Attributes:
        algorithm: ``ppo`` (closed actions are counted no-ops), ``maskable-ppo``,
            ``ppo-lagrangian`` (a learned price keeps the mean cost within the budget), or
            ``cloned-ppo`` (imitates ``warm_start``'s policy first).
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
        hidden: widths of the two layers of each part of the network.
        reward: what training earns; validation and comparison use the environment's own.
        reward_scale: factor on the reward in training; keeps the value loss of order 1.
        rollouts_per_chunk: rollouts between checkpoints; each chunk starts from new sessions.
        warm_start: policy that is imitated first; ``none`` starts from nothing.
        guided: whether the imitated policy's advice is an input of the network for good; training
            then starts from exactly its decisions and learns where to depart from them.
        advice_weight: log-odds that the advice adds at first; lower explores more.
        calibration_sessions: sessions that the imitated policy is calibrated on.
        burn_in: steps that each chunk's sessions are run on before learning from them, so that
            they are not all at their beginning.
        clone_sessions: sessions that the imitated policy shows.
        clone_epochs: passes over its decisions.
        clone_batch: decisions in one gradient step of the imitation.
        clone_learning_rate: Adam's step size while imitating.
        multiplier_rate: step size of the Lagrangian multiplier, per chunk.
        multiplier_start: where it starts: AUC that a session's whole budget costs.
        eval_every: chunks between looks at the validation patients; 0 trains on all patients.
        eval_sessions: validation sessions, the same at every look.
        patience: looks without a new best after which training ends.
    """

    algorithm: LearnedKind = "maskable-ppo"
    steps: int = 400_000
    seed: int = 0
    num_envs: int = 256
    n_steps: int = 64
    batch_size: int = 4096
    n_epochs: int = 3
    learning_rate: float = 7e-4
    clip_range: float = 0.2
    target_kl: float = 0.03
    entropy_coef: float = 0.002
    gae_lambda: float = 0.97
    gamma: float = 1.0
    hidden: tuple[int, int] = (64, 64)
    reward: RewardKind = "expected_auc"
    reward_scale: float = 3.0
    rollouts_per_chunk: int = 4
    warm_start: WarmStart = NO_TEACHER
    guided: bool = False
    advice_weight: float = 5.0
    calibration_sessions: int = 32
    burn_in: int = 0
    clone_sessions: int = 192
    clone_epochs: int = 8
    clone_batch: int = 512
    clone_learning_rate: float = 2e-3
    multiplier_rate: float = 0.02
    multiplier_start: float = 0.0
    eval_every: int = 0
    eval_sessions: int = 96
    patience: int = 8

    def __post_init__(self) -> None:
        for setting in fields(self):
            _check(setting.name, getattr(self, setting.name))
        if (self.algorithm == "cloned-ppo") == (self.warm_start == NO_TEACHER):
            raise RlTrainingError(
                f"algorithm {self.algorithm!r} with warm_start {self.warm_start!r}: 'cloned-ppo' "
                "imitates a policy first, the others do not."
            )

    @property
    def rollout_steps(self) -> int:
        """Environment steps in one rollout."""
        return self.num_envs * self.n_steps

    @property
    def total_steps(self) -> int:
        """``steps`` rounded up to whole rollouts."""
        return -(-self.steps // self.rollout_steps) * self.rollout_steps


def _check(name: str, value: object) -> None:
    """Refuse a value that a setting cannot have."""
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise RlTrainingError(
                f"Unknown {name.replace('_', ' ')} {value!r}; choose one of "
                f"{', '.join(CHOICES[name])}."
            )
    elif name == "guided":
        if not isinstance(value, bool):
            raise RlTrainingError(f"guided is {value!r}; it must be true or false.")
    elif name == "hidden":
        widths = value if isinstance(value, tuple) else ()
        if len(widths) != 2 or not all(isinstance(w, int) and 1 <= w <= 4096 for w in widths):
            raise RlTrainingError(f"hidden is {value!r}; give two widths from 1 to 4096.")
    else:
        _check_number(name, value)


def _check_number(name: str, value: object) -> None:
    low, high, whole = BOUNDS[name]
    kinds = int if whole else (int, float)
    good = isinstance(value, kinds) and not isinstance(value, bool)
    if good and math.isfinite(cast(float, value)) and low <= cast(float, value) <= high:
        return
    number = "a whole number" if whole else "a finite number"
    raise RlTrainingError(f"{name} is {value!r}; it must be {number} from {low:g} to {high:g}.")


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


def preset_names() -> tuple[str, ...]:
    """The presets that ship, by name."""
    folder = resources.files("agent") / "presets"
    names = [item.name for item in folder.iterdir() if item.name.endswith(".toml")]
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def training_preset(name: str, **overrides: Any) -> TrainPpoConfig:
    """The settings that go by this name, from ``agent/presets/<name>.toml``.

    Args:
        name: one of :func:`preset_names`.
        overrides: fields that replace the preset's.

    Raises:
        RlTrainingError: if there is no such preset, or a field is unknown or out of range.
    """
    if name not in preset_names():
        close = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise RlTrainingError(
            f"Unknown training preset {name!r}.{hint} Choose {', '.join(preset_names())}."
        )
    text = (resources.files("agent") / "presets" / f"{name}.toml").read_text("utf-8")
    return read_settings(text, f"preset {name!r}", **overrides)


def read_settings(text: str, where: str, **overrides: Any) -> TrainPpoConfig:
    """Training settings from TOML, such as ``greenboard rl tune`` prints.

    Args:
        text: the TOML.
        where: the file, for messages.
        overrides: fields that replace the text's.

    Raises:
        RlTrainingError: if it is no TOML, or a field is unknown or out of range.
    """
    try:
        stored = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RlTrainingError(f"{where} is not TOML: {error}.") from error
    known = [field.name for field in fields(TrainPpoConfig)]
    for key in (*stored, *overrides):
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise RlTrainingError(f"{where}: unknown setting {key!r}.{hint}")
    chosen = {**stored, **overrides}
    if isinstance(chosen.get("hidden"), list):  # TOML has no tuples
        chosen["hidden"] = tuple(chosen["hidden"])
    for name, value in chosen.items():
        _check(name, value)
    return TrainPpoConfig(**chosen)


def to_toml(config: TrainPpoConfig, comment: str = "") -> str:
    """Settings as TOML that :func:`read_settings` reads; ``seed`` and ``steps`` included."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for field in fields(config):
        value = getattr(config, field.name)
        shown = f'"{value}"' if isinstance(value, str) else repr(value).lower()
        if isinstance(value, tuple):
            shown = f"[{', '.join(map(str, value))}]"
        lines.append(f"{field.name} = {shown}")
    return "\n".join(lines) + "\n"


def with_teacher(config: TrainPpoConfig, name: str) -> TrainPpoConfig:
    """The same training after imitating this policy first; ``none`` leaves it as it is.

    Raises:
        RlTrainingError: if there is no such warm start, or the algorithm takes none.
    """
    teacher = warm_start_named(name)
    if teacher == NO_TEACHER:
        return config
    if config.algorithm not in ("maskable-ppo", "cloned-ppo"):
        raise RlTrainingError(f"algorithm {config.algorithm!r} takes no warm start.")
    return replace(config, algorithm="cloned-ppo", warm_start=teacher)
