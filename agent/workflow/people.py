"""The nodes that wait for a person, and what each of their actions does to the case.

Nothing is final without them: a case is recorded by one reviewer, by two who agree where the
student is too unsure for one, or it is sent back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from langgraph.types import interrupt

from agent.workflow.actions import (
    ANY_ACTION,
    Accept,
    ClinicianAction,
    MarkUnreliable,
    Override,
    RaiseUrgency,
    RequestTransfer,
    Retry,
    SendBack,
)
from agent.workflow.context import ReviewServices
from agent.workflow.outputs import (
    PersonOutput,
    RecordOutput,
)
from agent.workflow.state import (
    CaseState,
    Decision,
    Event,
    EventKind,
    Opinion,
    Outcome,
    next_seq,
)
from distill.transfers import BASE_MODALITY

CLINICIAN = "clinician"
SECOND = "second"
PARKED = "parked"
RECORD = "record"
AGAIN = "sense_carbon"


async def clinician(services: ReviewServices, state: CaseState) -> PersonOutput:
    """Wait for what the clinician does."""
    # Nothing may come before the interrupt: a resumed node starts again from its top.
    return _carry_out(services, state, CLINICIAN, interrupt({"kind": CLINICIAN}))


async def second(services: ReviewServices, state: CaseState) -> PersonOutput:
    """Wait for another reviewer's opinion."""
    return _carry_out(services, state, SECOND, interrupt({"kind": SECOND}))


async def parked(services: ReviewServices, state: CaseState) -> PersonOutput:
    """Wait for somebody to say how a case goes on whose step failed."""
    return _carry_out(
        services, state, PARKED, interrupt({"kind": PARKED, **(state["failure"] or {})})
    )


async def record(services: ReviewServices, state: CaseState) -> RecordOutput:
    """Close the review with what was decided."""
    decision = Decision.model_validate(state["decision"])
    opinions = list(map(Opinion.model_validate, state.get("opinions", [])))
    if decision.action == "send_back":
        outcome = Outcome(status="sent_back", result=None, decision=decision, opinions=opinions)
    else:
        result = decision.result if decision.action == "override" else _suggested(state)
        outcome = Outcome(status="recorded", result=result, decision=decision, opinions=opinions)
    event = Event(seq=next_seq(state), kind="record", time=services.clock(), data=dict(outcome))
    return RecordOutput(outcome=outcome, events=[event])


def needs_second(probability: float, above: float | None) -> bool:
    """Whether the student is too unsure (entropy, bits) for one reviewer to record the case."""
    if above is None:
        return False
    p, q = probability, 1.0 - probability
    entropy = -sum(x * math.log2(x) for x in (p, q) if x > 0.0)
    return entropy > above


def _second_needed(services: ReviewServices, state: CaseState) -> bool:
    """Two where one may not; a case that was never assessed is as unsure as can be."""
    view = state.get("assessment")
    return needs_second(view["probability"] if view else 0.5, services.second_review_above)


def _suggested(state: CaseState) -> Any:
    return state["explanation"]["suggestion"] if "explanation" in state else None


class _Turn:
    """One action at one place, with what its handlers need."""

    def __init__(self, services: ReviewServices, state: CaseState, where: str) -> None:
        self.services, self.state, self.where = services, state, where
        self.at: datetime = services.clock()

    def event(self, kind: EventKind, data: dict[str, Any], after: int = 0) -> Event:
        return Event(seq=next_seq(self.state) + after, kind=kind, time=self.at, data=data)


def _carry_out(
    services: ReviewServices, state: CaseState, where: str, answer: dict[str, Any]
) -> PersonOutput:
    action = ANY_ACTION.validate_python(answer)
    turn = _Turn(services, state, where)
    if where not in OPEN_AT[action.action]:
        return _refused(turn, action, f"{action.action} is not open while the case is at {where}")
    return HANDLERS[action.action](turn, action)


def _output(turn: _Turn, action: ClinicianAction, **changes: Any) -> PersonOutput:
    answered = max(turn.state.get("answered", 0), action.round + 1)
    return PersonOutput(**{"onward": turn.where, "answered": answered} | changes)


def _refused(turn: _Turn, action: ClinicianAction, why: str) -> PersonOutput:
    event = turn.event("request", {**dict(action), "refused": f"{why}."})
    return _output(turn, action, events=[event])


def _decided(turn: _Turn, action: Accept | Override | SendBack, **changes: Any) -> PersonOutput:
    decision = Decision(**dict(action))
    events = changes.pop("events", [])
    event = turn.event("decision", dict(decision), after=len(events))
    return _output(
        turn, action, onward=RECORD, decision=decision, events=[*events, event], **changes
    )


def _opined(turn: _Turn, action: Accept | Override) -> PersonOutput:
    """Record what one reviewer may; else wait until two in a row say the same."""
    one_is_enough = turn.where != SECOND and not _second_needed(turn.services, turn.state)
    if one_is_enough:
        return _decided(turn, action)
    before = [Opinion.model_validate(o) for o in turn.state.get("opinions", [])]
    known = {"result": _suggested(turn.state)} | dict(action)
    opinion = Opinion(**known)
    opinions = [*before, opinion]
    agreed = (
        bool(before)
        and before[-1].reviewer != opinion.reviewer
        and before[-1].result == opinion.result is not None
    )
    told = {**dict(opinion), "agrees": agreed if before else None, "needed": 2}
    event = turn.event("opinion", told)
    if agreed:
        return _decided(turn, action, opinions=opinions, events=[event])
    return _output(turn, action, onward=SECOND, opinions=opinions, events=[event])


def _asked_for(turn: _Turn, action: RequestTransfer) -> PersonOutput:
    """The grid is read first; whether the transfer may run is settled by what it costs then."""
    asked = action.model_dump(mode="json")
    requests = [*turn.state.get("requests", []), asked]
    return _output(turn, action, onward=AGAIN, asked=asked, requests=requests)


def _marked(turn: _Turn, action: MarkUnreliable) -> PersonOutput:
    """Leave a modality out from now on, with the transfers that start from it."""
    state, name = turn.state, action.modality
    if name == BASE_MODALITY:
        return _refused(turn, action, f"every review starts from {BASE_MODALITY}")
    if name not in state["present"]:
        return _refused(turn, action, f"the case has no {name!r} that it could be assessed without")
    source_of = turn.services.source_of
    dropped = [t for t in state["transfers_run"] if source_of[t] == name]
    event = turn.event("unreliable", {**dict(action), "transfers_dropped": dropped})
    return _output(
        turn,
        action,
        onward=AGAIN,
        unreliable=[*state.get("unreliable", []), name],
        present=[m for m in state["present"] if m != name],
        transfers_run=[t for t in state["transfers_run"] if t not in dropped],
        requests=[*state.get("requests", []), action.model_dump(mode="json")],
        events=[event],
    )


def _hurried(turn: _Turn, action: RaiseUrgency) -> PersonOutput:
    before = turn.state.get("urgency", 0.0)
    if action.urgency <= before:
        return _refused(turn, action, f"the case's urgency is {before:g} and can only be raised")
    event = turn.event("urgency", {**dict(action), "before": before})
    requests = [*turn.state.get("requests", []), action.model_dump(mode="json")]
    return _output(turn, action, urgency=action.urgency, requests=requests, events=[event])


def _retried(turn: _Turn, action: Retry) -> PersonOutput:
    failed = (turn.state["failure"] or {})["node"]
    event = turn.event("request", {**dict(action), "node": failed, "refused": None})
    return _output(turn, action, onward=failed, failure=None, events=[event])


OPEN_AT: dict[str, tuple[str, ...]] = {
    "accept": (CLINICIAN, SECOND),
    "override": (CLINICIAN, SECOND, PARKED),
    "send_back": (CLINICIAN, SECOND, PARKED),
    "request_transfer": (CLINICIAN,),
    "mark_unreliable": (CLINICIAN,),
    "raise_urgency": (CLINICIAN, SECOND, PARKED),
    "retry": (PARKED,),
}
"""Where each action is carried out; anywhere else it is refused, and the case waits on."""
HANDLERS: dict[str, Callable[[_Turn, Any], PersonOutput]] = {
    "accept": _opined,
    "override": _opined,
    "send_back": _decided,
    "request_transfer": _asked_for,
    "mark_unreliable": _marked,
    "raise_urgency": _hurried,
    "retry": _retried,
}
