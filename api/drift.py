"""The watch over many cases: is what is reviewed still like what was trained on?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, select

from agent.workflow.drift import WINDOW, DriftGauge, DriftMonitor, DriftReport
from agent.workflow.kit import ReviewKit
from agent.workflow.told import DriftRow
from api.store.tables import cases, events

EXPLANATION = "explanation"


class DriftWatch:
    """One window of cases for each bundle; the figures are those of one that is asked for."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._monitors: dict[str, DriftMonitor] = {}

    def of(self, kit: ReviewKit) -> DriftMonitor:
        """The window of a bundle's cases."""
        version = kit.identity.version
        if version not in self._monitors:
            self._monitors[version] = DriftMonitor(kit.insight.drift)
        return self._monitors[version]

    def observe(self, kit: ReviewKit, case_id: str, steps: Sequence[Mapping[str, Any]]) -> None:
        """Count a case whose review came to an explanation."""
        for step in steps:
            watched = step["data"].get("watched") if step["kind"] == EXPLANATION else None
            if watched is not None:
                self.of(kit).observe(case_id, DriftRow.model_validate(watched))

    def restore(self, kit: ReviewKit, connection: Connection) -> None:
        """Count the last cases that a bundle reviewed before a restart."""
        query = (
            select(events.c.case_id, events.c.data)
            .join_from(events, cases, events.c.case_id == cases.c.id)
            .where(events.c.kind == EXPLANATION, cases.c.bundle == kit.identity.version)
            .order_by(events.c.time.desc())
            .limit(WINDOW)
        )
        rows = connection.execute(query).all()
        self.of(kit).restore(
            (row.case_id, DriftRow.model_validate(row.data["watched"]))
            for row in reversed(rows)
            if row.data.get("watched")
        )

    def report(self, kit: ReviewKit) -> DriftReport:
        """Where a bundle's window stands."""
        return self.of(kit).report()


class DriftCollector(Collector):
    """The drift's figures, worked out when somebody scrapes."""

    def __init__(self, gauges: Callable[[], Iterable[DriftGauge]]) -> None:
        """Ask ``gauges`` at each scrape."""
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """One family a name."""
        families: dict[str, GaugeMetricFamily] = {}
        for gauge in self._gauges():
            labels = sorted(gauge.labels)
            family = families.setdefault(
                gauge.name, GaugeMetricFamily(gauge.name, gauge.help, labels=labels)
            )
            family.add_metric([gauge.labels[label] for label in labels], gauge.value)
        return families.values()

    def describe(self) -> Iterable[Metric]:
        """Nothing before the first scrape: what there is depends on the bundle."""
        return ()
