"""A carbon account as a page: one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from agent.policies.files import write_atomically
from agent.report.carbon_plots import burn_svg, intensity_svg, work_svg, year_svg
from agent.report.page import page_environment
from carbon.account import AccountRow
from carbon.account_report import AccountReport
from carbon.intensity.synthetic import ZONE as SYNTHETIC

MOST_ROWS = 100
"""More would not be read, and a page of thousands of cases would not open on a phone."""


def figure(value: float, digits: int = 4) -> str:
    """A number with so many significant digits, thousands set apart, no exponent near 1."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits}g}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    text = f"{value:.{digits}g}"
    return text if "e" not in text else f"{value:.6f}"


def _known(value: float | None) -> str:
    return "unknown" if value is None else figure(value)


def _kinds(kinds: Mapping[str, int]) -> str:
    return "intensity " + ", ".join(f"{kind} {n}" for kind, n in kinds.items()) if kinds else ""


def _left_out(row: AccountRow) -> str:
    parts = [
        f"{n} {what}"
        for n, what in (
            (row.unmeasured, "without energy"),
            (row.without_g_co2e, "without gCO2e"),
        )
        if n
    ]
    return ", ".join(parts)


def _energy_words(row: AccountRow) -> str:
    if not row.modelled_kwh:
        return "all measured" if row.measured_kwh else "none"
    if not row.measured_kwh:
        return "all modelled"
    share = row.measured_kwh / row.energy_kwh
    return f"{'under 1%' if share < 0.01 else f'{share:.0%}'} measured, the rest modelled"


def _main_row(report: AccountReport) -> AccountRow | None:
    rows = [row for row in report.account.totals if row.intensity_basis == report.basis]
    return rows[0] if rows else None


def headline(report: AccountReport) -> tuple[str, ...]:
    """The first sentences: what was emitted, and whether recovered heat outweighs it."""
    account, row = report.account, _main_row(report)
    if row is None or account.first is None or account.last is None:
        return ("The ledger has no entries.",)
    span = f"{account.first:%Y-%m-%d %H:%M} to {account.last:%Y-%m-%d %H:%M} UTC"
    sentences = [
        f"{_known(row.gross_g_co2e)} gCO2e gross from {_known(row.known_kwh)} kWh "
        f"({_energy_words(row)}), {span}."
    ]
    if row.net_g_co2e is not None and row.avoided_g_co2e is not None:
        verdict = "below 0" if row.net_g_co2e < 0 else "not below 0"
        sentences.append(
            f"Recovered heat avoided {figure(row.avoided_g_co2e)} gCO2e elsewhere, on a line of "
            f"its own: net {figure(row.net_g_co2e)} gCO2e, {verdict}."
        )
    others = [r for r in account.totals if r is not row]
    if others:
        left = sum(r.entries for r in others)
        sentences.append(
            f"{left} entries on another basis or without an intensity are counted apart."
        )
    return tuple(sentences)


def _tags(report: AccountReport) -> list[str]:
    tags = ["Gross figures; nothing subtracted"]
    made_up = SYNTHETIC in report.account.zones
    made_up |= report.year is not None and report.year.synthetic
    return [*tags, *(["Synthetic grid"] if made_up else [])]


def _remarks(report: AccountReport) -> list[str]:
    remarks = [row.heat_remark for row in report.account.totals if row.heat_remark]
    remarks += [f"SCI: {row.sci_remark}." for row in report.account.totals if row.sci_remark]
    return list(dict.fromkeys(remark[:1].upper() + remark[1:] for remark in remarks))


def _grid_caption(report: AccountReport) -> str:
    parts = ["Points: the intensity booked in each hour in which work ran, weighted by energy."]
    if report.recorded is not None:
        parts.append("Line: the recorded grid.")
    if report.forecast:
        first = report.forecast[0]
        parts.append(
            f"After the last entry: {len(report.forecast)} hours by {first.provider} "
            f"({first.kind}) with 95 % intervals; {first.note}."
        )
    return " ".join(parts)


def _shown(rows: tuple[AccountRow, ...]) -> tuple[AccountRow, ...]:
    """The rows as they come, or where they are too many to read those that emitted most."""
    if len(rows) <= MOST_ROWS:
        return rows
    return tuple(sorted(rows, key=lambda row: (-row.g_co2e, row.key))[:MOST_ROWS])


def render_account(report: AccountReport) -> str:
    """The page: figures, rows, grid, work, budgets, and what net < 0 would take."""
    environment = page_environment(
        {
            "figure": figure, "kinds": _kinds, "left_out": _left_out,
            "energy_words": _energy_words,
        }
    )  # fmt: skip
    drawn = {
        "grid": intensity_svg(report),
        "work": work_svg(report),
        "year": year_svg(report),
    }
    return environment.get_template("carbon.html.j2").render(
        report=report,
        account=report.account,
        shown=_shown(report.account.rows),
        main=_main_row(report),
        below=report.account.hours_below(report.basis),
        headline=headline(report),
        tags=_tags(report),
        remarks=_remarks(report),
        grid_caption=_grid_caption(report),
        # The pictures' text was escaped when they were drawn.
        pictures={k: Markup(svg) for k, svg in drawn.items() if svg is not None}  # noqa: S704
        | {k: None for k, svg in drawn.items() if svg is None},
        courses=[
            (course, Markup(burn_svg(course, i)))  # noqa: S704
            for i, course in enumerate(report.budgets)
        ],
    )


def write_account(report: AccountReport, path: Path) -> None:
    """Write the page; never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render_account(report).encode())
