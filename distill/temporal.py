"""Times between a modality's acquisition and the index specimen: read, checked, scaled.

The columns are those that ``cohort.toml`` names in ``[label] temporal``, each the length of time
between one acquisition and the specimen that the label speaks of, in any unit. They are the
student's context, never a feature: see :class:`distill.gate.TimeGate`. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64

from distill.errors import BundleError, FeatureError
from distill.table import as_number, refuse_unknown

if TYPE_CHECKING:
    import pandas as pd

TEMPORAL = "temporal"
"""Key of a case's times, beside the names of its modalities."""
LONGEST = 8.0
"""Gaps beyond this many training medians count as this many: 'long ago', no more."""
MARGIN = 0.5
"""Share of the longest training gap that a gap may lie beyond it without a caution."""
HELP = (
    "Write how much time lies between the acquisition and the specimen, 0 or more, and leave it "
    "out where it is not known."
)


@dataclass(frozen=True, kw_only=True)
class TimeScaler:
    """Turns gaps into the student's time features; fitted on training rows.

    Attributes:
        names: columns of the label table, in the order that the manifest names them.
        scale: median of the known training gaps of each column, in its own unit.
        longest: the longest training gap of each column, 0 where none was known.
    """

    names: tuple[str, ...]
    scale: tuple[float, ...]
    longest: tuple[float, ...]

    @property
    def n_features(self) -> int:
        """A gap and an indicator a column."""
        return 2 * len(self.names)

    def transform(
        self, gap: Float64[np.ndarray, "rows columns"]
    ) -> Float32[np.ndarray, "rows features"]:
        """Scaled gaps (0 where not known), then 1 where the gap is known, else 0."""
        known = np.isfinite(gap)
        scaled = np.clip(np.where(known, gap, 0.0) / np.array(self.scale), 0.0, LONGEST)
        return np.concatenate([scaled, known], axis=1).astype(np.float32)

    def row(self, sent: Mapping[str, object]) -> Float64[np.ndarray, "1 columns"]:
        """One case's gaps by name; what is left out or None is not known (NaN).

        Raises:
            FeatureError: for an unknown name, or a value that is no length of time.
        """
        try:
            refuse_unknown(list(sent), self.names, "time")
            values = [as_number(name, sent.get(name)) for name in self.names]
        except FeatureError as error:
            raise FeatureError(f"{TEMPORAL}: {error}") from error
        for name, value in zip(self.names, values):
            # A NaN that was sent is a broken calculation; None says that a time is not known.
            if value < 0 or (np.isnan(value) and sent.get(name) is not None):
                what = "negative" if value < 0 else "not a number"
                raise FeatureError(f"{TEMPORAL}: {name!r} is {what}. {HELP}")
        return np.array([values], dtype=np.float64)

    def cautions(self, gap: Float64[np.ndarray, "1 columns"]) -> tuple[str, ...]:
        """Names the gaps that are far longer than any in training, never their values."""
        long = [
            f"{name!r} (0 to {most:.4g})"
            for name, value, most in zip(self.names, gap[0], self.longest)
            if value > (1 + MARGIN) * most
        ]
        if not long:
            return ()
        return (
            f"{TEMPORAL}: far longer than any in training: {', '.join(long)}. Check the unit; "
            "the probability may mean nothing.",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``preprocess.json``."""
        return {
            "names": list(self.names), "scale": list(self.scale), "longest": list(self.longest),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TimeScaler:
        """Rebuild what :meth:`to_json` gave.

        Raises:
            BundleError: if parts are missing or of the wrong type.
        """
        try:
            return cls(
                names=tuple(str(name) for name in data["names"]),
                scale=tuple(float(value) for value in data["scale"]),
                longest=tuple(float(value) for value in data["longest"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"preprocess.json is not readable: {error!r}.") from error


def fit_times(names: Sequence[str], gap: Float64[np.ndarray, "rows columns"]) -> TimeScaler:
    """Fit on these rows (the training rows)."""
    scale, longest = [], []
    for column in gap.T:
        known = column[np.isfinite(column)]
        middle = float(np.median(known)) if known.size else 0.0
        scale.append(middle if middle > 0 else 1.0)
        longest.append(float(known.max()) if known.size else 0.0)
    return TimeScaler(names=tuple(names), scale=tuple(scale), longest=tuple(longest))


def gaps_of(
    frame: pd.DataFrame | None, names: Sequence[str], n: int
) -> Float64[np.ndarray, "rows columns"]:
    """A cohort's gaps by name, NaN where a cell is empty or the cohort lacks the column.

    Args:
        frame: the cohort's temporal columns, one row a patient.
        names: the columns that are asked for.
        n: number of patients.

    Raises:
        FeatureError: if a gap is negative or infinite.
    """
    out = np.full((n, len(names)), np.nan)
    for j, name in enumerate(names):
        if frame is None or name not in frame.columns:
            continue
        out[:, j] = frame[name].to_numpy(dtype=np.float64)
        wrong = int(((out[:, j] < 0) | np.isinf(out[:, j])).sum())
        if wrong:
            raise FeatureError(
                f"Temporal column {name!r}: {wrong} of {n} patients have a negative or infinite "
                f"value. {HELP} A column that is no such time does not belong in [label] temporal."
            )
    return out
