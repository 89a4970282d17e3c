"""Dots with intervals in panels: forest plots, spreads of seeds, groups, small multiples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from agent.report.palette import BLACK, PALE, PAPER, Style
from agent.report.svg import SETTINGS, to_svg
from agent.statistics import Estimate

WIDTH = 10.4
ROW, MARK = 0.235, 0.125
"""Inches a row takes at least, and each mark in it."""
MOST_WORDS = 40
"""Dots that are read out; more are left to the table."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One estimate, drawn as a dot with its interval.

    Attributes:
        series: whose it is: a key of the styles.
        estimate: where the dot and its interval lie.
        singles: single values behind it (training seeds), drawn as small dots.
        hollow: drawn empty: an interval that includes 0, or a policy that is dominated.
    """

    series: str
    estimate: Estimate
    singles: tuple[float, ...] = ()
    hollow: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a panel.

    Attributes:
        label: at its left.
        marks: drawn side by side, the first on top.
        note: at its right.
    """

    label: str
    marks: tuple[Mark, ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One set of axes.

    Attributes:
        title: over it.
        rows: from top to bottom.
        unit: along the horizontal axis.
        scale: what values are multiplied with to be in that unit.
        zero: whether a line marks 0.
    """

    title: str
    rows: tuple[Row, ...]
    unit: str
    scale: float = 1.0
    zero: bool = False


def _draw_mark(axes: Axes, mark: Mark, y: float, scale: float, style: Style) -> None:
    e = mark.estimate
    for single in mark.singles:
        axes.plot(
            [single * scale], [y], marker="|", color=style.colour, alpha=0.75, markersize=8,
            markeredgewidth=1.1, linestyle="none", zorder=2,
        )  # fmt: skip
    axes.plot(
        [e.low * scale, e.high * scale], [y, y], color=style.colour, linewidth=1.7, zorder=3,
        solid_capstyle="butt",
    )  # fmt: skip
    axes.plot(
        [e.value * scale], [y], marker=style.marker, linestyle="none", zorder=4,
        markersize=8.5 if style.marker == "*" else 6.2, markeredgecolor=style.colour,
        markerfacecolor=PAPER if mark.hollow else style.colour, markeredgewidth=1.3,
    )  # fmt: skip


def _offsets(n: int) -> list[float]:
    """Where the marks of a row lie, a row being 1 high."""
    step = 0.62 / max(n, 2)
    return [step * (i - (n - 1) / 2) for i in range(n)]


def _draw_panel(axes: Axes, panel: Panel, styles: Mapping[str, Style], labels: bool) -> None:
    for y, row in enumerate(panel.rows):
        if y % 2:
            axes.axhspan(y - 0.5, y + 0.5, color=PALE, alpha=0.35, linewidth=0, zorder=0)
        for mark, shift in zip(row.marks, _offsets(len(row.marks))):
            _draw_mark(axes, mark, y + shift, panel.scale, styles[mark.series])
        if row.note:
            axes.annotate(
                row.note, (1.01, y), xycoords=("axes fraction", "data"), va="center",
                fontsize=8.5, annotation_clip=False,
            )  # fmt: skip
    if panel.zero:
        axes.axvline(0, color=BLACK, linewidth=1, zorder=1)
    axes.set_ylim(len(panel.rows) - 0.5, -0.5)
    axes.set_yticks(range(len(panel.rows)), [row.label for row in panel.rows] if labels else [])
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8.5)
    axes.locator_params(axis="x", nbins=5)
    axes.set_title(panel.title)
    axes.set_xlabel(panel.unit, fontsize=9)
    axes.grid(axis="x", alpha=0.25)
    axes.spines["left"].set_visible(False)


def _legend(figure: Figure, panels: Sequence[Panel], styles: Mapping[str, Style]) -> None:
    series = dict.fromkeys(m.series for p in panels for r in p.rows for m in r.marks)
    handles = [
        Line2D([], [], color=styles[s].colour, marker=styles[s].marker, linewidth=1.7)
        for s in series
    ]
    figure.legend(handles, list(series), loc="outside upper center", ncols=min(len(series), 5))


def words_of(panels: Sequence[Panel]) -> str:
    """The panels read out: every dot with its interval, where they are not too many."""
    if sum(len(row.marks) for panel in panels for row in panel.rows) > MOST_WORDS:
        named = "; ".join(f"{panel.title}, {panel.unit}" for panel in panels)
        return f"Panels: {named}. The table below has every figure."
    parts = []
    for panel in panels:
        rows = []
        for row in panel.rows:
            for mark in row.marks:
                low, value, high = (
                    panel.scale * x
                    for x in (mark.estimate.low, mark.estimate.value, mark.estimate.high)
                )
                whose = row.label if mark.series == row.label else f"{row.label}, {mark.series}"
                note = f" ({row.note})" if row.note else ""
                rows.append(f"{whose} {value:.4g} [{low:.4g}, {high:.4g}]{note}")
        parts.append(f"{panel.title}, {panel.unit}: " + "; ".join(rows))
    return ". ".join(parts)


def _height(chunk: Sequence[Panel]) -> float:
    """Inches that a line of panels needs, its titles and axes included."""
    thickest = max((len(row.marks) for p in chunk for row in p.rows), default=1)
    rows = max(len(p.rows) for p in chunk)
    return rows * max(ROW, MARK * thickest) + 0.75


def _aligned(chunk: Sequence[Panel]) -> bool:
    """Whether the panels of one line of the picture have the same rows."""
    return all([r.label for r in p.rows] == [r.label for r in chunk[0].rows] for p in chunk)


def dots_svg(
    key: str,
    title: str,
    panels: Sequence[Panel],
    styles: Mapping[str, Style],
    *,
    columns: int = 3,
    legend: bool = False,
) -> str:
    """Panels of dots with their 95 % intervals.

    Args:
        key: prefix of ids, different for each picture of the page.
        title: short text alternative; the long one is every figure in words.
        panels: from left to right and from top to bottom.
        styles: of every series.
        columns: panels side by side.
        legend: whether series are explained on top; needless where rows name them.
    """
    chunks = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [_height(chunk) for chunk in chunks]
    with mpl.rc_context(SETTINGS):
        figure = Figure(
            figsize=(WIDTH, sum(heights) + (0.4 if legend else 0.0)), layout="constrained"
        )
        grid = figure.add_gridspec(len(chunks), min(columns, len(panels)), height_ratios=heights)
        for i, chunk in enumerate(chunks):
            aligned = _aligned(chunk)
            for j, panel in enumerate(chunk):
                axes = figure.add_subplot(grid[i, j])
                _draw_panel(axes, panel, styles, labels=j == 0 or not aligned)
        if legend:
            _legend(figure, panels, styles)
    return to_svg(figure, key, title, words_of(panels), tight=False)
