"""From a case to what a clinician sees beside the patient's chart. Pure; decides nothing.

A card never carries a result into another system by itself: it says where the review stands and
leads to the page where a person decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid5

from api.cds.schemas import SUMMARY_CHARS, Action, Card, Link, OutCoding, Source, Suggestion
from api.schemas import RESEARCH_USE, CaseView

CODES = "urn:greenboard:cds-override-reason"
TOPICS = "urn:greenboard:cds-topic"
REASONS = {
    "not-now": "Not now",
    "known": "Known already",
    "disagree": "I do not agree with it",
    "not-relevant": "Not relevant for this patient",
    "wrong-data": "It rests on wrong or missing data",
}
NEAR = timedelta(hours=24)
"""A deadline that is nearer than this makes an open case's card a warning."""
DETAIL_CHARS = 4000
MAX_FLAGS = 4
TASK_STATUSES = ("awaiting_clinician", "awaiting_second", "parked")
"""Where a person is waited for: the one thing that is worth putting on somebody's list."""
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A case on its way to a card.

    Attributes:
        case: what callers of the API would read.
        issuer: whom it is shown to.
        service: the service that shows it.
        patient: the patient's id in the client's system; goes back to it and nowhere else.
        base: address of this server, as the clinician's browser reaches it.
        now: the present.
    """

    case: CaseView
    issuer: str
    service: str
    patient: str
    base: str
    now: datetime

    @property
    def page(self) -> str:
        """Where the case is decided."""
        return f"{self.base}/cases/{self.case.id}"


def card_id(case_id: str, version: int, *, issuer: str, service: str) -> str:
    """The card's name: the same for the same version of a case and the same system."""
    return str(uuid5(UUID(case_id), f"{service}|{version}|{issuer}"))


def card_of(shown: Shown) -> Card:
    """The card of a case."""
    name = card_id(shown.case.id, shown.case.version, issuer=shown.issuer, service=shown.service)
    warn = _warnings(shown)
    waits = shown.case.status in TASK_STATUSES
    return Card(
        uuid=name,
        summary=_summary(shown, warn),
        detail=_detail(shown, warn),
        indicator="warning" if warn else "info",
        source=Source(
            label="greenboard (research use only)",
            url=f"{shown.base}/cds-services",
            topic=OutCoding(system=TOPICS, code="case-review", display="Tumour board case review"),
        ),
        links=[Link(label="Open the case review", url=shown.page)],
        override_reasons=[
            OutCoding(system=CODES, code=code, display=text) for code, text in REASONS.items()
        ],
        suggestions=[_task(shown, name, bool(warn))] if waits else None,
        selection_behavior="at-most-one" if waits else None,
    )


def _warnings(shown: Shown) -> list[str]:
    """Why the card is more than information."""
    case, found = shown.case, []
    explanation = case.explanation or {}
    if case.status in ("recorded", "sent_back"):
        return []
    if case.status == "parked":
        found.append("The review could not go on by itself; a person has to look at it.")
    classes = explanation.get("conformal_set") or []
    if explanation.get("conformal_level") is not None and len(classes) != 1:
        found.append("The evidence does not decide between the classes.")
    if case.status == "awaiting_second":
        found.append("A second reviewer has to give an opinion.")
    if case.deadline is not None and case.deadline - shown.now < NEAR:
        passed = case.deadline <= shown.now
        found.append(
            "The deadline has passed." if passed else "The deadline is less than a day away."
        )
    return found


def _standing(case: CaseView) -> str:
    """Where the review stands, in a few words."""
    words = {
        "queued": "Tumour board review is under way",
        "running": "Tumour board review is under way",
        "deferred": "Tumour board review waits for a cleaner hour",
        "awaiting_clinician": "Tumour board review is ready for a decision",
        "awaiting_second": "Tumour board review needs a second reviewer",
        "parked": "Tumour board review is set aside",
        "recorded": "Tumour board review is signed",
        "sent_back": "Tumour board review was sent back",
    }
    return words.get(case.status, "Tumour board review")


def _label(case: CaseView, outcome: str) -> str:
    return case.model.positive if outcome == "positive" else case.model.negative


def _said(case: CaseView) -> str:
    """The signed result, or else what is suggested; "" while there is neither."""
    if case.status == "recorded" and case.result is not None:
        return _label(case, case.result)
    suggestion = (case.explanation or {}).get("suggestion")
    if case.status not in TASK_STATUSES or suggestion is None or case.probability is None:
        return ""
    share = case.probability if suggestion == "positive" else 1 - case.probability
    return f"suggests {_label(case, suggestion)} ({share:.2f})"


def _summary(shown: Shown, warn: Sequence[str]) -> str:
    """One sentence; the marks that must be there come first, so that cutting never takes them."""
    case = shown.case
    mark = "Research use only, synthetic model" if case.model.synthetic else "Research use only"
    said = _said(case)
    text = f"{mark}: {_standing(case)}{f': {said}' if said else ''}"
    if warn and len(text) + 12 <= SUMMARY_CHARS:
        text += "; see detail"
    return text if len(text) <= SUMMARY_CHARS else text[: SUMMARY_CHARS - 1] + "…"


def _detail(shown: Shown, warn: Sequence[str]) -> str:
    case = shown.case
    explanation: dict[str, Any] = case.explanation or {}
    said = _said(case)
    lines = [f"**{escape(_standing(case))}.**"]
    lines += [f"- {escape(text)}" for text in warn]
    if said:
        lines.append(f"- {'Signed' if case.status == 'recorded' else 'It'} {escape(said)}.")
    if case.wake_at is not None and case.status == "deferred":
        lines.append(f"- It goes on at {case.wake_at:%Y-%m-%d %H:%M} UTC.")
    if explanation.get("missing"):
        lines.append(f"- Missing: {escape(', '.join(map(str, explanation['missing'])))}.")
    if isinstance(explanation.get("g_co2e"), (int, float)):
        lines.append(f"- Reviewing it emitted {explanation['g_co2e']:.1f} g CO2e (gross).")
    lines += [f"- {escape(text)}" for text in (*case.caution, *case.flags[:MAX_FLAGS])]
    lines.append(
        f"\n{RESEARCH_USE} The case page shows inputs, logic, limits and what was missing."
    )
    text = "\n".join(lines)
    return text if len(text) <= DETAIL_CHARS else text[: DETAIL_CHARS - 1] + "…"


def escape(text: str) -> str:
    """Plain text as Markdown shows it."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _task(shown: Shown, card: str, pressing: bool) -> Suggestion:
    """A FHIR Task in the client's own list, so that somebody looks at the case."""
    priority: Literal["urgent", "routine"] = "urgent" if pressing else "routine"
    what = "Look at the tumour board case review (research use only)"
    return Suggestion(
        label="Put the case review on my task list",
        uuid=str(uuid5(UUID(card), "task")),
        actions=[
            Action(
                description=f"{what}; nothing is decided by this.",
                resource={
                    "resourceType": "Task",
                    "status": "requested",
                    "intent": "proposal",
                    "priority": priority,
                    "description": what,
                    "for": {"reference": f"Patient/{shown.patient}"},
                    "authoredOn": shown.now.isoformat(timespec="seconds"),
                    "input": [{"type": {"text": "Case page"}, "valueUrl": shown.page}],
                },
            )
        ],
    )
