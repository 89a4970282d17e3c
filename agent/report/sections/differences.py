"""Paired differences against the baselines, and how far training seeds differ."""

from __future__ import annotations

from agent.report.blocks import (
    Absent,
    Block,
    Cell,
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
from agent.report.headline import difference_of, relies
from agent.report.model import ComparisonReport, PolicyResult
from agent.report.order import ranked, styles
from agent.report.words import p_value

METRICS = (("auc_gain", "AUC gain", "AUC", 3), ("g_co2e", "carbon", "gCO2e a session", 0),
           ("reward", "reward", "AUC, carbon priced", 3))  # fmt: skip

MOST_DRAWN = 8


def _others(report: ComparisonReport, baseline: str) -> list[PolicyResult]:
    return [p for p in ranked(report) if p.name != baseline and baseline in p.versus]


def _drawn(report: ComparisonReport, baseline: str) -> list[PolicyResult]:
    """The leading policies and all learned ones: laggards would squeeze the picture."""
    others = _others(report, baseline)
    return [p for i, p in enumerate(others) if i < MOST_DRAWN or p.learned]


def _panel(report: ComparisonReport, baseline: str, metric: tuple[str, str, str, int]) -> Panel:
    key, title, unit, _ = metric
    rows = []
    for policy in _drawn(report, baseline):
        estimate, difference = difference_of(report, policy, baseline, key)
        if estimate is None:
            continue
        mark = Mark(series=policy.name, estimate=estimate, hollow=not relies(estimate, difference))
        note = f"p {p_value(difference.p_holm)}" if difference is not None else ""
        rows.append(Row(label=policy.name, marks=(mark,), note=note))
    return Panel(title=title, rows=tuple(rows), unit=unit, zero=True)


def _table(report: ComparisonReport, baseline: str) -> Table:
    rows = []
    for policy in _others(report, baseline):
        found: list[Cell] = []
        for key, _, _, digits in METRICS:
            estimate, difference = difference_of(report, policy, baseline, key)
            found.append(figure_cell(estimate, digits, sign=True))
            found.append(Cell(text=p_value(difference.p_holm if difference else None)))
        rows.append(TableRow(head=Cell(text=policy.name), cells=cells(*found)))
    return Table(
        caption=f"Policy minus {baseline}, on the same sessions, with 95 % intervals.",
        columns=columns(
            "policy", ("AUC gain", "AUC"), ("p", "Holm"), ("carbon", "gCO2e a session"),
            ("p", "Holm"), ("reward", "AUC, carbon priced"), ("p", "Holm"),
        ),
        rows=tuple(rows),
        folded=f"The differences to {baseline} as a table",
    )  # fmt: skip


def differences(report: ComparisonReport) -> Section | Absent:
    """A forest plot and a table for each baseline."""
    baselines = [b for b in report.policies[0].versus if _others(report, b)]
    title = "Paired differences"
    if not baselines:
        return Absent(title=title, why="neither the rule nor a second policy took part.")
    tests = bool(report.statistics)
    how = (
        "p-values are corrected by Holm's method over all that were tested together."
        if tests
        else "No p-values were computed for this comparison."
    )
    blocks: list[Block] = []
    for i, baseline in enumerate(baselines):
        panels = [_panel(report, baseline, metric) for metric in METRICS]
        blocks += [
            Text(words=f"Against {baseline}", kind="heading"),
            drawn(
                dots_svg(f"forest{i}", f"Paired differences to {baseline}", panels, styles(report)),
                "Each of the leading policies on the same sessions as the baseline. Hollow: the "
                f"difference is not one to rely on, its interval includes 0 or its corrected p is "
                f"above 0.05. {how}",
            ),
            _table(report, baseline),
        ]
    return Section(key="differences", title=title, blocks=tuple(blocks))
