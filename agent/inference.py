"""The tests behind a comparison: redraws that all policies share, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float64

from agent.bootstrap import (
    REPLICATES,
    FoldRedraws,
    Redraws,
    fold_mean,
    over_folds,
    pooled_gains,
    redraw,
    session_draws,
    shares,
)
from agent.esper import esper
from agent.report.findings import Difference, PolicyStatistics
from agent.results import FoldResult, policy_names_of, sample
from agent.statistics import (
    Estimate,
    bootstrap_iqm,
    bootstrap_mean,
    holm,
    probability_of_improvement,
    two_sided_p,
)
from envs.reward import pooled_auc

METRICS = ("auc_gain", "g_co2e", "reward")
IMPROVED = "reward"

Draws = Float[np.ndarray, "seeds sessions replicates"]
Means = Float64[np.ndarray, " replicates"]


@dataclass(kw_only=True)
class Replicates:
    """Each policy's means under the shared redraws, with the plain means beside them.

    Attributes:
        point: by policy and metric.
        redrawn: by policy and metric; subtract two policies' to pair them.
        n: by policy, sessions times training seeds.
        improvement: by policy and baseline, share of sessions in which the policy's reward is
            higher, redrawn.
        traces: by policy, trace and metric: the plain mean and its redraws.
        pooled: by policy, gain of the pooled AUC, redrawn.
    """

    point: dict[str, dict[str, float]] = field(default_factory=dict)
    redrawn: dict[str, dict[str, Means]] = field(default_factory=dict)
    n: dict[str, int] = field(default_factory=dict)
    improvement: dict[str, dict[str, Means]] = field(default_factory=dict)
    traces: dict[str, dict[str, dict[str, tuple[float, Means]]]] = field(default_factory=dict)
    pooled: dict[str, Means] = field(default_factory=dict)

    def estimate(self, name: str, metric: str) -> Estimate:
        """A policy's mean with the interval of its redraws."""
        return Estimate.of(self.point[name][metric], self.redrawn[name][metric], self.n[name])

    def minus(self, name: str, baseline: str, metric: str) -> tuple[Estimate, Means]:
        """The paired difference, and its redraws."""
        redrawn = self.redrawn[name][metric] - self.redrawn[baseline][metric]
        value = self.point[name][metric] - self.point[baseline][metric]
        return Estimate.of(value, redrawn, self.n[name]), redrawn

    def ranks(self, metric: str, names: Sequence[str]) -> Float64[np.ndarray, "rows policies"]:
        """Plain means first, then every redraw: one row each, one column a policy."""
        plain = np.array([[self.point[name][metric] for name in names]])
        return np.concatenate([plain, np.stack([self.redrawn[n][metric] for n in names], axis=1)])


def replicate(
    results: Sequence[FoldResult],
    rng: np.random.Generator,
    *,
    baselines: Sequence[str] = (),
    replicates: int = REPLICATES,
    pooled: bool = True,
) -> Replicates:
    """Redraw folds, patients, sessions and training seeds, the same for every policy.

    Args:
        results: one entry a held-out fold.
        rng: source of the redraws.
        baselines: policies that the others are to improve on.
        replicates: number of redraws.
        pooled: whether the pooled AUC is redrawn too (slower).
    """
    names = policy_names_of(results)
    shared = redraw(
        [result.reference for result in results], [r.n_patients for r in results], rng, replicates
    )
    found = Replicates()
    by_fold = []
    for result, fold in zip(results, shared.by_fold):
        against = {name: _values(result, fold, name)[IMPROVED] for name in baselines}
        by_fold.append({n: _policy_fold(result, fold, n, against, rng) for n in names})
    for name in names:
        _join(found, name, results, shared, [fold[name] for fold in by_fold])
        if pooled:
            found.pooled[name] = _pooled(results, shared, name)
    return found


@dataclass(kw_only=True)
class _PolicyFold:
    """One policy's means on one fold, redrawn."""

    metrics: dict[str, Means]
    traces: dict[str, dict[str, Means]]
    improvement: dict[str, Means]


def _policy_fold(
    result: FoldResult,
    fold: FoldRedraws,
    name: str,
    against: Mapping[str, Draws],
    rng: np.random.Generator,
) -> _PolicyFold:
    runs, values = result.records[name], _values(result, fold, name)
    seeds = shares(rng, len(runs), len(fold.patients))
    traces = {}
    if len(result.traces) > 1:
        for i, trace in enumerate(result.traces):
            ran = runs[0].trace_idx == i
            if not ran.any():
                continue  # few sessions: nothing is known of this trace
            there = np.where(ran, fold.sessions, 0.0)
            traces[trace] = {m: fold_mean(v, seeds, there) for m, v in values.items()}
    return _PolicyFold(
        metrics={m: fold_mean(v, seeds, fold.sessions) for m, v in values.items()},
        traces=traces,
        improvement={
            base: fold_mean(_wins(values[IMPROVED], theirs), seeds, fold.sessions)
            for base, theirs in against.items()
            if base != name
        },
    )


def _values(result: FoldResult, fold: FoldRedraws, name: str) -> dict[str, Draws]:
    draws = session_draws(result.records[name], fold)
    values = {"auc_gain": draws.auc_gain, "g_co2e": draws.g_co2e}
    return {**values, "reward": _rewards(result, name, values)}


def _rewards(result: FoldResult, name: str, values: Mapping[str, Draws]) -> Draws:
    """Rewards under redrawn patients; as recorded where they are not gain minus carbon."""
    runs, terms = result.records[name], result.terms
    if not terms.additive:
        recorded = np.stack([run.reward for run in runs]).astype(np.float32)
        return np.broadcast_to(recorded[:, :, None], values["auc_gain"].shape)
    late = np.stack([run.lateness_h for run in runs]).astype(np.float32)[:, :, None]
    charged = values["g_co2e"] * np.float32(terms.price_per_g)
    return np.asarray(values["auc_gain"] - charged - late * np.float32(terms.per_late_h))


def _wins(ours: Draws, theirs: Float[np.ndarray, "others sessions replicates"]) -> Draws:
    """Of each of our runs, the share of their runs that it beats; a tie counts half."""
    won = np.zeros_like(ours)
    for one in theirs:
        won += (np.sign(ours - one) + 1.0) / 2.0
    return won / len(theirs)


def _join(
    found: Replicates,
    name: str,
    results: Sequence[FoldResult],
    shared: Redraws,
    parts: Sequence[_PolicyFold],
) -> None:
    found.n[name] = sample(results, name, "reward").n
    found.point[name] = {m: sample(results, name, m).mean for m in METRICS}
    found.redrawn[name] = {
        m: over_folds([part.metrics[m] for part in parts], shared.folds) for m in METRICS
    }
    found.improvement[name] = {
        base: over_folds([part.improvement[base] for part in parts], shared.folds)
        for base in parts[0].improvement
    }
    found.traces[name] = {
        trace: {
            m: (
                float(np.mean([_trace_mean(r, name, m, trace) for r in results])),
                over_folds([part.traces[trace][m] for part in parts], shared.folds),
            )
            for m in METRICS
        }
        for trace in parts[0].traces
        if all(trace in part.traces for part in parts)
    }


def _trace_mean(result: FoldResult, name: str, metric: str, trace: str) -> float:
    there = result.reference.trace_idx == result.traces.index(trace)
    values = result.figures(name, metric)[:, there]
    return float(values.mean()) if values.size else float("nan")


def _pooled(results: Sequence[FoldResult], shared: Redraws, name: str) -> Means:
    parts = [
        np.mean([pooled_gains(run, fold) for run in result.records[name]], axis=0)
        for result, fold in zip(results, shared.by_fold)
    ]
    return over_folds(parts, shared.folds[: len(parts[0])])


def pooled_gain(results: Sequence[FoldResult], name: str) -> float:
    """Gain of the AUC over all cases of a fold's sessions together, folds averaged."""
    gains = [
        pooled_auc(run.final_score, run.label[0] > 0)
        - pooled_auc(run.first_score, run.label[0] > 0)
        for result in results
        for run in result.records[name]
    ]
    return float(np.mean(gains))


def policy_statistics(
    results: Sequence[FoldResult],
    baselines: Sequence[str],
    rng: np.random.Generator,
    replicates: int = REPLICATES,
) -> dict[str, PolicyStatistics]:
    """Every policy under every test.

    Args:
        results: one entry a held-out fold.
        baselines: policies that the others are set against.
        rng: source of the redraws.
        replicates: number of redraws.
    """
    names = policy_names_of(results)
    drawn = replicate(results, rng, baselines=baselines, replicates=replicates)
    differences = corrected_differences(drawn, names, baselines)
    scores = esper(drawn.ranks("auc_gain", names), drawn.ranks("g_co2e", names))
    return {
        name: PolicyStatistics(
            redrawn={metric: drawn.estimate(name, metric) for metric in METRICS},
            iqm={m: bootstrap_iqm(sample(results, name, m), rng) for m in ("auc_gain", "reward")},
            pooled_auc_gain=Estimate.of(
                pooled_gain(results, name), drawn.pooled[name], drawn.n[name]
            ),
            improvement=improvement(results, drawn, name),
            differences=differences[name],
            regret=bootstrap_mean(sample(results, name, "regret"), rng),
            esper=Estimate.of(float(scores[0, i]), scores[1:, i], drawn.n[name]),
            traces={
                trace: {
                    m: Estimate.of(*pair, _runs_on(results, name, trace))
                    for m, pair in by_metric.items()
                }
                for trace, by_metric in drawn.traces[name].items()
            },
            seeds=_seed_means(results, name),
        )
        for i, name in enumerate(names)
    }


def _runs_on(results: Sequence[FoldResult], name: str, trace: str) -> int:
    """Sessions times training seeds that ran on one of the traces."""
    return sum(
        int((r.reference.trace_idx == r.traces.index(trace)).sum()) * len(r.records[name])
        for r in results
    )


def _seed_means(results: Sequence[FoldResult], name: str) -> dict[str, tuple[float, ...]]:
    """Mean of each training seed over folds and sessions; nothing for what was not trained."""
    blocks = {m: sample(results, name, m).blocks for m in METRICS}
    if len(blocks["reward"][0]) < 2:
        return {}
    return {
        m: tuple(np.mean([block.mean(axis=1) for block in found], axis=0).tolist())
        for m, found in blocks.items()
    }


def improvement(results: Sequence[FoldResult], drawn: Replicates, name: str) -> dict[str, Estimate]:
    """Chance that a policy earns more than each baseline in a session, redrawn."""
    found = {}
    for baseline, redrawn in drawn.improvement[name].items():
        pairs = [(r.figures(name, IMPROVED), r.figures(baseline, IMPROVED)) for r in results]
        value = float(np.mean([probability_of_improvement(a, b) for a, b in pairs]))
        found[baseline] = Estimate.of(value, redrawn, drawn.n[name])
    return found


def corrected_differences(
    drawn: Replicates, names: Sequence[str], baselines: Sequence[str]
) -> dict[str, dict[str, dict[str, Difference]]]:
    """By policy, baseline and metric; a family is all policies against one in one metric."""
    found: dict[str, dict[str, dict[str, Difference]]] = {name: {} for name in names}
    for baseline in baselines:
        others = [name for name in names if name != baseline]
        for metric in METRICS:
            pairs = [drawn.minus(name, baseline, metric) for name in others]
            raw = np.array([two_sided_p(redrawn) for _, redrawn in pairs])
            for name, (estimate, _), p, corrected in zip(others, pairs, raw, holm(raw)):
                found[name].setdefault(baseline, {})[metric] = Difference(
                    estimate=estimate, p_value=float(p), p_holm=float(corrected)
                )
    return found
