"""Prometheus figures of one server, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from agent.workflow.drift import DriftGauge
from agent.workflow.state import Charge
from api.drift import DriftCollector
from carbon.prometheus import BudgetGauge, CarbonCollector, Reading

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of requests, cases, decisions, energy and carbon; gauges of grid and budgets.

    Attributes:
        registry: where everything is registered.
        budgets: where the budgets stand; whoever serves a scrape brings them up to date.
    """

    def __init__(self) -> None:
        """Start from zero."""
        self.registry = CollectorRegistry()
        self.budgets: tuple[BudgetGauge, ...] = ()
        self._requests: dict[tuple[str, str, str], Histogram] = {}
        self._charged: dict[tuple[str, str], tuple[Counter, Counter]] = {}
        self._grid: CarbonCollector | None = None
        self.requests = Histogram(
            "greenboard_request_seconds",
            "Time to answer a request",
            ["method", "route", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.created = Counter("greenboard_cases_created", "Cases taken on", registry=self.registry)
        self.refused = Counter(
            "greenboard_cases_refused", "Cases refused, queue full", registry=self.registry
        )
        self.runs = Counter(
            "greenboard_runs", "Runs of the graph by how they ended", ["status"],
            registry=self.registry,
        )  # fmt: skip
        self.run_seconds = Histogram(
            "greenboard_run_seconds",
            "Time from taking a case up to its next rest",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.decisions = Counter(
            "greenboard_decisions", "Clinicians' decisions", ["action"], registry=self.registry
        )
        self.waiting = Gauge(
            "greenboard_queue_length", "Cases that wait for a worker", registry=self.registry
        )
        self.energy_kwh = Counter(
            "greenboard_energy_kwh", "Energy charged to cases", ["stage", "basis"],
            registry=self.registry,
        )  # fmt: skip
        self.g_co2e = Counter(
            "greenboard_g_co2e", "Emissions charged to cases, grams of CO2e", ["stage", "basis"],
            registry=self.registry,
        )  # fmt: skip
        self.unmeasured = Counter(
            "greenboard_charges_without_figure", "Charges whose energy is unknown", ["stage"],
            registry=self.registry,
        )  # fmt: skip
        self.policy_fallback = Gauge(
            "greenboard_policy_fallback",
            "1 while the rule stands in for the configured policy",
            registry=self.registry,
        )

    def watch_grid(self, reading: Callable[[], Reading], clock: Callable[[], datetime]) -> None:
        """Show what this says of the grid, from now on; asked in a thread, never by a scrape."""
        if self._grid is not None:
            self.registry.unregister(self._grid)
        self._grid = CarbonCollector(reading, budgets=lambda: self.budgets, clock=clock)
        self.registry.register(self._grid)

    def watch_drift(self, gauges: Callable[[], Iterable[DriftGauge]]) -> None:
        """Show how far the cases are from the training patients."""
        self.registry.register(DriftCollector(gauges))

    def request_of(self, method: str, route: str, status: str) -> Histogram:
        """The histogram of one kind of request; looking it up anew takes longer than using it."""
        found = self._requests.get((method, route, status))
        if found is None:
            found = self._requests[method, route, status] = self.requests.labels(
                method, route, status
            )
        return found

    def charge(self, charges: Sequence[Charge]) -> None:
        """Count charges that were newly written."""
        for charge in charges:
            stage = charge.stage.partition(":")[0]
            if charge.energy_kwh is None or charge.g_co2e is None:
                self.unmeasured.labels(stage).inc()
                continue
            key = (stage, charge.energy_basis)
            if key not in self._charged:
                self._charged[key] = (self.energy_kwh.labels(*key), self.g_co2e.labels(*key))
            energy, carbon = self._charged[key]
            energy.inc(charge.energy_kwh)
            carbon.inc(charge.g_co2e)

    def text(self) -> bytes:
        """Everything in Prometheus' text format; may wait a fraction of a second for the grid."""
        return generate_latest(self.registry)
