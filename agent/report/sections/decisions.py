"""What the policies did: actions by urgency and by uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

from agent.report.blocks import Absent, Block, Cell, Section, Table, TableRow, Text, columns, drawn
from agent.report.model import ActionTable, ComparisonReport, PolicyResult
from agent.report.order import choosing, spotlight
from agent.report.plots import action_groups, actions_svg
from agent.report.words import percent

BANDINGS = (
    (
        "urgency", "By urgency of the case",
        "Each bar is all decisions taken while the case had that urgency (simulated, 0 to 1).",
    ),
    (
        "uncertainty", "By uncertainty of the prediction",
        "Each bar is all decisions taken while the predicted probability had that entropy (1 bit "
        "is a coin toss).",
    ),
    (
        "hour", "By hour of the session",
        "Each bar is all decisions taken in these hours since the session began.",
    ),
)  # fmt: skip


def _by(policy: PolicyResult, banding: str) -> ActionTable | None:
    tables = {
        "urgency": policy.by_urgency, "uncertainty": policy.by_uncertainty,
        "hour": policy.by_hour,
    }  # fmt: skip
    return tables[banding]


def _tables(policies: Sequence[PolicyResult], banding: str) -> list[tuple[str, ActionTable]]:
    found = [(p.name, _by(p, banding)) for p in policies]
    return [(name, table) for name, table in found if table is not None]


def _rows(name: str, table: ActionTable) -> list[TableRow]:
    rows = []
    for band, counts in zip(table.bands, table.counts):
        total = int(counts.sum())
        shares = [
            float(counts[group].sum()) / total if total else None
            for group in action_groups(table.actions).values()
        ]
        given = (band, f"{total:,}", *(percent(share) for share in shares))
        rows.append(TableRow(head=Cell(text=name), cells=tuple(Cell(text=text) for text in given)))
    return rows


def _table(banding: str, tables: Sequence[tuple[str, ActionTable]]) -> Table:
    groups = list(action_groups(tables[0][1].actions))
    return Table(
        caption=f"Share of decisions by {banding}.",
        columns=columns("policy", banding, "decisions", *((group, "%") for group in groups)),
        rows=tuple(row for name, table in tables for row in _rows(name, table)),
        folded=f"All policies by {banding}, as a table",
    )


def decisions(report: ComparisonReport) -> Section | Absent:
    """A picture of the leading policies and a table of all, for each banding."""
    title = "What they did"
    able = choosing(report)
    if not able:
        return Absent(title=title, why="no policy took part whose actions depend on the case.")
    leading = [p for p in spotlight(report) if p in able] or list(able[:1])
    blocks: list[Block] = []
    for banding, heading, caption in BANDINGS:
        drawn_tables = _tables(leading, banding)
        if not drawn_tables:
            continue
        blocks += [
            Text(words=heading, kind="heading"),
            drawn(actions_svg(banding, f"Actions {heading.lower()}", drawn_tables), caption),
            _table(banding, _tables(able, banding)),
        ]
    return Section(key="decisions", title=title, blocks=tuple(blocks))
