"""Recorded and null doubles of what the workflow asks of others: for tests, tries and benchmarks.

:class:`TableStudent` replays an evidence table; :class:`StillMonitor` knows one grid. Neither is
ever chosen by a command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat

import numpy as np

from agent.policies.protocol import Policy
from agent.workflow.kit import BundleIdentity, ReviewKit, assemble
from agent.workflow.protocols import Features
from carbon.backends import ReplayMeter
from carbon.errors import IntensityError
from distill.errors import FeatureError
from distill.evidence import EvidenceTable
from distill.table import refuse_unknown
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout

ROW = "row"
"""The one feature that :class:`TableStudent` knows: which row of the table to replay."""


@dataclass(frozen=True, kw_only=True)
class ReplayedCase:
    """A row of the table, as a prepared case."""

    row: int
    present: tuple[str, ...]
    quality: Mapping[str, float]
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReplayedAssessment:
    """A cell of the table, as an assessment."""

    probability: float
    logit: float
    disagreement: float
    processed: tuple[str, ...]
    missing: tuple[str, ...]
    token_logit: Mapping[str, float]
    attention: Mapping[str, float]
    contributions: Mapping[str, float]
    conformal_set: tuple[str, ...] = ()
    conformal_level: float | None = None


@dataclass(frozen=True, kw_only=True)
class TableStudent:
    """Replays the scores of an evidence table for the row that the clinical feature names."""

    evidence: EvidenceTable

    @property
    def modalities(self) -> tuple[str, ...]:
        """The table's modalities."""
        return self.evidence.modalities

    def example(self) -> Features:
        """The first row of the table."""
        return row_features(self.evidence, 0)

    def prepare(self, features: Features) -> ReplayedCase:
        """Find the row; modalities that the request leaves out are absent.

        Raises:
            FeatureError: if a modality or a feature is unknown or the row is not in the table.
        """
        refuse_unknown(list(features), self.modalities, "modality")
        clinical = features.get(self.modalities[0]) or {}
        row = clinical.get(ROW)
        good = isinstance(row, (int, float)) and 0 <= row < self.evidence.n_patients
        if set(clinical) != {ROW} or not good:
            raise FeatureError(
                f"The replaying student takes one clinical feature {ROW!r}, a row of its table "
                f"from 0 to {self.evidence.n_patients - 1}."
            )
        at = int(row)  # type: ignore[call-overload]
        given = {m for m in self.modalities if features.get(m) is not None}
        has = {m for m, there in zip(self.modalities, self.evidence.present[at]) if there}
        present = tuple(m for m in self.modalities if m in given & has)
        quality = dict(zip(self.modalities, (float(q) for q in self.evidence.quality[at])))
        return ReplayedCase(row=at, present=present, quality=quality)

    def assess(self, case: ReplayedCase, transfers_run: Sequence[str]) -> ReplayedAssessment:
        """The table's cell of this row and set."""
        k = self.evidence.sets.index_of(transfers_run)
        logit = float(self.evidence.logit[case.row, k])
        done = self.evidence.processed[k]
        processed = tuple(m for m, there in zip(self.modalities, done) if there)
        return ReplayedAssessment(
            probability=float(1.0 / (1.0 + np.exp(-logit))),
            logit=logit,
            disagreement=float(self.evidence.disagreement[case.row, k]),
            processed=processed,
            missing=tuple(m for m in self.modalities if m not in case.present),
            token_logit={m: logit / len(processed) for m in processed},
            attention={m: 1.0 / len(processed) for m in processed},
            contributions={m: logit / len(processed) for m in processed},
        )


@dataclass(frozen=True, kw_only=True)
class StillReading:
    """One grid that does not move."""

    g_per_kwh: float
    time: datetime
    kind: str = "estimated"
    zone: str = "nowhere"
    basis: str = "average-direct-unstated"
    provider: str = "still"
    age_s: float = 0.0
    uncertainty_g_per_kwh: float | None = None
    note: str = "made up for a test"
    interval90_g_per_kwh: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class StillMonitor:
    """One intensity now and a forecast of one's choice; the meter always reads 2 J."""

    g_per_kwh: float = 200.0
    ahead: tuple[float, ...] = ()

    def now(self) -> StillReading:
        """The one intensity."""
        return StillReading(g_per_kwh=self.g_per_kwh, time=datetime.now(UTC))

    def forecast(self, hours: int) -> tuple[StillReading, ...]:
        """The intensities ahead, from the next clock hour on.

        Raises:
            IntensityError: if there are none.
        """
        if not self.ahead:
            raise IntensityError("the still monitor was given no forecast")
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        return tuple(
            StillReading(g_per_kwh=g, time=hour + timedelta(hours=i + 1), kind="forecast")
            for i, g in enumerate(self.ahead[:hours])
        )

    @property
    def meter(self) -> ReplayMeter:
        """A meter that reads 2 J, whatever runs."""
        return ReplayMeter.of_joules(repeat(2.0))


def replay_kit(
    evidence: EvidenceTable,
    *,
    make_policy: Callable[[str, ObservationLayout, ActionCatalogue], Policy],
    policy: str = "rule",
    monitor: StillMonitor | None = None,
    budget_g_co2e: float = 1e9,
    shadow: Sequence[str] = (),
) -> ReviewKit:
    """A kit over a table: real observation, mask, gain and policies; a replayed student.

    Args:
        evidence: the table to replay.
        make_policy: policy by name.
        policy: the name that decides where a case names none.
        monitor: the grid; a still one without a forecast by default.
        budget_g_co2e: the day's budget.
        shadow: policies that decide silently.
    """
    return assemble(
        evidence,
        identity=BundleIdentity(
            cohort=evidence.cohort, synthetic=evidence.synthetic, version="replay"
        ),
        student=TableStudent(evidence=evidence),
        monitor=monitor or StillMonitor(),
        make_policy=make_policy,
        policy=policy,
        seen_in_training=frozenset(evidence.case_id).__contains__,
        budget_g_co2e_per_day=budget_g_co2e,
        shadow=shadow,
    )


def row_features(evidence: EvidenceTable, row: int) -> dict[str, dict[str, float] | None]:
    """What a caller would send for one row of the table."""
    there = zip(evidence.modalities, evidence.present[row])
    features: dict[str, dict[str, float] | None] = {m: {} if has else None for m, has in there}
    return features | {evidence.modalities[0]: {ROW: float(row)}}
