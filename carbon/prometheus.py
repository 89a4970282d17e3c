"""Prometheus metrics of the grid, of energy and emissions, and of what budgets have left.

Pull only: a collector for a ``prometheus_client`` registry. What has to be asked (a provider over
the network, a long ledger) is asked in a thread of its own, started by a scrape; the scrape waits
a fraction of a second for it and then gives the last known values with their age. A provider that
is slow or down never delays or breaks a scrape. Labels hold no case, session or person.

Names and units: https://prometheus.io/docs/practices/naming/ (base units joule, gram, second).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar, runtime_checkable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from carbon.entries import LedgerTotal
from carbon.errors import CarbonError
from carbon.intensity.protocol import as_utc, utc_now

J_PER_KWH = 3.6e6
MOST_STAGES = 40
OTHER_STAGES = "other"
LONGEST_STAGE = 40
PREFIX = "greenboard_carbon_"

Answer = TypeVar("Answer")


@runtime_checkable
class Reading(Protocol):
    """As much of an intensity reading as a metric shows."""

    @property
    def g_per_kwh(self) -> float:
        """gCO2e/kWh."""
        ...

    @property
    def zone(self) -> str:
        """The grid."""
        ...

    @property
    def time(self) -> datetime:
        """Start of the period it describes."""
        ...

    @property
    def basis(self) -> str:
        """Average or marginal, direct or life-cycle, production or consumption."""
        ...

    @property
    def provider(self) -> str:
        """Who gave it."""
        ...

    @property
    def kind(self) -> str:
        """Measured, forecast, estimated or fallback."""
        ...


@dataclass(frozen=True, kw_only=True)
class BudgetGauge:
    """Where one budget stands.

    Attributes:
        name: whose budget it is, for example ``limits``; never a session, case or person.
        period: session, day or month.
        limit_g_co2e: what may be spent in the period, gCO2e.
        left_g_co2e: what is left of it, gCO2e; 0 where it is overspent.
    """

    name: str
    period: str
    limit_g_co2e: float
    left_g_co2e: float


class CarbonCollector(Collector):
    """Carbon metrics of one process, for ``registry.register``.

    Args:
        reading: asks for the present intensity; may be slow, may raise ``CarbonError``.
        totals: sums of a ledger by stage (:func:`carbon.ledger.ledger_totals`); may be slow.
        budgets: where the budgets stand.
        clock: the present (aware), for ages.
        monotonic: clock for the time since the last answer.
        patience_s: how long a scrape waits for new values.
    """

    def __init__(
        self,
        reading: Callable[[], Reading],
        *,
        totals: Callable[[], Iterable[LedgerTotal]] | None = None,
        budgets: Callable[[], Iterable[BudgetGauge]] | None = None,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        patience_s: float = 0.2,
    ) -> None:
        self._ask_reading = reading
        self._ask_totals = totals
        self._ask_budgets = budgets
        self._clock = clock
        self._monotonic = monotonic
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._asking: threading.Thread | None = None
        self._reading: Reading | None = None
        self._answered_s: float | None = None
        self._totals: tuple[LedgerTotal, ...] = ()
        self._budgets: tuple[BudgetGauge, ...] = ()
        self._failures = {"intensity": 0, "ledger": 0, "budgets": 0}
        self._up = False

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are known now; asks for newer ones on the way."""
        thread = self._ask()
        thread.join(timeout=self._patience_s)
        with self._lock:
            reading, answered_s, up = self._reading, self._answered_s, self._up
            totals, budgets, failures = self._totals, self._budgets, dict(self._failures)
        yield from self._intensity(reading, answered_s)
        yield _gauge("source_up", "1 if the intensity source answered when last asked", float(up))
        failed = CounterMetricFamily(
            PREFIX + "refresh_failures", "Times that new values could not be had", labels=["what"]
        )
        for what, count in failures.items():
            failed.add_metric([what], count)
        yield failed
        if self._ask_totals is not None:
            yield from _ledger_metrics(totals)
        if self._ask_budgets is not None:
            yield from _budget_metrics(budgets)

    def _ask(self) -> threading.Thread:
        """The thread that asks; at most one at a time, however many scrape."""
        with self._lock:
            if self._asking is None or not self._asking.is_alive():
                self._asking = threading.Thread(
                    target=self.refresh, name="carbon-metrics", daemon=True
                )
                self._asking.start()
            return self._asking

    def refresh(self) -> None:
        """Ask for new values now and wait for them; what cannot be had stays as it was."""
        # The quick ones first, so that a slow provider does not hold them up.
        if self._ask_budgets is not None:
            found = self._try("budgets", self._ask_budgets)
            if found is not None:
                with self._lock:
                    self._budgets = tuple(found)
        if self._ask_totals is not None:
            sums = self._try("ledger", self._ask_totals)
            if sums is not None:
                with self._lock:
                    self._totals = tuple(sums)
        reading = self._try("intensity", self._ask_reading)
        with self._lock:
            self._up = reading is not None
            if reading is not None:
                self._reading, self._answered_s = reading, self._monotonic()

    def _try(self, what: str, ask: Callable[[], Answer]) -> Answer | None:
        try:
            return ask()
        except CarbonError:
            with self._lock:
                self._failures[what] += 1
            return None

    def _intensity(self, reading: Reading | None, answered_s: float | None) -> Iterator[Metric]:
        value = GaugeMetricFamily(
            PREFIX + "intensity_g_co2e_per_kwh",
            "Carbon intensity of the grid, last known value",
            labels=["zone", "basis", "provider", "kind"],
        )
        age = GaugeMetricFamily(
            PREFIX + "intensity_age_seconds",
            "Age of that value: time since the start of the period that it describes",
            labels=["zone", "provider"],
        )
        answer = GaugeMetricFamily(
            PREFIX + "intensity_answer_age_seconds", "Time since the intensity source last answered"
        )
        if reading is not None and answered_s is not None:
            value.add_metric(
                [reading.zone, reading.basis, reading.provider, reading.kind], reading.g_per_kwh
            )
            old_s = (as_utc(self._clock()) - reading.time).total_seconds()
            age.add_metric([reading.zone, reading.provider], max(0.0, old_s))
            answer.add_metric([], max(0.0, self._monotonic() - answered_s))
        # Without a value there is no sample: 0 g/kWh would be the best grid in the world.
        yield from (value, age, answer)


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text)
    family.add_metric([], value)
    return family


def _ledger_metrics(totals: Iterable[LedgerTotal]) -> Iterator[Metric]:
    energy = CounterMetricFamily(
        PREFIX + "energy_joules", "Energy booked in the ledger", labels=["stage", "energy_basis"]
    )
    emitted = CounterMetricFamily(
        PREFIX + "emissions_g_co2e",
        "Gross emissions booked in the ledger, grams of CO2e",
        labels=["stage", "intensity_basis"],
    )
    unknown = CounterMetricFamily(
        PREFIX + "entries_without_figure",
        "Ledger entries that are not in the sums, since nobody knows their figure",
        labels=["stage", "figure"],
    )
    joules: dict[tuple[str, str], float] = {}
    grams: dict[tuple[str, str], float] = {}
    left_out: dict[tuple[str, str], float] = {}
    for stage, row in _by_kind(totals):
        _add(joules, (stage, "measured"), row.measured_kwh * J_PER_KWH)
        _add(joules, (stage, "modelled"), row.modelled_kwh * J_PER_KWH)
        if row.intensity_basis is not None:
            _add(grams, (stage, row.intensity_basis), row.g_co2e)
        _add(left_out, (stage, "energy"), float(row.unmeasured))
        _add(left_out, (stage, "emissions"), float(row.without_g_co2e))
    for family, sums in ((energy, joules), (emitted, grams), (unknown, left_out)):
        for labels, value in sorted(sums.items()):
            family.add_metric(labels, value)
        yield family


def _budget_metrics(budgets: Iterable[BudgetGauge]) -> Iterator[Metric]:
    left = GaugeMetricFamily(
        PREFIX + "budget_left_g_co2e",
        "What the budget has left in its running period, grams of CO2e",
        labels=["budget", "period"],
    )
    limit = GaugeMetricFamily(
        PREFIX + "budget_limit_g_co2e",
        "What the budget allows in a period, grams of CO2e",
        labels=["budget", "period"],
    )
    for budget in budgets:
        left.add_metric([budget.name, budget.period], budget.left_g_co2e)
        limit.add_metric([budget.name, budget.period], budget.limit_g_co2e)
    yield from (left, limit)


def _by_kind(totals: Iterable[LedgerTotal]) -> Iterator[tuple[str, LedgerTotal]]:
    """Each sum with the kind of its stage: the part before the colon, and not too many of them.

    What follows the colon may be as manifold as the work, and a time series each is costly; it is
    also where a careless caller would put a case.
    """
    kinds: set[str] = set()
    for row in totals:
        kind = row.key.partition(":")[0][:LONGEST_STAGE] or OTHER_STAGES
        if kind not in kinds and len(kinds) >= MOST_STAGES:
            kind = OTHER_STAGES
        kinds.add(kind)
        yield kind, row


def _add(sums: dict[tuple[str, str], float], labels: tuple[str, str], value: float) -> None:
    sums[labels] = sums.get(labels, 0.0) + value
