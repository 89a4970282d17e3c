from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli.main import app
from carbon.account import draw_up
from carbon.entries import LedgerEntry, emissions_g_co2e
from carbon.errors import AccountError, BudgetError, CarbonError, HeatError
from carbon.intensity.protocol import IntensityReading
from carbon.ledger import Ledger, read_ledger

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
runner = CliRunner()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as kept:
        for i in range(12):
            at = AT + timedelta(hours=i)
            grid = IntensityReading(
                g_per_kwh=100.0 + 10 * i, zone="GB", time=at, basis="average-direct-consumption",
                provider="a test", kind="measured", age_s=0.0,
            )  # fmt: skip
            kwh = 0.5 + i / 10
            kept.append(
                LedgerEntry(
                    time=at, stage=("assess", "transfer")[i % 2], case=f"c-{i % 3}",
                    energy_kwh=kwh, energy_basis="modelled", energy_source="a test", seconds=60.0,
                    intensity=grid, g_co2e=emissions_g_co2e(kwh, grid),
                    policy=("rule", "price")[i % 2], unit="thoracic", session="board-1",
                )
            )  # fmt: skip
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "gb.csv"
    hours = np.datetime64("2024-01-01", "h") + np.arange(8784)
    rows = [f"{t}:00:00Z,{100 + i % 200}" for i, t in enumerate(hours.astype(str))]
    path.write_text(
        "time_utc,ci_direct\n" + "\n".join(r.replace(":00:00:00Z", ":00:00Z") for r in rows) + "\n"
    )
    return path


def run(*arguments: Any) -> Any:
    return runner.invoke(app, ["carbon", *map(str, arguments)])


def test_json_has_everything(ledger: Path, trace: Path) -> None:
    got = run(
        "account", ledger, "--by", "case", "--heat", "0.9:1:203", "--hardware", "1300:35064:8:64",
        "--hardware-source", "a maker's sheet", "--trace", trace, "--budget", "day:100:2000",
        "--budget", "session:1:2", "--session", "board-1", "--json",
    )  # fmt: skip
    assert got.exit_code == 0, got.output
    body = json.loads(got.stdout)
    assert [row["key"] for row in body["rows"]] == ["c-0", "c-1", "c-2"]
    (total,) = body["totals"]
    (expected,) = draw_up(read_ledger(ledger), "all").totals
    assert total["gross_g_co2e"] == {"value": expected.g_co2e, "ci95": None, "n": 12}
    avoided = expected.counted_kwh * 0.9 * 203
    assert total["avoided_g_co2e"]["value"] == pytest.approx(avoided)
    assert total["net_g_co2e"]["value"] == pytest.approx(expected.g_co2e - avoided)
    assert total["sci_g_co2e_per_case"]["value"] > expected.g_co2e / 3
    assert body["heat"]["break_even_g_co2e_per_kwh"] == pytest.approx(182.7)
    (below,) = body["hours_worked_below_break_even"]
    assert below["hours"] == {"value": 9.0, "ci95": None, "n": 12}
    year = body["carbon_negative_deployment"]
    assert year["hours_below"]["n"] == 8784
    assert year["negative"] is (year["net_g_co2e_per_kwh"]["value"] < 0)
    assert [b["period"] for b in body["budgets"]] == ["day", "session"]
    assert body["budgets"][1]["action"] == "refuse"


def test_csv_has_the_same_rows(ledger: Path) -> None:
    got = run("account", ledger, "--by", "policy", "--heat", "0.5:0.5", "--csv")
    rows = list(csv.DictReader(io.StringIO(got.stdout)))
    assert [row["key"] for row in rows] == ["price", "rule"]
    for row, expected in zip(rows, draw_up(read_ledger(ledger), "policy").rows):
        assert float(row["gross_g_co2e"]) == expected.g_co2e
        assert float(row["net_g_co2e"]) == pytest.approx(
            float(row["gross_g_co2e"]) - float(row["avoided_g_co2e"])
        )
        assert row["sci_g_co2e_per_case"] == ""
        assert row["sci_remark"]


@pytest.mark.parametrize("by", ["stage", "case", "policy", "unit", "session", "all"])
def test_every_grouping_prints(ledger: Path, by: str) -> None:
    got = run("account", ledger, "--by", by, "--heat", "0.5:0.5")
    assert got.exit_code == 0
    assert "break-even 50.8 gCO2e/kWh" in got.stdout


def test_the_page_is_written(ledger: Path, trace: Path, tmp_path: Path) -> None:
    page = tmp_path / "out" / "account.html"
    got = run(
        "account", ledger, "--heat", "0.5:0.5", "--trace", trace, "--page", page,
        "--budget", "month:1:2000", "--timezone", "Europe/London",
    )  # fmt: skip
    assert got.exit_code == 0, got.output
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "Carbon account of ledger.jsonl" in text


def test_a_declaration_can_come_as_a_file(ledger: Path, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(
        "[heat]\nrecovered = 0.6\nused = 0.9\ndisplaced_g_per_kwh_heat = 250.0\n"
        'source = "district heating, operator\'s report"\n'
        '[hardware]\nembodied_kg_co2e = 1300.0\nlifespan_h = 35064.0\nsource = "a sheet"\n'
    )
    body = json.loads(run("account", ledger, "--declared", file, "--json").stdout)
    assert body["heat"]["break_even_g_co2e_per_kwh"] == pytest.approx(135.0)
    assert body["heat"]["source"].startswith("district heating")
    assert body["hardware"]["lifespan_h"] == 35064.0
    # An option goes before the file.
    body = json.loads(run("account", ledger, "--declared", file, "--heat", "0:0", "--json").stdout)
    assert body["heat"]["break_even_g_co2e_per_kwh"] == 0.0


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        (["--heat", "1.4:0.9:203"], HeatError, "above 1: energy cannot be recovered more"),
        (["--heat", "0.5:0.9:300"], HeatError, "say where it is from"),
        (["--heat", "0.5"], HeatError, "write r:u:h"),
        (["--heat", "a:b:c"], HeatError, "write r:u:h"),
        (["--hardware", "1300:35064"], AccountError, "no source"),
        (["--hardware", "1300"], AccountError, "is no hardware"),
        (["--hardware", "x:y"], AccountError, "write for example"),
        (["--budget", "day:5"], BudgetError, "is no budget"),
        (["--budget", "day:1:2", "--budget", "day:1:3"], BudgetError, "One budget for each"),
        (["--declared", "nowhere.toml"], AccountError, "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused(
    ledger: Path, arguments: list[str], kind: type[CarbonError], says: str
) -> None:
    got = run("account", ledger, *arguments)
    assert got.exit_code != 0
    assert isinstance(got.exception, kind)
    assert says in str(got.exception)


@pytest.mark.parametrize(
    "arguments",
    [["--csv", "--json"], ["--budget", "day:1:2", "--timezone", "Nowhere/At_all"],
     ["--budget", "day:1:2", "--at", "2024-03-01"], ["--budget", "day:1:2", "--at", "soon"]],
)  # fmt: skip
def test_options_that_do_not_fit_exit_with_2(ledger: Path, arguments: list[str]) -> None:
    assert run("account", ledger, *arguments).exit_code == 2


@pytest.mark.parametrize(
    "text",
    ["[heat]\nrecovered = 0.5\n", "[steam]\n", "not toml", "[heat]\nrecovered = 2.0\nused = 1.0\n"],
)
def test_a_bad_declaration_is_refused(ledger: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "site.toml"
    file.write_text(text)
    got = run("account", ledger, "--declared", file)
    assert isinstance(got.exception, CarbonError)


def test_an_unfinished_last_line_is_said(ledger: Path) -> None:
    with ledger.open("ab") as file:
        file.write(b'{"v":1,"ti')
    got = run("account", ledger, "--json")
    assert "dropped an unfinished last line" in got.stderr
    assert len(json.loads(got.stdout)["warnings"]) == 1
