from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.report.carbon_page import figure, render_account, write_account
from agent.report.carbon_plots import bar_width, top_stages
from carbon.account import WorkHour
from carbon.account_report import AccountReport, BudgetPlan, build_report
from carbon.budget import Budget
from carbon.declared import Declared
from carbon.embodied import DeclaredHardware
from carbon.entries import LedgerEntry, emissions_g_co2e
from carbon.errors import BasisError
from carbon.heat import HeatRecovery
from carbon.intensity.protocol import IntensityReading
from carbon.intensity.trace import Trace

AT = datetime(2024, 3, 1, 8, tzinfo=UTC)
HEAT = HeatRecovery(recovered=0.9, used=0.8)
HARDWARE = DeclaredHardware(embodied_kg_co2e=1000.0, lifespan_h=35_064.0, source="a maker's sheet")
BUDGETS = (
    Budget(period="day", soft_g_co2e=100.0, hard_g_co2e=200.0),
    Budget(period="session", soft_g_co2e=1.0, hard_g_co2e=2.0),
)


def entries(n: int = 30, basis: Any = "average-direct-consumption") -> list[LedgerEntry]:
    made = []
    for i in range(n):
        at = AT + timedelta(minutes=20 * i)
        grid = IntensityReading(
            g_per_kwh=100.0 + 5 * i, zone="GB", time=at, basis=basis, provider="a test",
            kind="estimated", age_s=0.0,
        )  # fmt: skip
        made.append(
            LedgerEntry(
                time=at, stage=f"stage-{i % 8}", case=f"c-{i % 5}", energy_kwh=0.1 * (i % 4),
                energy_basis="measured" if i % 2 else "modelled", energy_source="a test",
                seconds=60.0, intensity=grid, g_co2e=emissions_g_co2e(0.1 * (i % 4), grid),
                policy="price", unit="thoracic", session="board-1",
            )
        )  # fmt: skip
    return made


def year(basis: Any = "average-direct-consumption") -> Trace:
    hours = np.datetime64("2024-01-01", "h") + np.arange(8784)
    return Trace(
        time_utc=hours, g_per_kwh=150.0 + 60 * np.sin(np.arange(8784) / 4.0),
        estimated=np.zeros(8784, dtype=np.bool_), basis=basis, zone="GB", name="made up",
        synthetic=True,
    )  # fmt: skip


def ahead(at: datetime) -> tuple[IntensityReading, ...]:
    return tuple(
        IntensityReading(
            g_per_kwh=200.0, zone="GB", time=at + timedelta(hours=h),
            basis="average-direct-consumption", provider="a test", kind="forecast", age_s=0.0,
            uncertainty_g_per_kwh=20.0, note="held",
        )
        for h in range(1, 25)
    )  # fmt: skip


def report(rows: list[LedgerEntry] | None = None, **changes: Any) -> AccountReport:
    kept = entries() if rows is None else rows
    options: dict[str, Any] = {
        "ledger": "ledger.jsonl", "declared": Declared(heat=HEAT, hardware=HARDWARE),
        "year_trace": year(), "forecast": ahead,
        "plan": BudgetPlan(budgets=BUDGETS, timezone=UTC, session="board-1"),
    } | changes  # fmt: skip
    return build_report(lambda: kept, **options)


class Page(HTMLParser):
    """Tags that stay open, and everything that would be fetched."""

    VOID = ("meta", "br", "img", "link", "input", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.fetched.append(f"{tag} {value}")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Page:
    parser = Page()
    parser.feed(page)
    return parser


def test_the_page_is_whole_and_fetches_nothing() -> None:
    page = render_account(report())
    parsed = read(page)
    assert parsed.open == []
    assert parsed.fetched == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert "url(http" not in page
    assert "<script" not in page
    assert page.count("<svg") == page.count('role="img"') == 5


def test_every_figure_on_it_is_the_accounts() -> None:
    made = report()
    page = render_account(made)
    (row,) = made.account.totals
    for value in (row.g_co2e, row.energy_kwh, row.avoided_g_co2e, row.net_g_co2e,
                  row.sci_g_co2e_per_case, HEAT.break_even_g_per_kwh):  # fmt: skip
        assert value is not None
        assert figure(value) in page
    assert made.deployment is not None
    assert f"{made.deployment.hours_below} of 8784 hours" in page
    for words in ("gCO2e/kWh", "kWh", "measured", "modelled", "intensity estimated",
                  "Avoided emissions lower neither", "Synthetic grid"):  # fmt: skip
        assert words in page


def test_what_is_unknown_is_said() -> None:
    page = render_account(report(declared=Declared(), year_trace=None, forecast=None, plan=None))
    assert "No hardware was declared" in page
    assert "avoided by recovered heat" not in page.lower()
    assert page.count("<svg") == 2
    page = render_account(report(year_trace=None))
    assert "is not known" in page


def test_an_empty_ledger_is_a_page_too() -> None:
    page = render_account(report([]))
    assert "The ledger has no entries." in page
    assert read(page).open == []


def test_of_thousands_of_cases_the_page_shows_those_that_emitted_most() -> None:
    rows = [replace(row, case=f"case-{i:04d}") for i, row in enumerate(entries(30) * 10)]
    made = report(rows, by="case")
    page = render_account(made)
    assert "The 100 of 300 rows that emitted most" in page
    most = max(made.account.rows, key=lambda row: row.g_co2e)
    assert most.key in page
    assert page.count("case-") == 100


def test_names_cannot_break_out_of_the_page() -> None:
    evil = "<script>alert(1)</script>"
    rows = [replace(entries(1)[0], stage=evil, energy_kwh=1.0, g_co2e=100.0)]
    page = render_account(report(rows, ledger=evil))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_it_can_be_read_on_a_phone_in_the_dark_and_on_paper() -> None:
    page = render_account(report())
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    (svg,) = re.findall(r"<svg[^>]*aria-labelledby=\"grid-title.*?</svg>", page, flags=re.DOTALL)
    assert "#000000" not in svg
    assert "fill: #ffffff" not in svg


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    write_account(report(), tmp_path / "deep" / "a.html")
    write_account(report(), tmp_path / "deep" / "b.html")
    one, other = ((tmp_path / "deep" / name).read_bytes() for name in ("a.html", "b.html"))
    assert one == other
    assert len(list((tmp_path / "deep").iterdir())) == 2


def test_the_trace_has_to_be_on_the_ledgers_basis() -> None:
    with pytest.raises(BasisError, match="read the trace on the ledger's basis"):
        report(year_trace=year("average-life-consumption"))
    with pytest.raises(BasisError):
        report(year_trace=year("average-direct-production"))
    assert report(year_trace=year("average-direct-unstated")).recorded is not None


def test_many_stages_and_long_periods_stay_readable() -> None:
    cells = [
        WorkHour(
            hour=AT, stage=f"s{i}", intensity_basis=None, energy_kwh=float(i), counted_kwh=0.0,
            g_co2e=0.0,
        )
        for i in range(10)
    ]  # fmt: skip
    assert top_stages(cells) == ["s9", "s8", "s7", "s6", "s5", "other stages"]
    assert top_stages(cells[:3]) == ["s2", "s1", "s0"]
    for hours in (1, 50, 500, 5_000, 40_000):
        width = bar_width(AT, AT + timedelta(hours=hours))
        assert timedelta(hours=hours) / width <= 72


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1234.4, "1,234"), (12.3456, "12.35"), (0.0012345, "0.001234"),
        (1e-7, "1e-07"), (1e12, "1e+12"), (-45.0, "-45"), (999.96, "1000"),
    ],
)  # fmt: skip
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


def test_a_made_up_grid_is_said_on_the_page() -> None:
    real, made_up = entries(3), entries(3)
    assert "Synthetic grid" not in render_account(report(real, year_trace=None))
    reading = made_up[1].intensity
    assert reading is not None
    made_up[1] = replace(made_up[1], intensity=replace(reading, zone="synthetic"))
    drawn = report(made_up, year_trace=None)
    assert drawn.as_dict()["zones"] == ["GB", "synthetic"]
    assert "Synthetic grid" in render_account(drawn)
