"""What a reader should know of a case's values before believing the probability.

A student answers whatever it is given. Values far outside those that it was trained on, and words
that it has no feature for, still give a confident probability; so they are told, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from distill.preprocess import UNKNOWN, NumberColumn, TablePreprocessor
from distill.table import MISSING_TEXT, RawTable

MARGIN = 0.5
"""Share of a training range that values may lie beyond it. At 0.5, 2 % of the pathology slides of
hospitals that a range was not taken from are told (TCGA); at 0, 23 %."""
SHOWN = 5
NO_RANGES = (
    "This model does not say which numbers it was trained on (an earlier version wrote it), so no "
    "number was compared with them. Train it again to have that done."
)


def limits(
    spans: Float64[np.ndarray, "numbers 2"],
) -> tuple[Float64[np.ndarray, " numbers"], Float64[np.ndarray, " numbers"]]:
    """Smallest and largest values that need no caution, for columns of these training spans.

    A flag or a share (0 to 1) has no margin, and what was never negative stays so.
    """
    low, high = spans[:, 0], spans[:, 1]
    share = (low == 0.0) & (high == 1.0)
    margin = np.where(share, 0.0, MARGIN * (high - low))
    below = low - margin
    return np.where(low < 0, below, np.maximum(0.0, below)), high + margin


def unusual_numbers(
    raw: RawTable, fitted: TablePreprocessor
) -> Bool[np.ndarray, "rows numbers"]:  # fmt: skip
    """Which numbers that the student looks at lie outside the limits."""
    low, high = limits(fitted.spans)
    outside = (raw.numbers < low) | (raw.numbers > high)
    return np.asarray(outside & fitted.reads_numbers)


def outside_range(raw: RawTable, fitted: TablePreprocessor) -> tuple[int, int] | None:
    """How many of one case's numbers lie outside their training range, of how many known ones.

    Without any margin: a few always do. None where the ranges or the numbers are not known.
    """
    known = np.isfinite(raw.numbers[0]) & fitted.reads_numbers
    count = int(known.sum())
    if not fitted.spans_known or count == 0:
        return None
    low, high = fitted.spans.T
    outside = (raw.numbers[0] < low) | (raw.numbers[0] > high)
    return int((outside & known).sum()), count


def unusual_words(raw: RawTable, fitted: TablePreprocessor) -> Bool[np.ndarray, "rows texts"]:
    """Which words that the student looks at have no feature of their own."""
    out = np.zeros(raw.texts.shape, dtype=bool)
    for j, column in enumerate(fitted.texts):
        if fitted.reads_texts[j]:
            known = (*column.words, MISSING_TEXT)
            out[:, j] = [word not in known for word in raw.texts[:, j]]
    return out


def cautions(modality: str, raw: RawTable, fitted: TablePreprocessor) -> tuple[str, ...]:
    """Sentences on one case's values; they name features and what was seen, never a value."""
    lines = []
    numbers = np.flatnonzero(unusual_numbers(raw, fitted)[0]) if fitted.spans_known else ()
    if len(numbers):
        found = [_range(fitted.numbers[j]) for j in numbers]
        lines.append(
            f"{modality}: {_count(found, 'value')} far outside what the model was trained on: "
            f"{_listed(found)}. Check them and their units; the probability may mean nothing."
        )
    words = np.flatnonzero(unusual_words(raw, fitted)[0])
    if words.size:
        found = [f"{fitted.texts[j].name!r} ({_listed(fitted.texts[j].words)})" for j in words]
        lines.append(
            f"{modality}: {_count(found, 'word')} rare or never seen in training and counted as "
            f"{UNKNOWN}: {_listed(found)}. Check the spelling."
        )
    return tuple(lines)


def _range(column: NumberColumn) -> str:
    if column.span is None:
        return f"{column.name!r} (never known)"
    return f"{column.name!r} ({column.span[0]:.4g} to {column.span[1]:.4g})"


def _count(found: Sequence[str], noun: str) -> str:
    return f"1 {noun} is" if len(found) == 1 else f"{len(found)} {noun}s are"


def _listed(found: Sequence[str]) -> str:
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + more
