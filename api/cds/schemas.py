"""What CDS clients send and are sent (CDS Hooks 2.0).

The standard lets clients add fields, so that unknown ones are passed over here instead of refused;
they are never kept. ``fhirAuthorization`` is one of them: no token for anybody's records is wanted.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from api.schemas import Out

SUMMARY_CHARS = 139
"""The standard wants fewer than 140."""
COMMENT_CHARS = 500
Text = Annotated[str, StringConstraints(min_length=1, max_length=300)]
FhirId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9\-.]{1,64}$")]
CardId = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F-]{36}$")]


def _http(address: str) -> str:
    if not address.startswith(("https://", "http://")):
        raise ValueError("an address begins with https:// or http://")
    return address.rstrip("/")


Address = Annotated[str, StringConstraints(max_length=300), AfterValidator(_http)]


class In(BaseModel):
    """Base of what comes in from CDS clients."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, allow_inf_nan=False, alias_generator=to_camel
    )


class HookContext(In):
    """Whose chart was opened, and by whom."""

    user_id: Text = Field(description="Not kept.")
    patient_id: FhirId = Field(description="Kept as a keyed sum only.")
    encounter_id: Text | None = None


class HookRequest(In):
    """A call of the service."""

    hook: Literal["patient-view"]
    hook_instance: Text
    context: HookContext
    fhir_server: Address | None = None
    prefetch: Annotated[dict[str, dict[str, Any] | None], Field(max_length=32)] | None = None


class Coding(In):
    """A code of a code system."""

    code: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    system: Annotated[str, StringConstraints(max_length=300)] | None = None


class OverrideReason(In):
    """Why the card was dismissed: the code is kept without its wording, the comment cut short."""

    reason: Coding | None = None
    user_comment: Annotated[str, StringConstraints(max_length=10_000)] | None = None


class AcceptedSuggestion(In):
    """A suggestion that was taken."""

    id: CardId


class Feedback(In):
    """What a clinician did with one card."""

    card: CardId
    outcome: Literal["accepted", "overridden"]
    accepted_suggestions: Annotated[list[AcceptedSuggestion], Field(max_length=20)] = Field(
        default_factory=list
    )
    override_reason: OverrideReason | None = None
    outcome_timestamp: AwareDatetime


class FeedbackRequest(In):
    """Feedback on cards."""

    feedback: Annotated[list[Feedback], Field(min_length=1, max_length=100)]


NOTHING_FOUND = {"resourceType": "Bundle", "type": "searchset", "total": 0}
HOOK_EXAMPLES: dict[str, Any] = {
    "a patient without data": {
        "value": {
            "hook": "patient-view",
            "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
            "fhirServer": "https://ehr.example.org/fhir",
            "context": {"userId": "Practitioner/example", "patientId": "example"},
            "prefetch": {
                "patient": {"resourceType": "Patient", "id": "example"},
                # OpenAPI documents drop nulls, so this client's searches found nothing instead.
                "conditions": NOTHING_FOUND,
                "observations": NOTHING_FOUND,
            },
        }
    }
}
FEEDBACK_EXAMPLES: dict[str, Any] = {
    "dismissed": {
        "value": {
            "feedback": [
                {
                    "card": "4e0a3a1e-3283-4575-ab82-028d55fe2719",
                    "outcome": "overridden",
                    "overrideReason": {"reason": {"code": "not-now"}},
                    "outcomeTimestamp": "2030-01-31T09:00:00Z",
                }
            ]
        }
    }
}


class CdsOut(Out):
    """Base of what goes out, in the standard's spelling."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class OutCoding(CdsOut):
    """A code with what it means."""

    code: str
    system: str
    display: str


class Source(CdsOut):
    """Where a card comes from."""

    label: str
    url: str
    topic: OutCoding | None = None


class Link(CdsOut):
    """Where a card leads."""

    label: str
    url: str
    type: Literal["absolute"] = "absolute"


class Action(CdsOut):
    """What a suggestion would do in the client's system."""

    type: Literal["create"] = "create"
    description: str
    resource: dict[str, Any]


class Suggestion(CdsOut):
    """Something that the clinician may take with one click."""

    label: str
    uuid: str
    actions: list[Action]


class Card(CdsOut):
    """One card."""

    uuid: str
    summary: str = Field(max_length=SUMMARY_CHARS)
    detail: str
    indicator: Literal["info", "warning", "critical"]
    source: Source
    links: list[Link]
    override_reasons: list[OutCoding]
    suggestions: list[Suggestion] | None = None
    selection_behavior: Literal["at-most-one", "any"] | None = None


class Cards(CdsOut):
    """The answer to a hook."""

    cards: list[Card]


class Service(CdsOut):
    """A service as discovery lists it."""

    hook: Literal["patient-view"] = "patient-view"
    id: str
    title: str
    description: str
    prefetch: dict[str, str]
    usage_requirements: str


class Services(CdsOut):
    """What discovery answers."""

    services: list[Service]
