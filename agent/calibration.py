"""Fitting policies to training sessions: a price by bisection, planners' tables and constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import ComparisonError
from agent.planner_fit import TrainingCases, first_gains, fit_demand, fit_program
from agent.planner_search import search
from agent.policies.plan_files import planner_kind
from agent.policies.plan_settings import PlanSettings, settings_for
from agent.policies.planner import PlannedPolicy
from agent.policies.price import PricePolicy
from agent.rollout import run_sessions
from envs.setup import ReviewSetup

STEPS = 14
LOWEST_G_PER_AUC = 1.0
HIGHEST_G_PER_AUC = 1e9
SEARCH_SESSIONS = 64


@dataclass(frozen=True, kw_only=True)
class CalibratedPrice:
    """A price, and what it spends on the sessions it was calibrated on.

    Attributes:
        g_per_auc: gCO2e that one whole unit of session AUC is worth.
        spent_share: emissions over budget on those sessions.
        binding: False where even the environment's own price leaves budget over.
        n_sessions: how many sessions.
    """

    g_per_auc: float
    spent_share: float
    binding: bool
    n_sessions: int

    def to_json(self) -> dict[str, object]:
        """The price's entry in ``report.json``."""
        return {
            "g_per_auc": self.g_per_auc,
            "spent_share_of_budget_in_calibration": self.spent_share,
            "budget_binding": self.binding,
            "n_calibration_sessions": self.n_sessions,
        }


def _spent_share(setup: ReviewSetup, seeds: Sequence[int], g_per_auc: float) -> float:
    policy = PricePolicy(layout=setup.layout, catalogue=setup.catalogue, g_per_auc=g_per_auc)
    records = run_sessions(policy, setup, seeds)
    return float(records.g_co2e.sum() / max(records.budget_g_co2e.sum(), 1e-12))


def calibrate_price(
    setup: ReviewSetup, seeds: Sequence[int], *, target: float = 1.0
) -> CalibratedPrice:
    """The highest price whose spending stays within ``target`` times the budget.

    Emissions rise with the price, so bisection on its logarithm finds where they meet the
    budget. Where the environment charges carbon, its price is the highest that is tried: paying
    more than the reward gives back would lose reward even with budget over.

    Args:
        setup: TRAINING sessions; calibrating on the sessions that are compared would leak. The
            budget must not be masked in it, or it could never be exceeded.
        seeds: one a session.
        target: share of the budget to spend.

    Raises:
        ComparisonError: if the setup masks what the budget cannot pay, or has no session.
    """
    if setup.config.masks_unaffordable or not seeds:
        raise ComparisonError(
            "A price is calibrated on at least one session with budget_mode 'price' or 'cmdp', "
            "where the budget can be exceeded."
        )
    high = setup.config.g_per_auc if setup.config.charges_price else HIGHEST_G_PER_AUC
    share = _spent_share(setup, seeds, high)
    if share <= target:
        return CalibratedPrice(
            g_per_auc=high, spent_share=share, binding=False, n_sessions=len(seeds)
        )
    low, spent = LOWEST_G_PER_AUC, 0.0
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        share = _spent_share(setup, seeds, middle)
        if share <= target:
            low, spent = middle, share
        else:
            high = middle
    return CalibratedPrice(g_per_auc=low, spent_share=spent, binding=True, n_sessions=len(seeds))


def calibrate(name: str, setup: ReviewSetup, seeds: Sequence[int]) -> PlannedPolicy:
    """A planner with its tables and constants fitted to training sessions.

    Demand curves and the patients' programme come from the setup's patients; the few constants are
    chosen by the mean reward of the sessions, by which the environment's price counts.

    Args:
        name: ``feedback``, ``dp``, ``mpc`` or ``planner``.
        setup: TRAINING sessions; calibrating on the sessions that are compared would leak.
        seeds: one a session; none to keep the constants at their defaults.

    Raises:
        PolicyError: if the name is no planner's.
    """
    kind, config = planner_kind(name), setup.config
    price = config.g_per_auc if config.charges_price else None
    settings = settings_for(kind, config, setup.rules, g_per_auc=price)
    policy = fitted(TrainingCases(setup=setup), settings, name)
    return search(policy, setup, seeds[:SEARCH_SESSIONS]) if len(seeds) else policy


def fitted(cases: TrainingCases, settings: PlanSettings, name: str) -> PlannedPolicy:
    """The planner with its tables fitted, at these constants."""
    once = cases.setup.rules == "oneshot"
    program = None if name == "feedback" or once else fit_program(cases)
    return PlannedPolicy(
        layout=cases.setup.layout,
        catalogue=cases.setup.catalogue,
        settings=settings,
        demand=fit_demand(cases, program, settings.min_gain, once=once),
        program=program,
        rivals=first_gains(cases),
        name=name,
    )
