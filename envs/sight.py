"""What is seen of a patient in an evidence set, in one piece: stepping looks it up.

Observations and masks of a case depend on the patient and the set alone, but for the hour and the
session. For batches the pieces are put together once, for every pair, where that fits in memory;
otherwise at every look, for the pairs at hand. The numbers are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from envs.gain import GainModel
from envs.observation import ObservationLayout
from envs.tables import PatientTables

MOST_NUMBERS = 8_000_000
"""Largest table kept, in numbers: beyond this it would not stay in a processor's cache anyway."""
CHUNK = 16_384
BATCH = 16
"""Sessions from which on the table is kept: many single environments need not hold one each."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Rows of patients and sets, as scaled fields of an observation.

    Attributes:
        case: ``probability`` to ``run_<transfer>``, in the layout's order.
        steps: ``gain_<transfer>`` and ``energy_<transfer>`` (no run's start in it).
        possible: which actions the case can have at all; ``finalise`` and ``defer`` always.
    """

    case: Float32[np.ndarray, "rows case_fields"]
    steps: Float32[np.ndarray, "rows step_fields"]
    possible: Bool[np.ndarray, "rows actions"]


class Sight:
    """Looks patients and sets up (flat: ``patient * n_sets + set``)."""

    def __init__(self, tables: PatientTables, gain: GainModel, layout: ObservationLayout) -> None:
        self._tables, self._gain, self._layout = tables, gain, layout
        width = tables.belief.shape[1] + tables.traits.shape[1] + tables.progress.shape[1]
        numbers = len(tables.logit) * (width + 2 * len(layout.transfers))
        self._fits = numbers <= MOST_NUMBERS
        self._table: Seen | None = None

    def _look_up(self, at: Int64[np.ndarray, " rows"]) -> Seen | None:
        """The whole table, put together when first a batch asks; None where it is not kept."""
        if self._table is None and self._fits and len(at) >= BATCH:
            pairs = len(self._tables.logit)
            parts = [
                self._put_together(np.arange(start, min(start + CHUNK, pairs)))
                for start in range(0, pairs, CHUNK)
            ]
            self._table = Seen(
                case=np.concatenate([part.case for part in parts]),
                steps=np.concatenate([part.steps for part in parts]),
                possible=np.concatenate([part.possible for part in parts]),
            )
        return self._table

    def case(self, at: Int64[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows case_fields"]:
        """Fields of the case itself, for these pairs."""
        table = self._look_up(at)
        return self._put_together(at).case if table is None else table.case.take(at, axis=0)

    def steps(self, at: Int64[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows step_fields"]:
        """Predicted gains and energies, for these pairs."""
        table = self._look_up(at)
        return self._put_together(at).steps if table is None else table.steps.take(at, axis=0)

    def possible(self, at: Int64[np.ndarray, " rows"]) -> Bool[np.ndarray, "rows actions"]:
        """Actions that these pairs can have at all, as a new array."""
        table = self._look_up(at)
        return self._put_together(at).possible if table is None else table.possible.take(at, axis=0)

    def _put_together(self, at: Int64[np.ndarray, " rows"]) -> Seen:
        tables = self._tables
        patient, k = at // tables.n_sets, at % tables.n_sets
        # Unreachable sets hold NaN; nobody gets there, and zeros keep the table finite.
        gain = self._gain.predict(k, np.nan_to_num(tables.logit[at]))
        field = self._layout.fields[self._layout.group("gain").start]
        scaled = gain * np.float32(1.0 / field.scale)
        always = np.ones((len(at), 2), dtype=np.bool_)
        return Seen(
            case=np.hstack([tables.belief[at], tables.traits[patient], tables.progress[k]]),
            steps=np.hstack([scaled, tables.step_root_kwh[k]]),
            possible=np.hstack([tables.is_open[k] & tables.has_source[patient], always]),
        )
