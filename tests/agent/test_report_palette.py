"""Colours that everybody can tell from the page and from each other."""

from __future__ import annotations

import re
from importlib import resources
from itertools import combinations

import numpy as np
import pytest
from jaxtyping import Float64

from agent.report.page import page_environment
from agent.report.palette import (
    BEST,
    BLUE,
    FIXED,
    GREEN,
    GROUND,
    INK,
    LEARNED_MARKERS,
    PLANNER_MARKERS,
    SHADE,
    SOFT_INK,
    TONES,
    VERMILION,
    WARN,
    WARN_INK,
    Tone,
    contrast,
    styles_of,
)
from agent.report.plots import SOURCE_COLOURS

PAGE = GROUND[0]
SCHEMES = ("light", "dark")

# Machado, Oliveira and Fernandes (2009), table 1, severity 1.0; on linear RGB.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip


def linear(colour: str) -> Float64[np.ndarray, " 3"]:
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, " 3"]:
    """CIE L*a*b* under D65."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one: str, other: str, blind: str) -> float:
    """CIE76 difference as someone with that colour vision sees it."""
    matrix = np.array(BLIND[blind])
    return float(np.linalg.norm(lab(matrix @ linear(one)) - lab(matrix @ linear(other))))


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tone", TONES, ids=lambda tone: str(tone.name))
def test_graphics_stand_out_from_the_page(tone: Tone, scheme: str) -> None:
    assert contrast(getattr(tone, scheme), getattr(PAGE, scheme)) >= 3.0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_words_stand_out_from_what_is_behind_them(scheme: str) -> None:
    for ink in (INK, SOFT_INK):
        for ground in (PAGE, SHADE, BEST, WARN):
            assert contrast(getattr(ink, scheme), getattr(ground, scheme)) >= 4.5
    assert contrast(getattr(WARN_INK, scheme), getattr(WARN, scheme)) >= 4.5


@pytest.mark.parametrize("blind", BLIND)
def test_kinds_of_policies_differ_for_the_colour_blind(blind: str) -> None:
    for one, other in combinations((BLUE, VERMILION, GREEN, FIXED["rule"].colour), 2):
        assert apart(one, other, blind) > 15


def test_what_colour_cannot_tell_shapes_do() -> None:
    names = [(n, False) for n in (*FIXED, *PLANNER_MARKERS)] + [(n, True) for n in LEARNED_MARKERS]
    names += [(f"always:{i}", False) for i in range(6)] + [("runs/mine", True), ("other", False)]
    looks = styles_of(names)
    assert len({(s.colour, s.marker) for s in looks.values()}) == len(names)


def test_actions_differ_without_colour() -> None:
    assert len(set(SOURCE_COLOURS)) == len(SOURCE_COLOURS)


def test_the_style_sheet_has_the_palette_that_is_tested() -> None:
    environment = page_environment({})
    sheet = environment.get_template("style.css.j2").render()
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in (
        sheet[: sheet.index("@media")], sheet[sheet.index("@media") :]
    ))  # fmt: skip
    for tone in (INK, SOFT_INK, SHADE, BEST, WARN, WARN_INK):
        assert (light[tone.name], dark[tone.name]) == (tone.light, tone.dark)
    for tone in (*TONES, *GROUND):
        assert (light[f"tone-{tone.name}"], dark[f"tone-{tone.name}"]) == (tone.light, tone.dark)
    assert (light["page"], dark["page"]) == (PAGE.light, PAGE.dark)
    assert all(contrast(scheme["accent"], scheme["page"]) >= 4.5 for scheme in (light, dark))


def test_print_shows_what_is_folded_and_stays_light() -> None:
    folder = resources.files("agent.report") / "templates"
    sheet = (folder / "style.css.j2").read_text()
    assert "details::details-content" in sheet[sheet.index("@media print") :]
    assert "@media screen and (prefers-color-scheme: dark)" in sheet
