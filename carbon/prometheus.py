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
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

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


class _LastKnown(Generic[Answer]):
    """The last answer to a question that may take long, asked again in a thread of its own."""

    def __init__(
        self, what: str, ask: Callable[[], Answer], monotonic: Callable[[], float]
    ) -> None:
        self.what = what
        self.failures = 0
        self.up = False
        self._ask = ask
        self._monotonic = monotonic
        self._answer: tuple[Answer, float] | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> threading.Thread:
        """The thread that asks; at most one at a time, however many scrape."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self.refresh, name=f"carbon-metrics-{self.what}", daemon=True
                )
                self._thread.start()
            return self._thread

    def refresh(self) -> None:
        """Ask now and wait; if there is no answer, the last one stays."""
        try:
            answer = self._ask()
        except CarbonError:
            self.failures += 1
            self.up = False
            return
        self._answer = answer, self._monotonic()
        self.up = True

    @property
    def answer(self) -> Answer | None:
        """The last answer; None before the first."""
        return None if self._answer is None else self._answer[0]

    @property
    def age_s(self) -> float:
        """Seconds since it came; 0 before the first."""
        return 0.0 if self._answer is None else max(0.0, self._monotonic() - self._answer[1])


class CarbonCollector(Collector):
    """Carbon metrics of one process, for ``registry.register``.

    Args:
        reading: asks for the present intensity; may be slow, may raise ``CarbonError``.
        totals: sums of a ledger by stage (:func:`carbon.ledger.ledger_totals`); may be slow.
        budgets: where the budgets stand; may be slow.
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
        self._clock = clock
        self._patience_s = patience_s
        self._grid = _LastKnown("intensity", reading, monotonic)
        self._ledger = (
            None if totals is None else _LastKnown("ledger", lambda: tuple(totals()), monotonic)
        )
        self._budgets = (
            None if budgets is None else _LastKnown("budgets", lambda: tuple(budgets()), monotonic)
        )

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are known now; asks for newer ones on the way."""
        self._refresh()
        yield from self._intensity()
        yield _gauge(
            "source_up", "1 if the intensity source answered when last asked", float(self._grid.up)
        )
        failed = CounterMetricFamily(
            PREFIX + "refresh_failures", "Times that new values could not be had", labels=["what"]
        )
        for part in self._parts():
            failed.add_metric([part.what], part.failures)
        yield failed
        if self._ledger is not None:
            yield from _ledger_metrics(self._ledger.answer or ())
        if self._budgets is not None:
            yield from _budget_metrics(self._budgets.answer or ())

    def _parts(self) -> tuple[_LastKnown[Any], ...]:
        found = (self._grid, self._ledger, self._budgets)
        return tuple(part for part in found if part is not None)

    def _refresh(self) -> None:
        end = time.monotonic() + self._patience_s
        for thread in [part.start() for part in self._parts()]:
            thread.join(timeout=max(0.0, end - time.monotonic()))

    def _intensity(self) -> Iterator[Metric]:
        reading = self._grid.answer
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
        if reading is not None:
            value.add_metric(
                [reading.zone, reading.basis, reading.provider, reading.kind], reading.g_per_kwh
            )
            old_s = (as_utc(self._clock()) - reading.time).total_seconds()
            age.add_metric([reading.zone, reading.provider], max(0.0, old_s))
            answer.add_metric([], self._grid.age_s)
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
