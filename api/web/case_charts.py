"""The charts of one case: how its evidence moved the probability, and what each modality added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from api.web.svg import Chart, Scale, drawing, path, tag, ticks
from api.web.words import chance, percent, signed, small

ROW = 30
LABEL = 158.0
WIDTH = 600


@dataclass(frozen=True, kw_only=True)
class Look:
    """The student's view after one more piece of evidence."""

    name: str
    probability: float
    g_co2e: float | None
    left: tuple[str, ...]
    """Classes that cannot be ruled out."""


def evidence_chart(looks: Sequence[Look], positive: str) -> Chart:
    """Probability after each transfer, from clinical data alone to the last one."""
    bottom = 34.0 + ROW * len(looks)
    x = Scale(low=0.0, high=1.0, start=LABEL, end=WIDTH - 150.0)
    points = [(x(look.probability), 34 + ROW * (i + 0.5)) for i, look in enumerate(looks)]
    marks = [_grid(value, x(value), bottom) for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    marks += [
        tag("text", f"Probability of {positive}", x=LABEL, y=14),
        tag("text", "gCO2e", x=WIDTH, y=14, class_="end"),
        path(points, class_="line-blue"),
    ]
    for look, (at_x, at_y) in zip(looks, points):
        marks += [
            tag("circle", cx=at_x, cy=at_y, r=5, class_="dot fill-blue"),
            tag("text", look.name.replace("->", " → "), x=0, y=at_y + 4, class_="label"),
            tag("text", chance(look.probability), x=WIDTH - 85, y=at_y + 4, class_="strong end"),
            tag("text", small(look.g_co2e), x=WIDTH, y=at_y + 4, class_="end"),
        ]
    first, last = looks[0], looks[-1]
    describe = (
        f"{len(looks)} views, from {chance(first.probability)} with {first.name} to "
        f"{chance(last.probability)} after {last.name}."
    )
    caption = "Evidence before and after each transfer"
    return Chart(
        id="chart-evidence",
        caption=caption,
        svg=drawing("chart-evidence", (WIDTH, round(bottom) + 24), caption, describe, marks),
        heads=("After", f"Probability of {positive}", "Cannot be ruled out", "gCO2e of the step"),
        table=tuple(
            (look.name, chance(look.probability), ", ".join(look.left) or "–", small(look.g_co2e))
            for look in looks
        ),
    )


def _grid(value: float, at: float, bottom: float) -> Markup:
    half = value == 0.5
    line = tag("line", x1=at, x2=at, y1=24, y2=bottom, class_="axis dash" if half else "rule")
    return line + tag("text", f"{value:g}", x=at, y=bottom + 16, class_="mid")


def contribution_chart(
    weighting: Mapping[str, Mapping[str, Any]], negative: str, positive: str
) -> Chart | None:
    """What leaving a modality out would take off the log-odds; None where nothing is known."""
    if not weighting:
        return None
    rows = [(name, float(each["contribution_log_odds"])) for name, each in weighting.items()]
    reach = max(1.0, *(abs(value) for _, value in rows))
    x = Scale(low=-reach, high=reach, start=LABEL, end=WIDTH - 50.0)
    bottom = 34.0 + ROW * len(rows)
    marks = [
        tag("text", f"← towards {negative}", x=x(0) - 8, y=12, class_="end"),
        tag("text", f"towards {positive} →", x=x(0) + 8, y=12),
    ]
    for value in ticks(-reach, reach, 4):
        marks.append(tag("line", x1=x(value), x2=x(value), y1=24, y2=bottom, class_="rule"))
        marks.append(tag("text", signed(value, 1), x=x(value), y=bottom + 16, class_="mid"))
    for i, (name, value) in enumerate(rows):
        marks += _bar(name, value, x, 34 + ROW * (i + 0.5))
    marks.append(tag("line", x1=x(0), x2=x(0), y1=24, y2=bottom, class_="zero"))
    caption = "What each modality adds to the log-odds"
    describe = "; ".join(f"{name} {signed(value)}" for name, value in rows) + "."
    return Chart(
        id="chart-contributions",
        caption=caption,
        svg=drawing("chart-contributions", (WIDTH, round(bottom) + 26), caption, describe, marks),
        heads=("Modality", "Log-odds", "Attention", "Values filled in"),
        table=tuple(
            (
                name,
                signed(each["contribution_log_odds"]),
                percent(each["attention"]),
                percent(each.get("quality")),
            )
            for name, each in weighting.items()
        ),
    )


def _bar(name: str, value: float, x: Scale, at: float) -> list[Markup]:
    left, right = min(x(0), x(value)), max(x(0), x(value))
    outside = right + 6 if value >= 0 else left - 6
    return [
        tag("text", name, x=0, y=at + 4, class_="label"),
        tag(
            "rect", x=left, y=at - 8, width=max(right - left, 1.0), height=16,
            class_="fill-blue" if value >= 0 else "fill-orange",
        ),
        tag(
            "text", signed(value), x=outside, y=at + 4,
            class_="strong" if value >= 0 else "strong end",
        ),
    ]  # fmt: skip
