"""What a run of the graph writes to the case's row, and where the next run begins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from langgraph.types import Command

from agent.workflow.graph import CaseGraph
from agent.workflow.nodes import CLINICIAN, WAIT
from agent.workflow.run import RunResult, thread
from agent.workflow.state import CaseState, new_case
from api.store import cases as store


def columns(result: RunResult) -> dict[str, Any]:
    """What the case's row takes from it, status included."""
    values = result.values
    row: dict[str, Any] = {"status": _status(result)}
    if "policy_fallback" in values:
        row["policy_fallback"] = values["policy_fallback"]
    if "assessment" in values:
        row["probability"] = values["assessment"]["probability"]
    if "transfers_run" in values:
        row["transfers_run"] = values["transfers_run"]
    if "explanation" in values:
        row["explanation"] = values["explanation"]
    if "plan" in values:
        plan = values["plan"]
        row["plan"] = plan
        row["wake_at"] = datetime.fromisoformat(plan["wake_at"]) if plan else None
    if "outcome" in values:
        row["result"] = values["outcome"]["result"]
    return row


def _status(result: RunResult) -> str:
    if result.waits_for == WAIT:
        return store.DEFERRED
    if result.waits_for == CLINICIAN:
        return store.AWAITING
    outcome = result.values.get("outcome")
    if outcome is None:
        # The graph came to no rest: it will be taken up again.
        return store.QUEUED
    return str(outcome["status"])


def first_state(row: Any) -> CaseState:
    """The state that a stored case starts from."""
    return new_case(
        row.id,
        policy=row.policy,
        urgency=row.urgency,
        deadline=row.deadline,
        seen_in_training=row.seen_in_training,
        session=row.session,
    )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a run begins: the graph's input, and what earlier, unstored runs brought."""

    value: Any
    earlier: RunResult
    resting: bool = False


async def find_entry(
    graph: CaseGraph,
    row: Any,
    *,
    woken_by: str | None,
) -> Entry:
    """Work out from durable state alone where a case stands and how to go on.

    Used after a restart and whenever memory cannot be trusted: the checkpoint says which nodes
    are behind, the decision row and the wake say what an interrupt may be answered with.
    """
    snapshot = await graph.aget_state(thread(row.id))
    if not snapshot.values:
        return Entry(value=first_state(row), earlier=RunResult())
    earlier = RunResult()
    earlier.absorb(snapshot.values)
    if not snapshot.next:
        return Entry(value=None, earlier=earlier, resting=True)
    waits_for = snapshot.interrupts[0].value["kind"] if snapshot.interrupts else None
    if waits_for is None:
        return Entry(value=None, earlier=earlier)
    if waits_for == CLINICIAN and row.decision is not None:
        return Entry(value=Command(resume=row.decision), earlier=earlier)
    if waits_for == WAIT and woken_by is not None:
        return Entry(value=Command(resume={"by": woken_by}), earlier=earlier)
    earlier.waits_for = waits_for
    return Entry(value=None, earlier=earlier, resting=True)
