"""From what the policies did to what the report says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from agent.bounds import CLAIRVOYANT, DEFINITIONS, EXPECTED, SessionBounds
from agent.contestants import SAME_BUNDLE, Contestant
from agent.report.headline import RULE
from agent.report.model import (
    METRICS,
    ActionTable,
    BoundResult,
    ComparisonReport,
    PolicyResult,
)
from agent.rollout import UNCERTAINTY_BANDS, URGENCY_BANDS, SessionRecords
from agent.statistics import (
    Estimate,
    FoldedSample,
    bootstrap_mean,
    dominated_by,
    paired_difference,
)

COMPARED = ("auc_gain", "g_co2e", "reward")


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """What happened on one held-out fold.

    Attributes:
        fold: the fold.
        n_patients: patients in it.
        actions: names of the actions.
        contestants: the policies.
        records: by policy, one entry a training seed.
        reference: processing everything for everybody without a budget.
        bounds: of each session.
        expected_gain: by policy, the label-averaged gain [training seeds, sessions].
    """

    fold: int
    n_patients: int
    actions: tuple[str, ...]
    contestants: tuple[Contestant, ...]
    records: Mapping[str, Sequence[SessionRecords]]
    reference: SessionRecords
    bounds: Sequence[SessionBounds]
    expected_gain: Mapping[str, Float64[np.ndarray, "seeds sessions"]]

    def figures(self, name: str, metric: str) -> Float64[np.ndarray, "seeds sessions"]:
        """One metric of one policy, a row a training seed."""
        if metric == "expected_gain":
            return self.expected_gain[name]
        if metric == "carbon_share":
            everything = self.reference.g_co2e
            spent = np.stack([r.g_co2e for r in self.records[name]])
            share = np.zeros_like(spent)
            np.divide(spent, everything, out=share, where=everything > 0)
            return np.asarray(share)
        return np.stack([getattr(record, metric) for record in self.records[name]])


def _sample(results: Sequence[FoldResult], name: str, metric: str) -> FoldedSample:
    return FoldedSample(blocks=tuple(result.figures(name, metric) for result in results))


def _single(arrays: Sequence[Float64[np.ndarray, " sessions"]]) -> FoldedSample:
    return FoldedSample(blocks=tuple(array[None] for array in arrays))


def _names(results: Sequence[FoldResult]) -> tuple[str, ...]:
    return tuple(contestant.name for contestant in results[0].contestants)


def best_planner(results: Sequence[FoldResult]) -> str | None:
    """The policy without training with the highest mean reward; None if all were trained."""
    planners = [c.name for c in results[0].contestants if not c.learned]
    if not planners:
        return None
    return max(planners, key=lambda name: _sample(results, name, "reward").mean)


def _actions(
    results: Sequence[FoldResult], name: str, field: str, bands: tuple[str, ...]
) -> ActionTable:
    counts = sum(getattr(record, field) for result in results for record in result.records[name])
    return ActionTable(bands=bands, actions=results[0].actions, counts=np.asarray(counts))


def _policy(
    results: Sequence[FoldResult],
    contestant: Contestant,
    context: tuple[Sequence[str], tuple[str, ...]],
    rng: np.random.Generator,
) -> PolicyResult:
    baselines, dominating = context
    name = contestant.name
    samples = {metric: _sample(results, name, metric) for metric in METRICS}
    versus = {
        baseline: {
            metric: paired_difference(samples[metric], _sample(results, baseline, metric), rng)
            for metric in COMPARED
        }
        for baseline in baselines
    }
    by_fold = {
        str(result.fold): {
            metric: bootstrap_mean(_sample([result], name, metric), rng) for metric in COMPARED
        }
        for result in results
    }
    details = [next(c.details for c in r.contestants if c.name == name) for r in results]
    return PolicyResult(
        name=name,
        learned=contestant.learned,
        training_seeds=len(contestant.policies) if contestant.learned else 0,
        figures={metric: bootstrap_mean(sample, rng) for metric, sample in samples.items()},
        versus=versus,
        dominated_by=dominating,
        by_urgency=_actions(results, name, "by_urgency", URGENCY_BANDS),
        by_uncertainty=_actions(results, name, "by_uncertainty", UNCERTAINTY_BANDS),
        folds=by_fold,
        details={"details": {str(r.fold): dict(d) for r, d in zip(results, details)}},
    )


def summarise(
    results: Sequence[FoldResult], provenance: Mapping[str, Any], rng: np.random.Generator
) -> ComparisonReport:
    """Estimates, paired differences, Pareto front and bounds over all folds.

    Args:
        results: one entry a held-out fold.
        provenance: for the report.
        rng: source of the bootstrap's redraws.
    """
    names = _names(results)
    planner = best_planner(results)
    baselines = [
        name for name in dict.fromkeys((RULE, planner)) if name is not None and name in names
    ]
    gain, carbon = (
        np.array([_sample(results, name, metric).mean for name in names])
        for metric in ("auc_gain", "g_co2e")
    )
    beaten = dominated_by(gain, carbon)
    policies = tuple(
        _policy(
            results,
            contestant,
            (baselines, tuple(n for n, worse in zip(names, beaten[i]) if worse)),
            rng,
        )
        for i, contestant in enumerate(results[0].contestants)
    )
    return ComparisonReport(
        policies=policies,
        bounds=_bounds(results, rng),
        everything=_reference(results, rng),
        best_planner=planner,
        budget_g_co2e=bootstrap_mean(_single([r.reference.budget_g_co2e for r in results]), rng),
        provenance=provenance,
        limits=limits(
            provenance, learned=any(p.learned for p in policies), strangers=_strangers(results)
        ),
    )


def _bounds(results: Sequence[FoldResult], rng: np.random.Generator) -> dict[str, BoundResult]:
    def estimate(field: str) -> Estimate:
        arrays = [np.array([getattr(b, field) for b in r.bounds]) for r in results]
        return bootstrap_mean(_single(arrays), rng)

    return {
        EXPECTED: BoundResult(
            auc_gain=estimate("expected"),
            expected_gain=estimate("expected_gain"),
            definition=DEFINITIONS[EXPECTED],
        ),
        CLAIRVOYANT: BoundResult(
            auc_gain=estimate("clairvoyant"), definition=DEFINITIONS[CLAIRVOYANT]
        ),
    }


def _reference(results: Sequence[FoldResult], rng: np.random.Generator) -> dict[str, Estimate]:
    return {
        metric: bootstrap_mean(_single([getattr(r.reference, metric) for r in results]), rng)
        for metric in ("auc_gain", "g_co2e")
    }


def _strangers(results: Sequence[FoldResult]) -> tuple[str, ...]:
    """Policies that were trained on another bundle's patients."""
    return tuple(c.name for c in results[0].contestants if c.details.get(SAME_BUNDLE) is False)


def limits(
    provenance: Mapping[str, Any], *, learned: bool, strangers: Sequence[str] = ()
) -> tuple[str, ...]:
    """What the figures do not say, in plain sentences.

    Args:
        provenance: of the comparison.
        learned: whether a policy was trained.
        strangers: policies of another bundle.
    """
    patients = sum(provenance["patients_held_out"].values())
    sentences = [
        "Research use only: it recommends, a person decides and signs.",
        "Urgency, deadlines and the error of the intensity forecast are simulated.",
        "Energy of the pipelines is modelled from declared core hours, memory and a factor for "
        "the data centre (Green Algorithms), not measured; emissions are that energy times the "
        "trace's intensity.",
        f"All sessions are drawn from the same {patients} held-out patients: the intervals cover "
        "another draw of sessions (and training seeds), not another set of patients.",
        "Scores are out of fold, hospitals never split. The students that scored the training "
        "patients had seen the held-out fold's patients, as in any cross-fitted design.",
        f"{EXPECTED} knows every score beforehand and takes each case's cheapest hour, which no "
        "policy can; it is the best plan found (no case can improve it alone), not a proof.",
    ]
    if learned:
        sentences.append(
            "A learned policy's interval redraws its training seeds; with fewer than ten of them "
            "it is narrower than it should be."
        )
    sentences += [
        f"{name} was trained on another bundle. None of its patients has the case id of one of the "
        "held-out patients; whether a patient has two case ids cannot be told."
        for name in strangers
    ]
    if provenance["bundle"]["synthetic"]:
        sentences.append("The patients are synthetic; nothing here is evidence about real ones.")
    if provenance["trace"]["synthetic"]:
        sentences.append("The grid's intensity is synthetic, not that of any country.")
    return tuple(sentences)
