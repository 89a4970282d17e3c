"""``greenboard carbon metrics`` as a process of its own, scraped like Prometheus does."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from api.cli.carbon import app
from api.errors import CommandError
from carbon.backends import NullMeter
from carbon.intensity.fixed import FixedSource
from carbon.intensity.protocol import make_basis
from carbon.ledger import Ledger
from carbon.monitor import CarbonMonitor


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.jsonl"
    source = FixedSource(100.0, zone="X", basis=make_basis(), origin="x")
    with Ledger(path) as book:
        held = CarbonMonitor(source=source, meter=NullMeter(), ledger=book)
        held.record("train", case="case-7", energy_kwh=2.0, at=datetime.now(UTC))
    return path


def test_a_ledger_a_limit_and_a_grid(tmp_path: Path, ledger: Path) -> None:
    port_file = tmp_path / "port"
    process = subprocess.Popen(
        [sys.executable, "-m", "api.cli", "carbon", "metrics", "--ledger", str(ledger),
         "--limit", "month:300:1000", "--source", "synthetic", "--port", "0",
         "--port-file", str(port_file)],
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not port_file.exists() or not port_file.read_text().endswith("\n"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = f"http://127.0.0.1:{port_file.read_text().strip()}/metrics"
        found: dict[str, Any] = {}
        while "greenboard_carbon_intensity_g_co2e_per_kwh" not in found:
            assert time.monotonic() < deadline
            text = opener.open(url, timeout=10).read().decode()
            found = {
                sample.name: (sample.labels, sample.value)
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
    finally:
        process.terminate()
        process.wait(timeout=20)
    labels, value = found["greenboard_carbon_intensity_g_co2e_per_kwh"]
    assert labels["zone"] == "synthetic"
    assert value > 0
    assert found["greenboard_carbon_emissions_g_co2e_total"][1] == pytest.approx(200.0)
    assert found["greenboard_carbon_budget_left_g_co2e"] == (
        {"budget": "limits", "period": "month"}, pytest.approx(800.0),
    )  # fmt: skip
    assert "case-7" not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--limit", "day:1:2"], "give --ledger"),
        (["--limit", "day:1:2", "--ledger", "l", "--timezone", "Mars/North"], "no time zone"),
        (["--host", "192.0.2.1"], "Cannot listen"),
    ],
    ids=["no ledger", "no time zone", "no address"],
)
def test_what_cannot_work_is_said(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["metrics", "--source", "synthetic", *arguments])
    assert isinstance(result.exception, CommandError)
    assert says in str(result.exception)
