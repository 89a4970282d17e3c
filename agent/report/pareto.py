"""The chart of a report's first screen: AUC gain against carbon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from agent.report.model import ComparisonReport, PolicyResult
from agent.report.order import quoted
from agent.report.palette import BLACK, BLUE, GREY, PALE, PAPER, Style
from agent.report.svg import SETTINGS, to_svg

KG = 1e-3
TOP = 0.8
"""The close-up shows policies with at least this share of the highest gain."""
CROWDED = 0.35
"""A close-up is drawn where it shows less than this share of the whole picture."""
PLACES = ((7, 6), (7, -6), (-7, 6), (-7, -6), (0, 11), (0, -11), (13, 0), (-13, 0))
"""Where a number may stand, in points from its dot."""
BOUND_LINES = {
    "expected_lp": "--", "foresight_lp": (0, (5, 1.5, 1, 1.5)), "clairvoyant_lp": (0, (1, 2.2)),
}  # fmt: skip
BOUND_WORDS = {
    "expected_lp": "bound: same observations",
    "foresight_lp": "bound: scores known",
    "clairvoyant_lp": "bound: labels known too",
}


def _corners(report: ComparisonReport, policy: PolicyResult) -> tuple[float, float, float, float]:
    """Lowest and highest carbon in kg, lowest and highest gain: the intervals' box."""
    gain, carbon = (quoted(report, policy, metric) for metric in ("auc_gain", "g_co2e"))
    return carbon.low * KG, carbon.high * KG, gain.low, gain.high


def _centre(policy: PolicyResult) -> tuple[float, float]:
    return policy.figures["g_co2e"].value * KG, policy.figures["auc_gain"].value


def _draw_point(axes: Axes, report: ComparisonReport, policy: PolicyResult, style: Style) -> None:
    x, y = _centre(policy)
    left, right, low, high = _corners(report, policy)
    axes.plot([left, right], [y, y], color=style.colour, linewidth=1.2, zorder=3)
    axes.plot([x, x], [low, high], color=style.colour, linewidth=1.2, zorder=3)
    axes.plot(
        [x], [y], marker=style.marker, markersize=11 if style.marker == "*" else 8,
        markerfacecolor=PAPER if policy.dominated_by else style.colour, linestyle="none",
        markeredgecolor=style.colour, markeredgewidth=1.5, zorder=4,
    )  # fmt: skip


def _draw_front(axes: Axes, report: ComparisonReport) -> None:
    front = sorted(_centre(p) for p in report.policies if not p.dominated_by)
    axes.plot(*zip(*front), color=PALE, linewidth=7, zorder=1, solid_capstyle="round")


def _draw_bounds(axes: Axes, report: ComparisonReport) -> None:
    for name, bound in report.bounds.items():
        axes.axhline(
            bound.auc_gain.value, color=BLACK, linewidth=1.1, zorder=2,
            linestyle=BOUND_LINES.get(name, "-."),
        )  # fmt: skip


def _free_place(
    axes: Axes, dot: tuple[float, float], taken: list[Float64[np.ndarray, " 2"]]
) -> tuple[int, int]:
    """Of the places around a dot the one farthest from all that is there already."""
    at = np.asarray(axes.transData.transform(dot)) * 72.0 / axes.figure.dpi

    def room(place: tuple[int, int]) -> float:
        return min(float(np.hypot(*(at + place - other))) for other in taken)

    best = max(PLACES, key=lambda place: (min(room(place), 12.0), -PLACES.index(place)))
    taken.append(at + best)
    return best


def _number(axes: Axes, policies: Sequence[PolicyResult], numbers: Mapping[str, int]) -> None:
    """Numbers beside the dots, where they cover none; needs the layout to be settled."""
    scale = 72.0 / axes.figure.dpi
    taken = [np.asarray(axes.transData.transform(_centre(p))) * scale for p in policies]
    for policy in policies:
        dot = _centre(policy)
        axes.annotate(
            str(numbers[policy.name]), dot, xytext=_free_place(axes, dot, taken),
            textcoords="offset points", ha="center", va="center", fontsize=9, fontweight="bold",
            zorder=5,
        )  # fmt: skip


def close_up(report: ComparisonReport) -> tuple[PolicyResult, ...]:
    """The policies that crowd at the top and deserve a picture of their own; maybe none."""
    gains = [p.figures["auc_gain"].value for p in report.policies]
    top = max(gains)
    if top <= 0:
        return ()
    near = tuple(p for p in report.policies if p.figures["auc_gain"].value >= TOP * top)
    if not 4 <= len(near) < len(report.policies):
        return ()
    return near if _area(report, near) < CROWDED * _area(report, report.policies) else ()


def _box(
    report: ComparisonReport, policies: Sequence[PolicyResult]
) -> tuple[float, float, float, float]:
    """Around the policies with their intervals, and some air."""
    lefts, rights, lows, highs = zip(*(_corners(report, p) for p in policies))
    left, right, low, high = min(lefts), max(rights), min(lows), max(highs)
    wide, tall = max(right - left, 1e-3) * 0.12, max(high - low, 1e-4) * 0.14
    return left - wide, right + wide, low - tall, high + tall


def _area(report: ComparisonReport, policies: Sequence[PolicyResult]) -> float:
    left, right, low, high = _box(report, policies)
    return (right - left) * (high - low)


def _zoom(axes: Axes, box: tuple[float, float, float, float], whole: Axes) -> None:
    left, right, low, high = box
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    axes.set_title("close-up of the top")
    whole.add_patch(
        Rectangle(
            (left, low),
            right - left,
            high - low,
            fill=False,
            edgecolor=GREY,
            linewidth=1.1,
            linestyle="-",
            zorder=2,
        )
    )


def _handles(
    report: ComparisonReport, numbers: Mapping[str, int], styles: Mapping[str, Style]
) -> list[Line2D]:
    lines = []
    for policy in sorted(report.policies, key=lambda p: numbers[p.name]):
        style = styles[policy.name]
        lines.append(
            Line2D(
                [],
                [],
                marker=style.marker,
                linestyle="none",
                color=style.colour,
                markerfacecolor=PAPER if policy.dominated_by else style.colour,
                label=f"{numbers[policy.name]}  {policy.name}",
            )
        )
    lines.append(Line2D([], [], color=PALE, linewidth=7, label="Pareto front"))
    for name in report.bounds:
        style_of_line = BOUND_LINES.get(name, "-.")
        label = BOUND_WORDS.get(name, f"bound: {name}")
        lines.append(Line2D([], [], color=BLACK, linestyle=style_of_line, label=label))  # type: ignore[arg-type]
    lines.append(Line2D([], [], color=BLUE, linestyle=":", label="mean carbon budget"))
    return lines


def _words(report: ComparisonReport, numbers: Mapping[str, int]) -> str:
    parts = []
    for policy in sorted(report.policies, key=lambda p: numbers[p.name]):
        gain, carbon = policy.figures["auc_gain"].value, policy.figures["g_co2e"].value
        beaten = ", dominated" if policy.dominated_by else ", on the Pareto front"
        parts.append(f"{policy.name}: {gain:.3f} AUC for {carbon:.0f} g{beaten}")
    parts += [f"bound {n}: {b.auc_gain.value:.3f} AUC" for n, b in report.bounds.items()]
    return "; ".join(parts) + "."


def pareto_svg(
    report: ComparisonReport, numbers: Mapping[str, int], styles: Mapping[str, Style]
) -> str:
    """AUC gain against carbon: a dot a policy with its intervals, the front, the bounds.

    Args:
        report: what was found.
        numbers: of the policies, as in the table beside it.
        styles: of the policies.
    """
    near = close_up(report)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(10.4, 4.3), layout="constrained")
        ratios = (1.15, 1.0) if near else (1.0,)
        whole, *rest = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
        for axes in (whole, *rest):
            _draw_front(axes, report)
            _draw_bounds(axes, report)
            for policy in report.policies:
                _draw_point(axes, report, policy, styles[policy.name])
            axes.set_xlabel("kgCO2e a session")
            axes.grid(alpha=0.25)
        whole.axvline(report.budget_g_co2e.value * KG, color=BLUE, linestyle=":", linewidth=1.4)
        whole.set_ylabel("AUC gain a session")
        for axes in rest:
            _zoom(axes, _box(report, near), whole)
        figure.legend(handles=_handles(report, numbers, styles), loc="outside right center")
        figure.draw_without_rendering()
        _number(whole, [p for p in report.policies if p not in near], numbers)
        for axes in rest:
            _number(axes, near, numbers)
    return to_svg(
        figure,
        "pareto",
        "AUC gain against carbon, per policy",
        _words(report, numbers),
        tight=False,
    )
