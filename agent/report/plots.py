"""What the policies did: shares of actions as stacked bars."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.report.model import ActionTable
from agent.report.palette import (
    BLUE,
    DUSK,
    GREEN,
    ORANGE,
    PALE,
    PAPER,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
)
from agent.report.svg import SETTINGS, to_svg

SOURCE_COLOURS = (BLUE, VERMILION, PURPLE, YELLOW, SKY, ORANGE, GREEN)
HATCHES = ("", "//", "\\\\", "--", "||", "xx", "++")
FINALISE_COLOUR, DEFER_COLOUR = PALE, DUSK


def _group(action: str) -> str:
    return f"from {action.split('->', maxsplit=1)[0]}" if "->" in action else action


def action_groups(actions: Sequence[str]) -> dict[str, list[int]]:
    """Columns of an action table by the modality that is processed; finalise and defer last."""
    groups: dict[str, list[int]] = {}
    for column, action in enumerate(actions):
        groups.setdefault(_group(action), []).append(column)
    return groups


def group_looks(groups: Sequence[str]) -> dict[str, tuple[str, str]]:
    """A colour and a hatch for each group of actions."""
    fixed = {"finalise": (FINALISE_COLOUR, ""), "defer": (DEFER_COLOUR, "")}
    sources = [group for group in groups if group not in fixed]
    n = len(SOURCE_COLOURS)
    return {g: (SOURCE_COLOURS[i % n], HATCHES[i % n]) for i, g in enumerate(sources)} | fixed


def _draw_bars(axes: Axes, tables: Sequence[tuple[str, ActionTable]]) -> None:
    groups = action_groups(tables[0][1].actions)
    looks = group_looks(list(groups))
    labels, position = [], 0.0
    ticks: list[float] = []
    for name, table in tables:
        for band, row in zip(table.bands, table.counts):
            left, total = 0.0, max(int(row.sum()), 1)
            for group, columns in groups.items():
                share = float(row[columns].sum()) / total
                colour, hatch = looks[group]
                axes.barh(
                    position, share, left=left, height=0.8, color=colour, edgecolor=PAPER,
                    linewidth=0.6, label=group, hatch=hatch,
                )  # fmt: skip
                left += share
            ticks.append(position)
            labels.append(f"{name}: {band}")
            position -= 1.0
        position -= 0.6
    axes.set_yticks(ticks, labels)
    axes.set_ylim(position + 1.1, 0.6)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 5), ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("share of decisions")


def _words(tables: Sequence[tuple[str, ActionTable]]) -> str:
    parts = []
    for name, table in tables:
        for band, row in zip(table.bands, table.counts):
            total = int(row.sum())
            most = table.actions[int(row.argmax())]
            said = f"mostly {most} ({row.max() / total:.0%})" if total else "no decision"
            parts.append(f"{name}, {band}: {said}")
    return "; ".join(parts)


def actions_svg(key: str, title: str, tables: Sequence[tuple[str, ActionTable]]) -> str:
    """Stacked bars: which share of the decisions in each band went to which action.

    Args:
        key: prefix of ids, different for each picture of the page.
        title: short text alternative.
        tables: policy name and its table.
    """
    rows = sum(len(table.bands) + 0.6 for _, table in tables)
    with mpl.rc_context(SETTINGS | {"hatch.linewidth": 0.6}):
        figure = Figure(figsize=(10.4, 1.0 + 0.23 * rows), layout="constrained")
        axes = figure.add_subplot()
        _draw_bars(axes, tables)
        handles, names = axes.get_legend_handles_labels()
        unique = dict(zip(names, handles))
        figure.legend(
            list(unique.values()), list(unique), loc="outside upper center",
            ncols=min(len(unique), 6),
        )  # fmt: skip
    words = f"{title}. {_words(tables)}. The table below has all shares."
    return to_svg(figure, key, title, words, tight=False)
