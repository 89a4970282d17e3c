"""Figures and targets of ``policies_review.py``, from the units that were played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.bounds import BOUNDS, EXPECTED
from agent.inference import (
    METRICS,
    Replicates,
    corrected_differences,
    improvement,
    pooled_gain,
    replicate,
)
from agent.results import FoldResult, best_planner, policy_names_of, sample
from agent.statistics import (
    Estimate,
    FoldedSample,
    bootstrap_iqm,
    bootstrap_mean,
    kendall_tau,
)
from agent.summary import reference_figures

RULE, PATHOLOGY, EVERYTHING = "rule", "always:pathology->clinical", "everything"
SEED = 5
"""The same for every setting: sessions of the same folds meet the same redraws."""
FINALE = (
    "auc_gain", "g_co2e", "reward", "lateness_h", "carbon_share", "transfers_per_case",
    "deferrals_per_case", "expected_gain", "regret",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Analysed:
    """One setting: its folds, its redraws, its figures.

    Attributes:
        results: one entry a fold.
        drawn: means under the redraws.
        planner: the planner with the highest reward in these very sessions.
        learned: names of the learned policies.
        figures: what goes into the JSON.
    """

    results: Sequence[FoldResult]
    drawn: Replicates
    planner: str
    learned: tuple[str, ...]
    figures: Mapping[str, Any]


def analyse(results: Sequence[FoldResult], facts: Mapping[str, Any], replicates: int) -> Analysed:
    """All figures of one setting.

    Args:
        results: one entry a fold.
        facts: what the sessions were.
        replicates: redraws of folds, patients, sessions and training seeds.
    """
    names = policy_names_of(results)
    planner = best_planner(results) or RULE
    learned = tuple(c.name for c in results[0].contestants if c.learned)
    planners = [name for name in names if name not in learned]
    baselines = tuple(dict.fromkeys((RULE, planner)))
    rng = np.random.default_rng(SEED)
    drawn = replicate(results, rng, baselines=baselines, replicates=replicates, pooled=False)
    against = corrected_differences(drawn, names, baselines)
    duels = corrected_differences(drawn, [*learned, *planners], planners) if learned else {}
    figures = {
        "sessions": dict(facts),
        "best_planner": planner,
        "policies": {name: _policy(results, drawn, name, rng) for name in names},
        "everything_without_budget": {
            m: e.to_json() for m, e in reference_figures(results, rng).items()
        },
        "bounds": _bounds(results, rng),
        "versus": {n: _nested(by_base) for n, by_base in against.items()},
        "learned_against_each_planner": {name: _nested(duels[name]) for name in learned},
        "n_patients": sum(result.n_patients for result in results),
        "n_folds": len(results),
    }
    return Analysed(results=results, drawn=drawn, planner=planner, learned=learned, figures=figures)


def _nested(by_base: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {b: {m: d.to_json() for m, d in by_metric.items()} for b, by_metric in by_base.items()}


def _policy(
    results: Sequence[FoldResult], drawn: Replicates, name: str, rng: np.random.Generator
) -> dict[str, Any]:
    plain = {m: bootstrap_mean(sample(results, name, m), rng).to_json() for m in FINALE[3:]}
    iqm = {
        m: bootstrap_iqm(sample(results, name, m), rng).to_json() for m in ("auc_gain", "reward")
    }
    return {
        **{m: drawn.estimate(name, m).to_json() for m in METRICS},
        **plain,
        "iqm": iqm,
        "pooled_auc_gain": pooled_gain(results, name),
        "probability_of_improvement": {
            base: e.to_json() for base, e in improvement(results, drawn, name).items()
        },
        "traces": {
            trace: {m: Estimate.of(*pair, drawn.n[name]).to_json() for m, pair in by_m.items()}
            for trace, by_m in drawn.traces[name].items()
        },
        "folds": {
            str(r.fold): {m: float(r.figures(name, m).mean()) for m in METRICS} for r in results
        },
        "training_seeds": [
            float(np.mean([r.figures(name, "reward")[k].mean() for r in results]))
            for k in range(len(results[0].records[name]))
        ],
    }


def _bounds(results: Sequence[FoldResult], rng: np.random.Generator) -> dict[str, Any]:
    return {
        bound: {
            field: bootstrap_mean(_bound_sample(results, bound, field), rng).to_json()
            for field in ("auc_gain", "expected_gain")
        }
        for bound in BOUNDS
    }


def _bound_sample(results: Sequence[FoldResult], bound: str, field: str) -> FoldedSample:
    return FoldedSample(
        blocks=tuple(
            np.array([[getattr(b.figures(bound), field) for b in r.bounds]]) for r in results
        )
    )


def bound_share(results: Sequence[FoldResult], name: str, replicates: int = 1000) -> Estimate:
    """Expected gain of a policy over the expected bound, redrawing folds, sessions and seeds."""
    rng = np.random.default_rng(SEED)
    bound = _bound_sample(results, EXPECTED, "expected_gain").blocks
    ours = sample(results, name, "expected_gain").blocks
    value = np.mean([b.mean() for b in ours]) / np.mean([b.mean() for b in bound])
    redrawn = np.empty(replicates)
    for i in range(replicates):
        top = bottom = 0.0
        for fold in rng.integers(len(ours), size=len(ours)):
            seeds = rng.integers(ours[fold].shape[0], size=ours[fold].shape[0])
            sessions = rng.integers(ours[fold].shape[1], size=ours[fold].shape[1])
            top += ours[fold][np.ix_(seeds, sessions)].mean()
            bottom += bound[fold][0, sessions].mean()
        redrawn[i] = top / bottom
    return Estimate.of(float(value), redrawn, sum(block.size for block in ours))


def ratio(
    above: tuple[Analysed, str], below: tuple[Analysed, str], metric: str = "auc_gain"
) -> Estimate:
    """One policy's mean over another's, the redraws paired."""
    (a, ours), (b, theirs) = above, below
    value = a.drawn.point[ours][metric] / b.drawn.point[theirs][metric]
    redrawn = a.drawn.redrawn[ours][metric] / b.drawn.redrawn[theirs][metric]
    return Estimate.of(value, redrawn, a.drawn.n[ours])


def difference(
    ours: tuple[Analysed, str], theirs: tuple[Analysed, str], metric: str = "auc_gain"
) -> Estimate:
    """One policy's mean minus another's, the redraws paired."""
    (a, first), (b, second) = ours, theirs
    value = a.drawn.point[first][metric] - b.drawn.point[second][metric]
    redrawn = a.drawn.redrawn[first][metric] - b.drawn.redrawn[second][metric]
    return Estimate.of(value, redrawn, a.drawn.n[first])


def everything_share(analysed: Analysed, name: str, metric: str) -> Estimate:
    """A policy's gain or carbon as a share of processing everything without a budget."""
    rng = np.random.default_rng(SEED)
    whole = [getattr(r.reference, metric) for r in analysed.results]
    ours = [r.figures(name, metric) for r in analysed.results]
    value = np.mean([b.mean() for b in ours]) / np.mean([b.mean() for b in whole])
    redrawn = np.empty(1000)
    for i in range(1000):
        top = bottom = 0.0
        for fold in rng.integers(len(ours), size=len(ours)):
            sessions = rng.integers(len(whole[fold]), size=len(whole[fold]))
            top += ours[fold][:, sessions].mean()
            bottom += whole[fold][sessions].mean()
        redrawn[i] = top / bottom
    return Estimate.of(float(value), redrawn, sum(block.size for block in ours))


def order_holds(known: Analysed, new: Analysed) -> tuple[Estimate, tuple[str, ...]]:
    """Kendall's tau between the orders by reward, and the policies that both have."""
    names = [n for n in policy_names_of(known.results) if n in new.drawn.point]
    tau = kendall_tau(known.drawn.ranks("reward", names), new.drawn.ranks("reward", names))
    return Estimate.of(float(tau[0]), tau[1:], len(names)), tuple(names)


def row(what: str, found: Estimate, target: str, reached: bool, **more: Any) -> dict[str, Any]:
    """One line of the table of targets."""
    return {"what": what, **found.to_json(), "target": target, "reached": reached, **more}


def best_learned(analysed: Analysed) -> str | None:
    """The learned policy with the highest reward."""
    return max(analysed.learned, key=lambda n: analysed.drawn.point[n]["reward"], default=None)


def _oneshot(found: Mapping[str, Analysed]) -> list[dict[str, Any]]:
    here = found.get("oneshot")
    if here is None:
        return []
    share = bound_share(here.results, "feedback")
    rows = [
        row("oneshot: feedback price, share of the expected bound", share, ">= 0.95",
            share.value >= 0.95)
    ]  # fmt: skip
    learned = best_learned(here)
    if learned is not None:
        near = ratio((here, learned), (here, "feedback"))
        rows.append(
            row("oneshot: best learned over feedback price, AUC gain", near, ">= 0.98",
                near.value >= 0.98, policy=learned)
        )  # fmt: skip
    return rows


def _sequential(found: Mapping[str, Analysed]) -> list[dict[str, Any]]:
    here = found.get("sequential")
    learned = best_learned(here) if here is not None else None
    if here is None or learned is None:
        return []
    share, near = bound_share(here.results, learned), ratio((here, learned), (here, "dp"))
    return [
        row("sequential: best learned, share of the expected bound", share, ">= 0.93",
            share.value >= 0.93, policy=learned),
        row("sequential: best learned over the dynamic programme, AUC gain", near, ">= 0.99",
            near.value >= 0.99, policy=learned),
    ]  # fmt: skip


BUDGETS = {"default-10": "10 %", "default": "20 %", "default-40": "40 %"}


def _default(found: Mapping[str, Analysed], shipped: str) -> list[dict[str, Any]]:
    rows = []
    for setting, budget in BUDGETS.items():
        here = found.get(setting)
        if here is None:
            continue
        gain, carbon = (ratio((here, shipped), (here, RULE), m) for m in ("auc_gain", "g_co2e"))
        rows.append(
            row(f"default, budget {budget}: {shipped} over the rule, AUC gain", gain,
                ">= 2 at no more carbon", gain.value >= 2.0 and carbon.value <= 1.0,
                carbon_over_rule=carbon.to_json(),
                carbon_no_more_within_interval=carbon.low <= 1.0)
        )  # fmt: skip
    less, usual = found.get("default-10"), found.get("default")
    if less is not None and usual is not None:
        gain, carbon = (ratio((less, shipped), (usual, RULE), m) for m in ("auc_gain", "g_co2e"))
        rows.append(
            row(f"default: {shipped} at 10 % over the rule at 20 %, AUC gain", gain,
                ">= 2 at no more carbon", gain.value >= 2.0 and carbon.value <= 1.0,
                carbon_over_rule=carbon.to_json())
        )  # fmt: skip
    wide = found.get("default-40")
    if wide is not None:
        ahead = difference((wide, shipped), (wide, PATHOLOGY))
        rows.append(
            row(f"default, budget 40 %: {shipped} minus {PATHOLOGY}, AUC", ahead, ">= 0.02",
                ahead.value >= 0.02)
        )  # fmt: skip
    return rows


PRESETS = ("default", "hard", "batched", "swing")


def _learning(found: Mapping[str, Analysed]) -> list[dict[str, Any]]:
    rows = []
    for setting in PRESETS:
        here = found.get(setting)
        learned = best_learned(here) if here is not None else None
        if here is None or learned is None:
            continue
        behind = difference((here, learned), (here, here.planner))
        reward = difference((here, learned), (here, here.planner), "reward")
        rows.append(
            row(f"{setting}: {learned} minus the best planner, AUC", behind, ">= -0.001",
                behind.value >= -0.001, policy=learned, planner=here.planner,
                interval_above_target=behind.low >= -0.001, reward=reward.to_json(),
                room_left_by_planner=_room(here))
        )  # fmt: skip
        if setting in ("hard", "batched"):
            planners = [n for n in policy_names_of(here.results) if n not in here.learned]
            duels = {p: difference((here, learned), (here, p)) for p in planners}
            closest = min(duels, key=lambda p: duels[p].low)
            rows.append(
                row(f"{setting}: {learned} above every planner, AUC (the closest one)",
                    duels[closest], "> 0, the interval too",
                    all(d.low > 0 for d in duels.values()), policy=learned, planner=closest,
                    n_planners=len(planners))
            )  # fmt: skip
    return rows


def _room(here: Analysed) -> dict[str, object]:
    """What the expected bound holds beyond the best planner, AUC."""
    regret = bootstrap_mean(
        sample(here.results, here.planner, "regret"), np.random.default_rng(SEED)
    )
    return regret.to_json()


def _carbon(found: Mapping[str, Analysed], shipped: str) -> list[dict[str, Any]]:
    rows = []
    for setting, budget in BUDGETS.items():
        here = found.get(setting)
        if here is None:
            continue
        gain, carbon = (everything_share(here, shipped, m) for m in ("auc_gain", "g_co2e"))
        rows.append(
            row(f"default, budget {budget}: {shipped}, share of everything's AUC gain", gain,
                ">= 0.90 for <= 0.40 of its gCO2e", gain.value >= 0.90 and carbon.value <= 0.40,
                carbon_share=carbon.to_json())
        )  # fmt: skip
    return rows


def _generalisation(
    found: Mapping[str, Analysed], strange: Mapping[str, Analysed]
) -> list[dict[str, Any]]:
    usual = found.get("default")
    if usual is None:
        return []
    rows = []
    for name, new in strange.items():
        tau, names = order_holds(usual, new)
        leader = max(names, key=lambda n: usual.drawn.point[n]["reward"])
        rows.append(
            row(f"order of policies by reward, default against {name}: Kendall's tau", tau,
                "> 0, the interval too", tau.low > 0, policies=list(names),
                best_stays_best=leader == max(names, key=lambda n: new.drawn.point[n]["reward"]),
                order_known=_order(usual, names), order_new=_order(new, names))
        )  # fmt: skip
    return rows


def _order(analysed: Analysed, names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda n: -analysed.drawn.point[n]["reward"])


def targets(
    found: Mapping[str, Analysed], strange: Mapping[str, Analysed], shipped: str
) -> list[dict[str, Any]]:
    """Every row of the table of numbers, with its interval and whether it is reached.

    Args:
        found: by setting.
        strange: by name, the default setting on what training never saw.
        shipped: the policy that is the default.
    """
    return [
        *_oneshot(found),
        *_sequential(found),
        *_default(found, shipped),
        *_learning(found),
        *_carbon(found, shipped),
        *_generalisation(found, strange),
    ]
