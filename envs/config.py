"""How a review session is set up: its length, its carbon budget, its price, its urgency."""

from __future__ import annotations

import difflib
import math
import tomllib
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Any, Literal, cast, get_args

from envs.errors import ConfigError

BudgetMode = Literal["mask", "price", "mask+price", "cmdp"]
BUDGET_MODES: tuple[str, ...] = get_args(BudgetMode)
RewardKind = Literal["auc", "expected_auc", "logloss", "brier"]
REWARDS: tuple[str, ...] = get_args(RewardKind)
Rules = Literal["oneshot", "sequential", "worklist"]
RULES: tuple[str, ...] = get_args(Rules)
"""How cases come up: one decision each, one visit after another, or a worklist with hours."""
URGENT_ABOVE = 0.8
"""Urgency above which a case counts as urgent."""
LEADS_H = (1, 3, 6, 12, 24)
"""Leads of the intensity forecast in every observation, hours."""

BOUNDS: dict[str, tuple[float, float, bool]] = {
    "n_cases": (2, 100_000, True),
    "slots_per_hour": (1, 3600, True),
    "budget_fraction": (0.0, 1e6, False),
    "g_per_auc": (0.0, 1e18, False),
    "urgent_fraction": (0.0, 1.0, False),
    "slack_max_h": (0.0, 8760.0, False),
    "slack_min_h": (0.0, 8760.0, False),
    "urgent_slack_h": (0.0, 8760.0, False),
    "session_h_min": (1, 8760, True),
    "session_h_max": (1, 8760, True),
    "backlog": (0.0, 1.0, False),
    "arrival_share": (0.0, 1.0, False),
    "setup_factor": (0.0, 1e6, False),
    "swing": (0.0, 100.0, False),
    "auc_per_late_h": (0.0, 1.0, False),
    "forecast_sd_1h": (0.0, 1.0, False),
    "forecast_sd_24h": (0.0, 1.0, False),
}
"""Lowest and highest value of each number, and whether it is a whole one."""
ORDERED = (
    ("slack_min_h", "slack_max_h"),
    ("forecast_sd_1h", "forecast_sd_24h"),
    ("session_h_min", "session_h_max"),
)
CHOICES = {"budget_mode": BUDGET_MODES, "reward": REWARDS}


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """One stretch of a tumour board over a carbon-intensity trace.

    Attributes:
        n_cases: patients in a session; the class counts are fixed by the prevalence of the pool.
        slots_per_hour: visits (sequential rules) or transfers (worklist) that an hour has room for.
        budget_mode: ``mask`` hides what the budget cannot pay; ``price`` subtracts priced carbon
            from the reward; ``mask+price`` does both; ``cmdp`` does neither and reports each
            step's gCO2e as ``info["cost"]`` for constrained learners.
        budget_fraction: budget as a share of what always running everything would emit.
        g_per_auc: price: gCO2e that one whole unit of AUC gain is worth.
        reward: ``auc`` (sequential credit), ``expected_auc`` (the same with each label replaced by
            its probability given the fullest evidence: for training), ``logloss`` or ``brier``
            (how much they fall, averaged over the session's cases).
        auc_per_late_h: reward taken for each hour past a deadline; 0 leaves lateness to its line.
        urgent_fraction: share of cases with an urgency above 0.8 (simulated).
        slack_max_h: time that a case has from its arrival (sequential: its scheduled visit) to its
            deadline at urgency 0, hours.
        slack_min_h: the same at urgency 0.8; linear in between.
        urgent_slack_h: the same for urgent cases, above 0.8.
        session_h_min: shortest session, hours (worklist; each draws its length).
        session_h_max: longest session, hours (worklist).
        backlog: share of the cases that wait when a session begins (worklist).
        arrival_share: the others arrive at random during this first part of the session.
        setup_factor: energy of starting a pipeline's run, as a multiple of its energy per case;
            the cases processed within the same hour share the run (worklist).
        swing: the trace's departures from its mean are multiplied by this; above 1 it is a
            stress test, not a recorded grid.
        forecast_sd_1h: relative standard deviation of the simulated forecast error 1 h ahead.
        forecast_sd_24h: the same 24 h ahead; a power law in between.
    """

    n_cases: int = 64
    slots_per_hour: int = 4
    budget_mode: BudgetMode = "mask+price"
    budget_fraction: float = 0.2
    g_per_auc: float = 500_000.0
    reward: RewardKind = "auc"
    auc_per_late_h: float = 0.0
    urgent_fraction: float = 0.05
    slack_max_h: float = 24.0
    slack_min_h: float = 18.0
    urgent_slack_h: float = 4.0
    session_h_min: int = 24
    session_h_max: int = 72
    backlog: float = 0.25
    arrival_share: float = 0.75
    setup_factor: float = 0.0
    swing: float = 1.0
    forecast_sd_1h: float = 0.04
    forecast_sd_24h: float = 0.10

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name)))
        for low, high in ORDERED:
            if getattr(self, low) > getattr(self, high):
                raise ConfigError(
                    f"{low} is {getattr(self, low):g}, above {high}, {getattr(self, high):g}."
                )
        if self.charges_price and self.g_per_auc <= 0.0:
            raise ConfigError(
                f"g_per_auc is {self.g_per_auc:g}, but budget_mode {self.budget_mode!r} needs a "
                "price: the gCO2e that one unit of AUC gain is worth."
            )

    @property
    def masks_unaffordable(self) -> bool:
        """Whether a transfer that the budget cannot pay is masked."""
        return self.budget_mode in ("mask", "mask+price")

    @property
    def charges_price(self) -> bool:
        """Whether the reward carries the priced carbon."""
        return self.budget_mode in ("price", "mask+price")

    @property
    def max_visits(self) -> int:
        """Most visits in a session: every case once, and once more if it was deferred."""
        return 2 * self.n_cases

    def hours(self, rules: Rules = "sequential") -> int:
        """Hours in which cases of a session may come up, at most."""
        if rules == "worklist":
            return self.session_h_max
        return (self.max_visits - 1) // self.slots_per_hour + 1

    def horizon_h(self, rules: Rules = "sequential") -> int:
        """Hours of trace that a session may touch, the longest forecast lead included."""
        return self.hours(rules) + LEADS_H[-1]

    def slack_h(self, urgency: float) -> float:
        """Hours that a case of this urgency has until its deadline."""
        if urgency > URGENT_ABOVE:
            return self.urgent_slack_h
        span = self.slack_max_h - self.slack_min_h
        return self.slack_max_h - span * urgency / URGENT_ABOVE

    def forecast_sd(self, lead_h: float) -> float:
        """Relative standard deviation of the simulated forecast error at this lead (hours)."""
        if self.forecast_sd_1h == 0.0:
            return self.forecast_sd_24h * (lead_h / 24.0)
        power = math.log(self.forecast_sd_24h / self.forecast_sd_1h) / math.log(24.0)
        return float(self.forecast_sd_1h * lead_h**power)


def _checked(name: str, value: object) -> object:
    """One setting, whole numbers made floats where the setting is one."""
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise ConfigError(f"Unknown {name} {value!r}; choose {', '.join(CHOICES[name])}.")
        return value
    low, high, whole = BOUNDS[name]
    kinds = int if whole else (int, float)
    if isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high:
        return value if whole else float(value)
    number = "a whole number" if whole else "a finite number"
    raise ConfigError(f"{name} is {value!r}; it must be {number} from {low:g} to {high:g}.")


def check_rules(rules: str) -> Rules:
    """The rules, if there are such.

    Raises:
        ConfigError: if not.
    """
    if rules not in RULES:
        raise ConfigError(f"Unknown rules {rules!r}; choose {', '.join(RULES)}.")
    return cast(Rules, rules)


def preset_names() -> tuple[str, ...]:
    """Names of the shipped settings."""
    files = resources.files("envs").joinpath("presets").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def preset(name: str) -> SessionConfig:
    """Shipped settings by name: ``default``, ``hard``, ``batched``, ``swing``.

    Raises:
        ConfigError: if there is none of this name.
    """
    if name not in preset_names():
        close = difflib.get_close_matches(str(name), preset_names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"Unknown preset {name!r}.{hint} Presets: {', '.join(preset_names())}.")
    text = resources.files("envs").joinpath("presets", f"{name}.toml").read_text("utf-8")
    return resolve_config(None, tomllib.loads(text))


def resolve_config(
    config: SessionConfig | None, overrides: dict[str, object], preset_name: str | None = None
) -> SessionConfig:
    """A configuration from an optional base and single fields, as environments accept them.

    Args:
        config: the base; None for the preset, or the defaults.
        overrides: single fields, on top of the base.
        preset_name: shipped settings instead of ``config``.

    Raises:
        ConfigError: if a field or the preset is unknown, a value is out of range, or both a
            configuration and a preset are given.
    """
    if preset_name is not None:
        if config is not None:
            raise ConfigError("Give a preset or a config, not both; single fields go on top.")
        config = preset(preset_name)
    names = [field.name for field in fields(SessionConfig)]
    for name in overrides:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"Unknown argument {name!r}.{hint} Settings: {', '.join(names)}.")
    checked: dict[str, Any] = {name: _checked(name, value) for name, value in overrides.items()}
    return replace(config or SessionConfig(), **checked)
