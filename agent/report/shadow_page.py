"""Silent policies beside the acting one as a page: one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from agent.policies.files import write_atomically
from agent.report.blocks import (
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
from agent.report.page import page_environment
from agent.workflow.shadow import ShadowPair, ShadowReport

HTML_FILE = "shadow.html"
JSON_FILE = "shadow.json"
POINTS = 1000.0
"""Predicted gains of one step are small: they are shown in thousandths of AUC."""


def headline(report: ShadowReport) -> tuple[str, ...]:
    """One sentence a pair: how often they agree, and what a step would have differed by."""
    if not report.pairs:
        return ("No silent policy has decided beside another yet: set 'shadow' and review cases.",)
    return tuple(_verdict(pair) for pair in report.pairs)


def _verdict(pair: ShadowPair) -> str:
    a, gain, grams = pair.agreement, pair.gain, pair.g_co2e
    return (
        f"{pair.policy} beside {pair.acting}: the same action at {100 * a.value:.0f} % "
        f"[{100 * a.low:.0f}, {100 * a.high:.0f}] of {pair.steps} decisions of {pair.cases} cases; "
        f"a step of its own would have been predicted to gain {POINTS * gain.value:+.3g} "
        f"[{POINTS * gain.low:+.3g}, {POINTS * gain.high:+.3g}] thousandths of AUC and to emit "
        f"{grams.value:+.3g} [{grams.low:+.3g}, {grams.high:+.3g}] gCO2e, against what was done."
    )


def sections_of(report: ShadowReport) -> tuple[Section, ...]:
    """The figures of all pairs, the actions of each, and what the log cannot say."""
    cannot = Section(
        key="limits", title="What this cannot say", blocks=(Items(items=report.remarks),)
    )
    if not report.pairs:
        return (cannot,)
    return (_overview(report), *(_actions(i, p) for i, p in enumerate(report.pairs)), cannot)


def _overview(report: ShadowReport) -> Section:
    rows = tuple(
        TableRow(
            head=Cell(text=pair.policy, small=(f"beside {pair.acting}",)),
            cells=cells(
                Cell(text=str(pair.steps), small=(f"{pair.cases} cases",)),
                figure_cell(pair.agreement, 1, 100.0),
                figure_cell(pair.first_agreement, 1, 100.0),
                figure_cell(pair.gain, 3, POINTS, sign=True),
                figure_cell(pair.g_co2e, 1, sign=True),
            ),
        )
        for pair in report.pairs
    )
    heads = columns(
        "silent policy", "decisions", ("agreement", "%"), ("agreement, first decision", "%"),
        ("gain, silent less acting", "AUC / 1000 a step"), ("carbon, silent less acting",
        "gCO2e a step"),
    )  # fmt: skip
    left = (
        f"{report.left_out} decisions at which a carbon limit made the case wait are left out."
        if report.left_out
        else "No decision had to be left out because of a carbon limit."
    )
    return Section(
        key="overview",
        title="How often they agree, and by what they differ",
        blocks=(
            Table(
                caption="Agreement with Wilson's interval at the effective number of decisions; "
                "differences of what was predicted, with 95 % intervals over redrawn cases.",
                columns=heads,
                rows=rows,
            ),
            Text(words=left, kind="note"),
        ),
    )


def _actions(index: int, pair: ShadowPair) -> Section:
    rows = tuple(
        TableRow(
            head=Cell(text=acting),
            cells=cells(own, str(n), f"{100 * n / pair.steps:.1f}"),
            kind="" if acting == own else "worse",
        )
        for (acting, own), n in pair.actions.items()
    )
    table = Table(
        caption=f"What {pair.acting} did, and what {pair.policy} would have done.",
        columns=(
            Column(title=f"{pair.acting} did"),
            Column(title=f"{pair.policy} would have done", text=True),
            Column(title="decisions"),
            Column(title="share", unit="%"),
        ),
        rows=rows,
    )
    return Section(
        key=f"actions-{index}", title=f"{pair.policy} beside {pair.acting}", blocks=(table,)
    )


def render_shadow(report: ShadowReport, *, tags: Sequence[str] = ()) -> str:
    """The page.

    Args:
        report: the comparison.
        tags: what else has to be said of the cases: ``Synthetic patients``.
    """
    return (
        page_environment({})
        .get_template("shadow.html.j2")
        .render(
            tags=["Research use only", "Predictions, not outcomes", *tags],
            headline=headline(report),
            sections=sections_of(report),
        )
    )


def write_shadow(report: ShadowReport, out: Path, *, tags: Sequence[str] = ()) -> tuple[Path, Path]:
    """Write ``shadow.html`` and ``shadow.json`` into a folder; never half of one.

    Returns:
        The two paths, the page first.
    """
    out.mkdir(parents=True, exist_ok=True)
    page, figures = out / HTML_FILE, out / JSON_FILE
    text = json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"
    write_atomically(page, render_shadow(report, tags=tags).encode())
    write_atomically(figures, text.encode())
    return page, figures
