"""From what the policies did to what the report says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from agent.bootstrap import REPLICATES
from agent.bounds import BOUNDS, CLAIRVOYANT, DEFINITIONS, EXPECTED
from agent.contestants import SAME_BUNDLE, Contestant
from agent.inference import policy_statistics
from agent.report.headline import RULE
from agent.report.model import (
    METRICS,
    ActionTable,
    BoundResult,
    ComparisonReport,
    PolicyResult,
)
from agent.results import FoldResult, best_planner, policy_names_of, sample
from agent.rollout import HOUR_BANDS, UNCERTAINTY_BANDS, URGENCY_BANDS
from agent.statistics import (
    Estimate,
    FoldedSample,
    bootstrap_mean,
    dominated_by,
    paired_difference,
)

COMPARED = ("auc_gain", "g_co2e", "reward")


def _single(arrays: Sequence[Float64[np.ndarray, " sessions"]]) -> FoldedSample:
    return FoldedSample(blocks=tuple(array[None] for array in arrays))


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
    samples = {metric: sample(results, name, metric) for metric in METRICS}
    versus = {
        baseline: {
            metric: paired_difference(samples[metric], sample(results, baseline, metric), rng)
            for metric in COMPARED
        }
        for baseline in baselines
    }
    by_fold = {
        str(result.fold): {
            metric: bootstrap_mean(sample([result], name, metric), rng) for metric in COMPARED
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
        by_hour=_actions(results, name, "by_hour", HOUR_BANDS),
        details={"details": {str(r.fold): dict(d) for r, d in zip(results, details)}},
    )


def summarise(
    results: Sequence[FoldResult],
    provenance: Mapping[str, Any],
    rng: np.random.Generator,
    replicates: int = REPLICATES,
) -> ComparisonReport:
    """Estimates, paired differences, tests, Pareto front and bounds over all folds.

    Args:
        results: one entry a held-out fold.
        provenance: for the report.
        rng: source of the bootstrap's redraws.
        replicates: redraws of folds, patients, sessions and seeds.
    """
    names = policy_names_of(results)
    planner = best_planner(results)
    baselines = [
        name for name in dict.fromkeys((RULE, planner)) if name is not None and name in names
    ]
    gain, carbon = (
        np.array([sample(results, name, metric).mean for name in names])
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
        everything=reference_figures(results, rng),
        best_planner=planner,
        budget_g_co2e=bootstrap_mean(sample(results, names[0], "budget_g_co2e"), rng),
        provenance=provenance,
        limits=limits(
            provenance, learned=any(p.learned for p in policies), strangers=_strangers(results)
        ),
        statistics=policy_statistics(results, baselines, rng, replicates),
    )


def _bounds(results: Sequence[FoldResult], rng: np.random.Generator) -> dict[str, BoundResult]:
    def estimate(name: str, field: str) -> Estimate:
        arrays = [
            np.array([getattr(bound.figures(name), field) for bound in result.bounds])
            for result in results
        ]
        return bootstrap_mean(_single(arrays), rng)

    priced = results[0].bounds[0].expected.reward is not None
    return {
        name: BoundResult(
            auc_gain=estimate(name, "auc_gain"),
            expected_gain=None if name == CLAIRVOYANT else estimate(name, "expected_gain"),
            reward=estimate(name, "reward") if priced else None,
            definition=DEFINITIONS[name],
        )
        for name in BOUNDS
    }


def reference_figures(
    results: Sequence[FoldResult], rng: np.random.Generator
) -> dict[str, Estimate]:
    """Gain and carbon of processing everything for everybody without a budget."""
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
        f"All sessions are drawn from the same {patients} held-out patients. Intervals under "
        "'statistics' redraw folds, patients, sessions and training seeds; those of the plain "
        "figures redraw sessions and seeds only, and say nothing about another set of patients.",
        "Scores are out of fold, hospitals never split. The students that scored the training "
        "patients had seen the held-out fold's patients, as in any cross-fitted design.",
        f"{EXPECTED} is generous: budget and room in the hours hold on average only, and what "
        "follows from what is estimated on the evaluated patients themselves.",
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
