"""Inputs and scores against the training cohort: flags on a case, and a watch over many.

What the bundle holds is enough: which modalities the training patients had, how complete they
were, and their out-of-fold scores (``evidence.npz``); the training ranges of the numbers
(``preprocess.json``, read where the case is prepared). A flag says in what a case is unlike the
training patients, not that its probability is wrong.

Over a window of cases the watch compares scores with clinical data alone, which every case has and
no policy chooses, and the rates of missing modalities. Alarms take the size of the window into
account: with no shift, at any one moment, some alarm stands with a probability of at most
:data:`ALPHA`, whatever the window holds (Bonferroni over what is compared).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import numpy as np
from jaxtyping import Float64, Int64
from scipy.special import chdtri, gammaln, kolmogi

from agent.workflow.told import DriftRow
from distill.evidence import EvidenceTable
from distill.transfers import BASE_MODALITY

ALPHA = 0.05
WINDOW = 200
FEWEST = 20
"""Cases below which nothing is compared."""
OUTSIDE_SHARE, OUTSIDE_COUNT = 0.05, 3
"""A case is flagged when more than this share of a modality's numbers, and so many, lie outside."""
RARE = 0.01
TAIL = 0.005
SAME = 1e-6
SCORE_BINS = 10


@dataclass(frozen=True, kw_only=True)
class DriftReference:
    """The training patients, as what cases are compared with.

    Attributes:
        evidence: their modalities, how complete those were, and their out-of-fold scores.
    """

    evidence: EvidenceTable
    _sorted: dict[int, Float64[np.ndarray, " reached"]] = field(default_factory=dict, repr=False)

    @property
    def n(self) -> int:
        """Number of training patients."""
        return self.evidence.n_patients

    def scores(self, k: int = 0) -> Float64[np.ndarray, " reached"]:
        """Out-of-fold log-odds under set ``k``, ascending; set 0 is clinical data alone."""
        if k not in self._sorted:
            column = self.evidence.logit[self.evidence.reachable[:, k], k]
            self._sorted[k] = np.sort(column.astype(np.float64))
        return self._sorted[k]

    def lacking(self, modality: str) -> int:
        """How many training patients lacked the modality."""
        at = self.evidence.modalities.index(modality)
        return int((~self.evidence.present[:, at]).sum())

    def flags(
        self,
        *,
        present: Sequence[str],
        quality: Mapping[str, float],
        outside: Mapping[str, tuple[int, int] | None],
        transfers_run: Sequence[str],
        logit: float,
    ) -> list[str]:
        """In what a case is unlike the training patients; names no value.

        Args:
            present: modalities that it has.
            quality: share of each one's cells that are filled in.
            outside: by modality, numbers outside their training range, of how many known ones.
            transfers_run: its evidence set.
            logit: its log-odds under that set.
        """
        return [
            *_outside_flags(outside),
            *self._pattern_flags(present),
            *self._quality_flags(quality),
            *self._score_flags(self.evidence.sets.index_of(transfers_run), logit),
        ]

    def _pattern_flags(self, present: Sequence[str]) -> list[str]:
        having = np.array([m in present for m in self.evidence.modalities], dtype=np.bool_)
        same = self._patterns.get(having.tobytes(), 0)
        if same >= RARE * self.n:
            return []
        named = ", ".join(m for m, has in zip(self.evidence.modalities, having) if has)
        return [f"Unusual mix of data: {same} of {self.n} training patients had exactly {named}."]

    def _quality_flags(self, quality: Mapping[str, float]) -> list[str]:
        return [
            f"{name}: {100 * filled:.0f} % filled in; 99 % of the training patients had at least "
            f"{100 * self._least[name]:.0f} %."
            for name, filled in quality.items()
            if filled < self._least.get(name, 0.0) - SAME
        ]

    @cached_property
    def _patterns(self) -> dict[bytes, int]:
        """How many training patients had exactly these modalities."""
        rows, counts = np.unique(self.evidence.present, axis=0, return_counts=True)
        return {row.tobytes(): int(count) for row, count in zip(rows, counts)}

    @cached_property
    def _least(self) -> dict[str, float]:
        """How complete a modality was in 99 % of the training patients who had it."""
        table = self.evidence
        columns = {m: table.quality[table.present[:, j], j] for j, m in enumerate(table.modalities)}
        return {m: float(np.quantile(q, RARE)) for m, q in columns.items() if q.size}

    def _score_flags(self, k: int, logit: float) -> list[str]:
        usual = self.scores(k)
        if usual.size < 1 / TAIL:
            return []
        below = np.searchsorted(usual, logit, side="left") / usual.size
        above = 1.0 - np.searchsorted(usual, logit, side="right") / usual.size
        if min(below, above) > TAIL:
            return []
        way = "lower" if below <= TAIL else "higher"
        beyond = 1.0 - min(below, above)
        return [
            f"Extreme score: {way} than those of {100 * beyond:.1f} % of the {usual.size} training "
            "patients with the same evidence."
        ]


def _outside_flags(outside: Mapping[str, tuple[int, int] | None]) -> list[str]:
    flags = []
    for name, counted in outside.items():
        beyond, known = counted or (0, 1)
        if beyond >= OUTSIDE_COUNT and beyond > OUTSIDE_SHARE * known:
            flags.append(
                f"{name}: {beyond} of {known} numbers lie outside the range of the training "
                "patients."
            )
    return flags


@dataclass(frozen=True, kw_only=True)
class ScoreDrift:
    """Scores of the window against the training patients' (clinical data alone).

    Attributes:
        ks: greatest difference of the two distribution functions.
        ks_critical: what it exceeds in at most ``ALPHA`` over the number of comparisons.
        psi: population stability index over tenths of the training scores.
        psi_critical: the same for it, (1/n + 1/m) times a chi-square quantile (Yurdakul 2018).
    """

    ks: float
    ks_critical: float
    psi: float
    psi_critical: float

    @property
    def alarm(self) -> bool:
        """Whether the scores have moved; the index is told and does not decide."""
        return self.ks > self.ks_critical


@dataclass(frozen=True, kw_only=True)
class MissingDrift:
    """How often a modality is missing, the window less the training patients.

    ``p_value`` is of the exact test of two shares (hypergeometric, two-sided by doubling).
    """

    difference: float
    p_value: float
    alarm: bool


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """What the window says; below :data:`FEWEST` cases it compares nothing."""

    n: int
    scores: ScoreDrift | None
    missing: Mapping[str, MissingDrift]
    outside: Mapping[str, float]
    flagged: float | None

    @property
    def alarms(self) -> tuple[str, ...]:
        """What has moved, in words."""
        said = ["the scores"] if self.scores is not None and self.scores.alarm else []
        said += [f"how often {m} is missing" for m, found in self.missing.items() if found.alarm]
        return tuple(said)


@dataclass(frozen=True, kw_only=True)
class DriftGauge:
    """One figure for a metrics endpoint."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


class DriftMonitor:
    """A window over the last cases; safe to share between threads, rebuilt from stored rows."""

    def __init__(self, reference: DriftReference, *, window: int = WINDOW) -> None:
        """Start with no cases.

        Args:
            reference: the training patients.
            window: how many of the last cases count.
        """
        self.reference = reference
        self.window = window
        self._rows: OrderedDict[str, DriftRow] = OrderedDict()
        self._lock = Lock()

    def observe(self, case: str, row: DriftRow) -> None:
        """Count a case; the same case again changes nothing."""
        with self._lock:
            if case in self._rows:
                return
            self._rows[case] = row
            while len(self._rows) > self.window:
                self._rows.popitem(last=False)

    def restore(self, rows: Iterable[tuple[str, DriftRow]]) -> None:
        """Count stored cases, oldest first, as after a restart."""
        for case, row in rows:
            self.observe(case, row)

    def report(self) -> DriftReport:
        """Compare the window with the training patients."""
        with self._lock:
            rows = list(self._rows.values())
        if len(rows) < FEWEST:
            return DriftReport(n=len(rows), scores=None, missing={}, outside={}, flagged=None)
        optional = [m for m in self.reference.evidence.modalities if m != BASE_MODALITY]
        alpha = ALPHA / (1 + len(optional))
        return DriftReport(
            n=len(rows),
            scores=_score_drift(
                self.reference.scores(), np.array([row.logit for row in rows]), alpha
            ),
            missing={m: self._missing(m, rows, alpha) for m in optional},
            outside=_outside_means(rows),
            flagged=float(np.mean([row.flagged for row in rows])),
        )

    def _missing(self, modality: str, rows: Sequence[DriftRow], alpha: float) -> MissingDrift:
        here = sum(modality not in row.present for row in rows)
        there, m = self.reference.lacking(modality), self.reference.n
        p = _two_shares(here, len(rows), there, m)
        return MissingDrift(difference=here / len(rows) - there / m, p_value=p, alarm=p < alpha)

    def gauges(self) -> list[DriftGauge]:
        """The report as figures for a metrics endpoint; what was not compared is left out."""
        found = self.report()
        gauges = [
            DriftGauge(
                name="greenboard_drift_window_cases", help="Cases in the drift window",
                value=float(found.n),
            )
        ]  # fmt: skip
        if found.scores is not None:
            gauges += _score_gauges(found.scores)
        for name, gap in found.missing.items():
            gauges += _missing_gauges(name, gap)
        gauges += [
            DriftGauge(
                name="greenboard_drift_outside_share",
                help="Mean share of a modality's numbers outside the training range",
                value=share,
                labels={"modality": name},
            )
            for name, share in found.outside.items()
        ]
        if found.flagged is not None:
            gauges.append(
                DriftGauge(
                    name="greenboard_drift_flagged_share",
                    help="Share of the window's cases with a drift flag",
                    value=found.flagged,
                )
            )
        return gauges


def _score_gauges(scores: ScoreDrift) -> list[DriftGauge]:
    told = (
        ("ks", "Kolmogorov-Smirnov distance of scores to training", scores.ks),
        ("ks_critical", "Distance that it exceeds by chance too rarely", scores.ks_critical),
        ("psi", "Population stability index of scores", scores.psi),
        ("psi_critical", "Index that it exceeds by chance too rarely", scores.psi_critical),
        ("alarm", "1 if the scores have moved", float(scores.alarm)),
    )
    return [
        DriftGauge(name=f"greenboard_drift_score_{name}", help=text, value=value)
        for name, text, value in told
    ]


def _missing_gauges(modality: str, gap: MissingDrift) -> list[DriftGauge]:
    told = (
        ("difference", "Rate of missing, window less training", gap.difference),
        ("p_value", "Chance of such a difference without a shift", gap.p_value),
        ("alarm", "1 if the rate of missing has moved", float(gap.alarm)),
    )
    labels = {"modality": modality}
    return [
        DriftGauge(name=f"greenboard_drift_missing_{name}", help=text, value=value, labels=labels)
        for name, text, value in told
    ]


def _outside_means(rows: Sequence[DriftRow]) -> dict[str, float]:
    shares: dict[str, list[float]] = {}
    for row in rows:
        for name, share in row.outside.items():
            shares.setdefault(name, []).append(share)
    return {name: float(np.mean(values)) for name, values in shares.items()}


def _score_drift(
    training: Float64[np.ndarray, " training"], window: Float64[np.ndarray, " cases"], alpha: float
) -> ScoreDrift:
    n, m = len(window), len(training)
    ordered = np.sort(window)
    at = np.concatenate([training, ordered])
    gap = np.searchsorted(training, at, side="right") / m
    gap -= np.searchsorted(ordered, at, side="right") / n
    edges = np.quantile(training, np.linspace(0, 1, SCORE_BINS + 1)[1:-1])
    expected = _binned(training, edges)
    found = _binned(ordered, edges)
    both = 1.0 / n + 1.0 / m
    return ScoreDrift(
        ks=float(np.abs(gap).max()),
        ks_critical=float(kolmogi(alpha) * np.sqrt(both)),
        psi=float(((found - expected) * np.log(found / expected)).sum()),
        psi_critical=float(both * chdtri(SCORE_BINS - 1, alpha)),
    )


def _binned(
    scores: Float64[np.ndarray, " scores"], edges: Float64[np.ndarray, " edges"]
) -> Float64[np.ndarray, " bins"]:
    """Shares by bin; half a score more in each, so that none is empty."""
    count = np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1) + 0.5
    return np.asarray(count / count.sum())


def _two_shares(here: int, n: int, there: int, m: int) -> float:
    """Fisher's exact test that two shares are one; two-sided by doubling the smaller tail."""
    both, hits = n + m, here + there
    drawn = np.arange(max(0, hits - m), min(hits, n) + 1)
    log_p = _log_choose(hits, drawn) + _log_choose(both - hits, n - drawn)
    p = np.exp(log_p - _log_choose(both, np.array([n])))
    return float(min(1.0, 2.0 * min(p[drawn <= here].sum(), p[drawn >= here].sum())))


def _log_choose(n: int, k: Int64[np.ndarray, " ks"]) -> Float64[np.ndarray, " ks"]:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def drift_row(
    *,
    present: Sequence[str],
    outside: Mapping[str, tuple[int, int] | None],
    probability_clinical_only: float,
    flags: Sequence[str],
) -> DriftRow:
    """What the watch needs of a case, small enough to be kept with its explanation."""
    p = min(max(probability_clinical_only, 1e-12), 1.0 - 1e-12)
    return DriftRow(
        present=list(present),
        logit=float(np.log(p / (1.0 - p))),
        outside={name: told[0] / told[1] for name, told in outside.items() if told},
        flagged=bool(flags),
    )
