"""Everything that a case's page shows, put together from what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from agent.workflow.kit import ReviewKit
from api.admission import OPEN_IN
from api.hub import Live
from api.schemas import ModelOfCase
from api.store import actions as actions_of
from api.store import cases as store
from api.store import ledger
from api.views import case_view, model_of
from api.web.case_charts import contribution_chart, evidence_chart
from api.web.case_steps import Step, changes_told, looks_of, timeline
from api.web.guard import Visit
from api.web.svg import Chart
from distill.transfers import BASE_MODALITY

FIRST = ("At the ", "Transfers run", "Available but not", "The case lacks", "Stopped by", "Caution")
"""How the lines of an explanation begin that stand open on the page."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the store has of a case, read in one go."""

    row: Any
    events: Sequence[dict[str, Any]]
    actions: Sequence[Any]
    totals: Sequence[dict[str, Any]]


def read_case(connection: Connection, case_id: str) -> Stored | None:
    """The case with its steps, actions and sums; None if there is none."""
    row = store.get_case(connection, case_id)
    if row is None:
        return None
    return Stored(
        row=row,
        events=store.get_events(connection, case_id),
        actions=actions_of.of_case(connection, case_id),
        totals=ledger.totals(connection, by="stage", since=None, case_id=case_id),
    )


def with_live(stored: Stored, live: Live | None) -> Stored:
    """The steps of a run that has not come to rest are in memory alone: they belong to the page."""
    last = stored.events[-1]["seq"] if stored.events else -1
    newer = [step for step in live.steps if step["seq"] > last] if live is not None else []
    return replace(stored, events=[*stored.events, *newer]) if newer else stored


@dataclass(frozen=True, kw_only=True)
class CasePage:
    """A case as its page shows it.

    Attributes:
        view: what the API says of it.
        model: the model that reviews it.
        classes: names of "negative" and "positive".
        steps: the timeline.
        seq: number of the last step.
        evidence: chart of the probability after each piece of evidence.
        contributions: chart of what each modality adds.
        told: the explanation, or an empty one.
        totals: energy and carbon by stage and basis.
        changes: what would have changed the last choice.
        open: actions that the person who looks may take now.
        mine: whether the last opinion is theirs, so that somebody else has to give the second.
        transfers: that may be asked for.
        modalities: that may be marked as unreliable.
    """

    view: Any
    model: ModelOfCase
    classes: Mapping[str, str]
    steps: Sequence[Step]
    seq: int
    evidence: Chart | None
    contributions: Chart | None
    told: Mapping[str, Any]
    totals: Sequence[Mapping[str, Any]]
    changes: Sequence[tuple[str, str, str]]
    open: frozenset[str]
    mine: bool
    transfers: tuple[str, ...]
    modalities: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the case is called: its reference, or the beginning of its id."""
        return str(self.view.reference or self.view.id[:12])

    @property
    def more(self) -> bool:
        """Whether there is anything to do beside what stands at the top of the form."""
        return bool(self.open - {"accept", "retry", "wake"})

    @property
    def summary(self) -> list[str]:
        """The first lines of the explanation: the result, what is left open, what was missing."""
        lines: list[str] = list(self.told.get("lines", ()))
        return [line for i, line in enumerate(lines) if i == 0 or line.startswith(FIRST)]

    @property
    def two_reviewers(self) -> bool:
        """Whether one decision does not record it."""
        return bool(self.view.second_review)


def build_case(visited: Visit, stored: Stored) -> CasePage:
    """Put the page together."""
    server, row = visited.server, stored.row
    loaded = server.kits.at_hand(row.bundle)
    model = model_of(server, row)
    classes = {"negative": model.negative, "positive": model.positive}
    told = row.explanation or {}
    view = case_view(server, row, stored.actions)
    opinions = view.opinions
    mine = bool(
        view.status == store.SECOND
        and opinions
        and opinions[-1]["reviewer"] == visited.session.principal.name
    )
    kit = loaded.kit if loaded is not None else None
    last = _last_choice(stored.events)
    looks = looks_of(stored.events)
    return CasePage(
        view=view,
        model=model,
        classes=classes,
        steps=timeline(stored.events, classes),
        seq=int(stored.events[-1]["seq"]) if stored.events else -1,
        evidence=evidence_chart(looks, model.positive) if looks else None,
        contributions=contribution_chart(
            told.get("weighting") or {}, model.negative, model.positive
        ),
        told=told,
        totals=stored.totals,
        changes=changes_told(told.get("changes") or last.get("changes") or ()),
        open=_open(visited, view.status, mine=mine, urgency=row.urgency),
        mine=mine,
        transfers=_transfers(kit, row, told),
        modalities=_modalities(kit, told),
    )


def _open(visited: Visit, status: str, *, mine: bool, urgency: float) -> frozenset[str]:
    if not visited.may("reviewer"):
        return frozenset()
    may = {action for action, statuses in OPEN_IN.items() if status in statuses}
    if status == store.DEFERRED:
        may.add("wake")
    if mine:
        may -= {"accept", "override"}
    if urgency >= 1.0:
        may.discard("raise_urgency")
    return frozenset(may)


def _last_choice(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((e["data"] for e in reversed(events) if e["kind"] == "choice"), {})


def _lacking(told: Mapping[str, Any]) -> set[str]:
    return {*(told.get("missing") or ()), *(told.get("unreliable") or ())}


def _transfers(kit: ReviewKit | None, row: Any, told: Mapping[str, Any]) -> tuple[str, ...]:
    if kit is None:
        return ()
    lacking, run = _lacking(told), row.transfers_run or ()
    return tuple(
        name
        for name in kit.layout.transfers
        if name not in run and name.partition("->")[0] not in lacking
    )


def _modalities(kit: ReviewKit | None, told: Mapping[str, Any]) -> tuple[str, ...]:
    if kit is None:
        return ()
    lacking = _lacking(told)
    return tuple(m for m in kit.layout.modalities if m != BASE_MODALITY and m not in lacking)
