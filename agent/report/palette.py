"""Colours and shapes of the report's pictures: colour-blind safe, legible by day and by night.

A picture is drawn in a tone's light value; in the page that value becomes a CSS variable, so that
the same picture has the dark value where the reader's scheme is dark. Colour never carries
anything alone: the kind of a policy has a colour, and each policy of a kind its own marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tone:
    """One colour with its two values.

    Attributes:
        name: of the CSS variable, without its ``--tone-``.
        light: on white, ``#rrggbb``.
        dark: on the dark page, ``#rrggbb``.
    """

    name: str
    light: str
    dark: str


# Hues after Okabe and Ito (2008), "Color Universal Design"; darkened or lightened until each
# stands out from its page by WCAG 2.2's 3:1 for graphics.
BLUE, SKY, ORANGE, GREEN = "#0072b2", "#2c8bc6", "#b26a00", "#00795a"
VERMILION, PURPLE, YELLOW, GREY = "#c8500a", "#b04a86", "#7d7000", "#6b747d"
BLACK, PAPER, PALE, DUSK = "#000000", "#ffffff", "#dbe1e6", "#454c54"
TONES = (
    Tone(name="blue", light=BLUE, dark="#56a9e0"),
    Tone(name="sky", light=SKY, dark="#7cc8f5"),
    Tone(name="orange", light=ORANGE, dark="#f0a63a"),
    Tone(name="green", light=GREEN, dark="#2fc79b"),
    Tone(name="vermilion", light=VERMILION, dark="#ff7f4d"),
    Tone(name="purple", light=PURPLE, dark="#e39ac6"),
    Tone(name="yellow", light=YELLOW, dark="#e8dc4a"),
    Tone(name="grey", light=GREY, dark="#9aa4ae"),
    Tone(name="dusk", light=DUSK, dark="#c3cbd3"),
)
"""Tones that carry a figure."""
GROUND = (
    Tone(name="paper", light=PAPER, dark="#0f1318"),
    Tone(name="pale", light=PALE, dark="#333b44"),
)
"""Tones that lie behind figures: the page itself, and what is left over."""
INK = Tone(name="ink", light="#1b1f23", dark="#e6edf3")
SOFT_INK = Tone(name="soft", light="#57606a", dark="#9da7b1")
SHADE = Tone(name="shade", light="#f4f6f8", dark="#1c2128")
BEST = Tone(name="best", light="#e6f2ec", dark="#16331f")
WARN = Tone(name="warn", light="#fff1e5", dark="#3a2414")
WARN_INK = Tone(name="warn-ink", light="#8a3500", dark="#ffb38a")


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one policy is drawn, everywhere in a report."""

    colour: str
    marker: str


ALWAYS_MARKERS = "sPvh<>8H"
PLANNER_MARKERS = {
    "myopic": "v",
    "price": "d",
    "feedback": "D",
    "dp": "h",
    "mpc": "p",
    "planner": "P",
}
LEARNED_MARKERS = {"ppo": "X", "maskable-ppo": "^", "ppo-lagrangian": "<", "cloned-ppo": "*"}
FIXED = {
    "never": Style(colour=GREY, marker="o"),
    "always-everything": Style(colour=GREY, marker="s"),
    "random": Style(colour=GREY, marker="X"),
    "rule": Style(colour=PURPLE, marker="^"),
}
SPARE_MARKERS = "s>vDoPHh8p^<X*d"


def styles_of(names: Sequence[tuple[str, bool]]) -> dict[str, Style]:
    """Colour and marker of each policy; the same in every picture of a report.

    Args:
        names: each policy's name and whether it was trained, in the report's order.
    """
    styles: dict[str, Style] = {}
    always = 0
    for name, learned in names:
        if name in FIXED:
            styles[name] = FIXED[name]
        elif name.startswith("always:"):
            styles[name] = Style(colour=BLUE, marker=ALWAYS_MARKERS[always % len(ALWAYS_MARKERS)])
            always += 1
        else:
            known = LEARNED_MARKERS if learned else PLANNER_MARKERS
            colour = GREEN if learned else VERMILION
            taken = {s.marker for s in styles.values() if s.colour == colour} | set(known.values())
            free = [m for m in SPARE_MARKERS if m not in taken] or list(SPARE_MARKERS)
            styles[name] = Style(colour=colour, marker=known.get(name, free[0]))
    return styles


def css_variables(dark: bool) -> str:
    """The tones as declarations for ``:root``."""
    tones = (*TONES, *GROUND)
    return " ".join(f"--tone-{t.name}: {t.dark if dark else t.light};" for t in tones)


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, 0 to 1 (WCAG 2.2, "relative luminance")."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
