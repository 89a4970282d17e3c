"""The graph over a replayed student: the way of a case, its charges, its interrupts."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from langgraph.types import Command
from pydantic import ValidationError

from agent.policies.registry import make_policy
from agent.workflow import state as records
from agent.workflow.doubles import StillMonitor, replay_kit, row_features
from agent.workflow.graph import NODES, build_graph, memory_saver, sqlite_saver
from agent.workflow.outputs import IntakeOutput
from agent.workflow.run import RunResult, follow, thread
from agent.workflow.state import new_case
from distill.evidence import EvidenceTable
from envs.toy import toy_evidence

NOW = datetime(2026, 3, 1, 12, 20, tzinfo=UTC)
DECISION = {"action": "accept", "reviewer": "dr", "decided_at": NOW.isoformat()}


@pytest.fixture(scope="module")
def evidence() -> EvidenceTable:
    return toy_evidence(n_patients=80, seed=1)


def services_of(evidence: EvidenceTable, *, clock: Any = None, row: int = 0, **kit: Any) -> Any:
    made = replay_kit(evidence, make_policy=kit.pop("make_policy", make_policy), **kit)

    async def prepared(case: str, without: Any = frozenset()) -> Any:
        return made.student.prepare(row_features(evidence, row))

    return made.services(prepared=prepared, clock=clock or (lambda: NOW))


async def to_rest(services: Any, case: Any, saver: Any = None) -> tuple[Any, RunResult]:
    graph = build_graph(services, saver or memory_saver())
    return graph, await follow(graph, case["case"], case)


def full_row(evidence: EvidenceTable) -> int:
    return int(np.flatnonzero(evidence.present.all(axis=1))[0])


def test_case_goes_to_the_clinician_and_is_recorded(evidence: EvidenceTable) -> None:
    async def review() -> RunResult:
        services = services_of(evidence, policy="always-everything", row=full_row(evidence))
        graph, result = await to_rest(services, new_case("c1", policy="always-everything"))
        assert result.waits_for == "clinician"
        return await follow(graph, "c1", Command(resume=DECISION), result=result)

    result = asyncio.run(review())
    kinds = [event["kind"] for event in result.events]
    assert kinds[:4] == ["intake", "carbon", "assessment", "choice"]
    assert kinds[-3:] == ["explanation", "decision", "record"]
    assert [event["seq"] for event in result.events] == list(range(len(kinds)))
    assert result.values["outcome"]["status"] == "recorded"
    # Everything in the state is plain JSON.
    assert json.loads(json.dumps(result.values)) == result.values


def test_cautions_about_the_values_reach_whoever_decides(evidence: EvidenceTable) -> None:
    services = services_of(evidence, policy="never")

    async def prepared(case: str, without: Any = frozenset()) -> Any:
        return replace(await services.prepared(case), cautions=("clinical: check 'age'.",))

    told = replace(services, prepared=prepared)
    _, result = asyncio.run(to_rest(told, new_case("c1", policy="never")))
    explanation = result.values["explanation"]
    assert explanation["cautions"] == ["clinical: check 'age'."]
    assert "Caution: clinical: check 'age'." in explanation["lines"]
    assert result.events[0]["data"]["cautions"] == ["clinical: check 'age'."]
    _, untold = asyncio.run(to_rest(services, new_case("c1", policy="never")))
    assert untold.values["explanation"]["cautions"] == []


def test_probabilities_are_the_tables_for_each_evidence_set(evidence: EvidenceTable) -> None:
    row = full_row(evidence)
    services = services_of(evidence, policy="always-everything", row=row)
    _, result = asyncio.run(to_rest(services, new_case("c", policy="always-everything")))
    run: list[str] = []
    for event in result.events:
        if event["kind"] == "transfer":
            run.append(event["data"]["transfer"])
        if event["kind"] == "assessment":
            logit = evidence.logit[row, evidence.sets.index_of(run)]
            assert event["data"]["logit"] == pytest.approx(float(logit))
    assert len(run) == len(evidence.transfers)
    assert result.values["explanation"]["probability_clinical_only"] == pytest.approx(
        1 / (1 + np.exp(-float(evidence.logit[row, 0])))
    )


def test_each_pipeline_is_charged_once_and_inference_is_metered(evidence: EvidenceTable) -> None:
    services = services_of(evidence, policy="always-everything", row=full_row(evidence))
    _, result = asyncio.run(to_rest(services, new_case("c", policy="always-everything")))
    stages = [charge.stage for charge in result.charges]
    assert len(set(stages)) == len(stages)
    pipelines = [c for c in result.charges if c.stage.startswith("transfer:")]
    assert sum(c.energy_kwh or 0 for c in pipelines) == pytest.approx(
        float(evidence.pipeline_kwh.sum())
    )
    assert {c.energy_basis for c in pipelines} == {"modelled"}
    inference = [c for c in result.charges if c.stage.startswith("inference:")]
    assert {c.energy_basis for c in inference} == {"measured"}
    assert inference[0].energy_kwh == pytest.approx(2 / 3.6e6)
    assert inference[0].g_co2e == pytest.approx(2 / 3.6e6 * 200)
    assert services.budget.spent_g_co2e(NOW) == pytest.approx(
        sum(c.g_co2e or 0 for c in result.charges)
    )


def test_absent_modality_is_never_processed(evidence: EvidenceTable) -> None:
    row = int(np.flatnonzero(~evidence.present[:, 1])[0])
    services = services_of(evidence, policy="always-everything", row=row)
    _, result = asyncio.run(to_rest(services, new_case("c", policy="always-everything")))
    run = result.values["transfers_run"]
    assert not [name for name in run if name.startswith("genomics->")]
    assert "genomics" in result.values["explanation"]["missing"]
    assert any("lacks: genomics" in line for line in result.values["explanation"]["lines"])


def test_budget_closes_what_it_cannot_pay(evidence: EvidenceTable) -> None:
    services = services_of(
        evidence, policy="always-everything", row=full_row(evidence), budget_g_co2e=100.0
    )
    _, result = asyncio.run(to_rest(services, new_case("c", policy="always-everything")))
    # Genomics (0.8 kWh x 200 g) is beyond 100 g; pathology (20 g) is not.
    assert "genomics" not in result.values["assessment"]["processed"]
    assert "pathology" in result.values["assessment"]["processed"]
    assert services.budget.left_g_co2e(NOW) >= 0


class DeferFirst:
    """Defers whatever may be deferred."""

    name = "defer-first"

    def __init__(self, catalogue: Any) -> None:
        self.catalogue = catalogue

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget."""

    def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
        may = action_mask[:, self.catalogue.defer]
        return np.where(may, self.catalogue.defer, self.catalogue.finalise).astype(np.int64)

    def reason(self, observation: np.ndarray, action: int) -> str:
        return "deferred for a test"


def _deferring(name: str, layout: Any, catalogue: Any) -> DeferFirst:
    return DeferFirst(catalogue)


def test_deferral_is_planned_waited_for_and_spent(evidence: EvidenceTable) -> None:
    hours = [datetime.now(UTC)]
    services = services_of(
        evidence, policy="defer-first", make_policy=_deferring,
        monitor=StillMonitor(g_per_kwh=300.0, ahead=(250.0, 80.0, 90.0, 400.0)),
        clock=lambda: hours[0],
    )  # fmt: skip

    async def review() -> RunResult:
        graph, result = await to_rest(services, new_case("c", policy="defer-first"))
        assert result.waits_for == "wait"
        plan = result.values["plan"]
        assert plan["intensity_expected_g_per_kwh"] == 80
        hours[0] += timedelta(hours=2)
        result.waits_for = None
        return await follow(graph, "c", Command(resume={"by": "schedule"}), result=result)

    result = asyncio.run(review())
    assert result.waits_for == "clinician"
    kinds = [event["kind"] for event in result.events]
    assert kinds.count("deferral") == 1
    assert kinds.count("wake") == 1
    wait = next(o for o in result.events[-2]["data"]["options"] if o["action"] == "defer")
    assert wait["allowed"] is False


@pytest.mark.parametrize(
    ("deadline_h", "ahead", "planned"),
    [
        (None, (250.0, 80.0), 80),
        (1.0, (250.0, 80.0), 250),
        (0.2, (250.0, 80.0), None),
        (9.0, (300.0, 400.0), None),
    ],
)
def test_deferral_stops_at_the_deadline_and_needs_a_cleaner_hour(
    evidence: EvidenceTable, deadline_h: float | None, ahead: Any, planned: float | None
) -> None:
    now = datetime.now(UTC).replace(minute=30)
    services = services_of(
        evidence, policy="defer-first", make_policy=_deferring,
        monitor=StillMonitor(g_per_kwh=300.0, ahead=ahead), clock=lambda: now,
    )  # fmt: skip
    deadline = now + timedelta(hours=deadline_h) if deadline_h else None
    case = new_case("c", policy="defer-first", deadline=deadline)
    _, result = asyncio.run(to_rest(services, case))
    plan = result.values.get("plan")
    assert (plan["intensity_expected_g_per_kwh"] if plan else None) == planned


def test_a_node_that_puts_out_something_else_is_refused() -> None:
    with pytest.raises(ValidationError):
        IntakeOutput(
            present=["clinical"], quality={}, transfers_run=[], policy="rule",
            policy_fallback=None, label=1,
        )  # type: ignore[call-arg]  # fmt: skip
    with pytest.raises(ValidationError):
        records.AssessmentRecord(
            probability=float("nan"), logit=0, disagreement=0, processed=[], missing=[]
        )


def test_checkpoints_survive_and_hold_no_features(evidence: EvidenceTable, tmp_path: Any) -> None:
    path = tmp_path / "graph.sqlite"
    services = services_of(evidence, policy="never", row=7)

    async def first() -> None:
        async with sqlite_saver(path) as saver:
            await to_rest(services, new_case("c9", policy="never"), saver)

    async def second() -> RunResult:
        async with sqlite_saver(path) as saver:
            graph = build_graph(services, saver)
            snapshot = await graph.aget_state(thread("c9"))
            assert snapshot.next == ("clinician",)
            assert not {"features", "label", "group"} & set(snapshot.values)
            return await follow(graph, "c9", Command(resume=DECISION))

    asyncio.run(first())
    assert asyncio.run(second()).values["outcome"]["result"] in records.RESULTS


def test_strict_serializer_does_not_restore_foreign_objects() -> None:
    from agent.workflow.graph import strict_serializer

    serializer = strict_serializer()
    kind, data = serializer.dumps_typed({"when": NOW})
    assert serializer.loads_typed((kind, data)) == {"when": NOW}
    foreign = serializer.dumps_typed(records.Record())
    assert not isinstance(serializer.loads_typed(foreign), records.Record)


def test_every_node_is_in_the_graph(evidence: EvidenceTable) -> None:
    graph = build_graph(services_of(evidence, policy="rule"), memory_saver())
    assert set(NODES) <= set(graph.get_graph().nodes)
