"""What a run of the graph writes to the case's row, and where the next run begins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from langgraph.types import Command

from agent.workflow.errors import WorkflowError
from agent.workflow.graph import CaseGraph
from agent.workflow.nodes import WAIT
from agent.workflow.people import CLINICIAN, PARKED, SECOND
from agent.workflow.run import RunResult, recover
from agent.workflow.state import CaseState, new_case
from api.store import cases as store

STATUS_OF = {
    WAIT: store.DEFERRED,
    CLINICIAN: store.AWAITING,
    SECOND: store.SECOND,
    PARKED: store.PARKED,
}
"""What a case is called while its graph waits for this."""
AS_THEY_ARE = ("policy_fallback", "transfers_run", "explanation", "urgency")


def columns(result: RunResult, row: Any) -> dict[str, Any]:
    """What the case's row takes from it, status included."""
    values = result.values
    taken: dict[str, Any] = {"status": _status(result)}
    taken |= {name: values[name] for name in AS_THEY_ARE if name in values}
    if "assessment" in values:
        probability = values["assessment"]["probability"]
        taken |= {"probability": probability, "uncertainty": entropy_bits(probability)}
    if "plan" in values:
        plan = values["plan"]
        taken["plan"] = plan
        taken["wake_at"] = datetime.fromisoformat(plan["wake_at"]) if plan else None
    if "outcome" in values:
        taken["result"] = values["outcome"]["result"]
    taken["failure"] = _failure(values) if taken["status"] == store.PARKED else None
    taken |= _of_explanation(result, row)
    # A run brings the whole state; what stands in the row already need not be written again.
    return {k: v for k, v in taken.items() if k == "status" or getattr(row, k) != v}


def _of_explanation(result: RunResult, row: Any) -> dict[str, Any]:
    explanation = result.values.get("explanation")
    if explanation is None:
        spent = sum((charge.g_co2e or 0.0 for charge in result.charges), 0.0)
        return {} if row.g_co2e is not None else {"g_co2e": spent}
    return {
        "g_co2e": explanation["g_co2e"],
        "suggestion": explanation["suggestion"],
        "second_review": bool(explanation.get("second_review", False)),
        "flags": [*explanation.get("drift", []), *explanation.get("cautions", [])],
    }


def _failure(values: dict[str, Any]) -> str:
    failure = values.get("failure") or {}
    return str(failure.get("reason", "The review could not go on; the log has the place."))


def _status(result: RunResult) -> str:
    if result.waits_for is not None:
        return STATUS_OF[result.waits_for]
    outcome = result.values.get("outcome")
    if outcome is None:
        raise WorkflowError("The review ended without an outcome; retry it, or send it back.")
    return str(outcome["status"])


def entropy_bits(probability: float) -> float:
    """Binary entropy: 0 where the model is sure, 1 where it does not know."""
    if not 0.0 < probability < 1.0:
        return 0.0
    other = 1.0 - probability
    return -(probability * math.log2(probability) + other * math.log2(other))


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
    """Where a run begins: the graph's input, and what earlier, unstored runs brought.

    Attributes:
        value: what the graph is given.
        earlier: brought by runs whose end was never written down.
        resting: there is nothing to run: what was brought only has to be written down.
    """

    value: Any
    earlier: RunResult
    resting: bool = False


@dataclass(frozen=True, kw_only=True)
class Past:
    """What the store knows of a case's past.

    Attributes:
        actions: of clinicians, in order.
        last_step: the last event that was written down.
    """

    actions: Sequence[dict[str, Any]] = ()
    last_step: dict[str, Any] | None = None


def _anew(row: Any, past: Past) -> CaseState:
    """The state of a case without checkpoints: it is new, or they were lost with their file.

    What was decided on a review that is gone counts for nothing in the next, where accepting may
    mean another result: a person decides again. Steps are counted on from those that are told.
    """
    state = first_state(row)
    if past.actions:
        state["answered"] = int(past.actions[-1]["round"]) + 1
    if past.last_step is not None:
        state["next_event"] = int(past.last_step["seq"]) + 1
    return state


def wake_of(by: str, action: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a wait is answered with: who woke the case, and how urgent it became."""
    if action is None:
        return {"by": by}
    return {"by": by, "urgency": action["urgency"], "round": action["round"]}


def answer_of(waits_for: str, action: dict[str, Any]) -> dict[str, Any]:
    """What an interrupt is resumed with for a clinician's action."""
    return wake_of(action["reviewer"], action) if waits_for == WAIT else action


def _close(earlier: RunResult, action: dict[str, Any]) -> None:
    """End a case that was set aside between two steps, where its graph waits for nobody.

    A retry only lets the graph go on.
    """
    if action["action"] not in ("override", "send_back"):
        return
    status = "sent_back" if action["action"] == "send_back" else "recorded"
    outcome = {"status": status, "result": action.get("result"), "decision": action}
    seq = earlier.events[-1]["seq"] + 1 if earlier.events else 0
    earlier.values["outcome"] = outcome
    earlier.events += [
        {"seq": seq + i, "kind": kind, "time": action["decided_at"], "data": data}
        for i, (kind, data) in enumerate((("decision", action), ("record", outcome)))
    ]


async def find_entry(graph: CaseGraph, row: Any, *, woken_by: str | None, past: Past) -> Entry:
    """Work out from durable state alone where a case stands and how to go on.

    Used after a restart and whenever memory cannot be trusted: the checkpoints say which nodes
    are behind, the actions and the wake what an interrupt may be answered with.
    """
    earlier = await recover(graph, row.id)
    if not earlier.values:
        return Entry(value=_anew(row, past), earlier=RunResult())
    answered = int(earlier.values.get("answered", 0))
    unanswered = [action for action in past.actions if action["round"] >= answered]
    if earlier.waits_for is None:
        if "outcome" not in earlier.values and unanswered:
            _close(earlier, unanswered[0])
        return Entry(value=None, earlier=earlier, resting="outcome" in earlier.values)
    waits_for, earlier.waits_for = earlier.waits_for, None
    if unanswered:
        answer = answer_of(waits_for, unanswered[0])
        return Entry(value=Command(resume=answer), earlier=earlier)
    if waits_for == WAIT and woken_by is not None:
        return Entry(value=Command(resume=wake_of(woken_by)), earlier=earlier)
    earlier.waits_for = waits_for
    return Entry(value=None, earlier=earlier, resting=True)
