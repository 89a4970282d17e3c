"""Finding the price at which a policy spends the budget: bisection on training sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import ComparisonError
from agent.policies.price import PricePolicy
from agent.rollout import run_sessions
from envs.setup import ReviewSetup

STEPS = 14
LOWEST_G_PER_AUC = 1.0
HIGHEST_G_PER_AUC = 1e9


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
