"""What each node puts out: constructing one of these is the validation."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from agent.workflow.state import (
    AssessmentRecord,
    CarbonView,
    Charge,
    Choice,
    Decision,
    Event,
    Explanation,
    Failure,
    Opinion,
    Outcome,
    Plan,
    Record,
    Waited,
)
from agent.workflow.told import AxisTried, ShadowEntry


class NodeOutput(BaseModel):
    """What any node may put out; the running totals are added where it is bound to the graph."""

    model_config = Record.model_config

    events: list[Event] = []
    charges: list[Charge] = []
    shadow: list[ShadowEntry] = []


class IntakeOutput(NodeOutput):
    """Modalities that the case has, how complete they are, and who will decide."""

    present: list[str]
    quality: dict[str, float]
    transfers_run: list[str]
    policy: str
    policy_fallback: str | None
    cautions: list[str] = []


class SenseOutput(NodeOutput):
    """The grid as it is known now; a wait that has just ended learns what it met."""

    carbon: CarbonView
    waits: list[Waited] = []


class AssessOutput(NodeOutput):
    """The student's view, and the view with clinical data alone (kept from the first pass)."""

    assessment: AssessmentRecord
    probability_clinical_only: float


class DecideOutput(NodeOutput):
    """The action to take next, the plan if it is to wait, and what limits did to the choice."""

    choice: Choice
    plan: Plan | None
    changes: list[AxisTried] = []
    limit_notes: list[str] = []


class TransferOutput(NodeOutput):
    """The evidence after one more transfer."""

    transfers_run: list[str]


class DeferOutput(NodeOutput):
    """The case has used its one deferral."""

    deferred: bool
    waits: list[Waited]


class WaitOutput(NodeOutput):
    """The case was woken, perhaps because it became more urgent; the plan is spent."""

    plan: None = None
    waits: list[Waited]
    urgency: float = Field(default=0.0, ge=0, le=1)
    answered: int = Field(default=0, ge=0)


class ExplainOutput(NodeOutput):
    """The explanation that the clinician reads; opinions on an earlier one no longer count."""

    explanation: Explanation
    asked: None = None
    opinions: list[Opinion] = []


class RequestOutput(NodeOutput):
    """Whether a requested transfer may run; ``asked`` is None if it may not."""

    asked: dict[str, Any] | None
    limit_notes: list[str] = []


class PersonOutput(NodeOutput):
    """What a person did, what that changes, and the node that comes next.

    ``answered`` is one more than the round of the last action that was carried out; ``asked`` is
    the request that is under way.
    """

    onward: str
    answered: int = Field(ge=0)
    decision: Decision | None = None
    opinions: list[Opinion] = []
    asked: dict[str, Any] | None = None
    requests: list[dict[str, Any]] = []
    unreliable: list[str] = []
    present: list[str] = []
    transfers_run: list[str] = []
    urgency: float = Field(default=0.0, ge=0, le=1)
    failure: Failure | None = None


class ParkOutput(NodeOutput):
    """The case is set aside for a person."""

    failure: Failure


class RecordOutput(NodeOutput):
    """The end of the review."""

    outcome: Outcome
