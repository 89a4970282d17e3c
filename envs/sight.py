"""What is seen of a patient in an evidence set, in one piece: stepping looks it up.

Observations and masks of a case depend on the patient and the set alone, but for the hour and the
session. For batches the pieces are put together once, for every pair, where that fits in memory;
otherwise at every look, for the pairs at hand. The numbers are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float32, Int64

from envs.gain import GainModel
from envs.observation import ObservationLayout
from envs.tables import PatientTables

MOST_NUMBERS = 8_000_000
"""Largest table kept, in numbers: beyond this it would not stay in a processor's cache anyway."""
BATCH = 16
"""Sessions from which on the table is kept: many single environments need not hold one each."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Every patient in every set (flat: ``patient * n_sets + set``).

    Attributes:
        case: scaled ``probability`` to ``run_<transfer>``, in the layout's order.
        steps: scaled ``gain_<transfer>`` and ``energy_<transfer>`` (no run's start in it).
        possible: which actions the case can have at all; ``finalise`` and ``defer`` always.
    """

    case: Float32[np.ndarray, "pairs case_fields"]
    steps: Float32[np.ndarray, "pairs step_fields"]
    possible: Bool[np.ndarray, "pairs actions"]


@final
class Sight:
    """Looks patients and sets up (flat: ``patient * n_sets + set``)."""

    def __init__(self, tables: PatientTables, gain: GainModel, layout: ObservationLayout) -> None:
        self._tables, self._gain = tables, gain
        self._gain_scale = np.float32(1.0 / layout.fields[layout.group("gain").start].scale)
        width = tables.belief.shape[1] + tables.traits.shape[1] + tables.progress.shape[1]
        numbers = len(tables.logit) * (width + 2 * len(layout.transfers))
        self._fits = numbers <= MOST_NUMBERS
        self._all: Seen | None = None

    def case(self, at: Int64[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows case_fields"]:
        """Fields of the case itself, for these pairs."""
        kept = self._kept(at)
        return self._case(at) if kept is None else kept.case.take(at, axis=0)

    def steps(self, at: Int64[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows step_fields"]:
        """Predicted gains and energies, for these pairs."""
        kept = self._kept(at)
        return self._steps(at) if kept is None else kept.steps.take(at, axis=0)

    def possible(self, at: Int64[np.ndarray, " rows"]) -> Bool[np.ndarray, "rows actions"]:
        """Actions that these pairs can have at all, as a new array."""
        kept = self._kept(at)
        return self._possible(at) if kept is None else kept.possible.take(at, axis=0)

    def _kept(self, at: Int64[np.ndarray, " rows"]) -> Seen | None:
        """The whole table, put together when first a batch asks; None where it is not kept."""
        if self._all is None and self._fits and len(at) >= BATCH:
            pairs = np.arange(len(self._tables.logit))
            self._all = Seen(
                case=self._case(pairs), steps=self._steps(pairs), possible=self._possible(pairs)
            )
        return self._all

    def _case(self, at: Int64[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows case_fields"]:
        tables, (patient, k) = self._tables, np.divmod(at, self._tables.n_sets)
        parts = (tables.belief, at), (tables.traits, patient), (tables.progress, k)
        return np.hstack([table.take(rows, axis=0) for table, rows in parts])

    def _steps(self, at: Int64[np.ndarray, " rows"]) -> Float32[np.ndarray, "rows step_fields"]:
        tables, k = self._tables, at % self._tables.n_sets
        # Unreachable sets hold NaN; nobody gets there, and zeros keep the table finite.
        gain = self._gain.predict(k, np.nan_to_num(tables.logit.take(at)))
        return np.hstack([gain * self._gain_scale, tables.step_root_kwh.take(k, axis=0)])

    def _possible(self, at: Int64[np.ndarray, " rows"]) -> Bool[np.ndarray, "rows actions"]:
        tables, (patient, k) = self._tables, np.divmod(at, self._tables.n_sets)
        possible = np.ones((len(at), tables.is_open.shape[1] + 2), dtype=np.bool_)
        possible[:, :-2] = tables.is_open.take(k, axis=0) & tables.has_source.take(patient, axis=0)
        return possible
