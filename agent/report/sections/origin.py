"""Where the figures come from: folds, what is missing, limits, how to make them again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agent.report.blocks import (
    Absent,
    Cell,
    Code,
    Items,
    Section,
    Table,
    TableRow,
    Text,
    columns,
    figure_cell,
)
from agent.report.model import ComparisonReport
from agent.report.order import ranked

BY_TRACE = {"auc_gain": ("AUC gain", "AUC"), "g_co2e": ("carbon", "gCO2e a session")}


def folds(report: ComparisonReport) -> Section | Absent:
    """AUC gain fold by fold."""
    title = "Fold by fold"
    names = list(report.policies[0].folds)
    if len(names) < 2:
        return Absent(title=title, why="one held-out fold was compared; --fold all takes them all.")
    table = Table(
        caption="AUC gain on the patients of each fold; the folds' hospitals do not overlap. "
        "Sessions and training seeds redrawn.",
        columns=columns("policy", *((f"fold {name}", "AUC") for name in names)),
        rows=tuple(
            TableRow(
                head=Cell(text=p.name),
                cells=tuple(figure_cell(p.folds[name].get("auc_gain")) for name in names),
            )
            for p in ranked(report)
        ),
    )
    return Section(key="folds", title=title, blocks=(table,))


def traces(report: ComparisonReport) -> Section | Absent:
    """Gain and carbon on each of the grids that the sessions ran on."""
    title = "Grid by grid"
    found = {n: s.traces for n, s in report.statistics.items() if s.traces}
    if not found:
        return Absent(title=title, why="one grid was compared; --trace again adds another.")
    names = list(next(iter(found.values())))
    heads = [(f"{metric}, {name}", unit) for name in names for metric, unit in BY_TRACE.values()]
    rows = []
    for policy in (p for p in ranked(report) if p.name in found):
        there = found[policy.name]
        given = [
            figure_cell(there.get(name, {}).get(metric), 0 if metric == "g_co2e" else 3)
            for name in names
            for metric in BY_TRACE
        ]
        rows.append(TableRow(head=Cell(text=policy.name), cells=tuple(given)))
    table = Table(
        caption="Each session ran on one of these grids; folds, patients, sessions and training "
        "seeds redrawn.",
        columns=columns("policy", *heads),
        rows=tuple(rows),
    )
    return Section(key="traces", title=title, blocks=(table,))


def missing(absent: Sequence[Absent]) -> Section | None:
    """What this comparison has nothing to say about, said."""
    if not absent:
        return None
    items = tuple(f"{a.title}: {a.why}" for a in absent)
    return Section(key="missing", title="Not in this comparison", blocks=(Items(items=items),))


def limits(report: ComparisonReport) -> Section:
    """What the figures do not say."""
    return Section(key="limits", title="Limits", blocks=(Items(items=report.limits),))


def reproduction(report: ComparisonReport) -> Section:
    """The command and the provenance."""
    provenance = json.dumps(dict(report.provenance), indent=2)
    return Section(
        key="reproduce",
        title="How to make it again",
        blocks=(
            Text(words="The same command on the same bundle and trace gives the same figures:"),
            Code(text=str(report.provenance["command"])),
            Code(
                text=provenance, folded="Provenance: bundle, patients, traces, settings, versions"
            ),
        ),
    )
