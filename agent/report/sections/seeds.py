"""How far the training seeds of a learned policy lie apart."""

from __future__ import annotations

import numpy as np

from agent.report.blocks import (
    Absent,
    Cell,
    Section,
    Table,
    TableRow,
    cells,
    columns,
    drawn,
    figure_cell,
    number_cell,
)
from agent.report.dots import Mark, Panel, Row, dots_svg
from agent.report.model import ComparisonReport, PolicyResult
from agent.report.order import ranked, styles

SHOWN = (("auc_gain", "AUC gain", "AUC"), ("reward", "reward", "AUC, carbon priced"))
TITLE = "Training seeds"


def _means(report: ComparisonReport, policy: PolicyResult, metric: str) -> tuple[float, ...]:
    found = report.statistics.get(policy.name)
    return found.seeds.get(metric, ()) if found is not None else ()


def _row(report: ComparisonReport, policy: PolicyResult, metric: str) -> Row:
    singles = _means(report, policy, metric)
    mark = Mark(series=policy.name, estimate=policy.figures[metric], singles=singles)
    note = f"{len(singles)} seeds" if singles else ""
    return Row(label=policy.name, marks=(mark,), note=note)


def _table_row(report: ComparisonReport, policy: PolicyResult) -> TableRow:
    means = np.array(_means(report, policy, "reward"))
    spread = float(means.std(ddof=1)) if len(means) > 1 else None
    return TableRow(
        head=Cell(text=policy.name),
        cells=cells(
            str(len(means)),
            figure_cell(policy.figures["reward"]),
            number_cell(float(means.min()), 4),
            number_cell(float(np.median(means)), 4),
            number_cell(float(means.max()), 4),
            number_cell(spread, 4),
        ),
    )


def seeds(report: ComparisonReport) -> Section | Absent:
    """A dot a training seed, with the best policy without training for comparison."""
    if not report.learned:
        return Absent(title=TITLE, why="no learned policy took part.")
    trained = [p for p in ranked(report) if p.learned and _means(report, p, "reward")]
    if not trained:
        return Absent(title=TITLE, why="the means of the single training seeds were not kept.")
    planner = [p for p in report.policies if p.name == report.best_planner]
    shown = [*trained, *planner]
    panels = [
        Panel(title=title, rows=tuple(_row(report, p, metric) for p in shown), unit=unit)
        for metric, title, unit in SHOWN
    ]
    caption = (
        "Strokes are the means of single training seeds over the same sessions; the dot with its "
        "95 % interval is the mean over all of them. The last row is the best policy without "
        "training."
    )
    table = Table(
        caption="Reward of single training seeds.",
        columns=columns(
            "policy", "seeds", ("reward", "mean"), ("reward", "lowest"), ("reward", "median"),
            ("reward", "highest"), ("reward", "standard deviation"),
        ),
        rows=tuple(_table_row(report, p) for p in trained),
        folded="The seeds as a table",
    )  # fmt: skip
    svg = dots_svg("seeds", "Training seeds of learned policies", panels, styles(report), columns=2)
    return Section(key="seeds", title=TITLE, blocks=(drawn(svg, caption), table))
