"""What a clinician may do to a case that waits for one; its graph is resumed with these."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from agent.workflow.state import ReasonCode, Record


class Act(Record):
    """Base: who acted, when, and as which of the case's actions.

    ``round`` counts the case's actions from 0 on; ``reviewer`` comes from the key that was used.
    """

    action: str
    reviewer: str
    decided_at: datetime
    comment: str = ""
    round: int = Field(default=0, ge=0)


class Accept(Act):
    """The suggestion is right."""

    action: Literal["accept"] = "accept"


class Override(Act):
    """The result is another one."""

    action: Literal["override"] = "override"
    result: Literal["negative", "positive"]
    reason_code: ReasonCode


class SendBack(Act):
    """The case goes back to whoever posted it, without a result."""

    action: Literal["send_back"] = "send_back"
    reason_code: ReasonCode


class RequestTransfer(Act):
    """A transfer that the agent skipped is to be run."""

    action: Literal["request_transfer"] = "request_transfer"
    transfer: str
    reason_code: ReasonCode = "clinical_judgement"


class MarkUnreliable(Act):
    """The case is to be assessed without a modality."""

    action: Literal["mark_unreliable"] = "mark_unreliable"
    modality: str
    reason_code: ReasonCode = "data_quality"


class RaiseUrgency(Act):
    """The case is more urgent than was thought."""

    action: Literal["raise_urgency"] = "raise_urgency"
    urgency: float = Field(gt=0, le=1)


class Retry(Act):
    """A parked case is to go on at the step that failed."""

    action: Literal["retry"] = "retry"


ClinicianAction = Annotated[
    Accept | Override | SendBack | RequestTransfer | MarkUnreliable | RaiseUrgency | Retry,
    Field(discriminator="action"),
]
ANY_ACTION: TypeAdapter[ClinicianAction] = TypeAdapter(ClinicianAction)
"""Reads any of them from plain JSON."""
