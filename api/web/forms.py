"""From the forms of a case to checked actions; what does not fit is told beside its field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from api.schemas import ActionRequest, DecisionRequest
from api.web.words import REASONS

DECISIONS = ("accept", "override", "send_back")
FIELDS: dict[str, tuple[str, ...]] = {
    "accept": ("comment",),
    "override": ("result", "reason_code", "comment"),
    "send_back": ("reason_code", "comment"),
    "request_transfer": ("transfer", "reason_code", "comment"),
    "mark_unreliable": ("modality", "reason_code", "comment"),
    "raise_urgency": ("urgency", "comment"),
    "retry": ("comment",),
}
MISSING = {
    "result": "Choose the result that is to be recorded.",
    "reason_code": "Choose a reason.",
    "transfer": "Choose the transfer that is to be run.",
    "modality": "Choose the modality that is not to be trusted.",
    "urgency": "Give an urgency above the present one, up to 1.",
    "comment": "Say which other reason in the comment, in at most 2,000 characters.",
}
DECISION: TypeAdapter[Any] = TypeAdapter(DecisionRequest)
ACTION: TypeAdapter[Any] = TypeAdapter(ActionRequest)


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What a form of a case says.

    Attributes:
        action: what is to be done; "" if the form is none of ours.
        given: the request, if it is complete.
        errors: words by the id of the field that they belong to.
        values: what was typed, by field, to be shown again.
        version: of the case that the person saw.
        seq: last step that they saw.
        nonce: one a form, so that sending it twice does one thing.
        confirmed: whether they looked at it again and signed.
    """

    action: str
    given: dict[str, Any]
    errors: dict[str, str]
    values: dict[str, str]
    version: int | None
    seq: int
    nonce: str
    confirmed: bool

    @property
    def decides(self) -> bool:
        """Whether it says what the result is, or that there is none."""
        return self.action in DECISIONS


def _whole(text: str | None, default: int | None) -> Any:
    known = text is not None and text.isascii() and text.isdecimal() and len(text) < 10
    return int(text) if known and text is not None else default


def fill(fields: Mapping[str, str], urgency: float) -> Filled:
    """Read a form.

    Args:
        fields: as they were posted.
        urgency: the case's present one.
    """
    action = fields.get("action", "")
    names = FIELDS.get(action, ())
    values = {name: fields.get(name, "").strip() for name in names}
    given: dict[str, Any] = {"action": action}
    given |= {name: value for name, value in values.items() if value}
    wrong = _checked(action, given, urgency) if names else set()
    return Filled(
        action=action if names else "",
        given=given,
        errors={
            f"{action}-{name}": MISSING[name] for name in FIELDS.get(action, ()) if name in wrong
        },
        values=values,
        version=_whole(fields.get("version"), None),
        seq=_whole(fields.get("seq"), -1),
        nonce=fields.get("nonce", "")[:64],
        confirmed=fields.get("confirm") == "yes",
    )


def _checked(action: str, given: dict[str, Any], urgency: float) -> set[str]:
    """Names of the fields that are missing or wrong; numbers in ``given`` are made such."""
    if action == "raise_urgency":
        given["urgency"] = _number(given.get("urgency"))
    wrong = {
        name
        for name in FIELDS[action]
        if name not in given and name != "comment" and name in MISSING
    }
    if given.get("reason_code") == "other" and not given.get("comment"):
        wrong.add("comment")
    if given.get("reason_code") not in (None, *REASONS):
        wrong.add("reason_code")
    if action == "raise_urgency" and not _above(given["urgency"], urgency):
        wrong.add("urgency")
    return wrong or _refused(action, given)


def _above(value: float | None, urgency: float) -> bool:
    return value is not None and urgency < value <= 1.0


def _refused(action: str, given: dict[str, Any]) -> set[str]:
    """What the API's own schema would not take."""
    try:
        (DECISION if action in DECISIONS else ACTION).validate_python(given)
    except ValidationError as error:
        found = {str(problem["loc"][-1]) for problem in error.errors()}
        return {name for name in FIELDS[action] if name in found} or {"comment"}
    return set()


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
