"""What each patient could gain next, in every evidence set: looked up, never worked out again.

A case competes with those that wait beside it. Whom its slot would serve better, and who else
needs the same pipeline's run, follows from the predicted gains of all of them; a table over
patients and sets makes that a matter of gathering.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8

from distill.evidence import EvidenceTable
from envs.gain import GainModel
from envs.tables import PatientTables

CHUNK = 65_536
SHARING_SCALE = 4.0
"""Scale of the observation's ``sharing`` fields, cases."""


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Best next steps of the pool's patients, by evidence set (flat: ``patient * n_sets + set``).

    Attributes:
        best: predicted gain of the best transfer that the patient can have, AUC; 0 if none gains.
        needs: the modality whose pipeline that transfer would have to run; the number of
            modalities where it needs none.
        source: source modality of each transfer.
        is_new: whether a transfer in a set has to process its source first.
        pipeline_kwh: energy of processing each modality.
        modality: the numbers of the modalities.
        share_scale: scale of the ``sharing`` fields where a set has not processed a modality yet,
            0 where it has.
    """

    best: Float32[np.ndarray, " patients_sets"]
    needs: Int8[np.ndarray, " patients_sets"]
    source: Int8[np.ndarray, " transfers"]
    is_new: Bool[np.ndarray, "sets transfers"]
    pipeline_kwh: Float64[np.ndarray, " modalities"]
    modality: Int8[np.ndarray, " modalities"]
    share_scale: Float32[np.ndarray, "sets modalities"]


def outlook_of(evidence: EvidenceTable, tables: PatientTables, gain: GainModel) -> Outlook:
    """Work the tables out, in pieces that fit in memory."""
    modalities = len(evidence.modalities)
    source = np.array([evidence.modalities.index(t.source) for t in evidence.transfers])
    is_new = ~evidence.processed[:, source]
    # One entry past the modalities stands for "needs no pipeline".
    pipeline = np.where(is_new, source, modalities)
    size = len(tables.logit)
    best, needs = np.zeros(size, dtype=np.float32), np.full(size, modalities, dtype=np.int8)
    for start in range(0, size, CHUNK):
        at = np.arange(start, min(start + CHUNK, size))
        patient, k = at // tables.n_sets, at % tables.n_sets
        predicted = gain.predict(k, np.nan_to_num(tables.logit[at]))
        possible = tables.is_open[k] & tables.has_source[patient]
        predicted[~possible] = -1.0
        chosen = predicted.argmax(axis=1)
        value = predicted[np.arange(len(at)), chosen]
        best[at] = np.maximum(value, 0.0)
        needs[at] = np.where(value > 0.0, pipeline[k, chosen], modalities)
    return Outlook(
        best=best,
        needs=needs,
        source=source.astype(np.int8),
        is_new=is_new,
        pipeline_kwh=evidence.pipeline_kwh,
        modality=np.arange(modalities, dtype=np.int8),
        share_scale=(~evidence.processed).astype(np.float32) / np.float32(SHARING_SCALE),
    )
