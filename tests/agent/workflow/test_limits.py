"""Limits on emissions: what a case does at each, and that every refusal is on record."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.types import Command

from agent.policies.registry import make_policy
from agent.workflow.doubles import StillMonitor, replay_kit, row_features
from agent.workflow.graph import build_graph, memory_saver
from agent.workflow.limits import SpendLimits
from agent.workflow.run import RunResult, follow
from agent.workflow.state import new_case
from carbon.budget import Budget, parse_budget
from carbon.errors import BudgetError
from distill.evidence import EvidenceTable
from envs.toy import toy_evidence

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
EVERYTHING = "always-everything"


@pytest.fixture(scope="module")
def evidence() -> EvidenceTable:
    return toy_evidence(n_patients=80, seed=1)


def review(
    evidence: EvidenceTable,
    limits: SpendLimits,
    *,
    case: str = "c",
    session: str | None = None,
    deadline: datetime | None = None,
    woken_at: datetime | None = None,
) -> RunResult:
    """One review with all modalities, woken once if it waits."""
    moment = [NOW]
    kit = replay_kit(evidence, make_policy=make_policy, policy=EVERYTHING, monitor=StillMonitor())
    row = int(np.flatnonzero(evidence.present.all(axis=1))[0])

    async def prepared(_: str, without: Any) -> Any:
        return kit.student.prepare(row_features(evidence, row))

    async def run() -> RunResult:
        services = replace(kit, limits=limits).services(prepared=prepared, clock=lambda: moment[0])
        graph = build_graph(services, memory_saver())
        first = new_case(case, policy=EVERYTHING, session=session, deadline=deadline)
        result = await follow(graph, case, first)
        if result.waits_for == "wait" and woken_at is not None:
            moment[0], result.waits_for = woken_at, None
            resume: Command[Any] = Command(resume={"by": "schedule"})
            result = await follow(graph, case, resume, result=result)
        return result

    return asyncio.run(run())


def spent(result: RunResult) -> float:
    return sum(charge.g_co2e or 0.0 for charge in result.charges)


def limits(*texts: str) -> SpendLimits:
    return SpendLimits(parse_budget(text) for text in texts)


def notes(result: RunResult) -> list[str]:
    return [
        note for event in result.events if event["kind"] == "choice"
        for note in event["data"]["limit_notes"]
    ]  # fmt: skip


def test_without_limits_nothing_is_different(evidence: EvidenceTable) -> None:
    free = review(evidence, SpendLimits())
    wide = review(evidence, limits("day:1e8:1e9"))
    assert free.values["transfers_run"] == wide.values["transfers_run"]
    assert notes(free) == notes(wide) == []
    assert free.values["choice"] == wide.values["choice"]


def test_a_hard_limit_refuses_and_says_so(evidence: EvidenceTable) -> None:
    kept = limits("day:100:100")
    result = review(evidence, kept)
    assert 0 < spent(result) <= 100
    # Genomics would add 160 g; pathology's 20 g fit.
    assert "genomics" not in result.values["assessment"]["processed"]
    assert "pathology" in result.values["assessment"]["processed"]
    refusals = [note for note in notes(result) if "is refused" in note]
    assert refusals
    assert "Hard limit of the day 2026-03-02" in refusals[0]
    assert "100 allowed" in refusals[0]
    lines = result.values["explanation"]["lines"]
    assert any(line.startswith("Carbon limit: Hard limit of the day") for line in lines)
    (day,) = kept.status(NOW)
    assert day.spent_g_co2e == pytest.approx(spent(result))


def test_refused_options_are_no_longer_open(evidence: EvidenceTable) -> None:
    result = review(evidence, limits("day:1:1"))
    choice = [e["data"] for e in result.events if e["kind"] == "choice"][-1]
    assert choice["action"] == "finalise"
    by_name = {option["action"]: option for option in choice["options"]}
    assert not any(o["allowed"] for n, o in by_name.items() if n.startswith("genomics->"))
    assert choice["limits"][0]["hard_g_co2e"] == 1.0
    # Transfers from clinical data take next to nothing and fit; the case reaches its clinician.
    assert result.waits_for == "clinician"


def test_a_soft_limit_flags(evidence: EvidenceTable) -> None:
    result = review(evidence, limits("day:1:1e9"))
    assert result.values["transfers_run"] == review(evidence, SpendLimits()).values["transfers_run"]
    assert all("goes on, flagged" in note for note in notes(result))
    assert "Soft limit of the day 2026-03-02" in notes(result)[0]


def test_work_that_can_wait_waits_for_the_next_day(evidence: EvidenceTable) -> None:
    kept = limits("day:100:100:defer:defer")
    kept.charge("other", "x", NOW, 100.0, session=None)
    waiting = review(evidence, kept)
    assert waiting.waits_for == "wait"
    plan = waiting.values["plan"]
    assert plan["wake_at"] == "2026-03-03T00:00:00Z"
    assert plan["wait_h"] == pytest.approx(14.5)
    assert "the case waits until 2026-03-03 00:00 UTC" in plan["why"]
    assert waiting.values["choice"]["action"] == "defer"
    kept = limits("day:400:400:defer:defer")
    kept.charge("other", "x", NOW, 400.0, session=None)
    after = review(evidence, kept, woken_at=datetime(2026, 3, 3, tzinfo=UTC))
    assert after.waits_for == "clinician"
    assert after.values["transfers_run"]
    lines = after.values["explanation"]["lines"]
    assert any(line.startswith("Waited because of a carbon limit. Hard") for line in lines)
    (day,) = kept.status(NOW)
    assert day.spent_g_co2e == pytest.approx(400.0, abs=0.01)


def test_urgent_work_goes_on_flagged(evidence: EvidenceTable) -> None:
    kept = limits("day:10:10:defer:defer")
    kept.charge("other", "x", NOW, 10.0, session=None)
    result = review(evidence, kept, deadline=NOW + timedelta(hours=2))
    assert result.waits_for == "clinician"
    assert "the case cannot wait until 2026-03-03 00:00 UTC and goes on" in notes(result)[0]


def test_a_session_has_its_own_limit(evidence: EvidenceTable) -> None:
    kept = limits("session:50:100")
    kept.charge("other", "x", NOW, 100.0, session="board-1")
    assert review(evidence, kept, session="board-1").values["transfers_run"] == []
    assert review(evidence, kept, case="d", session="board-2").values["transfers_run"]
    assert notes(review(evidence, kept, case="e")) == []
    with pytest.raises(BudgetError, match="no next period"):
        parse_budget("session:1:2:defer:refuse")


def test_a_decision_reserves_its_carbon_at_once(evidence: EvidenceTable) -> None:
    kept = limits("day:1e8:1e9")
    result = review(evidence, kept)
    (day,) = kept.status(NOW)
    stages = {charge.stage for charge in result.charges}
    assert day.entries == len(stages)
    assert day.spent_g_co2e == pytest.approx(spent(result))
    # What a restarted server counts from its ledger is the same, and counts once.
    for charge in result.charges:
        kept.charge("c", charge.stage, charge.time, charge.g_co2e, session=None)
    (again,) = kept.status(NOW)
    assert again.spent_g_co2e == day.spent_g_co2e


@settings(max_examples=15, deadline=None)
@given(hard=st.floats(0.1, 400.0), before=st.floats(0.0, 400.0))
def test_a_hard_limit_holds_whatever_was_spent(
    evidence: EvidenceTable, hard: float, before: float
) -> None:
    kept = SpendLimits([Budget(period="day", soft_g_co2e=0.0, hard_g_co2e=hard)])
    kept.charge("other", "x", NOW, before, session=None)
    result = review(evidence, kept)
    assert result.waits_for == "clinician"
    transfers = sum(c.g_co2e or 0.0 for c in result.charges if c.stage.startswith("transfer:"))
    assert transfers == 0.0 or before + transfers <= hard + 1e-9
