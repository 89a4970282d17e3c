"""Bodies of requests and answers; everything that comes in is checked and nothing extra passes."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from agent.workflow.state import ReasonCode


def readable(text: str) -> str:
    """Text without characters that nobody sees: controls, and those that turn the writing."""
    if any(unicodedata.category(letter) in UNSEEN for letter in text):
        raise ValueError("it holds control or direction characters; leave them out")
    return text


UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(readable)]
# There are hundreds in a case, and only those that the bundle knows are taken.
FeatureName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")
Cell = float | int | str | bool | None
Rows = dict[FeatureName, dict[FeatureName, Cell] | None]
Status = Literal[
    "queued",
    "running",
    "deferred",
    "awaiting_clinician",
    "awaiting_second",
    "parked",
    "recorded",
    "sent_back",
]
EXAMPLE_ID = "6f1c0c5e9b8e4c3a9d7e2f1a0b3c4d5e"
RESEARCH_USE = "Research use only: it recommends, a person signs."


def written_out(value: object) -> object:
    """A point in time as text; bare numbers, which could be seconds since anything, are refused."""
    if value is None or isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not TIMESTAMP.match(value):
        raise ValueError("write date and time as text, for example 2030-01-31T09:00:00Z")
    return value


def in_calendar(value: datetime) -> datetime:
    """The moment in UTC, where the calendar still has it there."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("it lies outside the years 1 to 9999 in UTC") from None


Moment = Annotated[AwareDatetime, AfterValidator(in_calendar)]
"""A moment that a caller asks about; it has a time zone."""


class Body(BaseModel):
    """Base of what comes in."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CaseRequest(Body):
    """A case to review: feature rows by modality, or the id of a case of the loaded cohort."""

    features: (
        Annotated[dict[FeatureName, dict[FeatureName, Cell] | None], Field(max_length=32)] | None
    ) = Field(
        default=None,
        description="Feature values by modality and name; a missing modality is null or left out. "
        "A bundle that was trained with times takes them beside the modalities, under 'temporal'.",
    )
    case_id: Name | None = Field(
        default=None, description="A case of the cohort that the server was started with."
    )
    reference: Name | None = Field(
        default=None,
        description="The caller's own reference. Kept with the case, in no log and no event.",
    )
    urgency: float = Field(default=0.0, ge=0.0, le=1.0, strict=True)
    deadline: Annotated[datetime | None, BeforeValidator(written_out)] = Field(
        default=None,
        description="In the future, with a time zone; a case is never deferred beyond it.",
    )
    unit: Name | None = Field(
        default=None, description="Hospital unit that it is done for; the account can go by it."
    )
    session: Name | None = Field(
        default=None,
        description="Board session that it belongs to; limits and the account can go by it.",
    )
    policy: Name | None = Field(
        default=None, description="Name from GET /v1/policies; the server's own if left out."
    )

    @model_validator(mode="after")
    def _one_source(self) -> CaseRequest:
        if (self.features is None) == (self.case_id is None):
            raise ValueError("give either 'features' or 'case_id', not both and not neither")
        if self.deadline is not None:
            if self.deadline.tzinfo is None:
                raise ValueError("'deadline' needs a time zone, for example a final Z")
            try:
                self.deadline.astimezone(UTC)
            except OverflowError:
                raise ValueError("'deadline' lies outside the years 1 to 9999 in UTC") from None
        return self


class Accept(Body):
    """The clinician agrees with the suggestion."""

    action: Literal["accept"]
    comment: str = Field(default="", max_length=2000)


class Override(Body):
    """The clinician decides otherwise, and says why."""

    action: Literal["override"]
    result: Literal["negative", "positive"]
    reason_code: ReasonCode
    comment: str = Field(default="", max_length=2000)


class SendBack(Body):
    """The case goes back to whoever posted it, without a result."""

    action: Literal["send_back"]
    reason_code: ReasonCode
    comment: str = Field(default="", max_length=2000)


class RequestTransfer(Body):
    """The clinician asks for a transfer that the agent skipped."""

    action: Literal["request_transfer"]
    transfer: Name = Field(description="Name of the transfer, as the case's options have it.")
    reason_code: ReasonCode = "clinical_judgement"
    comment: str = Field(default="", max_length=2000)


class MarkUnreliable(Body):
    """A modality's data are not to be trusted; the case is assessed again without them."""

    action: Literal["mark_unreliable"]
    modality: Name
    reason_code: ReasonCode = "data_quality"
    comment: str = Field(default="", max_length=2000)


class RaiseUrgency(Body):
    """The case is more urgent than was thought; one that waits is woken at once."""

    action: Literal["raise_urgency"]
    urgency: float = Field(gt=0.0, le=1.0, strict=True)
    comment: str = Field(default="", max_length=2000)


class Retry(Body):
    """A parked case goes on at the step that failed."""

    action: Literal["retry"]
    comment: str = Field(default="", max_length=2000)


ActionRequest = Annotated[
    RequestTransfer | MarkUnreliable | RaiseUrgency | Retry, Field(discriminator="action")
]
ACTION_EXAMPLES: dict[str, Any] = {
    "request_transfer": {
        "value": {"action": "request_transfer", "transfer": "genomics->pathology"}
    },
    "mark_unreliable": {
        "value": {
            "action": "mark_unreliable",
            "modality": "pathology",
            "reason_code": "data_quality",
            "comment": "The slide is out of focus.",
        }
    },
    "raise_urgency": {"value": {"action": "raise_urgency", "urgency": 0.9}},
    "retry": {"value": {"action": "retry"}},
}
DecisionRequest = Annotated[Accept | Override | SendBack, Field(discriminator="action")]
DECISION_EXAMPLES: dict[str, Any] = {
    "accept": {"value": {"action": "accept"}},
    "override": {
        "value": {
            "action": "override",
            "result": "negative",
            "reason_code": "clinical_judgement",
            "comment": "Immunohistochemistry says otherwise.",
        }
    },
    "send_back": {"value": {"action": "send_back", "reason_code": "missing_data"}},
}


class Out(BaseModel):
    """Base of what goes out."""

    model_config = ConfigDict(extra="forbid")


class PolicyOfCase(Out):
    """Who decides the case's next step, and why it is not the one that was asked for."""

    asked: str
    acting: str
    fallback_reason: str | None = None


class ModelOfCase(Out):
    """The model behind the probability."""

    bundle_version: str
    cohort: str
    synthetic: bool = Field(description="Trained on a synthetic cohort: for trying out only.")
    negative: str = Field(description="Name of the negative class.")
    positive: str = Field(description="Name of the positive class.")
    precision: str = Field(description="Weights of the student that is served: fp32 or int8.")


class CaseSummary(Out):
    """A case in the list."""

    id: str = Field(examples=[EXAMPLE_ID])
    status: Status
    reference: str | None
    unit: str | None
    session: str | None
    urgency: float
    deadline: datetime | None
    created_at: datetime
    updated_at: datetime
    created_by: str
    policy: PolicyOfCase
    seen_in_training: bool | None = Field(
        description="True: the model saw this patient in training and the probability is "
        "optimistic. Null: not known, the features came without a cohort's case id."
    )
    probability: float | None = Field(description="Of the positive class; null before scoring.")
    transfers_run: list[str]
    wake_at: datetime | None = Field(description="When a deferred case is looked at again.")
    result: Literal["negative", "positive"] | None = Field(
        description="What the clinician recorded; null until then."
    )
    version: int = Field(description="Goes up at every change; the ETag of the case.")
    uncertainty: float | None = Field(
        description="Entropy of the probability, bits: 0 sure, 1 undecided."
    )
    g_co2e: float | None = Field(description="Gross emissions of the review so far, grams.")
    suggestion: Literal["negative", "positive"] | None = Field(
        description="The class on the model's side of one half; a clinician decides."
    )
    second_review: bool | None = Field(description="Whether two reviewers have to agree.")
    flags: list[str] = Field(description="What is unusual about the case.")


class CaseView(CaseSummary):
    """A case with its explanation, plan and decision."""

    model: ModelOfCase
    explanation: dict[str, Any] | None
    plan: dict[str, Any] | None
    decision: dict[str, Any] | None
    opinions: list[dict[str, Any]] = Field(description="Decisions given so far, in order.")
    failure: str | None
    caution: list[str]
    notice: str = RESEARCH_USE
    links: dict[str, str]


class CasePage(Out):
    """A page of cases, newest first."""

    cases: list[CaseSummary]
    next_cursor: str | None


class PoliciesView(Out):
    """What can decide."""

    configured: str
    acting: str
    fallback_reason: str | None
    names: list[str] = Field(description="What a case may ask for.")
    shadow: list[str] = Field(
        description="These decide silently beside the acting one; a report of kind 'shadow' "
        "compares them."
    )
    seed: int


class ReadingView(Out):
    """Grid carbon intensity with its provenance."""

    g_per_kwh: float
    zone: str
    time: datetime
    basis: str
    provider: str
    kind: str
    age_s: float
    uncertainty_g_per_kwh: float | None
    interval90_g_per_kwh: tuple[float, float] | None = Field(
        default=None, description="Holds 90 % of the values, where a forecaster gives it."
    )
    note: str


class ForecastView(Out):
    """Hourly forecast, the next clock hour first."""

    readings: list[ReadingView]


class LedgerLine(Out):
    """One sum; measured and modelled figures are never added together."""

    key: str
    energy_basis: Literal["measured", "modelled"]
    entries: int
    energy_kwh: float | None
    g_co2e: float | None
    without_figure: int = Field(description="Entries whose energy is unknown: not in the sums.")


class BudgetView(Out):
    """The day's carbon, midnight to midnight UTC."""

    g_co2e_per_day: float
    spent_g_co2e: float
    left_g_co2e: float


class LedgerView(Out):
    """Sums over the ledger."""

    by: Literal["stage", "case"]
    since: datetime | None
    totals: list[LedgerLine]
    budget: BudgetView


class Readiness(Out):
    """Whether the server can review, and with what."""

    status: Literal["ready"]
    model: ModelOfCase
    policy: PolicyOfCase
    carbon: ReadingView
    cases: dict[str, int]
    queue_length: int


class Health(Out):
    """The process answers."""

    status: Literal["alive"]


class AuditView(Out):
    """Whether the audit log holds together."""

    intact: bool
    entries: int
    head: str = Field(description="Hash of the last row; note it elsewhere to detect truncation.")
    problem: str | None


class RephrasedView(Out):
    """A model's words; ``mark`` has to be shown wherever ``text`` is."""

    mark: str = Field(
        examples=[
            "Put in other words by a language model (small-1), which may be wrong; the "
            "deterministic explanation stands."
        ]
    )
    text: str = Field(examples=["The model puts the probability at 0.812 and suggests positive."])
    model: str = Field(examples=["small-1"])
