"""Numbers, times and codes in the reader's words; pure functions that templates use as filters."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

STATUS = {
    "queued": "Queued",
    "running": "Agent at work",
    "deferred": "Deferred",
    "awaiting_clinician": "Needs decision",
    "awaiting_second": "Needs second opinion",
    "parked": "Parked",
    "recorded": "Recorded",
    "sent_back": "Sent back",
}
STATUS_MEANS = {
    "queued": "Waits for the agent.",
    "running": "The agent is reviewing it.",
    "deferred": "Waits for cleaner electricity, or for a new carbon period.",
    "awaiting_clinician": "Waits for a clinician's decision.",
    "awaiting_second": "One opinion is recorded; another reviewer's is needed.",
    "parked": "The agent could not go on: a person decides how.",
    "recorded": "A clinician's result is recorded.",
    "sent_back": "Returned to whoever posted it, without a result.",
}
REASONS = {
    "clinical_judgement": "Clinical judgement",
    "new_information": "New information",
    "data_quality": "Quality of the data",
    "outside_scope": "Outside the model's scope",
    "missing_data": "Data are missing",
    "wrong_data": "Data are wrong",
    "other": "Other (say which in the comment)",
}
ACTIONS = {
    "accept": "Accepted the suggestion",
    "override": "Overrode the suggestion",
    "send_back": "Sent the case back",
    "request_transfer": "Asked for a skipped transfer",
    "mark_unreliable": "Marked a modality as unreliable",
    "raise_urgency": "Raised the urgency",
    "retry": "Asked the agent to try again",
    "wake": "Woke the case",
}
ROLES = {"viewer": "Viewer", "reviewer": "Reviewer", "admin": "Administrator"}
LESS = 0.0005
LIVE_S = 2 * 24 * 3600.0
"""No live source is older than this; a recorded trace is."""


def status_word(status: str) -> str:
    """A status as people say it."""
    return STATUS.get(status, status.replace("_", " ").capitalize())


def reason_word(code: str | None) -> str:
    """A coded reason as people say it."""
    return REASONS.get(code, code.replace("_", " ")) if code else ""


def action_word(code: str) -> str:
    """A person's action in the past tense."""
    return ACTIONS.get(code, code.replace("_", " ").capitalize())


def urgency_word(urgency: float) -> str:
    """Four steps of urgency; the number stands beside it."""
    if urgency >= 0.8:
        return "Urgent"
    if urgency >= 0.5:
        return "High"
    return "Normal" if urgency > 0.1 else "Low"


def chance(probability: float | None) -> str:
    """A probability with two decimals; extremes are not rounded to certainty."""
    if probability is None:
        return "–"
    if 0.995 <= probability < 1.0:
        return ">0.99"
    return "<0.01" if 0.0 < probability < 0.005 else f"{probability:.2f}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, thousands set apart."""
    if value is None:
        return "unknown"
    if value == 0:
        return "0"
    text = f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"
    return (text if "e" not in text else f"{value:.2e}").replace("-", "−")


def small(value: float | None) -> str:
    """An amount in a column of one unit: what is next to nothing says so, what is unknown too."""
    if value is None:
        return "unknown"
    if value != 0 and abs(value) < LESS:
        return "<0.001"
    return number(value)


def grams(value: float | None) -> str:
    """Grams in a list, one decimal, so that the points stand below each other."""
    if value is None:
        return "–"
    return "<0.1" if 0 < value < 0.05 else f"{value:,.1f}"


def age(at: datetime, seconds: float, note: str, zone: ZoneInfo) -> str:
    """How old a reading is; of a trace that is replayed, which hour it is of."""
    if seconds > LIVE_S:
        return note or f"replays the recorded hour of {clock_time(at, zone)}"
    return f"{span(seconds)} old" + (f"; {note}" if note else "")


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign and fixed decimals."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def percent(share: float | None, digits: int = 0) -> str:
    """A share as per cent."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    minutes = round(abs(seconds) / 60)
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h" if hours and days < 10 else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else "under 1 min"


def ago(at: datetime | str, now: datetime) -> str:
    """How long ago, or in how long."""
    seconds = (moment(at) - now) / timedelta(seconds=1)
    if abs(seconds) < 45:
        return "now"
    return f"in {span(seconds)}" if seconds > 0 else f"{span(seconds)} ago"


def due(deadline: datetime | str, now: datetime) -> str:
    """A deadline from now on."""
    seconds = (moment(deadline) - now) / timedelta(seconds=1)
    return f"in {span(seconds)}" if seconds >= 0 else f"{span(seconds)} overdue"


def moment(at: datetime | str) -> datetime:
    """A point in time that may have been kept as text."""
    return datetime.fromisoformat(at) if isinstance(at, str) else at


def clock_time(at: datetime | str, zone: ZoneInfo, now: datetime | None = None) -> str:
    """Date and time in the server's zone, the zone named; near ones without year or date."""
    local = moment(at).astimezone(zone)
    here = now.astimezone(zone) if now is not None else None
    if here is not None and local.date() == here.date():
        return f"{local:%H:%M %Z}"
    if here is not None and local.year == here.year:
        return f"{local.day} {local:%b, %H:%M %Z}"
    return f"{local.day} {local:%b %Y, %H:%M %Z}"


def to_the_second(at: datetime | str, zone: ZoneInfo, now: datetime) -> str:
    """A step's time: today's without the date."""
    local = moment(at).astimezone(zone)
    same_day = local.date() == now.astimezone(zone).date()
    return f"{local:%H:%M:%S}" if same_day else f"{local:%d %b, %H:%M:%S}"
