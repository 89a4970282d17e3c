"""The pictures of a carbon account: the grid, what ran when, the budgets, the recorded year."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agent.report.palette import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
)
from agent.report.svg import SETTINGS, to_svg
from carbon.account import WorkHour
from carbon.account_report import AccountReport
from carbon.burn_down import BurnDown
from carbon.intensity.trace import HOUR, Trace

SIZE = (6.8, 3.1)
STAGE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)
MOST_STAGES = len(STAGE_COLOURS)
MOST_BARS = 72
OTHER = "other stages"
GRID = "gCO2e/kWh"


def _figure(size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size)
    return figure, figure.add_subplot()


def _time_axis(axes: Axes, first: datetime, last: datetime) -> None:
    locator = mdates.AutoDateLocator(minticks=3, maxticks=7, tz=UTC)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    dates = mdates.ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(dates)
    margin = max(last - first, HOUR) * 0.02
    axes.set_xlim(_number(first - margin), _number(last + margin))
    axes.set_xlabel("UTC")
    axes.grid(alpha=0.25)


def _number(at: datetime) -> float:
    return float(mdates.date2num(at))  # type: ignore[no-untyped-call]


def _legend(axes: Axes, columns: int = 3) -> None:
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False, fontsize=9
    )


def booked_intensity(report: AccountReport) -> list[tuple[datetime, float]]:
    """Energy-weighted intensity of each hour in which work ran, g/kWh, on the main basis."""
    sums: dict[datetime, list[float]] = {}
    for cell in report.account.hours:
        if cell.intensity_basis == report.basis and cell.counted_kwh > 0:
            found = sums.setdefault(cell.hour, [0.0, 0.0])
            found[0] += cell.counted_kwh
            found[1] += cell.g_co2e
    return [(hour, g / kwh) for hour, (kwh, g) in sorted(sums.items())]


def intensity_svg(report: AccountReport) -> str | None:
    """The grid over the ledger's period, the forecast after it, and break-even; None if empty."""
    booked = booked_intensity(report)
    if not booked:
        return None
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure()
        times = [hour for hour, _ in booked]
        if report.recorded is not None:
            _draw_recorded(axes, report.recorded)
        axes.scatter(
            [_number(t + HOUR / 2) for t in times], [g for _, g in booked],
            s=12, color=BLUE, zorder=3, label="booked (hours worked)",
        )  # fmt: skip
        last = times[-1] + HOUR
        if report.forecast:
            _draw_forecast(axes, report)
            last = report.forecast[-1].time + HOUR
        if report.account.heat is not None:
            axes.axhline(
                report.account.heat.break_even_g_per_kwh, color=VERMILION, linestyle="--",
                linewidth=1.2, label="break-even r x u x h",
            )  # fmt: skip
        _time_axis(axes, times[0], last)
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)
        axes.set_ylabel(f"{GRID}, {report.basis}".replace("-", " "), fontsize=8)
        _legend(axes)
    low, high = min(g for _, g in booked), max(g for _, g in booked)
    words = (
        f"{len(booked)} hours worked between {times[0]:%Y-%m-%d %H:%M} and {last:%Y-%m-%d %H:%M} "
        f"UTC at {low:.0f} to {high:.0f} {GRID}; {len(report.forecast)} hours of forecast."
    )
    return to_svg(figure, "grid", "Carbon intensity of the period", words)


def _draw_recorded(axes: Axes, trace: Trace) -> None:
    start = _number(trace.start)
    x = start + (np.arange(len(trace) + 1)) / 24.0
    axes.stairs(
        trace.g_per_kwh, x, baseline=None, color=GREY, linewidth=1.0,
        label=f"recorded ({trace.zone})",
    )  # fmt: skip


def _draw_forecast(axes: Axes, report: AccountReport) -> None:
    ahead = report.forecast
    x = [_number(r.time + HOUR / 2) for r in ahead]
    axes.plot(x, [r.g_per_kwh for r in ahead], color=GREEN, linewidth=1.4, label="forecast")
    known = [(at, r.ci95) for at, r in zip(x, ahead) if r.ci95 is not None]
    if known:
        axes.fill_between(
            [at for at, _ in known], [low for _, (low, _) in known],
            [high for _, (_, high) in known], color=GREEN, alpha=0.2, linewidth=0, label="95 %",
        )  # fmt: skip


def work_svg(report: AccountReport) -> str | None:
    """Energy by stage over time; None without energy."""
    cells = [cell for cell in report.account.hours if cell.energy_kwh > 0]
    if not cells:
        return None
    first, last = cells[0].hour, cells[-1].hour + HOUR
    width = bar_width(first, last)
    stages = top_stages(cells)
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure()
        bars = int((last - first) / width) + 1
        bottom = np.zeros(bars)
        x = _number(first) + np.arange(bars) * (width / timedelta(days=1))
        for stage, colour in zip(stages, (*STAGE_COLOURS, GREY)):
            heights = np.zeros(bars)
            for cell in cells:
                if (cell.stage if cell.stage in stages else OTHER) == stage:
                    heights[int((cell.hour - first) / width)] += cell.energy_kwh
            axes.bar(
                x, heights, width=0.92 * (width / timedelta(days=1)), bottom=bottom,
                align="edge", color=colour, label=stage,
            )  # fmt: skip
            bottom += heights
        _time_axis(axes, first, last)
        axes.set_ylabel(f"kWh in {_words(width)}")
        _legend(axes, columns=min(3, len(stages)))
    totals = {s: sum(c.energy_kwh for c in cells if c.stage == s) for s in stages if s != OTHER}
    words = "; ".join(f"{stage} {kwh:.4g} kWh" for stage, kwh in totals.items())
    return to_svg(figure, "work", "What ran when", words)


def top_stages(cells: Sequence[WorkHour]) -> list[str]:
    """The stages that used most, most first, and one name for the rest where there are more."""
    kwh: dict[str, float] = {}
    for cell in cells:
        kwh[cell.stage] = kwh.get(cell.stage, 0.0) + cell.energy_kwh
    ordered = sorted(kwh, key=lambda stage: (-kwh[stage], stage))
    return ordered if len(ordered) <= MOST_STAGES else [*ordered[: MOST_STAGES - 1], OTHER]


def bar_width(first: datetime, last: datetime) -> timedelta:
    """Hours, days or weeks: the shortest that gives no more bars than can be told apart."""
    widths = [HOUR * h for h in (1, 3, 6, 24, 7 * 24, 28 * 24)]
    return next((w for w in widths if (last - first) / w <= MOST_BARS), widths[-1])


def _words(width: timedelta) -> str:
    hours = int(width / HOUR)
    if hours < 24:
        return "1 hour" if hours == 1 else f"{hours} hours"
    return {24: "1 day", 168: "1 week"}.get(hours, "4 weeks")


def burn_svg(course: BurnDown, number: int) -> str:
    """What was left of one budget over its period.

    Args:
        course: the budget.
        number: tells the pictures of a page apart.
    """
    status = course.status
    budget = status.budget
    first = status.starts or (course.times[0] if course.times else datetime(2000, 1, 1, tzinfo=UTC))
    last = status.ends or (course.times[-1] if course.times else first + HOUR)
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure((6.8, 2.5))
        x = [_number(first), *map(_number, course.times), _number(last)]
        left = [budget.hard_g_co2e, *course.left_g_co2e]
        axes.step(x, [*left, left[-1]], where="post", color=BLUE, linewidth=1.8, label="left")
        axes.axhline(
            budget.hard_g_co2e - budget.soft_g_co2e, color=ORANGE, linestyle="--", linewidth=1.2,
            label=f"soft limit ({budget.soft_g_co2e:g} g spent): {budget.soft_action}",
        )  # fmt: skip
        axes.axhline(
            0, color=VERMILION, linestyle="-", linewidth=1.2,
            label=f"hard limit ({budget.hard_g_co2e:g} g spent): {budget.hard_action}",
        )  # fmt: skip
        _time_axis(axes, first, last)
        axes.set_ylabel("gCO2e left")
        _legend(axes)
    words = (
        f"{status.spent_g_co2e:.4g} of {budget.hard_g_co2e:g} gCO2e spent in {status.key}; "
        f"{status.left_g_co2e:.4g} left."
    )
    return to_svg(figure, f"burn{number}", f"Budget of the {budget.period} {status.key}", words)


def year_svg(report: AccountReport) -> str | None:
    """The recorded year's hours in order of intensity, with break-even; None without one."""
    deployment = report.deployment
    if deployment is None:
        return None
    ordered = np.sort(deployment.intensity)
    share = np.linspace(0, 100, len(ordered))
    limit = deployment.break_even_g_per_kwh
    with mpl.rc_context(SETTINGS):
        figure, axes = _figure((6.8, 2.8))
        axes.plot(share, ordered, color=BLACK, linewidth=1.4)
        below: Any = ordered < limit
        axes.fill_between(share, ordered, limit, where=below, color=GREEN, alpha=0.3, linewidth=0)
        axes.fill_between(
            share, ordered, limit, where=~below, color=VERMILION, alpha=0.22, linewidth=0
        )
        axes.axhline(
            limit, color=VERMILION, linestyle="--", linewidth=1.2,
            label=f"break-even {limit:.1f}",
        )  # fmt: skip
        axes.axhline(
            deployment.weighted_g_per_kwh, color=BLUE, linestyle=":", linewidth=1.6,
            label=f"mean, weighted by the work {deployment.weighted_g_per_kwh:.1f}",
        )  # fmt: skip
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("% of the hours of the recorded period, cleanest first")
        axes.set_ylabel(GRID)
        axes.grid(alpha=0.25)
        _legend(axes)
    words = (
        f"{deployment.hours_below} of {deployment.hours} hours are below {limit:.1f} {GRID}; the "
        f"weighted mean is {deployment.weighted_g_per_kwh:.1f}."
    )
    return to_svg(figure, "year", "The recorded year against break-even", words)
