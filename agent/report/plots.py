"""The report's pictures as inline SVG, with text alternatives and colour-blind-safe colours."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.report.model import ActionTable, ComparisonReport, PolicyResult

# Okabe and Ito (2008), "Color Universal Design"
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE, GREY = "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#8C8C8C"
ALWAYS_COLOURS = (BLUE, SKY, PURPLE, YELLOW)
STYLES = {
    "never": (GREY, "o"), "always-everything": (BLACK, "s"), "random": (GREY, "X"),
    "rule": (ORANGE, "^"), "price": (VERMILION, "D"),
}  # fmt: skip
LEARNED_STYLE = (GREEN, "*")
SOURCE_COLOURS = (BLUE, VERMILION, PURPLE, YELLOW, SKY, ORANGE)
FINALISE_COLOUR, DEFER_COLOUR = "#D9D9D9", "#4D4D4D"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "greenboard", "font.family": "sans-serif",
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def to_svg(figure: Figure, key: str, title: str, description: str) -> str:
    """One figure as an SVG element that can stand in a page with others.

    Args:
        figure: what was drawn.
        key: prefix of every id, so that two pictures in one page do not clash.
        title: short text alternative.
        description: long text alternative: what the picture shows, in words.
    """
    buffer = io.StringIO()
    with mpl.rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'id="([^"]+)"', rf'id="{key}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{key}-\1"', svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    # Ink and paper are the page's, so that the picture follows it into the dark.
    svg = svg.replace(BLACK, "currentColor").replace("fill: #ffffff", "fill: none")
    label = f'role="img" aria-labelledby="{key}-title {key}-desc"'
    words = (
        f'<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-desc">{escape(description)}</desc>'
    )
    return re.sub(r"<svg([^>]*)>", rf"<svg\1 {label}>{words}", svg, count=1)


def style_of(policies: Sequence[PolicyResult]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each policy; the same in every picture of a report."""
    always = [p.name for p in policies if p.name.startswith("always:")]
    styles = {
        name: (ALWAYS_COLOURS[i % len(ALWAYS_COLOURS)], "sPvh<>"[i // 4 % 6])
        for i, name in enumerate(always)
    }
    for policy in policies:
        styles.setdefault(policy.name, STYLES.get(policy.name, LEARNED_STYLE))
    return styles


def _draw_point(axes: Axes, policy: PolicyResult, style: tuple[str, str]) -> None:
    gain, carbon = policy.figures["auc_gain"], policy.figures["g_co2e"]
    colour, marker = style
    dominated = bool(policy.dominated_by)
    axes.errorbar(
        carbon.value / 1000,
        gain.value,
        xerr=[[(carbon.value - carbon.low) / 1000], [(carbon.high - carbon.value) / 1000]],
        yerr=[[gain.value - gain.low], [gain.high - gain.value]],
        fmt=marker,
        color=colour,
        markersize=13 if marker == "*" else 9,
        markerfacecolor="white" if dominated else colour,
        markeredgecolor=colour if colour != YELLOW else BLACK,
        markeredgewidth=1.6,
        capsize=3,
        linewidth=1.2,
        label=policy.name + (" (dominated)" if dominated else ""),
        zorder=3,
    )


def _draw_reference(axes: Axes, report: ComparisonReport) -> None:
    bound = report.bounds.get("expected_lp")
    if bound is not None:
        axes.axhline(
            bound.auc_gain.value, color=BLACK, linestyle="--", linewidth=1,
            label="best plan, scores known",
        )  # fmt: skip
    axes.axvline(
        report.budget_g_co2e.value / 1000, color=GREY, linestyle=":", linewidth=1.4,
        label="mean carbon budget",
    )  # fmt: skip


def pareto_svg(report: ComparisonReport) -> str:
    """AUC gain against carbon, one point a policy with its intervals, the front joined."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8.2, 4.4))
        axes = figure.add_subplot()
        styles = style_of(report.policies)
        front = sorted(
            (p.figures["g_co2e"].value / 1000, p.figures["auc_gain"].value)
            for p in report.policies
            if not p.dominated_by
        )
        axes.plot(*zip(*front), color=GREY, linewidth=5, alpha=0.35, zorder=1, label="Pareto front")
        for policy in report.policies:
            _draw_point(axes, policy, styles[policy.name])
        _draw_reference(axes, report)
        axes.set_xlabel("carbon per session, kgCO2e (modelled energy x grid intensity)")
        axes.set_ylabel("AUC gain per session")
        axes.grid(alpha=0.25)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    words = "; ".join(
        f"{p.name} {p.figures['auc_gain'].value:.3f} AUC for {p.figures['g_co2e'].value:.0f} g"
        for p in report.policies
    )
    return to_svg(figure, "pareto", "AUC gain against carbon, per policy", words)


def _group(action: str) -> str:
    return f"from {action.split('->', maxsplit=1)[0]}" if "->" in action else action


def action_groups(actions: Sequence[str]) -> dict[str, list[int]]:
    """Columns of an action table by the modality that is processed; finalise and defer last."""
    groups: dict[str, list[int]] = {}
    for column, action in enumerate(actions):
        groups.setdefault(_group(action), []).append(column)
    return groups


def group_colours(groups: Sequence[str]) -> dict[str, str]:
    """A colour for each group of actions."""
    fixed = {"finalise": FINALISE_COLOUR, "defer": DEFER_COLOUR}
    sources = [group for group in groups if group not in fixed]
    return {g: SOURCE_COLOURS[i % len(SOURCE_COLOURS)] for i, g in enumerate(sources)} | fixed


def _draw_bars(axes: Axes, tables: Sequence[tuple[str, ActionTable]]) -> None:
    groups = action_groups(tables[0][1].actions)
    colours = group_colours(list(groups))
    labels, position = [], 0.0
    ticks: list[float] = []
    for name, table in tables:
        for band, row in zip(table.bands, table.counts):
            left, total = 0.0, max(int(row.sum()), 1)
            for group, columns in groups.items():
                share = float(row[columns].sum()) / total
                axes.barh(
                    position, share, left=left, height=0.8, color=colours[group],
                    edgecolor="white", linewidth=0.6, label=group,
                )  # fmt: skip
                left += share
            ticks.append(position)
            labels.append(f"{name}: {band}")
            position -= 1.0
        position -= 0.6
    axes.set_yticks(ticks, labels)
    axes.set_xlim(0, 1)
    axes.set_xticks(np.linspace(0, 1, 5), ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel("share of decisions")


def actions_svg(key: str, title: str, tables: Sequence[tuple[str, ActionTable]]) -> str:
    """Stacked bars: which share of the decisions in each band went to which action.

    Args:
        key: prefix of ids, different for each picture of the page.
        title: short text alternative.
        tables: policy name and its table.
    """
    rows = sum(len(table.bands) for _, table in tables)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8.2, 0.9 + 0.3 * rows))
        axes = figure.add_subplot()
        _draw_bars(axes, tables)
        handles, names = axes.get_legend_handles_labels()
        unique = dict(zip(names, handles))
        axes.legend(
            unique.values(), unique.keys(), loc="lower center", bbox_to_anchor=(0.4, 1.0),
            ncols=min(len(unique), 6), frameon=False, fontsize=9,
        )  # fmt: skip
    return to_svg(figure, key, title, f"{title}. The table below has the same figures.")
