"""What a comparison found: the records behind ``report.json`` and ``report.html``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int64

from agent.report.findings import (
    EquityReport,
    PolicyStatistics,
    RobustnessScenario,
    Surrogate,
    figures_json,
)
from agent.statistics import Estimate

FORMAT = 1

METRICS = {
    "auc_gain": "AUC of the session at its end minus at its start",
    "g_co2e": "gCO2e emitted in a session",
    "reward": "AUC gain minus the priced carbon",
    "transfers_per_case": "transfers run, per case",
    "deferrals_per_case": "deferrals, per case",
    "finalised_at_once": "share of cases finalised on clinical data alone",
    "lateness_h": "hours by which cases were finished after their deadline, per session",
    "carbon_share": "gCO2e as a share of processing everything for everybody",
    "expected_gain": "AUC gain with the luck of the labels averaged out",
    "invalid": "actions that the mask forbade, per session",
}
"""Figures that every policy has, each a mean over sessions."""


@dataclass(frozen=True, kw_only=True)
class ActionTable:
    """How often each action was taken, by band of something that the policy saw.

    Attributes:
        bands: what each row stands for.
        actions: what each column stands for.
        counts: decisions in each band.
    """

    bands: tuple[str, ...]
    actions: tuple[str, ...]
    counts: Int64[np.ndarray, "bands actions"]

    def to_json(self) -> dict[str, Any]:
        """Share of the band's decisions for each action, with how many decisions there were."""
        table: dict[str, Any] = {}
        for band, row in zip(self.bands, self.counts):
            total = int(row.sum())
            shares = (row / total).tolist() if total else [None] * len(row)
            table[band] = {"n": total, "share": dict(zip(self.actions, shares))}
        return table


@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """One policy's figures.

    Attributes:
        name: as in the registry.
        learned: whether it was trained.
        training_seeds: how many trained policies the figures average; 0 without training.
        figures: an estimate for each of :data:`METRICS`.
        versus: paired differences to a baseline, by baseline and metric.
        dominated_by: policies with at least its AUC gain for at most its carbon.
        by_urgency: actions by urgency of the case.
        by_uncertainty: actions by entropy of the probability.
        folds: the figures fold by fold, where several folds were compared.
        details: what belongs to this policy alone (price, training).
        by_hour: actions by hour of the session; None where that was not counted.
    """

    name: str
    learned: bool
    training_seeds: int
    figures: Mapping[str, Estimate]
    versus: Mapping[str, Mapping[str, Estimate]]
    dominated_by: tuple[str, ...]
    by_urgency: ActionTable
    by_uncertainty: ActionTable
    folds: Mapping[str, Mapping[str, Estimate]]
    details: Mapping[str, Any]
    by_hour: ActionTable | None = None

    def to_json(self) -> dict[str, Any]:
        """The policy's entry in ``report.json``."""
        return {
            **figures_json(self.figures),
            "learned": self.learned,
            "training_seeds": self.training_seeds,
            "versus": {name: figures_json(diff) for name, diff in self.versus.items()},
            "pareto": {
                "on_front": not self.dominated_by,
                "dominated_by": list(self.dominated_by),
            },
            "actions": {
                "by_urgency": self.by_urgency.to_json(),
                "by_uncertainty": self.by_uncertainty.to_json(),
                "by_hour": None if self.by_hour is None else self.by_hour.to_json(),
            },
            "folds": {fold: figures_json(figures) for fold, figures in self.folds.items()},
            **self.details,
        }


@dataclass(frozen=True, kw_only=True)
class BoundResult:
    """How much a session had to give, with what that assumes.

    Attributes:
        auc_gain: to be set beside the policies' ``auc_gain``.
        definition: in words.
        expected_gain: to be set beside the policies' ``expected_gain``; None where labels are
            known.
        reward: to be set beside the policies' ``reward``; None where carbon has no price.
    """

    auc_gain: Estimate
    definition: str
    expected_gain: Estimate | None = None
    reward: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """The bound's entry in ``report.json``."""
        entry: dict[str, Any] = {"auc_gain": self.auc_gain.to_json()}
        if self.expected_gain is not None:
            entry["expected_gain"] = self.expected_gain.to_json()
        if self.reward is not None:
            entry["reward"] = self.reward.to_json()
        return {**entry, "definition": self.definition}

    def share_reached(self, policy: PolicyResult) -> float | None:
        """The policy's gain as a share of this, in the same currency; None if this is 0."""
        if self.expected_gain is None:
            ours, bound = policy.figures["auc_gain"], self.auc_gain
        else:
            ours, bound = policy.figures["expected_gain"], self.expected_gain
        return ours.value / bound.value if bound.value > 0 else None


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """Everything that a comparison found.

    Attributes:
        policies: in the order asked for.
        bounds: by name: ``expected_lp`` and ``clairvoyant_lp``.
        everything: AUC gain and carbon of processing everything without a budget.
        best_planner: the policy without training that has the highest reward; None if all were
            trained.
        budget_g_co2e: the sessions' budget, g.
        provenance: bundle, sessions, trace, seeds, versions, command.
        limits: sentences on what the figures do not say.
        statistics: by policy; empty where patients were not redrawn.
        robustness: the same policies under changed conditions; empty where not asked for.
        equity: gain and carbon by group; None where no attributes of the patients were given.
        surrogates: by learned policy, what it does in words.
    """

    policies: tuple[PolicyResult, ...]
    bounds: Mapping[str, BoundResult]
    everything: Mapping[str, Estimate]
    best_planner: str | None
    budget_g_co2e: Estimate
    provenance: Mapping[str, Any]
    limits: tuple[str, ...]
    statistics: Mapping[str, PolicyStatistics] = field(default_factory=dict)
    robustness: tuple[RobustnessScenario, ...] = ()
    equity: EquityReport | None = None
    surrogates: Mapping[str, Surrogate] = field(default_factory=dict)

    def policy(self, name: str) -> PolicyResult:
        """The result of one policy, by name."""
        return next(policy for policy in self.policies if policy.name == name)

    @property
    def best(self) -> PolicyResult:
        """The policy with the highest mean reward."""
        return max(self.policies, key=lambda policy: policy.figures["reward"].value)

    @property
    def learned(self) -> tuple[PolicyResult, ...]:
        """The policies that were trained."""
        return tuple(policy for policy in self.policies if policy.learned)

    @property
    def synthetic(self) -> bool:
        """Whether the patients are synthetic."""
        return bool(self.provenance["bundle"]["synthetic"])

    def to_json(self, headline: tuple[str, ...]) -> dict[str, Any]:
        """The contents of ``report.json``."""
        return {
            "format": FORMAT,
            "research_use_only": True,
            "headline": list(headline),
            "policies": {policy.name: self._policy_json(policy) for policy in self.policies},
            "bounds": {name: bound.to_json() for name, bound in self.bounds.items()},
            "reference": {
                "everything_without_budget": figures_json(self.everything),
                "best_planner": self.best_planner,
                "budget_g_co2e": self.budget_g_co2e.to_json(),
            },
            "metrics": dict(METRICS),
            "provenance": dict(self.provenance),
            "limits": list(self.limits),
            "robustness": {scenario.name: scenario.to_json() for scenario in self.robustness},
            "equity": None if self.equity is None else self.equity.to_json(),
            "surrogates": {name: tree.to_json() for name, tree in self.surrogates.items()},
        }

    def _policy_json(self, policy: PolicyResult) -> dict[str, Any]:
        found = self.statistics.get(policy.name)
        tested = {} if found is None else {"statistics": found.to_json()}
        return {**policy.to_json(), **tested}
