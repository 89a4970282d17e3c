"""What a page is built of: sections of words, pictures and tables, ready for the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from agent.report.words import interval, number
from agent.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class Column:
    """Head of a column.

    Attributes:
        title: what stands in it.
        unit: of its figures.
        text: words, not figures: aligned to the left.
    """

    title: str
    unit: str = ""
    text: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: the figure, and in smaller type what belongs to it."""

    text: str
    small: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row; the head names it.

    Attributes:
        head: first cell.
        cells: one for each further column.
        kind: ``best``, ``dominated``, ``worse``, ``reference`` or nothing.
    """

    head: Cell
    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        caption: what it shows.
        columns: the first one is of the rows' heads.
        rows: from top to bottom.
        folded: the words to unfold it by; open from the start where there are none.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    folded: str = ""

    template = "table"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An SVG element with its caption; a table or its own description says the same in words."""

    svg: Markup
    caption: str

    template = "picture"


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph.

    Attributes:
        words: one paragraph.
        kind: ``note``, ``warning``, ``heading`` (a level below the section's) or nothing.
    """

    words: str
    kind: str = ""

    template = "text"


@dataclass(frozen=True, kw_only=True)
class Items:
    """A list of sentences."""

    items: tuple[str, ...]

    template = "items"


@dataclass(frozen=True, kw_only=True)
class Code:
    """Text to be kept as it is; folded where ``folded`` says by which words."""

    text: str
    folded: str = ""

    template = "code"


Block = Table | Picture | Text | Items | Code


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section of the page.

    Attributes:
        key: of its heading's id.
        title: its heading.
        blocks: what stands in it.
    """

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A section that this comparison has nothing for, with why and how to get it."""

    title: str
    why: str


def drawn(svg: str, caption: str) -> Picture:
    """A picture; the text in it was escaped when it was drawn."""
    return Picture(svg=Markup(svg), caption=caption)  # noqa: S704


def figure_cell(
    estimate: Estimate | None, digits: int = 3, scale: float = 1.0, *, sign: bool = False
) -> Cell:
    """A figure with its interval below it; a dash where there is none."""
    if estimate is None:
        return Cell(text="-")
    text, _, rest = interval(estimate, digits, scale, sign=sign).partition(" ")
    return Cell(text=text, small=(rest.strip("[]").replace(", ", " to "),))


def number_cell(value: float | None, digits: int = 2, *, sign: bool = False) -> Cell:
    """A figure that has no interval; a dash where there is none."""
    return Cell(text="-" if value is None else number(value, digits, sign=sign))


def columns(*titles: str | tuple[str, str]) -> tuple[Column, ...]:
    """Heads of columns: a title, or a title and its unit."""
    return tuple(
        Column(title=t) if isinstance(t, str) else Column(title=t[0], unit=t[1]) for t in titles
    )


def cells(*given: Cell | str) -> tuple[Cell, ...]:
    """Cells of a row, plain text allowed."""
    return tuple(c if isinstance(c, Cell) else Cell(text=c) for c in given)


def only_sections(found: Sequence[Section | Absent]) -> tuple[Section, ...]:
    """Those that have something to show."""
    return tuple(s for s in found if isinstance(s, Section))
