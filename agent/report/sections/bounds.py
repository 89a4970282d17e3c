"""How much room was left: the bounds, in words, and who comes how close."""

from __future__ import annotations

from agent.report.blocks import (
    Absent,
    Cell,
    Column,
    Section,
    Table,
    TableRow,
    Text,
    cells,
    columns,
    figure_cell,
)
from agent.report.model import ComparisonReport
from agent.report.order import spotlight
from agent.report.pareto import BOUND_WORDS
from agent.report.words import percent

WORDS = {
    "expected_lp": "The bound to compare with. It is the best plan of someone who knows every "
    "score beforehand and keeps to the same budget, so what is missing to it is the price of "
    "deciding case by case.",
    "clairvoyant_lp": "The same for someone who knows the diagnoses too. Part of it is the luck of "
    "the draw that nobody can plan for, so no policy should be blamed for what is missing to it.",
}


def bounds(report: ComparisonReport) -> Section | Absent:
    """A table of bounds with the share that the leading policies reach."""
    title = "How much room was left"
    if not report.bounds:
        return Absent(title=title, why="no bounds were computed.")
    leading = spotlight(report)
    rows = tuple(
        TableRow(
            head=Cell(text=BOUND_WORDS.get(name, name), small=(name,)),
            cells=cells(
                figure_cell(bound.auc_gain),
                *(percent(bound.share_reached(policy)) for policy in leading),
                WORDS.get(name, ""),
            ),
        )
        for name, bound in report.bounds.items()
    )
    table = Table(
        caption="Bounds, and the share of each that policies reach.",
        columns=(
            *columns("bound", ("AUC gain", "AUC")),
            *(Column(title=policy.name, unit="% reached") for policy in leading),
            Column(title="in words", text=True),
        ),
        rows=rows,
    )
    exact = [Text(words=f"{n}: {b.definition}", kind="note") for n, b in report.bounds.items()]
    return Section(key="bounds", title=title, blocks=(table, *exact))
