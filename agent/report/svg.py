"""A matplotlib figure as an SVG element that can stand in a page with others."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from agent.report.palette import BLACK, GROUND, TONES

SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "greenboard", "font.family": "sans-serif",
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
    "savefig.transparent": True, "text.parse_math": False,
    "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "legend.frameon": False, "legend.fontsize": 9,
}  # fmt: skip


def _as_of_the_page(svg: str) -> str:
    """Ink, paper and tones become the page's, so that the picture follows it into the dark."""
    svg = svg.replace(BLACK, "currentColor")
    for tone in (*TONES, *GROUND):
        svg = svg.replace(tone.light, f"var(--tone-{tone.name}, {tone.light})")
    return svg


def _own_ids(svg: str, key: str) -> str:
    svg = re.sub(r'id="([^"]+)"', rf'id="{key}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{key}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{key}-\1"', svg)


def _lean_tag(match: re.Match[str]) -> str:
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", match[0])
    tag = re.sub(r"\s+", " ", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag)


def _lean(svg: str) -> str:
    """The same picture in less: no metadata, no unused ids, no digits that nobody can see.

    Letters are the page's own; matplotlib measured them in a font that is wider than most.
    """
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r">\s+<", "><", svg)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", svg)
    svg = re.sub(r"<[^>]+>", _lean_tag, svg)
    return re.sub(r"<defs></defs>|<g></g>|<g/>", "", svg)


def to_svg(figure: Figure, key: str, title: str, description: str, *, tight: bool = True) -> str:
    """One figure as an SVG element; the same figure always gives the same bytes.

    Args:
        figure: what was drawn, in light tones.
        key: prefix of every id, so that two pictures in one page do not clash.
        title: short text alternative.
        description: long text alternative: what the picture shows, in words.
        tight: cut to what was drawn; otherwise the figure's own size stays.
    """
    buffer = io.StringIO()
    with mpl.rc_context(SETTINGS):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None}, bbox_inches="tight" if tight else None
        )
    svg = buffer.getvalue()
    svg = _own_ids(_lean(svg[svg.index("<svg") :]), key)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = _as_of_the_page(svg)
    label = f'role="img" aria-labelledby="{key}-title {key}-desc"'
    words = (
        f'<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-desc">{escape(description)}</desc>'
    )
    return re.sub(r"<svg([^>]*)>", lambda m: f"<svg{m[1]} {label}>{words}", svg, count=1)
