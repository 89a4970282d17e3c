from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from carbon.backends import NullMeter
from carbon.budget import Budget
from carbon.budget_keeper import BudgetKeeper
from carbon.errors import IntensityError
from carbon.intensity.fixed import FixedSource
from carbon.intensity.protocol import IntensityReading, make_basis
from carbon.ledger import Ledger, ledger_totals
from carbon.monitor import CarbonMonitor
from carbon.prometheus import MOST_STAGES, BudgetGauge, CarbonCollector

AT = datetime(2024, 3, 6, 10, 20, tzinfo=UTC)
P = "greenboard_carbon_"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Provider:
    """Answers, fails, or hangs until it is told to go on."""

    def __init__(self, g_per_kwh: float = 207.0) -> None:
        self.g_per_kwh = g_per_kwh
        self.down = False
        self.asked = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self) -> IntensityReading:
        self.asked += 1
        self.go_on.wait(timeout=20)
        if self.down:
            raise IntensityError("the line is cut")
        source = FixedSource(self.g_per_kwh, zone="GB", basis=make_basis(), origin="a table")
        return replace(source.now(AT), time=AT - timedelta(minutes=20))


@contextmanager
def scraped(collector: CarbonCollector) -> Iterator[Callable[[], Samples]]:
    """A real endpoint; what it gives is parsed as Prometheus would."""
    registry = CollectorRegistry()
    registry.register(collector)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def scrape() -> Samples:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with opener.open(url, timeout=10) as answer:
            text = answer.read().decode()
        return {
            (sample.name.removeprefix(P), tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    try:
        yield scrape
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def labels(**pairs: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(pairs.items()))


INTENSITY = (
    "intensity_g_co2e_per_kwh",
    labels(zone="GB", basis="average-direct-unstated", provider="fixed", kind="estimated"),
)
AGE = ("intensity_age_seconds", labels(zone="GB", provider="fixed"))
UP = ("source_up", ())


def test_intensity_with_provenance_and_age() -> None:
    with scraped(CarbonCollector(Provider(), clock=lambda: AT)) as scrape:
        samples = scrape()
    assert samples[INTENSITY] == 207.0
    assert samples[AGE] == 1200.0
    assert samples[UP] == 1.0
    assert 0 <= samples["intensity_answer_age_seconds", ()] < 5
    assert not any(name.startswith(("energy", "budget")) for name, _ in samples)


def test_a_provider_that_hangs_delays_no_scrape_and_is_asked_once() -> None:
    provider = Provider()
    now = [AT]
    with scraped(CarbonCollector(provider, clock=lambda: now[0], patience_s=0.05)) as scrape:
        scrape()
        provider.go_on.clear()
        provider.g_per_kwh, now[0] = 300.0, AT + timedelta(hours=2)
        asked = provider.asked
        start_s = time.monotonic()
        for _ in range(5):
            samples = scrape()
        assert time.monotonic() - start_s < 3
        assert samples[INTENSITY] == 207.0
        assert samples[AGE] == 1200.0 + 7200.0
        assert provider.asked == asked + 1
        provider.go_on.set()
        deadline = time.monotonic() + 10
        while scrape()[INTENSITY] != 300.0:
            assert time.monotonic() < deadline


def test_a_provider_that_hangs_holds_up_nothing_else() -> None:
    provider, left = Provider(), [100.0]

    def budgets() -> list[BudgetGauge]:
        return [BudgetGauge(name="plan", period="day", limit_g_co2e=100.0, left_g_co2e=left[0])]

    provider.go_on.clear()
    with scraped(CarbonCollector(provider, budgets=budgets, patience_s=0.1)) as scrape:
        scrape()
        left[0] = 40.0
        scrape()
        samples = scrape()
        provider.go_on.set()
    assert samples["budget_left_g_co2e", labels(budget="plan", period="day")] == 40.0
    assert INTENSITY not in samples


def test_a_provider_that_is_down_breaks_no_scrape() -> None:
    provider = Provider()
    provider.down = True
    with scraped(CarbonCollector(provider, clock=lambda: AT, patience_s=5.0)) as scrape:
        first = scrape()
        assert first[UP] == 0.0
        assert INTENSITY not in first, "no value is no sample, never 0"
        assert first["refresh_failures_total", labels(what="intensity")] == 1.0
        provider.down = False
        assert scrape()[INTENSITY] == 207.0
        provider.down = True
        last = scrape()
    assert (last[INTENSITY], last[UP]) == (207.0, 0.0)
    assert last["refresh_failures_total", labels(what="intensity")] == 2.0


def test_energy_and_emissions_by_stage_from_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    source = FixedSource(100.0, zone="GB", basis=make_basis(), origin="x")
    with Ledger(path) as ledger:
        held = CarbonMonitor(source=source, meter=NullMeter(), ledger=ledger, clock=lambda: AT)
        held.record("pipeline:genomics", case="patient-17", energy_kwh=0.5)
        held.record("pipeline:radiomics", case="patient-17", energy_kwh=0.25)
        held.record("infer", case="patient-18", energy_kwh=1e-3, energy_basis="measured")
        held.record("infer", case="patient-18", energy_kwh=None, energy_reason="no counter")
    keeper = BudgetKeeper(
        path, [Budget(period="day", soft_g_co2e=50.0, hard_g_co2e=100.0)],
        timezone=UTC, clock=lambda: AT,
    )  # fmt: skip

    def budgets() -> list[BudgetGauge]:
        return [
            BudgetGauge(
                name="limits", period=s.budget.period, limit_g_co2e=s.budget.hard_g_co2e,
                left_g_co2e=s.left_g_co2e,
            )
            for s in keeper.status()
        ]  # fmt: skip

    collector = CarbonCollector(
        Provider(), totals=lambda: ledger_totals(path), budgets=budgets, clock=lambda: AT,
        patience_s=5.0,
    )  # fmt: skip
    with scraped(collector) as scrape:
        samples = scrape()
    joules = "energy_joules_total"
    basis = "average-direct-unstated"
    assert samples[joules, labels(stage="pipeline", energy_basis="modelled")] == 0.75 * 3.6e6
    assert samples[joules, labels(stage="infer", energy_basis="measured")] == 3600.0
    grams = "emissions_g_co2e_total"
    assert samples[grams, labels(stage="pipeline", intensity_basis=basis)] == pytest.approx(75.0)
    unknown = "entries_without_figure_total"
    assert samples[unknown, labels(stage="infer", figure="energy")] == 1.0
    left = samples["budget_left_g_co2e", labels(budget="limits", period="day")]
    assert left == pytest.approx(100.0 - 75.1)
    assert samples["budget_limit_g_co2e", labels(budget="limits", period="day")] == 100.0
    assert "patient" not in repr(samples)


def test_a_ledger_that_cannot_be_read_leaves_the_rest(tmp_path: Path) -> None:
    collector = CarbonCollector(
        Provider(), totals=lambda: ledger_totals(tmp_path / "none.jsonl"), patience_s=5.0
    )
    with scraped(collector) as scrape:
        samples = scrape()
    assert samples["refresh_failures_total", labels(what="ledger")] == 1.0
    assert samples[INTENSITY] == 207.0


def test_stages_are_kinds_and_not_too_many(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    source = FixedSource(100.0, zone="GB", basis=make_basis(), origin="x")
    with Ledger(path) as ledger:
        held = CarbonMonitor(source=source, meter=NullMeter(), ledger=ledger, clock=lambda: AT)
        for i in range(MOST_STAGES + 20):
            held.record(f"stage-{i:03d}:detail", energy_kwh=1.0)
    collector = CarbonCollector(Provider(), totals=lambda: ledger_totals(path), patience_s=5.0)
    with scraped(collector) as scrape:
        rows = {key: v for key, v in scrape().items() if key[0] == "emissions_g_co2e_total"}
    assert len(rows) == MOST_STAGES + 1
    assert sum(rows.values()) == pytest.approx(100.0 * (MOST_STAGES + 20))
    assert "detail" not in repr(rows)
