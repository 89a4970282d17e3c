"""Whom the policies serve: gain and carbon by groups of patients."""

from __future__ import annotations

from collections.abc import Sequence

from agent.report.blocks import (
    Absent,
    Block,
    Cell,
    Items,
    Section,
    Table,
    TableRow,
    Text,
    cells,
    columns,
    drawn,
    figure_cell,
)
from agent.report.dots import Mark, Panel, Row, dots_svg
from agent.report.findings import EquityGroup, EquityReport, GroupService
from agent.report.headline import EQUITY_POLICIES, gaps_by_weight
from agent.report.model import ComparisonReport
from agent.report.order import spotlight, styles
from agent.report.words import listed, p_value

TITLE = "Equity: gain and carbon by group"


def _panel(found: EquityReport, attribute: str, names: Sequence[str], metric: str) -> Panel:
    rows = []
    for group in (g for g in found.groups if g.attribute == attribute):
        served = [(n, group.policies[n]) for n in names if n in group.policies]
        marks = tuple(
            Mark(
                series=name,
                estimate=service.gain if metric == "gain" else service.g_co2e,
                hollow=service.worse,
            )
            for name, service in served
        )
        rows.append(Row(label=f"{group.group} (n={group.n_patients})", marks=marks))
    if metric == "gain":
        return Panel(title=f"{attribute}: gain", rows=tuple(rows), unit="AUC", zero=True)
    return Panel(title=f"{attribute}: carbon", rows=tuple(rows), unit="gCO2e a case")


def _row(group: EquityGroup, name: str, service: GroupService) -> TableRow:
    return TableRow(
        head=Cell(text=f"{group.attribute}: {group.group}", small=(f"n={group.n_patients}",)),
        cells=cells(
            name,
            figure_cell(service.gain),
            figure_cell(service.g_co2e, 1),
            figure_cell(service.gain_gap.estimate, sign=True),
            p_value(service.gain_gap.p_holm),
            figure_cell(service.forgone_gap.estimate, sign=True),
            p_value(service.forgone_gap.p_holm),
            "worse" if service.worse else "no clear gap",
        ),
        kind="worse" if service.worse else "",
    )


def _table(found: EquityReport, names: Sequence[str]) -> Table:
    rows = [
        _row(group, name, group.policies[name])
        for group in found.groups
        for name in names
        if name in group.policies
    ]
    return Table(
        caption="Each group against all patients outside it. Forgone: what everything without a "
        "budget would have gained and the policy did not; above 0 the group goes short.",
        columns=columns(
            "group", "policy", ("gain", "AUC"), ("carbon", "gCO2e a case"),
            ("gain, group minus others", "AUC"), ("p", "Holm"),
            ("forgone, group minus others", "AUC"), ("p", "Holm"), "served",
        ),
        rows=tuple(rows),
        folded="The groups as a table",
    )  # fmt: skip


def _words(report: ComparisonReport, found: EquityReport) -> list[Block]:
    leading, others = gaps_by_weight(report)
    said: list[Block] = [Text(words=s, kind="warning") for s in leading]
    if others:
        said.append(Text(words="Policies further back:", kind="note"))
        said.append(Items(items=others))
    if not found.sentences:
        said.append(
            Text(
                words="No group is served significantly worse by any policy, after Holm's "
                "correction. That is no proof of equal service: small groups have wide intervals."
            )
        )
    if found.not_shown:
        said.append(
            Text(
                words=f"Too few patients to say anything (fewer than {found.smallest}): "
                f"{listed(list(found.not_shown))}.",
                kind="note",
            )
        )
    return said


def equity(report: ComparisonReport) -> Section | Absent:
    """Dots by group for the leading policies, with the number of patients."""
    found = report.equity
    if found is None:
        return Absent(
            title=TITLE,
            why="no attributes of the patients were given, so nothing says whether a policy serves "
            "a group worse.",
        )
    if not found.groups:
        return Absent(title=TITLE, why=f"no group has {found.smallest} patients or more.")
    names = [p.name for p in spotlight(report, EQUITY_POLICIES) if p.name != "never"]
    panels = [
        _panel(found, attribute, names, metric)
        for attribute in found.attributes
        for metric in ("gain", "carbon")
    ]
    svg = dots_svg(
        "equity", "Gain and carbon by group of patients", panels, styles(report), columns=2,
        legend=True,
    )  # fmt: skip
    caption = (
        "Gain: AUC that a session would gain if all its cases were like the group's (midpoint "
        "attribution). Hollow: served significantly worse. Bars are 95 % intervals with patients "
        "redrawn; n is the number of held-out patients. The other policies are in report.json."
    )
    blocks = (*_words(report, found), drawn(svg, caption), _table(found, names))
    return Section(key="equity", title=TITLE, blocks=blocks)
