"""A bundle made ready for review: student, grid, policies, predicted gain, energies, budget."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from agent.policies.plan_settings import KINDS
from agent.policies.protocol import Policy
from agent.workflow.budget import DayBudget
from agent.workflow.context import CaseEnergy, ReviewServices
from agent.workflow.insight import Insight
from agent.workflow.limits import SpendLimits
from agent.workflow.policybook import PolicyBook
from agent.workflow.protocols import Monitor, Student
from distill.evidence import EvidenceTable
from distill.transfers import EvidenceSets
from envs.catalogue import ActionCatalogue
from envs.config import SessionConfig
from envs.gain import GainModel
from envs.observation import ObservationLayout

RULE_NAMES = ("rule", "price", *KINDS, "myopic", "never", "always-everything", "random")


@dataclass(frozen=True, kw_only=True)
class BundleIdentity:
    """What a reader has to be told about the model behind a probability."""

    cohort: str
    synthetic: bool
    version: str
    negative: str = "negative"
    positive: str = "positive"
    precision: str = "fp32"


@dataclass(frozen=True, kw_only=True)
class ReviewKit:
    """All that the workflow needs of a bundle; :meth:`services` adds the cases and the clock.

    ``seen_in_training`` says whether a cohort's case id was among the training patients.
    """

    identity: BundleIdentity
    student: Student
    monitor: Monitor
    policies: PolicyBook
    sets: EvidenceSets
    layout: ObservationLayout
    catalogue: ActionCatalogue
    gain: GainModel
    energy: CaseEnergy
    budget: DayBudget
    config: SessionConfig
    seen_in_training: Callable[[str], bool]
    insight: Insight
    limits: SpendLimits = field(default_factory=SpendLimits)

    def services(
        self,
        *,
        prepared: Callable[[str, frozenset[str]], Awaitable[Any]],
        clock: Callable[[], datetime],
        second_review_above: float | None = None,
    ) -> ReviewServices:
        """What the graph's nodes are given."""
        return ReviewServices(
            student=self.student,
            monitor=self.monitor,
            policies=self.policies,
            sets=self.sets,
            layout=self.layout,
            catalogue=self.catalogue,
            gain=self.gain,
            energy=self.energy,
            budget=self.budget,
            config=self.config,
            prepared=prepared,
            clock=clock,
            insight=self.insight,
            limits=self.limits,
            second_review_above=second_review_above,
        )


def assemble(
    evidence: EvidenceTable,
    *,
    identity: BundleIdentity,
    student: Student,
    monitor: Monitor,
    make_policy: Callable[[str, ObservationLayout, ActionCatalogue], Policy],
    policy: str,
    seen_in_training: Callable[[str], bool],
    config: SessionConfig | None = None,
    budget_g_co2e_per_day: float | None = None,
    shadow: Sequence[str] = (),
) -> ReviewKit:
    """Put a kit together around an evidence table.

    The predicted gain is fitted on all patients of the table: they are the training patients, and
    the case under review is not among them (or the case says that it is).

    Args:
        evidence: out-of-fold scores of the training patients.
        identity: what the model is.
        student: the fused model.
        monitor: the grid and the meter.
        make_policy: policy by name or directory.
        policy: what decides where a case names none.
        seen_in_training: whether a case id was a training patient's.
        config: session settings; the policies' defaults.
        budget_g_co2e_per_day: the day's carbon; by default ``budget_fraction`` of what processing
            everything would emit for ``n_cases`` average patients at the intensity now.
        shadow: names or directories of policies that decide silently beside the acting one.

    Raises:
        AgentError: if a silent policy cannot be made.
    """
    config = config or SessionConfig()
    names = tuple(t.name for t in evidence.transfers)
    layout = ObservationLayout(evidence.modalities, names)
    catalogue = ActionCatalogue(names)
    if budget_g_co2e_per_day is None:
        budget_g_co2e_per_day = default_budget_g_co2e(
            evidence, config, float(monitor.now().g_per_kwh)
        )
    counts = class_counts_of(evidence, config)
    gain = GainModel.fit(evidence, np.arange(evidence.n_patients), *counts)
    return ReviewKit(
        identity=identity,
        student=student,
        monitor=monitor,
        policies=PolicyBook(
            lambda name: make_policy(name, layout, catalogue),
            configured=policy,
            names=(*RULE_NAMES, *(f"always:{name}" for name in names)),
        ),
        sets=evidence.sets,
        layout=layout,
        catalogue=catalogue,
        gain=gain,
        energy=CaseEnergy(
            pipeline_kwh=dict(zip(evidence.modalities, map(float, evidence.pipeline_kwh))),
            transfer_kwh=dict(zip(names, map(float, evidence.transfer_kwh))),
            note="declared pipeline, Green Algorithms",
            pipeline_h=evidence.meta.get("pipeline_h", {}),
        ),
        budget=DayBudget(g_co2e_per_day=budget_g_co2e_per_day, cases_per_day=config.n_cases),
        config=config,
        seen_in_training=seen_in_training,
        insight=Insight.of(
            evidence,
            gain=gain,
            masks_unaffordable=config.masks_unaffordable,
            make_policy=make_policy,
            shadow=shadow,
            classes=(identity.negative, identity.positive),
        ),
    )


def class_counts_of(evidence: EvidenceTable, config: SessionConfig) -> tuple[int, int]:
    """Positives and negatives of a session that the predicted gains speak of."""
    n_pos = round(config.n_cases * float(evidence.label.mean()))
    n_pos = min(max(n_pos, 1), config.n_cases - 1)
    return n_pos, config.n_cases - n_pos


def default_budget_g_co2e(
    evidence: EvidenceTable, config: SessionConfig, g_per_kwh: float
) -> float:
    """The session budget's rule at one intensity: a share of always processing everything."""
    case_kwh = float((evidence.present * evidence.pipeline_kwh).sum(axis=1).mean())
    return config.budget_fraction * config.n_cases * case_kwh * g_per_kwh
