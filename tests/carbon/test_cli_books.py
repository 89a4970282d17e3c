from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli.main import app
from carbon.entries import LedgerEntry, emissions_g_co2e
from carbon.errors import AccountError, BudgetError
from carbon.intensity.protocol import IntensityReading
from carbon.ledger import Ledger, read_ledger

AT = datetime(2024, 3, 31, 12, tzinfo=UTC)
runner = CliRunner()


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as kept:
        for i in range(4):
            at = AT + timedelta(hours=4 * i)
            grid = IntensityReading(
                g_per_kwh=100.0, zone="GB", time=at, basis="average-life-consumption",
                provider="a test", kind="measured", age_s=0.0,
            )  # fmt: skip
            kept.append(
                LedgerEntry(
                    time=at, stage="train", case=f"c-{i}", energy_kwh=0.5 + i,
                    energy_basis="modelled", energy_source="a test", seconds=60.0 * i,
                    intensity=grid, g_co2e=emissions_g_co2e(0.5 + i, grid), session="board-1",
                )
            )  # fmt: skip
    return path


def run(*arguments: Any) -> Any:
    return runner.invoke(app, ["carbon", *map(str, arguments)])


def budget(ledger: Path, *arguments: Any) -> Any:
    return run("budget", ledger, "--at", "2024-03-31T23:30Z", *arguments)


def test_days_are_those_of_the_zone(ledger: Path) -> None:
    # 23:30 UTC is half past midnight in London's summer time: another day and another month.
    utc = json.loads(budget(ledger, "--budget", "day:1e5:1e6", "--json").stdout)
    assert utc["budgets"][0]["key"] == "2024-03-31"
    assert utc["budgets"][0]["spent_g_co2e"] == {"value": 450.0, "ci95": None, "n": 3}
    got = budget(ledger, "--budget", "month:1e5:1e6", "--timezone", "Europe/London", "--json")
    assert got.exit_code == 0
    assert json.loads(got.stdout)["budgets"][0]["spent_g_co2e"]["value"] == 350.0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--budget", "day:1e5:1e6"], 0, "proceed: work goes on"),
        (["--budget", "day:450:1e6"], 0, "warn"),
        (["--budget", "day:400:450"], 3, "refuse: nothing more is started"),
        (["--budget", "day:400:500", "--cost", "51"], 3, "refuse"),
        (["--budget", "day:400:450:warn:defer"], 4, "defer: work that can wait"),
        (["--budget", "session:400:800", "--session", "board-1"], 3, "session board-1"),
        (["--budget", "session:400:900", "--session", "board-2"], 0, "0 of 900 gCO2e"),
    ],
)
def test_a_script_can_stop(ledger: Path, arguments: list[str], code: int, says: str) -> None:
    got = budget(ledger, *arguments)
    assert got.exit_code == code
    assert says in got.stdout


def test_senseless_budgets_are_refused(ledger: Path) -> None:
    assert budget(ledger).exit_code == 2
    assert isinstance(budget(ledger, "--budget", "day:2:1").exception, BudgetError)
    assert isinstance(budget(ledger, "--budget", "session:1:2").exception, BudgetError)


def test_an_unfinished_line_is_said(ledger: Path) -> None:
    with ledger.open("ab") as file:
        file.write(b'{"v":1,"ti')
    got = budget(ledger, "--budget", "day:1e5:1e6", "--json")
    assert "dropped an unfinished last line" in got.stderr
    assert json.loads(got.stdout)["budgets"][0]["spent_g_co2e"]["value"] == 450.0


def test_to_codecarbon_and_back(ledger: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "emissions.csv", tmp_path / "copy.jsonl"
    assert "4 entries written" in run("export-codecarbon", ledger, out).stdout
    options = ["--timezone", "UTC", "--basis", "life", "--accounting", "consumption"]
    options += ["--run-is-case"]
    got = run("import-codecarbon", out, copy, *options)
    assert "4 runs added, 0 were there" in got.stdout
    for before, after in zip(read_ledger(ledger), read_ledger(copy), strict=True):
        for name in ("time", "stage", "case", "energy_kwh", "g_co2e", "seconds", "session",
                     "intensity_basis"):  # fmt: skip
            assert getattr(after, name) == getattr(before, name)
    # Once more adds nothing.
    assert "0 runs added, 4 were there" in run("import-codecarbon", out, copy, *options).stdout
    gross = [
        json.loads(run("account", path, "--json").stdout)["totals"][0]["gross_g_co2e"]["value"]
        for path in (ledger, copy)
    ]
    assert gross[0] == gross[1]


def test_a_broken_file_adds_nothing(ledger: Path, tmp_path: Path) -> None:
    out = tmp_path / "emissions.csv"
    run("export-codecarbon", ledger, out)
    out.write_text(out.read_text() + "yesterday,train\n")
    whole = ledger.read_bytes()
    got = run("import-codecarbon", out, ledger, "--timezone", "UTC", "--basis", "life")
    assert isinstance(got.exception, AccountError)
    assert "row 6" in str(got.exception)
    assert ledger.read_bytes() == whole


def test_zone_and_basis_have_to_be_said(ledger: Path, tmp_path: Path) -> None:
    assert run("import-codecarbon", tmp_path / "e.csv", ledger).exit_code == 2


def test_the_ledgers_sums_with_and_without_what_is_kept_beside_it(ledger: Path) -> None:
    kept = json.loads(run("ledger", ledger, "--json").stdout)
    counted = json.loads(run("ledger", ledger, "--recount", "--json").stdout)
    assert kept == counted
    assert counted["totals"][0]["g_co2e"]["value"] == pytest.approx(800.0)
