"""A review session as a picture: the same moment that :mod:`envs.render` puts into words."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8

from envs.config import LEADS_H
from envs.render import Scene, has_numbers, modality_state, state_of

WIDTH_PX, HEADER_PX, ROW_PX, DPI = 1000, 330, 22, 100
# Distinct to colour-blind readers (Okabe and Ito).
INK, FAINT, PALE = "#1a1a1a", "#8a8a8a", "#e9e9e6"
GREEN, ORANGE, BLUE = "#009e73", "#d55e00", "#0072b2"
GAIN_BAR_PX = 150.0
Pixels: TypeAlias = float | int


def picture_of(scene: Scene) -> UInt8[np.ndarray, "height width 3"]:
    """The moment as an RGB picture; the same scene gives the same pixels."""
    # Matplotlib takes a second to import: only those who draw pay for it. No pyplot, no state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    height = HEADER_PX + ROW_PX * (len(scene.actions) + 3)
    figure = Figure(figsize=(WIDTH_PX / DPI, height / DPI), dpi=DPI, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH_PX)
    axes.set_ylim(height, 0)
    _write(axes, 24, 30, scene.title, size=11, weight="bold")
    _session(axes, scene)
    _grid(axes, scene)
    _case(axes, scene)
    _actions(axes, scene)
    _foot(axes, scene, height)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:, :, :3])


def _write(axes: Any, x: Pixels, y: Pixels, text: str, **style: Any) -> None:
    options: dict[str, Any] = {"size": 9, "color": INK, "family": "DejaVu Sans", "va": "center"}
    # A name with two dollar signs would be read as a formula.
    axes.text(x, y, text, **(options | style), parse_math=False)


def _bar(
    axes: Any, at: tuple[Pixels, Pixels], size: tuple[Pixels, Pixels], share: float, **style: Any
) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    color = style.get("color", BLUE)
    filled = min(max(share, 0.0), 1.0) * size[0]
    axes.add_patch(Rectangle(at, *size, facecolor=PALE, linewidth=0))
    axes.add_patch(Rectangle(at, filled, size[1], facecolor=color, linewidth=0))


def _session(axes: Any, scene: Scene) -> None:
    seen = scene.seen
    gone = scene.hour / max(scene.length_h, 1e-9)
    _write(axes, 24, 66, "Session", weight="bold")
    _write(axes, 24, 92, f"hour {scene.hour:.4g} of {scene.length_h:g}")
    _bar(axes, (180, 85), (240, 13), gone, color=FAINT)
    _write(axes, 24, 118, f"budget {seen['budget_left']:.0%} left")
    left = GREEN if seen["budget_left"] > 0.1 else ORANGE
    _bar(axes, (180, 111), (240, 13), seen["budget_left"], color=left)
    _write(axes, 430, 118, f"{seen['budget_left_g_co2e']:,.0f} g", color=FAINT)
    _write(
        axes, 24, 144,
        f"{seen['slots_left_now']:.0f} slots left in this hour, {seen['slots_left']:.0f} until "
        f"this case is due; waiting {seen['waiting']:.0f}, to come {seen['to_come']:.0f}",
    )  # fmt: skip


def _grid(axes: Any, scene: Scene) -> None:
    """Intensity now and forecast, over lead time, with one standard deviation around it."""
    values, lead = np.array(scene.forecast), np.array([0, *LEADS_H])
    spread = scene.seen["intensity_uncertainty"] * values * np.sqrt(lead / LEADS_H[-1])
    top = max(float((values + spread).max()), 1.0)
    left, bottom, width, height = 560.0, 152.0, 380.0, 52.0
    x, y = left + lead / LEADS_H[-1] * width, bottom - values / top * height
    band = spread / top * height
    _write(axes, left, 66, f"Grid: {values[0]:.0f} gCO2e/kWh now, then as forecast", weight="bold")
    axes.fill_between(x, y - band, y + band, color=BLUE, alpha=0.15, linewidth=0)
    axes.plot(x, y, color=BLUE, linewidth=1.5, marker="o", markersize=4)
    axes.plot([left, left + width], [bottom, bottom], color=FAINT, linewidth=0.8)
    for hours, px, py, value in zip(lead, x, y, values):
        if hours not in (1, 3):
            _write(
                axes, px, bottom + 11, "now" if not hours else f"+{hours} h", size=8, ha="center"
            )
            _write(axes, px, py - 11, f"{value:.0f}", size=8, ha="center", color=BLUE)


def _case(axes: Any, scene: Scene) -> None:
    seen = scene.seen
    _write(axes, 24, 188, "Case under review", weight="bold")
    _write(axes, 24, 214, f"probability {seen['probability']:.3f}")
    _bar(axes, (180, 207), (240, 13), seen["probability"])
    axes.plot([300, 300], [204, 223], color=INK, linewidth=0.8)
    _write(
        axes, 430, 214,
        f"entropy {seen['entropy']:.2f} bit, disagreement {seen['disagreement']:.2f} log-odds",
    )  # fmt: skip
    put_off = ", put off before" if seen["deferred"] > 0.5 else ""
    _write(
        axes, 24, 238,
        f"urgency {seen['urgency']:.2f} (simulated), due in {seen['slack_h']:.1f} h{put_off}",
    )  # fmt: skip
    step = (WIDTH_PX - 48) / len(scene.layout.modalities)
    for i, modality in enumerate(scene.layout.modalities):
        state = modality_state(scene, modality)
        here, worked = state != "absent", state.endswith("(processed)")
        color = FAINT if not here else GREEN if worked else INK
        mark = "■" if worked else "□"
        _write(axes, 24 + i * step, 266, f"{mark} {modality}: {state}", size=8, color=color)


def _actions(axes: Any, scene: Scene) -> None:
    columns = ((24, "Action"), (330, "predicted gain, AUC points"), (640, "kWh"),
               (760, "gCO2e now"), (870, "to start a run"))  # fmt: skip
    for x, heading in columns:
        _write(axes, x, HEADER_PX - 26, heading, weight="bold")
    possible = [t for t in scene.layout.transfers if has_numbers(scene, t)]
    gains = [abs(scene.seen[f"gain_{t}"]) for t in possible]
    most = max([*gains, 1e-9])
    for i, name in enumerate(scene.actions):
        y, state = HEADER_PX + i * ROW_PX, state_of(scene, name)
        last = scene.last is not None and scene.last.action == name
        _write(
            axes, 24, y, name if state == "open" else f"{name}  ({state})",
            color=INK if state == "open" else FAINT, weight="bold" if last else "normal",
        )  # fmt: skip
        if has_numbers(scene, name):
            _transfer(axes, scene, (name, state == "open"), y, most)


def _transfer(axes: Any, scene: Scene, action: tuple[str, bool], y: Pixels, most: float) -> None:
    (name, is_open), seen = action, scene.seen
    gain = seen[f"gain_{name}"]
    color = FAINT if not is_open else GREEN if gain > 0 else ORANGE
    _bar(axes, (330, y - 6), (GAIN_BAR_PX, 12), abs(gain) / most, color=color)
    ink = INK if is_open else FAINT
    _write(axes, 330 + GAIN_BAR_PX + 12, y, f"{gain * 100:+.3f}", color=ink)
    _write(axes, 640, y, f"{seen[f'energy_{name}']:.3g}", color=ink)
    _write(axes, 760, y, f"{seen[f'g_co2e_{name}']:,.1f}", color=ink)
    setup = seen[f"setup_{name}"]
    if setup > 0.0:
        shared = f"{setup:.3g} kWh, {seen[f'sharing_{name}']:.0f} share"
        _write(axes, 870, y, shared, color=ink, size=8)


def _foot(axes: Any, scene: Scene, height: int) -> None:
    last = "no action yet" if scene.last is None else f"Last: {scene.last.words}"
    _write(axes, 24, height - 46, last)
    _write(axes, 24, height - 22, scene.ending or "research use only", color=FAINT)
