"""Charts as SVG, drawn by hand: classes instead of colours, so that day and night are one file.

A chart has a title and a description for whoever cannot see it, and its figures as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup, escape

TICKS = 5


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure as a page shows it.

    Attributes:
        id: of the figure element.
        caption: above the chart.
        svg: the drawing.
        legend: class and words of each mark that is not labelled in the drawing.
        heads: headings of the table.
        table: the figures, as text.
    """

    id: str
    caption: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()
    heads: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()


def tag(name: str, text: object | None = None, **attributes: object) -> Markup:
    """An element; attributes are escaped, ``class_`` is class, ``_`` becomes a dash."""
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
        if value is not None
    )
    if text is None:
        return Markup("<{}{}/>").format(name, given)
    return Markup("<{0}{1}>{2}</{0}>").format(name, given, escape(text))


def _plain(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def drawing(
    id_: str, size: tuple[int, int], title: str, describe: str, marks: Sequence[Markup]
) -> Markup:
    """The whole drawing, named and described."""
    width, height = size
    inner = [
        tag("title", title, id=f"{id_}-title"),
        tag("desc", describe, id=f"{id_}-desc"),
        *marks,
    ]
    return Markup(
        '<svg viewBox="0 0 {0} {1}" class="{2}" role="img" '
        'aria-labelledby="{3}-title {3}-desc">{4}</svg>'
    ).format(width, height, "wide" if width > 500 else "", id_, Markup("").join(inner))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Round values that span low to high, a few of them."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def path(points: Sequence[tuple[float, float]], **attributes: object) -> Markup:
    """A line through points."""
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", d=line, **attributes)


def area(
    upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], **attributes: object
) -> Markup:
    """What lies between two lines of the same steps."""
    outline = [*upper, *reversed(lower)]
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in outline) + "Z"
    return tag("path", d=line, **attributes)
