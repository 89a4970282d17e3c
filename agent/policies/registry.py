"""Every policy by the name it has in commands, reports and the API."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agent.errors import PolicyError
from agent.policies.files import POLICY_FILE, read_policy
from agent.policies.learned import LearnedPolicy
from agent.policies.myopic import MyopicPolicy
from agent.policies.plan_files import open_plan
from agent.policies.plan_settings import KINDS, PlannerKind, settings_for
from agent.policies.planner import PlannedPolicy
from agent.policies.price import PricePolicy
from agent.policies.protocol import Policy
from agent.policies.rule import RulePolicy
from agent.policies.simple import AlwaysPolicy, EverythingPolicy, NeverPolicy, RandomPolicy
from envs.catalogue import ActionCatalogue
from envs.config import SessionConfig
from envs.observation import ObservationLayout

ALWAYS = "always:"
LEARNED = "ppo"
NAMED_TRANSFERS = ("genomics->pathology", "clinical->genomics", "pathology->clinical")


@dataclass(frozen=True, kw_only=True)
class PolicyContext:
    """What a policy is made for.

    Attributes:
        layout: the observation's fields.
        catalogue: the actions.
        seed: seeds what is random.
        g_per_auc: price, gCO2e per unit of AUC, where none was calibrated.
        config: the session's settings, which planners that were not calibrated go by.
    """

    layout: ObservationLayout
    catalogue: ActionCatalogue
    seed: int = 0
    g_per_auc: float = SessionConfig.g_per_auc
    config: SessionConfig = field(default_factory=SessionConfig)


def _never(context: PolicyContext) -> Policy:
    return NeverPolicy(layout=context.layout, catalogue=context.catalogue)


def _everything(context: PolicyContext) -> Policy:
    return EverythingPolicy(layout=context.layout, catalogue=context.catalogue)


def _random(context: PolicyContext) -> Policy:
    return RandomPolicy(layout=context.layout, catalogue=context.catalogue, seed=context.seed)


def _rule(context: PolicyContext) -> Policy:
    return RulePolicy(layout=context.layout, catalogue=context.catalogue)


def _price(context: PolicyContext) -> Policy:
    return PricePolicy(
        layout=context.layout, catalogue=context.catalogue, g_per_auc=context.g_per_auc
    )


def _myopic(context: PolicyContext) -> Policy:
    return MyopicPolicy(layout=context.layout, catalogue=context.catalogue)


def _planned(kind: PlannerKind, context: PolicyContext) -> Policy:
    return PlannedPolicy(
        layout=context.layout,
        catalogue=context.catalogue,
        settings=settings_for(kind, context.config, g_per_auc=context.g_per_auc),
        name=kind,
    )


FACTORIES: dict[str, Callable[[PolicyContext], Policy]] = {
    "never": _never,
    "always-everything": _everything,
    "random": _random,
    "rule": _rule,
    "myopic": _myopic,
    "price": _price,
    **{kind: partial(_planned, kind) for kind in KINDS},
}
NAMED = ("never", "always-everything", "random", "rule", "myopic", "price", *KINDS)


def policy_names(catalogue: ActionCatalogue) -> tuple[str, ...]:
    """Every name that needs no directory, in the order of reports."""
    always = (f"{ALWAYS}{t.name}" for t in catalogue.transfers)
    return (NAMED[0], *always, *NAMED[1:])


def default_names(catalogue: ActionCatalogue) -> tuple[str, ...]:
    """What ``greenboard compare`` runs when nothing is asked for, ``ppo`` included."""
    known = catalogue.names
    always = (f"{ALWAYS}{name}" for name in NAMED_TRANSFERS if name in known)
    return (NAMED[0], *always, *NAMED[1:], LEARNED)


def open_policy(directory: Path, layout: ObservationLayout, catalogue: ActionCatalogue) -> Policy:
    """Read a policy directory, learned or calibrated.

    Raises:
        PolicyError: if a file is missing, changed, or made for another bundle.
    """
    stored = read_policy(directory, layout, catalogue)
    if stored.kind == "price":
        if stored.g_per_auc is None:
            raise PolicyError(f"{directory / POLICY_FILE}: a price policy needs g_per_auc.")
        return PricePolicy(
            layout=layout, catalogue=catalogue, g_per_auc=stored.g_per_auc, name=stored.name
        )
    if stored.kind in KINDS:
        return open_plan(directory, stored, layout, catalogue)
    return LearnedPolicy.open(directory, layout, catalogue)


def make_policy(
    name: str,
    layout: ObservationLayout,
    catalogue: ActionCatalogue,
    seed: int = 0,
    *,
    g_per_auc: float | None = None,
    config: SessionConfig | None = None,
) -> Policy:
    """A policy by name, or from a policy directory.

    ``feedback``, ``dp``, ``mpc`` and ``planner`` made by name have not been calibrated: carbon has
    the environment's price however much of the budget is left, a slot has none, and nobody looks
    beyond the next transfer. What is left of them is the net gain at that price, the wait for
    cleaner hours (``mpc``, ``planner``) and the queue and shared runs (``planner``). Calibrate
    them (:func:`agent.calibration.calibrate`) and open their directory for the rest.

    Args:
        name: ``never``, ``always:<transfer>``, ``always-everything``, ``random``, ``rule``,
            ``myopic``, ``price``, ``feedback``, ``dp``, ``mpc``, ``planner``, or the path of a
            policy directory.
        layout: the observation's fields.
        catalogue: the actions.
        seed: seeds ``random``.
        g_per_auc: price of carbon, gCO2e per unit of AUC; that of the config when None.
        config: the session's settings; the defaults when None.

    Raises:
        PolicyError: if there is no such policy; the message suggests the nearest.
    """
    config = config or SessionConfig()
    context = PolicyContext(
        layout=layout,
        catalogue=catalogue,
        seed=seed,
        g_per_auc=config.g_per_auc if g_per_auc is None else g_per_auc,
        config=config,
    )
    if name in FACTORIES:
        return FACTORIES[name](context)
    transfer = name.removeprefix(ALWAYS)
    if name.startswith(ALWAYS) and transfer in layout.transfers:
        return AlwaysPolicy(layout=layout, catalogue=catalogue, transfer=transfer)
    if "/" in name or Path(name).is_dir():
        return open_policy(Path(name), layout, catalogue)
    raise PolicyError(_unknown(name, catalogue))


def check_policy_name(name: str, catalogue: ActionCatalogue) -> str:
    """The name, if it names something: a policy that needs no directory, or one that is there.

    Whether a directory can be read is not looked at; see :func:`open_policy`.

    Raises:
        PolicyError: if there is no such policy; the message suggests the nearest.
    """
    if name in policy_names(catalogue) or Path(name).is_dir():
        return name
    if "/" in name:
        raise PolicyError(f"There is no policy directory {name}; 'greenboard rl train' writes one.")
    raise PolicyError(_unknown(name, catalogue))


def _unknown(name: str, catalogue: ActionCatalogue) -> str:
    if name == LEARNED:
        return (
            f"{LEARNED!r} has to be trained first: give the directory that 'greenboard rl train "
            "--out DIR' wrote."
        )
    names = policy_names(catalogue)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return (
        f"Unknown policy {name!r}.{hint} Policies: {', '.join(names)}, or a policy directory "
        "that 'greenboard rl train' wrote."
    )
