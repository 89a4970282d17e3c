"""How much room was left: the bounds, in words, and who comes how close."""

from __future__ import annotations

from agent.report.blocks import (
    Absent,
    Cell,
    Column,
    Items,
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
    "expected_lp": "The bound to compare with: the most that any policy can expect that sees what "
    "the policies see. It is generous, so what is missing to it may be out of reach.",
    "foresight_lp": "The same for someone who knows every score beforehand, though no diagnosis. "
    "What it has over the bound above is the worth of foresight, which no policy has.",
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
                figure_cell(bound.reward),
                *(percent(bound.share_reached(policy)) for policy in leading),
                WORDS.get(name, ""),
            ),
        )
        for name, bound in report.bounds.items()
    )
    table = Table(
        caption="Bounds, and the share of each that policies reach.",
        columns=(
            *columns("bound", ("AUC gain", "AUC"), ("reward", "AUC, carbon priced")),
            *(Column(title=policy.name, unit="% reached") for policy in leading),
            Column(title="in words", text=True),
        ),
        rows=rows,
    )
    exact = Items(items=tuple(f"{n}: {b.definition}" for n, b in report.bounds.items()))
    heading = Text(words="Exactly", kind="heading")
    return Section(key="bounds", title=title, blocks=(table, heading, exact))
