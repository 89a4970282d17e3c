"""What the policies page shows: who decides, who would decide otherwise, and the comparisons."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError
from sqlalchemy import Connection, func, select

from agent.workflow.errors import WorkflowError
from agent.workflow.shadow import compare_shadow
from api.deps import Server
from api.job_requests import DEFAULT_POLICIES, ComparisonRequest, JobView
from api.problems import ProblemError
from api.routes.jobs import job_view
from api.schemas import PolicyOfCase
from api.store import jobs as store
from api.store.tables import cases
from api.store.tables import shadow as shadow_table
from api.views import policy_view
from api.web.guard import Visit
from api.web.svg import Chart, Scale, drawing, tag, ticks
from api.web.words import number, signed

JOBS = 20
MOST_SHADOW = 20_000
"""Rows of the log that are compared here; a report of the job goes over all of them."""
REPORT = "report.json"
SIZE = (720, 310)
PLOT_END, PLOT_BOTTOM, LABEL_GAP = 540.0, 262.0, 17.0
Fields = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """Silent policies beside the acting ones, from the log; ``problem`` if it cannot be told."""

    pairs: Sequence[Mapping[str, Any]] = ()
    remarks: Sequence[str] = ()
    steps: int = 0
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class PoliciesPage:
    """The page's figures.

    Attributes:
        acting: who decides, and why it is not the configured one.
        names: policies that a case may ask for.
        silent: policies that decide silently.
        shadow: what they would have done.
        jobs: comparisons and other reports, newest first.
        latest: the newest comparison that is done; None without one.
        compared: its chart.
        chosen: policies that the form has ticked.
    """

    acting: PolicyOfCase
    names: Sequence[str]
    silent: Sequence[str]
    shadow: Shadow
    jobs: Sequence[JobView]
    latest: JobView | None
    compared: Chart | None
    chosen: Sequence[str] = field(default=DEFAULT_POLICIES)

    @property
    def busy(self) -> bool:
        """Whether a job waits or runs."""
        return any(job.status not in store.OVER for job in self.jobs)


def _read(connection: Connection) -> tuple[Sequence[Any], Hashable]:
    """The newest jobs, and what tells one state of the silent policies' log from another."""
    rows, _ = store.list_jobs(connection, limit=JOBS)
    count = connection.execute(select(func.count()).select_from(shadow_table)).scalar_one()
    return rows, ("shadow", count)


def _read_log(connection: Connection) -> list[dict[str, Any]]:
    """What silent policies would have done, of the newest cases."""
    query = (
        select(shadow_table)
        .join_from(shadow_table, cases, shadow_table.c.case_id == cases.c.id)
        .order_by(cases.c.created_at.desc(), cases.c.id, shadow_table.c.seq)
        .limit(MOST_SHADOW)
    )
    return [dict(row) for row in connection.execute(query).mappings()]


async def build_policies(visited: Visit) -> PoliciesPage:
    """Put the page together."""
    server = visited.server
    book = server.kit.policies
    rows, log_state = await server.database.read(_read)
    jobs = [job_view(row) for row in rows]
    latest, row = _latest(jobs, rows)
    report = await _report(server, row) if row is not None else None
    return PoliciesPage(
        acting=policy_view(book),
        names=tuple(book.names),
        silent=tuple(server.settings.shadow),
        shadow=await _shadow(server, log_state),
        jobs=jobs,
        latest=latest if report else None,
        compared=comparison_chart(report) if report else None,
    )


def _latest(jobs: Sequence[JobView], rows: Sequence[Any]) -> tuple[JobView | None, Any]:
    for job, row in zip(jobs, rows):
        if job.kind == "comparison" and job.status == store.DONE:
            return job, row
    return None, None


async def _report(server: Server, row: Any) -> dict[str, Any] | None:
    """The figures of a comparison; None if its files are gone."""
    path = job_file(server, row, REPORT)
    if path is None:
        return None
    key = ("comparison", row.id)
    known: dict[str, Any] | None = server.web.memo.find(key)
    if known is None:
        known = await asyncio.to_thread(_read_json, path)
        server.web.memo.keep(key, known)
    return known


def _read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def job_file(server: Server, row: Any, name: str) -> Path | None:
    """A file that a job lists under this name, if it is still there."""
    listed = {kept["name"]: kept for kept in (row.result or {}).get("files", ())}
    return server.jobs.path(row.id, listed[name]["path"]) if name in listed else None


async def _shadow(server: Server, state: Hashable) -> Shadow:
    """The comparison of this state of the log; drawn up once."""
    known: Shadow | None = server.web.memo.find(state)
    if known is None:
        log = await server.database.read(_read_log)
        known = await asyncio.to_thread(_compared, log)
        server.web.memo.keep(state, known)
    return known


def _compared(log: Sequence[Mapping[str, Any]]) -> Shadow:
    if not log:
        return Shadow()
    try:
        report = compare_shadow(log).to_json()
    except WorkflowError as error:
        return Shadow(problem=str(error))
    return Shadow(pairs=report["pairs"], remarks=report["remarks"], steps=report["steps"])


def comparison_chart(report: Mapping[str, Any]) -> Chart:
    """AUC gain against emissions of each policy, with intervals; the best gain named first."""
    points = sorted(
        (
            (name, figures["g_co2e"], figures["auc_gain"])
            for name, figures in report["policies"].items()
        ),
        key=lambda point: -float(point[2]["value"]),
    )
    grams = [end for _, g, _ in points for end in _ends(g)]
    gains = [end for _, _, gain in points for end in _ends(gain)]
    x = Scale(low=0.0, high=1.05 * max([*grams, 1e-9]), start=56.0, end=PLOT_END)
    low, high = min(0.0, *gains), max(0.0, *gains)
    room = 0.08 * (high - low or 1.0)
    y = Scale(low=low - room, high=high + room, start=PLOT_BOTTOM, end=22.0)
    marks = _axes(x, y)
    for (name, g, gain), label_y in zip(points, _apart([y(p[2]["value"]) for p in points])):
        at_x, at_y = x(g["value"]), y(gain["value"])
        marks += [
            tag("line", x1=at_x, x2=PLOT_END + 14, y1=at_y, y2=label_y, class_="rule"),
            *_whiskers(x, y, g, gain),
            tag("circle", cx=at_x, cy=at_y, r=5, class_="dot fill-blue"),
            tag("text", name, x=PLOT_END + 20, y=label_y + 4, class_="label"),
        ]
    caption = "AUC gain against emissions, a session of the held-out patients"
    best = f"{len(points)} policies; {points[0][0]} gains most." if points else "No policy."
    return Chart(
        id="chart-comparison",
        caption=caption,
        svg=drawing("chart-comparison", SIZE, caption, best, marks),
        legend=(("thin", "95 % intervals"),),
        heads=("Policy", "AUC gain", "95 %", "gCO2e", "95 %"),
        table=tuple(
            (name, signed(gain["value"], 3), _between(gain), number(g["value"]), _between(g))
            for name, g, gain in points
        ),
    )


def _axes(x: Scale, y: Scale) -> list[Markup]:
    marks = [
        tag("text", "AUC gain of a session", x=0, y=12),
        tag("text", "gCO2e of a session", x=PLOT_END, y=SIZE[1] - 8, class_="end"),
    ]
    for value in ticks(y.low, y.high):
        marks.append(tag("line", x1=56, x2=PLOT_END, y1=y(value), y2=y(value), class_="rule"))
        marks.append(tag("text", signed(value), x=48, y=y(value) + 4, class_="end"))
    marks += [
        tag("text", number(value, 4), x=x(value), y=PLOT_BOTTOM + 18, class_="mid")
        for value in ticks(x.low, x.high)
    ]
    return marks


def _apart(wanted: Sequence[float]) -> list[float]:
    """Places for labels from the top down, near where they are wanted but never on each other."""
    placed: list[float] = []
    for at in wanted:
        placed.append(max(at, placed[-1] + LABEL_GAP) if placed else at)
    over = max(0.0, placed[-1] - PLOT_BOTTOM) if placed else 0.0
    return [at - over for at in placed]


def _ends(figure: Mapping[str, Any]) -> tuple[float, ...]:
    return (figure["value"], *(figure.get("ci95") or ()))


def _between(figure: Mapping[str, Any]) -> str:
    ends = figure.get("ci95")
    return f"{number(ends[0])} to {number(ends[1])}" if ends else "unknown"


def _whiskers(x: Scale, y: Scale, g: Mapping[str, Any], gain: Mapping[str, Any]) -> list[Markup]:
    marks, (at_x, at_y) = [], (x(g["value"]), y(gain["value"]))
    if g.get("ci95"):
        low, high = map(x, g["ci95"])
        marks.append(tag("line", x1=low, x2=high, y1=at_y, y2=at_y, class_="line-grey"))
    if gain.get("ci95"):
        low, high = map(y, gain["ci95"])
        marks.append(tag("line", x1=at_x, x2=at_x, y1=low, y2=high, class_="line-grey"))
    return marks


def comparison_of(fields: Fields, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The comparison that a form asks for, and what is wrong with it by the id of the field.

    Args:
        fields: of the form; a ticked policy is ``policy:<name>``.
        names: policies that there are.
    """
    chosen = [name for name in names if f"policy:{name}" in fields]
    given: dict[str, Any] = {"policies": chosen}
    for name in ("sessions", "seed"):
        text = fields.get(name, "").strip()
        if text:
            given[name] = int(text) if text.isascii() and text.isdecimal() else text
    try:
        return ComparisonRequest.model_validate(given).model_dump(mode="json"), {}
    except ValidationError as error:
        errors = {}
        for problem in error.errors():
            field_ = str(problem["loc"][0]) if problem["loc"] else "policies"
            errors[field_] = WRONG.get(field_, "Check this field.")
        return {}, errors


WRONG = {
    "policies": "Choose 1 to 8 policies.",
    "sessions": "Give 2 to 200 sessions.",
    "seed": "The seed is a whole number, 0 or more.",
}


def gone() -> ProblemError:
    """404 for a file of a job."""
    return ProblemError("job-file-not-found", "The report is not there (any more).")
