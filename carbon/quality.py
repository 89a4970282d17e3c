"""Defects of a carbon-intensity feed, found with what was known at the time and nothing later.

Each row gets two verdicts. The first falls when the row arrives (``at_once``) and guards its use
as the newest value. The second falls one hour later (``settled``), when the row can be held against
the one after it; it guards its use as history, and says which hours a score should leave out.

What can be seen, and when:

====================  ==========================================================================
gap                   at once: the row is missing
from the future       at once: the row starts after the moment of asking
repeated              from the third equal value in a row on; the first two cannot be told apart
stale day             from the third hour in a row that equals the hour of the day before
spike                 settled: a jump and its return; at once only if it is absurd
another day's value   at one hour of the day, day after day; after about a week (see below)
====================  ==========================================================================

A row that holds the value of 24 hours later or earlier looks harmless by itself. It shows as an
hour of the day that fits the neighbours of the next (or last) day better than its own, so often
within :data:`WINDOW_DAYS` days that chance is out of the question. The first days of such a defect
therefore pass unseen, and the first days after its repair are still flagged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from carbon.intensity.trace import Trace

DAY_H: Final = 24
WINDOW_DAYS: Final = 12
MISFIT_RATIO: Final = 2.0
"""Own misfit over the other day's misfit, both medians over the window."""
LEAST_MISFIT: Final = 0.02
"""Relative: below it, a swapped row does no harm and may be chance."""
SPIKE_SCALES: Final = 15.0
LEAST_SPIKE: Final = 0.6
"""Relative, log scale: smaller ones cannot be told from what grids do."""
ABSURD: Final = 2.0
"""Log scale, one hour's change of more than seven times."""
FLOOR_G_PER_KWH: Final = 1.0
LOOK_BACK_DAYS: Final = 18
"""Days that the verdict on one row rests on, at most."""

REASONS: Final[Mapping[str, int]] = {
    "gap": 1,
    "from the future": 2,
    "repeated": 4,
    "stale day": 8,
    "spike": 16,
    "value of 24 h later": 32,
    "value of 24 h earlier": 64,
}


@dataclass(frozen=True, kw_only=True)
class FeedQuality:
    """Verdicts on each row of an hourly feed, as bits of :data:`REASONS`; 0 is sound.

    Attributes:
        flags_at_once: row i depends on rows up to i.
        flags_settled: row i depends on rows up to i + 1.
    """

    flags_at_once: UInt8[np.ndarray, " hours"]
    flags_settled: UInt8[np.ndarray, " hours"]

    @property
    def at_once(self) -> Bool[np.ndarray, " hours"]:
        """Rows that should not be used as the newest value."""
        return self.flags_at_once > 0

    @property
    def settled(self) -> Bool[np.ndarray, " hours"]:
        """Rows that should not be used as history, nor scored."""
        return self.flags_settled > 0

    def note(self, row: int) -> str:
        """Why a row is flagged, for the note of a reading; empty if it is sound."""
        bits = int(self.flags_at_once[row] | self.flags_settled[row])
        found = [name for name, bit in REASONS.items() if bits & bit]
        return f"doubtful: {', '.join(found)}" if found else ""

    def counts(self) -> dict[str, int]:
        """Settled flags by reason, without those that did not occur."""
        tally = {n: int(np.count_nonzero(self.flags_settled & b)) for n, b in REASONS.items()}
        return {name: count for name, count in tally.items() if count}


def inspect_feed(
    g_per_kwh: Float64[np.ndarray, " hours"], *, first_hour: int = 0, now_row: int | None = None
) -> FeedQuality:
    """Look for defects, causally.

    Args:
        g_per_kwh: one value an hour, gCO2e/kWh; NaN where the feed had none.
        first_hour: hour of the day of the first row, UTC.
        now_row: the row of the present hour; later ones come from the future and are flagged.
            Without it, each row is taken to have arrived in its own time.
    """
    missing = ~np.isfinite(g_per_kwh)
    held = hold(g_per_kwh, missing)
    log = np.log(np.maximum(held, FLOOR_G_PER_KWH))
    once = np.zeros(len(log), dtype=np.uint8)
    once[missing] |= REASONS["gap"]
    if now_row is not None:
        once[now_row + 1 :] |= REASONS["from the future"]
    once[_runs(held, 1) & ~missing] |= REASONS["repeated"]
    once[_runs(held, DAY_H) & ~missing] |= REASONS["stale day"]
    once |= _displaced(log, first_hour)
    settled = once.copy()
    once[_absurd(log) & ~missing] |= REASONS["spike"]
    settled[_spikes(log) & ~missing] |= REASONS["spike"]
    return FeedQuality(flags_at_once=once, flags_settled=settled)


def newest_doubt(trace: Trace, row: int) -> str:
    """What is wrong with a row, seen from the rows up to it; empty if it looks sound."""
    first = max(0, row + 1 - LOOK_BACK_DAYS * DAY_H)
    values = trace.g_per_kwh[first : row + 1].copy()
    # What was filled in when the trace was read repeats the value before it: a gap, no repeat.
    values[1:][trace.estimated[first + 1 : row + 1] & (values[1:] == values[:-1])] = np.nan
    hour = int(trace.time_utc[first].astype(np.int64) % DAY_H)
    return inspect_feed(values, first_hour=hour).note(row - first)


def hold(
    values: Float64[np.ndarray, " hours"], doubtful: Bool[np.ndarray, " hours"]
) -> Float64[np.ndarray, " hours"]:
    """The last sound value in place of each doubtful one; the first sound one before any."""
    rows = np.where(doubtful, -1, np.arange(len(values)))
    last = np.maximum.accumulate(rows) if len(rows) else rows
    if (last < 0).all():
        return np.full(len(values), FLOOR_G_PER_KWH)
    # Rows before the first sound one are never issued from: min_history lies far behind them.
    last[last < 0] = last[last >= 0][0]
    return np.asarray(values[last], dtype=np.float64)


def settle(
    values: Float64[np.ndarray, " hours"], doubtful: Bool[np.ndarray, " hours"]
) -> Float64[np.ndarray, " hours"]:
    """Like :func:`hold`, but a single doubtful hour becomes the mean of its two neighbours.

    Row i then depends on row i + 1, so it may serve as history only.
    """
    settled = hold(values, doubtful)
    lone = np.zeros(len(values), dtype=bool)
    lone[1:-1] = doubtful[1:-1] & ~doubtful[:-2] & ~doubtful[2:]
    rows = np.flatnonzero(lone)
    settled[rows] = 0.5 * (values[rows - 1] + values[rows + 1])
    return settled


def _runs(values: Float64[np.ndarray, " hours"], lag: int) -> Bool[np.ndarray, " hours"]:
    """Rows that end three equalities in a row at that lag (two for neighbours)."""
    equal = np.zeros(len(values), dtype=bool)
    equal[lag:] = values[lag:] == values[:-lag]
    run = equal.copy()
    for back in (1,) if lag == 1 else (1, 2):
        run[back:] &= equal[:-back]
        run[:back] = False
    return run


def _absurd(log: Float64[np.ndarray, " hours"]) -> Bool[np.ndarray, " hours"]:
    out = np.zeros(len(log), dtype=bool)
    change = np.abs(np.diff(log))
    # The row that comes back from an absurd one is sound: it is near the value two before it.
    back = np.zeros(len(change), dtype=bool)
    back[1:] = np.abs(log[2:] - log[:-2]) < 0.5 * change[1:]
    out[1:] = (change > ABSURD) & ~back
    return out


def _spikes(log: Float64[np.ndarray, " hours"]) -> Bool[np.ndarray, " hours"]:
    """A jump and its return, far outside of what the past week's hours did."""
    out = np.zeros(len(log), dtype=bool)
    if len(log) < 8 * DAY_H:
        return out
    bend = np.zeros(len(log))
    bend[1:-1] = np.abs(log[1:-1] - 0.5 * (log[:-2] + log[2:]))
    week = np.lib.stride_tricks.sliding_window_view(bend, 7 * DAY_H)
    # The week ends two rows before, so that it holds nothing of the row itself.
    usual = np.full(len(log), np.inf)
    usual[7 * DAY_H + 1 :] = np.quantile(week, 0.9, axis=1)[: len(log) - 7 * DAY_H - 1]
    came_back = np.zeros(len(log), dtype=bool)
    came_back[1:-1] = np.abs(log[2:] - log[:-2]) < 0.5 * bend[1:-1]
    limit = np.maximum(LEAST_SPIKE, SPIKE_SCALES / 3.0 * usual)
    return np.asarray((bend > limit) & came_back)


def _displaced(log: Float64[np.ndarray, " hours"], first_hour: int) -> UInt8[np.ndarray, " hours"]:
    """Hours of the day that fit another day's neighbours better than their own."""
    flags = np.zeros(len(log), dtype=np.uint8)
    skip = (-first_hour) % DAY_H
    # The last day may be under way: its verdict looks at whole days before it alone.
    days = -(-(len(log) - skip) // DAY_H)
    if days < WINDOW_DAYS + 3:
        return flags
    middle = np.full(len(log), np.nan)
    middle[1:-1] = 0.5 * (log[:-2] + log[2:])
    to_come = np.full(skip + days * DAY_H - len(log), np.nan)
    value = np.concatenate([log[skip:], to_come]).reshape(days, DAY_H)
    own = np.concatenate([middle[skip:], to_come]).reshape(days, DAY_H)
    misfit = value - own
    for reason, shift in (("value of 24 h later", 1), ("value of 24 h earlier", -1)):
        other = np.full_like(misfit, np.nan)
        if shift == 1:
            other[:-1] = value[:-1] - own[1:]
        else:
            other[1:] = value[1:] - own[:-1]
        verdict = _persistent(misfit, other)
        flags[skip:][verdict.ravel()[: len(log) - skip]] |= REASONS[reason]
    return flags


def _persistent(
    misfit: Float64[np.ndarray, "days hours"], other: Float64[np.ndarray, "days hours"]
) -> Bool[np.ndarray, "days hours"]:
    """Whether, over the window that ends two days before, the other day fitted better."""
    verdict = np.zeros(misfit.shape, dtype=bool)
    for day in range(WINDOW_DAYS + 2, len(misfit)):
        # Day - 1 has a next day whose neighbours are not all known yet when the row arrives.
        window = slice(day - 1 - WINDOW_DAYS, day - 1)
        own, swapped = _spread(misfit[window]), _spread(other[window])
        verdict[day] = (own > MISFIT_RATIO * swapped) & (own > LEAST_MISFIT)
    return verdict


def _spread(residual: Float64[np.ndarray, "days hours"]) -> Float64[np.ndarray, " hours"]:
    """Median distance from the median: the bend that an hour has every day is no misfit."""
    return np.asarray(np.median(np.abs(residual - np.median(residual, axis=0)), axis=0))
