"""A surrogate's decision tree, drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.report.findings import SurrogateNode
from agent.report.palette import BLACK, BLUE, GREEN, PAPER
from agent.report.svg import SETTINGS, to_svg
from agent.report.words import percent

LEVEL = 1.15
"""Inches a level takes."""
WIDTH = 10.4
LETTER = 0.072
"""Inches a letter takes."""
LONGEST_LINE = 21


def _place(
    nodes: Sequence[SurrogateNode], index: int, depth: int, at: dict[int, tuple[float, float]]
) -> float:
    """Give every leaf a column and put each question over the middle of its answers."""
    node = nodes[index]
    if node.yes is None or node.no is None:
        x = float(sum(nodes[i].yes is None for i in at))
    else:
        x = (_place(nodes, node.yes, depth + 1, at) + _place(nodes, node.no, depth + 1, at)) / 2
    at[index] = (x, -float(depth))
    return x


def _said(node: SurrogateNode, line: int) -> str:
    lines = textwrap.wrap(node.words, line, break_long_words=False, break_on_hyphens=False)
    if node.agreement is not None:
        return "\n".join(
            [*lines, f"{percent(node.share)} come by", f"{percent(node.agreement)} same"]
        )
    return "\n".join([*lines, f"{percent(node.share)} come by"])


def _draw_edge(axes: Axes, start: tuple[float, float], end: tuple[float, float], word: str) -> None:
    axes.plot([start[0], end[0]], [start[1], end[1]], color=BLACK, linewidth=0.9, zorder=1)
    axes.text(
        (start[0] + end[0]) / 2, (start[1] + end[1]) / 2, word, fontsize=8.5, ha="center",
        va="center", zorder=2,
        bbox={"boxstyle": "round,pad=0.12", "facecolor": PAPER, "edgecolor": "none"},
    )  # fmt: skip


def tree_svg(key: str, title: str, nodes: Sequence[SurrogateNode]) -> str:
    """Questions as boxes, a yes to the left, decisions as rounded boxes at the ends.

    Args:
        key: prefix of ids, different for each picture of the page.
        title: short text alternative.
        nodes: the root first.
    """
    at: dict[int, tuple[float, float]] = {}
    _place(nodes, 0, 0, at)
    leaves = sum(nodes[i].yes is None for i in at)
    line = min(LONGEST_LINE, int(WIDTH / leaves / LETTER) - 4)
    depth = -min(y for _, y in at.values())
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH, LEVEL * (depth + 1)), layout="constrained")
        axes = figure.add_subplot()
        for index, spot in at.items():
            node = nodes[index]
            leaf = node.yes is None
            for child, word in ((node.yes, "yes"), (node.no, "no")):
                if child is not None:
                    _draw_edge(axes, spot, at[child], word)
            axes.text(
                *spot, _said(node, line if leaf else LONGEST_LINE), fontsize=8.5, ha="center",
                va="center", zorder=3,
                bbox={
                    "boxstyle": "round,pad=0.35" if leaf else "square,pad=0.35",
                    "facecolor": PAPER, "edgecolor": GREEN if leaf else BLUE, "linewidth": 1.4,
                },
            )  # fmt: skip
        axes.set_xlim(-0.6, leaves - 0.4)
        axes.set_ylim(-depth - 0.5, 0.5)
        axes.axis("off")
    words = "Questions from the top, yes to the left; the sentences beside it say the same."
    return to_svg(figure, key, title, words, tight=False)
