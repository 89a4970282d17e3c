"""How patients like this one fared in validation: read off the bundle's out-of-fold scores.

Alike means: the same evidence set, the same modalities there, and among those the nearest in
log-odds. Every score in the table comes from a model that had not seen the patient's hospital, so
that the share of positives among them says whether such a probability can be believed. Nobody's
identifier is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from jaxtyping import Float64, Int64

from agent.workflow.told import PeerGroup, Share, class_words
from distill.evidence import EvidenceTable

NEAREST = 50
FARTHEST = 1.0
"""Log-odds; patients beyond are not like this one, however few are nearer."""
NEEDED = 10
Z95 = 1.959963984540054
MOST_KEPT = 1024


def wilson(hits: int, n: int) -> Share:
    """A share of ``n`` with Wilson's 95 % interval (Wilson 1927; no continuity correction)."""
    p, z2 = hits / n, Z95 * Z95
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low = 0.0 if hits == 0 else max(centre - half, 0.0)
    high = 1.0 if hits == n else min(centre + half, 1.0)
    return Share(value=p, ci95=(low, high), n=n)


@dataclass(frozen=True, kw_only=True)
class _Alike:
    """Patients of one evidence set and one pattern of modalities, ascending in log-odds."""

    logit: Float64[np.ndarray, " alike"]
    label: Int64[np.ndarray, " alike"]
    hospital: Int64[np.ndarray, " alike"]


@dataclass(frozen=True, kw_only=True)
class PeerBook:
    """Finds patients like a case in an evidence table; the order is worked out when first needed.

    Attributes:
        evidence: out-of-fold scores of the training patients.
    """

    evidence: EvidenceTable
    _alike: dict[tuple[int, bytes], _Alike] = field(default_factory=dict, repr=False)
    _hospital: dict[str, Int64[np.ndarray, " patients"] | None] = field(
        default_factory=dict, repr=False
    )

    def like(self, transfers_run: Sequence[str], present: Sequence[str], logit: float) -> PeerGroup:
        """Patients with this evidence and these modalities, nearest to these log-odds.

        Args:
            transfers_run: the case's evidence set, by name.
            present: modalities that the case has.
            logit: its calibrated log-odds.

        Raises:
            TransferError: if a transfer is not one of the table's.
        """
        table = self.evidence
        k = table.sets.index_of(transfers_run)
        having = np.array([m in present for m in table.modalities], dtype=np.bool_)
        alike = self._of(k, having)
        near = _nearest(alike.logit, logit)
        n = near.stop - near.start
        told = PeerGroup(
            n=n,
            needed=NEEDED,
            evidence_set=table.sets.name(k),
            modalities=[m for m, there in zip(table.modalities, having) if there],
        )
        return told if n < NEEDED else told.model_copy(update=self._figures(alike, near))

    def _figures(self, alike: _Alike, near: slice) -> dict[str, object]:
        scores, label = alike.logit[near], alike.label[near]
        probability = 1.0 / (1.0 + np.exp(-scores))
        right = int(((scores >= 0.0) == (label == 1)).sum())
        known = self._hospitals() is not None
        return {
            "hospitals": len(np.unique(alike.hospital[near])) if known else None,
            "probability_low": float(probability[0]),
            "probability_high": float(probability[-1]),
            "mean_probability": float(probability.mean()),
            "share_positive": wilson(int(label.sum()), len(label)),
            "suggestion_right": wilson(right, len(label)),
        }

    def _hospitals(self) -> Int64[np.ndarray, " patients"] | None:
        """Which hospital each patient is of; None where each patient counts as one of its own."""
        if "all" not in self._hospital:
            names, index = np.unique(np.array(self.evidence.group), return_inverse=True)
            unknown = len(names) == self.evidence.n_patients
            self._hospital["all"] = None if unknown else index.astype(np.int64)
        return self._hospital["all"]

    def _of(self, k: int, having: np.ndarray) -> _Alike:
        key = (k, having.tobytes())
        found = self._alike.get(key)
        if found is None:
            if len(self._alike) >= MOST_KEPT:
                self._alike.clear()
            found = self._alike[key] = self._sorted(k, having)
        return found

    def _sorted(self, k: int, having: np.ndarray) -> _Alike:
        table = self.evidence
        rows = np.flatnonzero((table.present == having).all(axis=1) & table.reachable[:, k])
        rows = rows[np.argsort(table.logit[rows, k], kind="stable")]
        hospitals = self._hospitals()
        return _Alike(
            logit=table.logit[rows, k].astype(np.float64),
            label=table.label[rows].astype(np.int64),
            hospital=rows.astype(np.int64) if hospitals is None else hospitals[rows],
        )


def _nearest(ordered: Float64[np.ndarray, " alike"], logit: float) -> slice:
    """The stretch of ascending scores that is nearest, at most so many and so far."""
    first, last = np.searchsorted(ordered, (logit - FARTHEST, logit + FARTHEST))
    window = ordered[first:last]
    if len(window) <= NEAREST:
        return slice(int(first), int(last))
    # the nearest k of sorted values are neighbours: the best start minimises the farther end
    starts = np.arange(len(window) - NEAREST + 1)
    reach = np.maximum(logit - window[starts], window[starts + NEAREST - 1] - logit)
    start = int(first) + int(reach.argmin())
    return slice(start, start + NEAREST)


def peer_lines(peers: PeerGroup | None, classes: Sequence[str] = ()) -> list[str]:
    """Sentences about patients like this one; says so where there are too few.

    Args:
        peers: the patients; None says nothing.
        classes: names of the negative and the positive class, if they have names.
    """
    if peers is None:
        return []
    alike = (
        f"with the same evidence ({peers.evidence_set}), the same modalities "
        f"({', '.join(peers.modalities)}) and a similar score"
    )
    positive, right = peers.share_positive, peers.suggestion_right
    if positive is None or right is None or peers.mean_probability is None:
        count = "nobody" if peers.n == 0 else f"only {peers.n}"
        return [
            f"Patients like this one in validation: {count} {alike}; fewer than {peers.needed} "
            "say nothing."
        ]
    where = "" if peers.hospitals is None else f" from {_count(peers.hospitals, 'hospital')}"
    low, high = positive.ci95
    named = class_words(classes, "positive")
    fits = "agrees with" if low <= peers.mean_probability <= high else "does not agree with"
    return [
        f"Patients like this one in validation: {peers.n}{where} {alike}, probability "
        f"{peers.probability_low:.3f} to {peers.probability_high:.3f}; "
        f"{_percent(positive)} were of {named}, which {fits} the mean probability of "
        f"{peers.mean_probability:.3f}.",
        f"The suggestion would have been right for {_percent(right)} of them.",
    ]


def _percent(share: Share) -> str:
    low, high = share.ci95
    return f"{100 * share.value:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
