"""What a comparison may find beyond each policy's figures: tests, stress, fairness, words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from agent.statistics import Estimate

Kind = Literal["trace", "budget", "missingness", "hospitals"]


def figures_json(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    """Figures by name as they stand in ``report.json``."""
    return {name: estimate.to_json() for name, estimate in figures.items()}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference with its test.

    Attributes:
        estimate: policy minus baseline; folds, patients, sessions and training seeds redrawn.
        p_value: two-sided, from the same redraws.
        p_holm: the same after Holm's correction over the family that was tested together.
    """

    estimate: Estimate
    p_value: float
    p_holm: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_holm < 0.05

    def to_json(self) -> dict[str, Any]:
        """The difference's entry in ``report.json``."""
        return {
            **self.estimate.to_json(),
            "p_value": self.p_value,
            "p_holm": self.p_holm,
            "significant": self.significant,
        }


@dataclass(frozen=True, kw_only=True)
class PolicyStatistics:
    """One policy under the tests that a paper would ask for.

    Attributes:
        redrawn: ``auc_gain``, ``g_co2e`` and ``reward`` with intervals that redraw folds,
            patients, sessions and training seeds.
        iqm: interquartile mean of ``auc_gain`` and ``reward`` over seeds x sessions, redrawn
            within folds.
        pooled_auc_gain: gain of the AUC over all cases of all sessions of a fold together.
        improvement: probability that the policy's reward is above the baseline's in a session (a
            tie counts half), by baseline; None against itself is left out.
        differences: by baseline and metric (``auc_gain``, ``g_co2e``, ``reward``).
        regret: the bound ``expected_lp`` minus the policy's expected gain, AUC.
        esper: environmentally sustainable performance among the policies compared.
        traces: ``auc_gain``, ``g_co2e``, ``reward`` by trace, where sessions ran on several.
        seeds: by metric, the mean of each training seed; empty without training.
    """

    redrawn: Mapping[str, Estimate]
    iqm: Mapping[str, Estimate]
    pooled_auc_gain: Estimate
    improvement: Mapping[str, Estimate]
    differences: Mapping[str, Mapping[str, Difference]]
    regret: Estimate
    esper: Estimate
    traces: Mapping[str, Mapping[str, Estimate]]
    seeds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The policy's ``statistics`` in ``report.json``."""
        return {
            "patients_redrawn": figures_json(self.redrawn),
            "iqm": figures_json(self.iqm),
            "pooled_auc_gain": self.pooled_auc_gain.to_json(),
            "probability_of_improvement": figures_json(self.improvement),
            "differences": {
                baseline: {metric: d.to_json() for metric, d in by_metric.items()}
                for baseline, by_metric in self.differences.items()
            },
            "regret_to_expected_lp": self.regret.to_json(),
            "esper": self.esper.to_json(),
            "traces": {trace: figures_json(figures) for trace, figures in self.traces.items()},
            "training_seeds": {metric: list(means) for metric, means in self.seeds.items()},
        }


@dataclass(frozen=True, kw_only=True)
class RobustnessScenario:
    """The same policies where something has changed since they were prepared.

    Attributes:
        name: short name.
        kind: what was changed.
        description: in words.
        figures: ``auc_gain``, ``g_co2e`` and ``reward`` by policy.
        order: policies by falling reward.
        kendall_tau: rank correlation with the order without the change.
    """

    name: str
    kind: Kind
    description: str
    figures: Mapping[str, Mapping[str, Estimate]]
    order: tuple[str, ...]
    kendall_tau: Estimate

    def to_json(self) -> dict[str, Any]:
        """The scenario's entry in ``report.json``."""
        return {
            "kind": self.kind,
            "description": self.description,
            "policies": {name: figures_json(figures) for name, figures in self.figures.items()},
            "order": list(self.order),
            "kendall_tau": self.kendall_tau.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class GroupService:
    """How one policy serves one group of patients.

    Attributes:
        gain: AUC that a session would gain if all its cases were like the group's (midpoint
            attribution).
        g_co2e: emissions of one case, g.
        gain_gap: ``gain`` in the group minus outside it.
        forgone_gap: gain left on the table (everything without a budget minus the policy) in the
            group minus outside it; above 0 the group goes short.
        worse: whether either gap is against the group after Holm's correction.
    """

    gain: Estimate
    g_co2e: Estimate
    gain_gap: Difference
    forgone_gap: Difference
    worse: bool

    def to_json(self) -> dict[str, Any]:
        """The entry in ``report.json``."""
        return {
            "gain": self.gain.to_json(),
            "g_co2e_per_case": self.g_co2e.to_json(),
            "gain_gap": self.gain_gap.to_json(),
            "forgone_gap": self.forgone_gap.to_json(),
            "worse": self.worse,
        }


@dataclass(frozen=True, kw_only=True)
class EquityGroup:
    """One group of the held-out patients.

    Attributes:
        attribute: ``sex``, ``age``, ``race``, ``stage``.
        group: its name.
        n_patients: how many.
        policies: by name.
    """

    attribute: str
    group: str
    n_patients: int
    policies: Mapping[str, GroupService]


@dataclass(frozen=True, kw_only=True)
class EquityReport:
    """Gain and carbon by groups of patients.

    Attributes:
        groups: those with enough patients.
        not_shown: ``attribute: group (n)`` of those with fewer than ``smallest`` patients.
        smallest: fewest patients of a group that is shown.
        sentences: who is served significantly worse by which policy; empty where nobody is.
    """

    groups: tuple[EquityGroup, ...]
    not_shown: tuple[str, ...]
    smallest: int
    sentences: tuple[str, ...]

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that have groups to show, in order."""
        return tuple(dict.fromkeys(group.attribute for group in self.groups))

    def to_json(self) -> dict[str, Any]:
        """``equity`` in ``report.json``."""
        table: dict[str, Any] = {attribute: {} for attribute in self.attributes}
        for group in self.groups:
            table[group.attribute][group.group] = {
                "n_patients": group.n_patients,
                "policies": {name: service.to_json() for name, service in group.policies.items()},
            }
        return {
            "groups": table,
            "not_shown": list(self.not_shown),
            "smallest": self.smallest,
            "sentences": list(self.sentences),
        }


@dataclass(frozen=True, kw_only=True)
class SurrogateNode:
    """One node of a surrogate tree.

    Attributes:
        words: the question (``uncertainty at most 0.8 bit``), or at a leaf what is done.
        share: of all decisions that come by here, 0 to 1.
        agreement: at a leaf, the share of those that come by where the policy did the same.
        yes: index of the node that a yes leads to; None at a leaf.
        no: index of the node that a no leads to; None at a leaf.
    """

    words: str
    share: float
    agreement: float | None = None
    yes: int | None = None
    no: int | None = None


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """What a learned policy does, in words: a small decision tree that imitates it.

    Attributes:
        policy: whose decisions.
        depth: most questions before a decision.
        fidelity: share of decisions in held-out sessions that tree and policy share.
        most_common: share of the single most common decision: what no question at all reaches.
        sentences: one a leaf: conditions in physical units, then what is done.
        n_decisions: decisions that the tree was grown on.
        nodes: the tree to be drawn, its root first; empty where only sentences were kept.
    """

    policy: str
    depth: int
    fidelity: Estimate
    most_common: Estimate
    sentences: tuple[str, ...]
    n_decisions: int
    nodes: tuple[SurrogateNode, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The entry in ``report.json``."""
        return {
            "depth": self.depth,
            "fidelity": self.fidelity.to_json(),
            "most_common_decision": self.most_common.to_json(),
            "sentences": list(self.sentences),
            "n_decisions": self.n_decisions,
            "nodes": [asdict(node) for node in self.nodes],
        }
