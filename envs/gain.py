"""How much AUC one more transfer is expected to bring, from class-conditional logit shifts.

For every evidence set S and transfer a that leads to S', the training rows say how the log-odds
move, d = logit(S') - logit(S), in each class. A case at log-odds l belongs to the positive class
with p = sigmoid(l), and moving it changes the session's AUC by

    gain = p E[F_neg(l+d) - F_neg(l) | pos] / n_pos + (1-p) E[F_pos(l) - F_pos(l+d) | neg] / n_neg

where F is the distribution of the opposite class's scores. Tabulated over a grid of log-odds and
interpolated, so that predicting costs two gathers. Fitted on training rows only: a held-out
patient's label never reaches it.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from distill.evidence import EvidenceTable
from envs.errors import GainError

FORMAT = 1
GRID_LOW, GRID_STEP, GRID_SIZE = -8.0, 0.25, 65
SHRINK_ROWS = 20.0
"""Rows of one class at which a set's own shifts weigh as much as the pooled ones."""
MIN_ROWS_PER_CLASS = 5
SMOOTHING_SD = 0.25
"""Width of the kernel over the opposite class's scores, log-odds."""


@dataclass(frozen=True, kw_only=True)
class GainModel:
    """Expected change of a session's AUC for every set, transfer and log-odds.

    Attributes:
        table: expected AUC change [sets, log-odds grid, transfers]; 0 where a transfer cannot
            run. The grid spans -8 to 8 in steps of 0.25.
        transfers: transfer names, in action order.
        n_pos: positives in the sessions it speaks of.
        n_neg: negatives in them.
        n_rows: training rows it was fitted on.
    """

    table: Float32[np.ndarray, "sets grid transfers"]
    transfers: tuple[str, ...]
    n_pos: int
    n_neg: int
    n_rows: int

    @classmethod
    def fit(
        cls,
        evidence: EvidenceTable,
        rows: Int[np.ndarray, " rows"],
        n_pos: int,
        n_neg: int,
    ) -> GainModel:
        """Fit on the training rows of an evidence table.

        Args:
            evidence: the table; only ``rows`` of it are read.
            rows: indices of the training patients.
            n_pos: positives in a session.
            n_neg: negatives in a session.

        Raises:
            GainError: if a class has fewer than five training rows or a session lacks a class.
        """
        label = evidence.label[rows].astype(bool)
        few = min(int(label.sum()), int((~label).sum()))
        if few < MIN_ROWS_PER_CLASS or min(n_pos, n_neg) < 1:
            raise GainError(
                f"The gain model needs {MIN_ROWS_PER_CLASS} training rows of each class and a "
                f"session with both; it got {few} rows of the rarer class, sessions of {n_pos} "
                f"positives and {n_neg} negatives. Choose more fit_folds."
            )
        logit = evidence.logit[rows]
        reach = evidence.reachable[rows]
        reference = _reference_scores(evidence, logit, reach)
        cdf = {c: _cdf(reference[label == bool(c)]) for c in (0, 1)}
        table = np.zeros(
            (len(evidence.sets.bits), GRID_SIZE, len(evidence.transfers)), dtype=np.float32
        )
        for t in range(len(evidence.transfers)):
            starts = np.flatnonzero(evidence.sets.next_set[:, t] >= 0)
            ends = evidence.sets.next_set[starts, t]
            fresh = (evidence.processed[ends] & ~evidence.processed[starts]).any(axis=1)
            steps = (starts, ends, fresh)
            shifts = [_shifts(logit, reach, label == bool(c), steps) for c in (0, 1)]
            table[starts, :, t] = _expected_gain(shifts, cdf, n_pos, n_neg)
        names = tuple(t.name for t in evidence.transfers)
        return cls(table=table, transfers=names, n_pos=n_pos, n_neg=n_neg, n_rows=len(rows))

    def predict(
        self, set_idx: Int[np.ndarray, " batch"], logit: Float32[np.ndarray, " batch"]
    ) -> Float32[np.ndarray, "batch transfers"]:
        """Expected AUC change of each transfer for cases in these sets at these log-odds."""
        sets, size, n = self.table.shape
        position = np.clip((logit - GRID_LOW) / GRID_STEP, 0.0, size - 1.001).astype(np.float32)
        below = position.astype(np.int64)
        weight = (position - below).astype(np.float32)[:, None]
        flat = self.table.reshape(sets * size, n)
        at = set_idx.astype(np.int64) * size + below
        low = flat[at]
        return np.asarray(low + (flat[at + 1] - low) * weight)

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` without any pickled object."""
        header = {"format": FORMAT, "transfers": list(self.transfers), "n_pos": self.n_pos,
                  "n_neg": self.n_neg, "n_rows": self.n_rows}  # fmt: skip
        with path.open("wb") as file:
            np.savez_compressed(file, header=np.array(json.dumps(header)), table=self.table)

    @classmethod
    def load(cls, path: Path) -> GainModel:
        """Read :meth:`save`.

        Raises:
            GainError: if the file is missing or is not a gain model of this version.
        """
        try:
            # The file is opened here, because np.load leaves it open where the archive is broken.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                header, table = json.loads(str(data["header"])), data["table"]
            version, names = header.pop("format"), tuple(header.pop("transfers"))
            shape = (GRID_SIZE, len(names))
            good = version == FORMAT and table.ndim == 3 and table.shape[1:] == shape
            model = cls(table=table, transfers=names, **header)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise GainError(f"{path} is not a gain model: {error}") from error
        if not good:
            raise GainError(f"{path} is a gain model of another version; fit it again.")
        return model


def _reference_scores(
    evidence: EvidenceTable,
    logit: Float32[np.ndarray, "rows sets"],
    reach: Bool[np.ndarray, "rows sets"],
) -> Float64[np.ndarray, "rows 2"]:
    """Scores that others of the session may hold: at the start, and with all they have.

    Half of a session's cases are still at their first score when the average case is decided,
    so each row counts once at set 0 and once at its fullest reachable set.
    """
    size = evidence.sets.membership.sum(axis=1) + 100 * evidence.processed.sum(axis=1)
    fullest = np.where(reach, size, -1).argmax(axis=1)
    return np.stack([logit[:, 0], logit[np.arange(len(logit)), fullest]], axis=1).astype(float)


def _fine_grid() -> Float64[np.ndarray, " fine"]:
    return np.linspace(-16.0, 16.0, 1025)


def _cdf(scores: Float64[np.ndarray, "rows 2"]) -> Float64[np.ndarray, " fine"]:
    """Distribution function of the scores on the fine grid, smoothed by a normal kernel.

    A few hundred training scores are a sample of those that a session will hold; without the
    smoothing their accidental steps would show up as gains.
    """
    grid = _fine_grid()
    raw = np.searchsorted(np.sort(scores.ravel()), grid, side="right") / scores.size
    reach = round(3 * SMOOTHING_SD / (grid[1] - grid[0]))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * (grid[1] - grid[0]) / SMOOTHING_SD) ** 2)
    return np.convolve(np.pad(raw, reach, mode="edge"), kernel / kernel.sum(), mode="valid")


def _shifts(
    logit: Float32[np.ndarray, "rows sets"],
    reach: Bool[np.ndarray, "rows sets"],
    members: Bool[np.ndarray, " rows"],
    steps: tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"]],
) -> tuple[Float64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Mean and standard deviation of one class's logit shift for each pair of sets.

    Pairs with few rows are shrunk towards the pool of the same transfer, kept apart by whether
    it processes a new modality (that moves far more than one more bridge).
    """
    starts, ends, fresh = steps
    known = reach[members][:, ends]
    shift = np.where(known, logit[members][:, ends] - logit[members][:, starts], 0.0)
    shift = shift.astype(np.float64)
    count, total, square = known.sum(0), shift.sum(0), (shift**2).sum(0)
    mean, second = np.zeros(len(starts)), np.zeros(len(starts))
    for kind in (fresh, ~fresh):
        pooled = max(int(count[kind].sum()), 1)
        weight = count[kind] + SHRINK_ROWS
        mean[kind] = (total[kind] + SHRINK_ROWS * total[kind].sum() / pooled) / weight
        second[kind] = (square[kind] + SHRINK_ROWS * square[kind].sum() / pooled) / weight
    return mean, np.sqrt(np.maximum(second - mean**2, 0.0))


def _expected_gain(
    shifts: list[tuple[Float64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]],
    cdf: dict[int, Float64[np.ndarray, " fine"]],
    n_pos: int,
    n_neg: int,
) -> Float32[np.ndarray, "pairs grid"]:
    """The module's formula on the grid of log-odds, d taken as normal.

    The trapezoidal rule over three standard deviations: with an empirical F, which is no
    polynomial, it is closer than Gauss-Hermite nodes that lie a whole deviation apart.
    """
    nodes = np.linspace(-3.0, 3.0, 21)
    weights = np.exp(-0.5 * nodes**2)
    weights /= weights.sum()
    grid, fine = GRID_LOW + GRID_STEP * np.arange(GRID_SIZE), _fine_grid()
    gain = np.zeros((len(shifts[0][0]), GRID_SIZE))
    probability = 1.0 / (1.0 + np.exp(-grid))
    for own, sign, share in ((1, 1.0, probability / n_pos), (0, -1.0, (1 - probability) / n_neg)):
        mean, sd = shifts[own]
        opposite = cdf[1 - own]
        moved = -np.interp(grid, fine, opposite)[None, :].repeat(len(mean), axis=0)
        for node, weight in zip(nodes, weights):
            moved += weight * np.interp(grid + (mean + sd * node)[:, None], fine, opposite)
        gain += sign * share * moved
    return gain.astype(np.float32)
