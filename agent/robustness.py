"""The same policies where something has changed since they were prepared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64

from agent.contestants import Contestant, Progress
from agent.inference import METRICS, Replicates, replicate
from agent.policies.simple import EverythingPolicy
from agent.report.findings import Kind, RobustnessScenario
from agent.results import FoldResult, RewardTerms, policy_names_of
from agent.rollout import run_sessions, without_limits
from agent.sessions import SessionSource
from agent.statistics import Estimate, kendall_tau
from carbon.intensity.synthetic import synthetic_trace
from carbon.intensity.trace import Trace
from distill.evidence import EvidenceTable
from envs.session import SYNTHETIC_HOURS, SYNTHETIC_SEED

BUDGETS = (0.1, 0.2, 0.4)
MISSING_POINTS = 0.20
REPLICATES = 500


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is changed, and the sessions that follow.

    Attributes:
        name: short name.
        kind: what was changed.
        description: in words.
        source: sessions under the change.
    """

    name: str
    kind: Kind
    description: str
    source: SessionSource


def without_some(
    evidence: EvidenceTable,
    rows: Int64[np.ndarray, " rows"],
    points: float,
    rng: np.random.Generator,
) -> EvidenceTable:
    """The table with each modality missing for ``points`` more of these patients, at random.

    The first modality (clinical) stays: without it a case has no first score.

    Args:
        evidence: the table.
        rows: whose modalities are dropped.
        points: share of the rows, 0 to 1; where fewer have the modality, all of them lose it.
        rng: source of the choice.
    """
    present = evidence.present.copy()
    for column in range(1, present.shape[1]):
        having = rows[present[rows, column]]
        n = min(round(points * len(rows)), len(having))
        present[rng.permutation(having)[:n], column] = False
    return with_presence(evidence, present)


def with_presence(
    evidence: EvidenceTable, present: Bool[np.ndarray, "patients modalities"]
) -> EvidenceTable:
    """The table with fewer modalities present; what they reached can no longer be reached."""
    lacking = (~present).astype(np.int64) @ evidence.processed.T.astype(np.int64)
    closed = lacking > 0
    return replace(
        evidence,
        present=present,
        quality=np.where(present, evidence.quality, 0.0).astype(np.float32),
        logit=np.where(closed, np.nan, evidence.logit).astype(np.float32),
        disagreement=np.where(closed, np.nan, evidence.disagreement).astype(np.float32),
    )


def furthest_hospitals(evidence: EvidenceTable, fold: int) -> Int64[np.ndarray, " rows"]:
    """Half of a fold's patients of each class: those of the hospitals least like the others.

    A hospital's distance is that of its patients' mean log-odds under their fullest reachable
    evidence from the mean of the same class in the other folds, whose hospitals are others.
    """
    score = _fullest_score(evidence)
    group, chosen = np.array(evidence.group), []
    inside = evidence.fold == fold
    for label in (0, 1):
        of_class = evidence.label == label
        usual = score[of_class & ~inside].mean()
        rows = np.flatnonzero(of_class & inside)
        distance = {
            name: abs(float(score[rows[group[rows] == name]].mean() - usual))
            for name in sorted(set(group[rows].tolist()))
        }
        far = sorted(rows.tolist(), key=lambda row: -distance[group[row]])
        chosen += far[: -(-len(far) // 2)]
    return np.sort(np.array(chosen, dtype=np.int64))


def _fullest_score(evidence: EvidenceTable) -> np.ndarray:
    sizes = evidence.processed.sum(axis=1) * (len(evidence.transfers) + 1)
    sizes = sizes + evidence.sets.membership.sum(axis=1)
    best = np.where(evidence.reachable, sizes, -1).argmax(axis=1)
    return np.asarray(evidence.logit[np.arange(evidence.n_patients), best], dtype=np.float64)


def _budgets(source: SessionSource) -> Iterator[Scenario]:
    for share in BUDGETS:
        if share != source.config.budget_fraction:
            yield Scenario(
                name=f"budget {share:.0%}",
                kind="budget",
                description=f"Sessions may emit {share:.0%} of always processing everything.",
                source=replace(source, config=replace(source.config, budget_fraction=share)),
            )


def _traces(source: SessionSource, others: Sequence[Trace]) -> Iterator[Scenario]:
    known = {trace.name for trace in source.traces}
    synthetic = synthetic_trace(SYNTHETIC_HOURS, SYNTHETIC_SEED)
    for trace in (*others, synthetic):
        if trace.name not in known:
            name = "the synthetic grid" if trace.synthetic else trace.name
            yield Scenario(
                name=f"trace {name}",
                kind="trace",
                description=f"Sessions run on {name}, which no policy was prepared on.",
                source=replace(source, traces=(trace,)),
            )


def _missing(source: SessionSource, rng: np.random.Generator) -> Scenario:
    evidence = source.evidence
    changed = without_some(evidence, np.arange(evidence.n_patients), MISSING_POINTS, rng)
    return Scenario(
        name=f"missingness + {100 * MISSING_POINTS:.0f} points",
        kind="missingness",
        description=(
            f"Each modality but the first is taken from a further {MISSING_POINTS:.0%} of the "
            "patients at random."
        ),
        source=replace(source, evidence=changed),
    )


def _hospitals(source: SessionSource, folds: Sequence[int]) -> Scenario | None:
    evidence = source.evidence
    kept = np.concatenate([furthest_hospitals(evidence, fold) for fold in folds])
    outside = np.flatnonzero(~np.isin(evidence.fold, list(folds)))
    smallest = min(int((evidence.fold[kept] == fold).sum()) for fold in folds)
    if smallest < 4:
        return None
    rows = np.sort(np.concatenate([kept, outside]))
    n_cases = min(source.config.n_cases, max(2, 3 * smallest // 4))
    return Scenario(
        name="shifted hospitals",
        kind="hospitals",
        description=(
            "Of the held-out patients, the half from the hospitals whose scores are furthest from "
            f"those of the same class elsewhere; {n_cases} cases a session."
        ),
        source=replace(
            source,
            evidence=subset(evidence, rows),
            config=replace(source.config, n_cases=n_cases),
        ),
    )


def subset(evidence: EvidenceTable, rows: Int64[np.ndarray, " rows"]) -> EvidenceTable:
    """The table of some patients."""
    return replace(
        evidence,
        case_id=tuple(evidence.case_id[row] for row in rows),
        group=tuple(evidence.group[row] for row in rows),
        **{
            name: getattr(evidence, name)[rows]
            for name in ("fold", "label", "present", "quality", "logit", "disagreement")
        },
    )


def scenarios(
    source: SessionSource,
    folds: Sequence[int],
    rng: np.random.Generator,
    other_traces: Sequence[Trace] = (),
) -> tuple[Scenario, ...]:
    """Everything that is changed, one thing at a time.

    Args:
        source: the sessions without a change.
        folds: the held-out folds.
        rng: chooses whose modalities are dropped.
        other_traces: traces that no policy was prepared on; the synthetic grid comes on top.
    """
    found = [*_budgets(source), *_traces(source, other_traces), _missing(source, rng)]
    shifted = _hospitals(source, folds)
    return (*found, shifted) if shifted is not None else tuple(found)


def run_scenario(
    scenario: Scenario,
    prepared: Mapping[int, Sequence[Contestant]],
    original: SessionSource,
    seeds: Sequence[int],
    progress: Progress,
) -> list[FoldResult]:
    """Every policy as it was prepared, on the changed sessions of each fold.

    Predicted gains are those of the original training patients: the change comes afterwards.

    Args:
        scenario: what has changed.
        prepared: the policies of each held-out fold.
        original: the sessions that they were prepared for.
        seeds: of the sessions.
        progress: told of sessions.
    """
    results = []
    for fold, contestants in prepared.items():
        setup = replace(
            scenario.source.evaluation(fold), gain_model=original.evaluation(fold).gain_model
        )
        free = without_limits(setup)
        everything = EverythingPolicy(layout=setup.layout, catalogue=setup.catalogue)
        records = {
            c.name: tuple(run_sessions(p, setup, seeds) for p in c.policies) for c in contestants
        }
        results.append(
            FoldResult(
                fold=fold,
                n_patients=len(setup.tables.positives) + len(setup.tables.negatives),
                rows=scenario.source.rows((fold,)),
                actions=setup.catalogue.names,
                traces=tuple(trace.name for trace in scenario.source.traces),
                terms=RewardTerms.of(setup),
                contestants=tuple(contestants),
                records=records,
                reference=run_sessions(everything, free, seeds),
                bounds=(),
                expected_gain={},
            )
        )
        progress(f"robustness: {scenario.name}", 1, len(prepared))
    return results


def summarise_scenario(
    scenario: Scenario,
    results: Sequence[FoldResult],
    unchanged: Replicates,
    rng: np.random.Generator,
) -> RobustnessScenario:
    """Figures under the change, and whether the order of policies holds.

    Args:
        scenario: what has changed.
        results: what the policies did then.
        unchanged: means without the change, as often redrawn.
        rng: source of the redraws.
    """
    names = policy_names_of(results)
    n_redraws = len(next(iter(unchanged.redrawn.values()))["reward"])
    drawn = replicate(results, rng, replicates=n_redraws, pooled=False)
    now, before = drawn.ranks("reward", names), unchanged.ranks("reward", names)
    tau = kendall_tau(before, now) if len(names) > 1 else np.ones(n_redraws + 1)
    return RobustnessScenario(
        name=scenario.name,
        kind=scenario.kind,
        description=scenario.description,
        figures={name: {m: drawn.estimate(name, m) for m in METRICS} for name in names},
        order=tuple(names[i] for i in np.argsort(-now[0], kind="stable")),
        kendall_tau=Estimate.of(float(tau[0]), tau[1:], len(names)),
    )


def robustness(
    source: SessionSource,
    results: Sequence[FoldResult],
    seeds: Sequence[int],
    rng: np.random.Generator,
    *,
    progress: Progress,
    other_traces: Sequence[Trace] = (),
    replicates: int = REPLICATES,
) -> tuple[RobustnessScenario, ...]:
    """Every scenario with the policies of a comparison.

    Args:
        source: the sessions that the policies were prepared for and compared on.
        results: of that comparison.
        seeds: of the changed sessions.
        rng: source of what is random.
        progress: told of sessions.
        other_traces: see :func:`scenarios`.
        replicates: number of redraws.
    """
    unchanged = replicate(results, rng, replicates=replicates, pooled=False)
    prepared = {result.fold: result.contestants for result in results}
    found = []
    for scenario in scenarios(source, tuple(prepared), rng, other_traces):
        changed = run_scenario(scenario, prepared, source, seeds, progress)
        found.append(summarise_scenario(scenario, changed, unchanged, rng))
    return tuple(found)
