from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli.carbon import app
from carbon.backends import ReplayMeter
from carbon.errors import BasisError, CarbonError, IntensityError, LedgerError
from carbon.intensity.fixed import FixedSource
from carbon.intensity.protocol import make_basis
from carbon.ledger import Ledger
from carbon.monitor import CarbonMonitor

AT = datetime(2024, 1, 2, 5, tzinfo=UTC)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), env={"NO_PROXY": "127.0.0.1", "COLUMNS": "200"})


@pytest.fixture
def trace(tmp_path: Path) -> str:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = (f"{start + timedelta(hours=i):%Y-%m-%d %H:%M},{i},{2 * i}\n" for i in range(72))
    file = tmp_path / "grid.csv"
    file.write_text("time_utc,ci_direct,ci_life\n" + "".join(rows))
    return str(file)


def test_now_in_words(trace: str) -> None:
    result = run("now", "--trace", trace, "--zone", "GB", "--at", "2024-01-02T05:30Z")
    assert result.exit_code == 0, result.output
    assert "29.0 gCO2e/kWh  (measured, average-direct-unstated)" in result.output
    assert "zone GB, from 2024-01-02 05:00 UTC, 30 min old" in result.output
    assert "provider recorded:grid" in result.output


def test_now_as_json(trace: str) -> None:
    result = run("now", "--trace", trace, "--basis", "life", "--at", "2024-01-02T05:30Z", "--json")
    body = json.loads(result.stdout)
    assert body["intensity_g_co2e_per_kwh"] == {"value": 58.0, "ci95": None, "n": 1}
    assert body["basis"] == "average-life-unstated"
    assert body["age_s"] == 1800.0
    assert set(body) == {
        "intensity_g_co2e_per_kwh", "zone", "time", "basis", "provider", "kind", "age_s", "note",
    }  # fmt: skip


def test_a_recorded_grid_is_replayed_today_and_says_so(trace: str) -> None:
    body = json.loads(run("now", "--trace", trace, "--json").stdout)
    assert body["kind"] == "estimated"
    assert "replayed from" in body["note"]


def test_the_fallback_is_told() -> None:
    result = run("now", "--neso-url", "http://127.0.0.1:9", "--at", "2024-01-02T05:30Z")
    assert result.exit_code == 0, result.output
    assert "(fallback, average-direct-consumption)" in result.output
    assert "fell back to synthetic:seed-0 because neso failed" in result.output


def test_forecast_in_words_and_json(trace: str) -> None:
    arguments = ("forecast", "--trace", trace, "--hours", "3", "--at", "2024-01-02T23:30Z")
    words = run(*arguments)
    assert words.exit_code == 0, words.output
    assert "2024-01-03 00:00       24.0" in words.output
    assert "same hour of the day before" in words.output
    body = json.loads(run(*arguments, "--json").stdout)
    assert [row["intensity_g_co2e_per_kwh"]["value"] for row in body["forecast"]] == [24, 25, 26]
    low, high = body["forecast"][0]["intensity_g_co2e_per_kwh"]["ci95"]
    assert low < 24 < high


def test_a_fixed_figure_and_a_chain(trace: str) -> None:
    fixed = run("now", "--g-per-kwh", "207", "--zone", "GB", "--json")
    assert json.loads(fixed.stdout)["intensity_g_co2e_per_kwh"]["value"] == 207.0
    chain = run(
        "now", "--source", "fixed,trace", "--g-per-kwh", "1", "--zone", "X", "--trace", trace
    )
    assert chain.exit_code == 0, chain.output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("now", "--source", "nesso"), IntensityError),
        (("now", "--source", "trace"), IntensityError),
        (("now", "--basis", "life", "--source", "neso"), BasisError),
        (("now", "--trace", "nowhere.csv"), CarbonError),
        (("ledger", "nowhere.jsonl"), LedgerError),
    ],
)
def test_bad_input_is_an_error_of_ours(arguments: tuple[str, ...], error: type[Exception]) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert isinstance(result.exception, error)


@pytest.mark.parametrize(
    "arguments",
    [
        ("now", "--at", "noon"),
        ("now", "--at", "2024-01-01T00:00"),
        ("now", "--basis", "both"),
        ("forecast", "--hours", "0"),
        ("ledger", "x.jsonl", "--by", "week"),
    ],
)
def test_bad_options_exit_with_two(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.fixture
def booked(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    source = FixedSource(100.0, zone="GB", basis=make_basis(), origin="x")
    with Ledger(path) as ledger:
        held = CarbonMonitor(
            source=source, meter=ReplayMeter.of_joules([3.6e6]), ledger=ledger, clock=lambda: AT
        )
        with held.window("train"):
            pass
        held.record("pipeline:genomics", case="c-1", energy_kwh=0.8)
        held.record("infer", case="c-1", energy_kwh=None, energy_reason="no counter")
    return path


def test_ledger_totals(booked: Path) -> None:
    words = run("ledger", str(booked))
    assert words.exit_code == 0, words.output
    assert "pipeline:genomics" in words.output
    assert "1 without energy" in words.output
    body = json.loads(run("ledger", str(booked), "--by", "case", "--json").stdout)
    rows = {row["key"]: row for row in body["totals"]}
    assert rows["c-1"]["g_co2e"] == {"value": pytest.approx(80.0), "ci95": None, "n": 1}
    assert rows["c-1"]["unmeasured"] == 1
    assert rows["(no case)"]["measured_kwh"] == 1.0
    assert body["warnings"] == []


def test_a_torn_ledger_is_read_and_said(booked: Path) -> None:
    whole = booked.read_bytes()
    booked.write_bytes(whole[:-30])
    body = json.loads(run("ledger", str(booked), "--json").stdout)
    assert "unfinished last line" in body["warnings"][0]
    assert sum(row["entries"] for row in body["totals"]) == 2
    assert booked.read_bytes() == whole[:-30], "looking must not change the books"
    assert "warning: " in run("ledger", str(booked)).output


def test_help_teaches_with_examples() -> None:
    assert "greenboard carbon now --trace" in run("--help").output
    for command in ("now", "forecast", "ledger"):
        assert run(command, "--help").exit_code == 0


@pytest.mark.shared_data
def test_a_real_grid_from_the_command_line(shared_data: Path) -> None:
    file = str(shared_data / "carbon" / "em_gb.csv.gz")
    body = json.loads(run("now", "--trace", file, "--at", "2021-01-01T00:00Z", "--json").stdout)
    assert body["intensity_g_co2e_per_kwh"]["value"] == 156.03
    assert body["kind"] == "measured"


def test_a_learned_forecast_of_any_hour_as_json_and_picture(tmp_path: Path) -> None:
    file, picture = tmp_path / "grid.csv", tmp_path / "ahead.png"
    start = datetime(2024, 1, 1, tzinfo=UTC)
    rows = (
        f"{start + timedelta(hours=i):%Y-%m-%d %H:%M},{200 + 50 * ((i * 7) % 24) / 24 + i % 13}\n"
        for i in range(24 * 80)
    )
    file.write_text("time_utc,ci_direct\n" + "".join(rows))
    result = run(
        "forecast", "--trace", str(file), "--at", "2024-03-16T13:20Z", "--hours", "24",
        "--delay-min", "60", "--quick", "--json", "--plot", str(picture),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    ahead = json.loads(result.stdout)["forecast"]
    assert [row["time"] for row in ahead][:2] == ["2024-03-16T14:00:00Z", "2024-03-16T15:00:00Z"]
    assert len(ahead) == 24
    assert "fitted on 75 days up to 2024-03-16T12 UTC" in ahead[0]["note"]
    for row in ahead:
        low, high = row["intensity_g_co2e_per_kwh"]["interval90"]
        assert 0 < low < high
    assert picture.read_bytes().startswith(b"\x89PNG")
    refused = run("forecast", "--trace", str(file), "--plot", "ahead.gif", "--quick")
    assert refused.exit_code == 2
    assert "png, .svg or .pdf" in refused.output
