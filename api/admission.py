"""Which of a clinician's actions a case is open to, and for whom; everything else is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent.workflow.actions import Act
from api.problems import ProblemError
from api.store import actions as actions_of
from api.store import cases as store
from distill.transfers import BASE_MODALITY

DECIDED_IN = (store.AWAITING, store.SECOND, store.PARKED)
OPEN_IN: dict[str, tuple[str, ...]] = {
    "accept": (store.AWAITING, store.SECOND),
    "override": DECIDED_IN,
    "send_back": DECIDED_IN,
    "request_transfer": (store.AWAITING,),
    "mark_unreliable": (store.AWAITING,),
    "raise_urgency": (store.AWAITING, store.SECOND, store.DEFERRED),
    "retry": (store.PARKED,),
}
"""Statuses in which a case takes each action."""


def check_open(row: Any, action: Act, earlier: Sequence[Any], version: int | None) -> None:
    """Refuse what the case is not open to.

    Args:
        row: the case.
        action: what is asked for.
        earlier: rows of the actions that it saw.
        version: the version that the clinician saw; None if they gave none.

    Raises:
        ProblemError: saying what the case is, and what to do.
    """
    if version is not None and version != row.version:
        raise ProblemError(
            "stale",
            f"The case has changed: it is version {row.version} now, and {row.status}. Read it "
            "again, then decide.",
            headers={"ETag": etag(row.version)},
        )
    if row.status not in OPEN_IN[action.action]:
        raise _not_open(row, action, earlier)
    _check_reviewer(action, row, earlier)
    check = CHECKS.get(action.action)
    if check is not None:
        check(row, action)


def etag(version: int) -> str:
    """A case's entity tag."""
    return f'"{version}"'


def _not_open(row: Any, action: Act, earlier: Sequence[Any]) -> ProblemError:
    decided = bool(earlier) and earlier[-1].action["action"] in actions_of.OPINIONS
    if decided and row.status in (*store.FINAL, *store.OPEN):
        return ProblemError(
            "already-decided", "A decision was recorded before yours; read the case to see it."
        )
    when = " or ".join(OPEN_IN[action.action])
    return ProblemError(
        "not-awaiting-clinician",
        f"The case is {row.status}; {action.action!r} is taken when it is {when}. Follow its "
        "events until then.",
    )


def _check_reviewer(action: Act, row: Any, earlier: Sequence[Any]) -> None:
    """Of a case that takes two, the second has to be somebody else; anybody may send it back."""
    if row.status != store.SECOND or action.action not in ("accept", "override"):
        return
    opinions = actions_of.opinions(earlier)
    if opinions and opinions[-1]["reviewer"] == action.reviewer:
        raise ProblemError(
            "second-reviewer-needed",
            "Yours is the last opinion on this case; another reviewer has to give theirs.",
        )


def _check_urgency(row: Any, action: Any) -> None:
    if action.urgency <= row.urgency:
        raise ProblemError(
            "invalid-request",
            f"body/urgency: the case's urgency is {row.urgency:g}; it can only be raised.",
        )


def _check_transfer(row: Any, action: Any) -> None:
    known = row.explanation or {}
    source = action.transfer.partition("->")[0]
    if action.transfer in (row.transfers_run or ()):
        reason = "it has been run"
    elif source in known.get("missing", ()):
        reason = "the case lacks its source"
    elif source in known.get("unreliable", ()):
        reason = "its source was marked as unreliable"
    else:
        return
    raise ProblemError("unavailable-transfer", f"body/transfer: {reason}; ask for another one.")


def _check_modality(row: Any, action: Any) -> None:
    known = row.explanation or {}
    if action.modality == BASE_MODALITY:
        reason = "every review starts from it; send the case back instead"
    elif action.modality in known.get("missing", ()):
        reason = "the case lacks it"
    elif action.modality in known.get("unreliable", ()):
        reason = "it has been marked already"
    else:
        return
    raise ProblemError("unavailable-modality", f"body/modality: {reason}.")


CHECKS: dict[str, Callable[[Any, Any], None]] = {
    "raise_urgency": _check_urgency,
    "request_transfer": _check_transfer,
    "mark_unreliable": _check_modality,
}
