"""The worklist: which cases, in which order, and what a row says. Only what is shown is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy import Connection, Select, and_, case, func, or_, select
from sqlalchemy.sql.elements import ColumnElement

from api.store import cases as store
from api.store.tables import cases
from api.web import words

MOST = 1000
"""Cases on one page; beyond that the reader narrows the list."""
SHOWN = (
    cases.c.id, cases.c.reference, cases.c.status, cases.c.urgency, cases.c.deadline,
    cases.c.probability, cases.c.uncertainty, cases.c.g_co2e, cases.c.policy,
    cases.c.policy_fallback, cases.c.seen_in_training, cases.c.flags, cases.c.suggestion,
    cases.c.result, cases.c.unit, cases.c.session, cases.c.wake_at, cases.c.version,
    cases.c.second_review, cases.c.created_at,
)  # fmt: skip
TO_DO = (store.SECOND, store.AWAITING, store.PARKED)
GROUPS: dict[str, tuple[str, ...]] = {
    "todo": TO_DO,
    "agent": (store.QUEUED, store.RUNNING),
    "deferred": (store.DEFERRED,),
    "closed": store.FINAL,
}
GROUP_WORDS = {
    "todo": "Needs a person",
    "agent": "With the agent",
    "deferred": "Deferred",
    "closed": "Closed",
}
Sort = Literal[
    "attention", "reference", "urgency", "deadline", "status", "probability", "uncertainty",
    "carbon", "policy", "created",
]  # fmt: skip
NEXT_FIRST = case(
    {status: rank for rank, status in enumerate(TO_DO)}, value=cases.c.status, else_=9
)
SORTS: dict[str, ColumnElement[Any]] = {
    "reference": func.lower(cases.c.reference),
    "urgency": cases.c.urgency,
    "deadline": cases.c.deadline,
    "status": cases.c.status,
    "probability": cases.c.probability,
    "uncertainty": cases.c.uncertainty,
    "carbon": cases.c.g_co2e,
    "policy": cases.c.policy,
    "created": cases.c.created_at,
}
SORT_WORDS = {
    "attention": "Needs attention first",
    "urgency": "Urgency",
    "deadline": "Deadline",
    "created": "Newest first",
    "reference": "Case",
    "status": "Status",
    "probability": "Probability",
    "uncertainty": "Uncertainty",
    "carbon": "gCO2e",
    "policy": "Policy",
}
DESCENDING_FIRST = ("urgency", "probability", "uncertainty", "carbon", "created")


def _blank(value: object) -> object:
    """An empty field of a form says nothing."""
    return None if isinstance(value, str) and not value.strip() else value


Text = Annotated[Annotated[str, Field(max_length=200)] | None, BeforeValidator(_blank)]
Share = Annotated[
    Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None, BeforeValidator(_blank)
]


class Asked(BaseModel):
    """What the address asks for: it can be shared, and means the same for everybody."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    q: Text = None
    show: Annotated[
        Literal["todo", "agent", "deferred", "closed"] | None, BeforeValidator(_blank)
    ] = None
    status: Annotated[
        Literal[
            "queued", "running", "deferred", "awaiting_clinician", "awaiting_second", "parked",
            "recorded", "sent_back",
        ] | None,
        BeforeValidator(_blank),
    ] = None  # fmt: skip
    policy: Text = None
    min_urgency: Share = None
    min_uncertainty: Share = None
    due: Annotated[Literal["overdue", "day", "week"] | None, BeforeValidator(_blank)] = None
    flagged: bool = False
    sort: Sort = "attention"
    order: Annotated[Literal["asc", "desc"] | None, BeforeValidator(_blank)] = None

    def address(self, **changes: Any) -> str:
        """The list with something changed."""
        kept = {**self.model_dump(exclude_defaults=True), **changes}
        given = {name: _word(value) for name, value in kept.items() if value not in (None, False)}
        return "/?" + urlencode(given) if given else "/"

    @property
    def narrowed(self) -> bool:
        """Whether it asks for more than an order and a group."""
        return bool(self.model_dump(exclude_defaults=True, exclude={"sort", "order", "show"}))

    @property
    def descending(self) -> bool:
        """Which way the sorted column goes."""
        return self.order == "desc" if self.order else self.sort in DESCENDING_FIRST

    def sorted_by(self, column: str) -> str:
        """The list sorted by a column; the other way round where it is already."""
        turned = None
        if self.sort == column:
            turned = "asc" if self.descending else "desc"
        return self.address(sort=column, order=turned)


def _word(value: Any) -> str:
    return "1" if value is True else str(value)


def _escaped(text: str) -> str:
    """A text for LIKE, taken literally."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, "\\" + special)
    return text


def _search(text: str) -> ColumnElement[bool]:
    """Every word has to be found somewhere; an id counts from its beginning."""
    found = []
    for word in text.split():
        like = f"%{_escaped(word)}%"
        columns = (cases.c.reference, cases.c.unit, cases.c.session)
        hits = [column.ilike(like, escape="\\") for column in columns]
        found.append(or_(*hits, cases.c.id.ilike(f"{_escaped(word)}%", escape="\\")))
    return and_(True, *found)


def _conditions(asked: Asked, now: datetime) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if asked.q:
        wanted.append(_search(asked.q))
    if asked.show:
        wanted.append(cases.c.status.in_(GROUPS[asked.show]))
    if asked.status:
        # A case that runs is stored as queued until it rests.
        both = GROUPS["agent"] if asked.status == store.RUNNING else (asked.status,)
        wanted.append(cases.c.status.in_(both))
    if asked.policy:
        wanted.append(cases.c.policy == asked.policy)
    if asked.min_urgency:
        wanted.append(cases.c.urgency >= asked.min_urgency)
    if asked.min_uncertainty:
        wanted.append(cases.c.uncertainty >= asked.min_uncertainty)
    wanted += _by_deadline(asked.due, now)
    if asked.flagged:
        wanted.append(_flagged())
    return wanted


def _by_deadline(due: str | None, now: datetime) -> list[ColumnElement[bool]]:
    if due is None:
        return []
    ahead = {"overdue": timedelta(0), "day": timedelta(days=1), "week": timedelta(days=7)}[due]
    return [cases.c.deadline <= now + ahead, cases.c.status.not_in(store.FINAL)]


def _flagged() -> ColumnElement[bool]:
    return or_(
        func.json_array_length(cases.c.flags) > 0,
        cases.c.policy_fallback.is_not(None),
        cases.c.seen_in_training.is_(True),
    )


def _ordered(query: Select[Any], asked: Asked) -> Select[Any]:
    tie = (cases.c.created_at.desc(), cases.c.id)
    if asked.sort == "attention":
        return query.order_by(
            NEXT_FIRST, cases.c.urgency.desc(), cases.c.deadline.asc().nulls_last(), *tie
        )
    column = SORTS[asked.sort]
    way = column.desc() if asked.descending else column.asc()
    return query.order_by(way.nulls_last(), *tie)


def find_cases(
    connection: Connection, asked: Asked, now: datetime, ids: Sequence[str] | None = None
) -> Sequence[Any]:
    """The cases that were asked for, one more than a page at most.

    Args:
        connection: to the store.
        asked: filters and order.
        now: the present.
        ids: only these.
    """
    query = select(*SHOWN).where(*_conditions(asked, now))
    if ids is not None:
        query = query.where(cases.c.id.in_(ids))
    return connection.execute(_ordered(query, asked).limit(MOST + 1)).all()


def policies_in_use(connection: Connection) -> list[str]:
    """Policies that cases were posted for."""
    return list(connection.execute(select(cases.c.policy).distinct().order_by("policy")).scalars())


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of the worklist, in words."""

    id: str
    name: str
    named: bool
    place: str
    status: str
    status_word: str
    status_note: str
    urgency: str
    urgency_word: str
    deadline: str
    at: str
    due: str
    late: bool
    soon: bool
    probability: str
    of: str
    uncertainty: str
    carbon: str
    policy: str
    flags: tuple[str, ...]
    version: int


def line_of(row: Any, view: ListView) -> Line:
    """What a row of the store says in the list."""
    status = row.status
    if status in store.OPEN and row.id in view.running:
        status = store.RUNNING
    late, soon, due = _deadline(row, view.now)
    return Line(
        id=row.id,
        name=row.reference or row.id[:12],
        named=row.reference is not None,
        place=" · ".join(filter(None, (row.unit, row.session))),
        status=status,
        status_word=words.status_word(status),
        status_note=_note(row, status, view),
        urgency=f"{row.urgency:.2f}",
        urgency_word=words.urgency_word(row.urgency),
        deadline=row.deadline.isoformat() if row.deadline else "",
        at=words.clock_time(row.deadline, view.zone, view.now) if row.deadline else "",
        due=due,
        late=late,
        soon=soon,
        probability=words.chance(row.probability),
        of=view.classes.get(str(row.suggestion), "") if row.suggestion else "",
        uncertainty="–" if row.uncertainty is None else f"{row.uncertainty:.2f}",
        carbon=words.grams(row.g_co2e),
        policy=row.policy.rstrip("/").rpartition("/")[2],
        flags=_flags(row),
        version=row.version,
    )


@dataclass(frozen=True, kw_only=True)
class ListView:
    """What rows are worded with."""

    now: datetime
    zone: ZoneInfo
    classes: dict[str, str]
    running: frozenset[str]


def _deadline(row: Any, now: datetime) -> tuple[bool, bool, str]:
    if row.deadline is None:
        return False, False, ""
    if row.status in store.FINAL:
        return False, False, "closed"
    left = row.deadline - now
    return left < timedelta(0), left < timedelta(hours=4), words.due(row.deadline, now)


def _note(row: Any, status: str, view: ListView) -> str:
    """The one thing that a status leaves open: when it wakes, what was decided, who is missing."""
    if status == store.DEFERRED and row.wake_at is not None:
        return f"until {words.clock_time(row.wake_at, view.zone, view.now)}"
    if status == store.RECORDED and row.result:
        return view.classes.get(str(row.result), str(row.result))
    if status == store.AWAITING and row.second_review:
        return "two reviewers"
    return ""


def _flags(row: Any) -> tuple[str, ...]:
    flags = [str(flag) for flag in row.flags or ()]
    if row.seen_in_training:
        flags.append("seen in training")
    if row.policy_fallback:
        flags.append("fallback policy")
    return tuple(dict.fromkeys(flags))
