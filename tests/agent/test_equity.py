"""Groups of patients: parts that add up, groups found, and who is said to be served worse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from agent.contestants import Contestant
from agent.equity import attributes_of, equity
from agent.policies.registry import make_policy
from agent.policies.simple import EverythingPolicy
from agent.results import FoldResult, RewardTerms
from agent.rollout import SessionRecords, run_sessions
from distill.evidence import EvidenceTable
from envs.setup import build_setup
from envs.toy import toy_evidence


def folded(evidence: EvidenceTable, names: tuple[str, ...], sessions: int = 12) -> FoldResult:
    """What these policies do on fold 0 of a table, without bounds."""
    setup = build_setup(evidence=evidence, folds=[0], fit_folds=[1, 2, 3, 4], n_cases=16,
                        budget_mode="price")  # fmt: skip
    seeds = range(sessions)
    free = replace(setup, config=replace(setup.config, budget_mode="price"))
    everything = EverythingPolicy(layout=setup.layout, catalogue=setup.catalogue)
    return FoldResult(
        fold=0, n_patients=len(setup.tables.positives) + len(setup.tables.negatives),
        rows=np.flatnonzero(evidence.fold == 0), actions=setup.catalogue.names, traces=("a",),
        terms=RewardTerms.of(setup),
        contestants=tuple(
            Contestant(name=n, policies=(), learned=False, details={}) for n in names
        ),
        records={
            n: (run_sessions(make_policy(n, setup.layout, setup.catalogue), setup, seeds),)
            for n in names
        },
        reference=run_sessions(everything, free, seeds), bounds=(), expected_gain={},
    )  # fmt: skip


def test_groups_are_read_from_a_clinical_table() -> None:
    table = pd.DataFrame(
        {
            "sex": ["Male", None, "female"],
            "age": [59.0, 70.0, float("nan")],
            "stage": ["stage iiia", "IV", None],
        },
        index=["a", "b", "c"],
    )
    found = attributes_of(table, ["c", "a", "b", "nobody"])
    assert found == {
        "sex": ("female", "male", "not recorded", "not recorded"),
        "age": ("not recorded", "under 60", "70 and over", "not recorded"),
        "stage": ("not recorded", "III", "IV", "not recorded"),
    }


@pytest.fixture(scope="module")
def evidence() -> EvidenceTable:
    return toy_evidence(400, seed=3)


@pytest.fixture(scope="module")
def result(evidence: EvidenceTable) -> FoldResult:
    return folded(evidence, ("always-everything", "never"), 40)


def test_groups_gains_add_up_to_the_sessions(evidence: EvidenceTable, result: FoldResult) -> None:
    """Weighted by appearances, the two halves' gains are the mean gain of a session."""
    halves = tuple("ab"[i % 2] for i in range(evidence.n_patients))
    report = equity([result], evidence, {"half": halves}, np.random.default_rng(0), replicates=200)
    rows = result.rows[result.reference.patient].ravel()
    share = {h: np.mean([halves[r] == h for r in rows]) for h in "ab"}
    total = sum(share[g.group] * g.policies["always-everything"].gain.value for g in report.groups)
    run = result.records["always-everything"][0]
    assert total == pytest.approx(run.auc_gain.mean())
    assert report.attributes == ("half",)
    assert not report.sentences


def test_small_groups_are_named_and_not_shown(evidence: EvidenceTable, result: FoldResult) -> None:
    few = tuple(
        "few" if i < 8 else "many" for i in np.argsort(np.argsort(evidence.fold, kind="stable"))
    )
    report = equity([result], evidence, {"size": few}, np.random.default_rng(0), replicates=50)
    assert [g.group for g in report.groups] == ["many"] or not report.groups
    assert len(report.not_shown) >= 1


def test_a_policy_that_leaves_a_group_out_is_named(
    evidence: EvidenceTable, result: FoldResult
) -> None:
    """Give one half of the patients nothing: their scores stay where they were."""
    run = result.records["always-everything"][0]
    rows = result.rows[run.patient]
    left_out = rows % 2 == 1
    unfair: SessionRecords = replace(
        run,
        final_score=np.where(left_out, run.first_score, run.final_score).astype(np.float32),
        case_g_co2e=np.where(left_out, 0.0, run.case_g_co2e),
    )
    shown = replace(result, records={**result.records, "always-everything": (unfair,)})
    halves = tuple("left out" if i % 2 else "served" for i in range(evidence.n_patients))
    report = equity([shown], evidence, {"half": halves}, np.random.default_rng(0))
    (sentence,) = report.sentences
    assert sentence.startswith("always-everything serves half 'left out'")
    assert "more of what full evidence would give them" in sentence
    group = next(g for g in report.groups if g.group == "left out")
    assert group.policies["always-everything"].g_co2e.value == 0
    assert group.policies["always-everything"].forgone_gap.significant
    assert not group.policies["never"].worse or group.policies["never"].gain.value == 0
