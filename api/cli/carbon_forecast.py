"""``greenboard carbon forecast``: the hours ahead, in words, as JSON, and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.progress import stage_bar

if TYPE_CHECKING:
    from carbon.intensity.protocol import IntensityReading
    from carbon.monitor import CarbonMonitor

PICTURES = (".png", ".svg", ".pdf")
Method = Annotated[
    Literal["learned", "forest", "thin"],
    typer.Option(
        help="learned (from --trace or --history), forest (the named baseline), or thin (the "
        "source's own)."
    ),
]
DelayMin = Annotated[
    int, typer.Option(min=0, max=120, help="How late the feed comes: 0, 30 or 60 minutes.")
]
History = Annotated[
    Path | None,
    typer.Option(help="Recorded hours of a live provider's grid, to learn from, on its basis."),
]
Plot = Annotated[Path | None, typer.Option(help="A picture of it: .png, .svg or .pdf.")]
Quick = Annotated[bool, typer.Option("--quick", help="Small models: seconds, and weaker.")]


def forecast(
    monitor: CarbonMonitor, hours: int, *, as_json: bool = False, plot: Path | None = None
) -> None:
    """Fit once, forecast, and show it."""
    if plot is not None and plot.suffix.lower() not in PICTURES:
        raise typer.BadParameter(
            f"{plot.name}: a picture is .png, .svg or .pdf.", param_hint="--plot"
        )
    with stage_bar("forecast") as progress:
        monitor.fit(progress)
    readings = monitor.forecast(hours)
    if plot is not None:
        draw(readings, plot)
    if as_json:
        body = {"basis": monitor.basis, "forecast": [as_row(r) for r in readings]}
        typer.echo(json.dumps(body, indent=2))
        return
    first = readings[0]
    typer.echo(f"zone {first.zone}, provider {first.provider}, basis {first.basis}")
    typer.echo(f"{'hour (UTC)':<17}{'gCO2e/kWh':>10}{'90 % interval':>17}  kind")
    for reading in readings:
        low, high = bounds(reading)
        typer.echo(
            f"{reading.time:%Y-%m-%d %H:%M} {reading.g_per_kwh:>10.1f}"
            f"{f'{low:.1f} - {high:.1f}':>17}  {reading.kind}"
        )
    for note in dict.fromkeys(r.note for r in readings if r.note):
        typer.echo(f"note: {note}")


def bounds(reading: IntensityReading) -> tuple[float, float]:
    """The 90 % interval: the forecaster's, else the normal one of the standard error."""
    from carbon.learned_source import Z90

    if reading.interval90_g_per_kwh is not None:
        return reading.interval90_g_per_kwh
    if reading.uncertainty_g_per_kwh is None:
        return float("nan"), float("nan")
    half = Z90 * reading.uncertainty_g_per_kwh
    return max(0.0, reading.g_per_kwh - half), reading.g_per_kwh + half


def as_row(reading: IntensityReading) -> dict[str, Any]:
    """A reading as JSON: the figure with its 95 % interval, and the 90 % one where it is known."""
    body = reading.as_dict()
    value = body.pop("g_per_kwh")
    body.pop("uncertainty_g_per_kwh")
    interval = list(reading.ci95) if reading.ci95 is not None else None
    figure = {"value": value, "ci95": interval, "n": 1}
    if "interval90_g_per_kwh" in body:
        figure["interval90"] = body.pop("interval90_g_per_kwh")
    return {"intensity_g_co2e_per_kwh": figure, **body}


def draw(readings: tuple[IntensityReading, ...], path: Path) -> None:
    """The forecast with its band; whole or not at all under its final name."""
    import io

    import matplotlib as mpl
    import numpy as np
    from matplotlib.figure import Figure

    from api.cli.atomic import write_bytes

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    times = np.array([r.time.replace(tzinfo=None) for r in readings], dtype="datetime64[s]")
    low, high = zip(*(bounds(r) for r in readings), strict=True)
    axes.fill_between(times, low, high, color="#56B4E9", alpha=0.35, lw=0, label="90 % interval")
    axes.plot(times, [r.g_per_kwh for r in readings], color="#0072B2", label="forecast")
    axes.set(ylim=(0, None), ylabel="gCO2e/kWh", xlabel="UTC")
    axes.set_title(f"{readings[0].zone}: carbon intensity ahead ({readings[0].basis})", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "greenboard"}):
        figure.savefig(buffer, format=path.suffix.lower()[1:], dpi=150)
    write_bytes(path, buffer.getvalue())
