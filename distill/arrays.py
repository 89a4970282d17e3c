"""A cohort as the arrays that training may see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from distill.cohort import Cohort
from distill.crossfit import ModalityRows, TrainingData, check_folds
from distill.errors import TrainingError
from distill.table import raw_table, schema_of
from distill.teacher import MIN_ROWS
from distill.temporal import TEMPORAL, gaps_of


def training_data(cohort: Cohort) -> TrainingData:
    """The cohort as arrays. Case ids and hospitals stay behind: they reach no model.

    Raises:
        TrainingError: if there are too few folds, or fewer than two inference modalities.
    """
    inference = cohort.modalities("inference")
    if len(inference) < 2:
        raise TrainingError(
            f"Cohort {cohort.name!r} has {len(inference)} inference modality; transfers need at "
            "least two."
        )
    if cohort.fold is None:
        raise TrainingError(f"Cohort {cohort.name!r} has no folds; assign some first.")
    times = cohort.manifest.label.temporal if cohort.temporal is not None else ()
    if times and TEMPORAL in cohort.tables:
        raise TrainingError(
            f"Cohort {cohort.name!r} has a modality {TEMPORAL!r} and [label] temporal columns, "
            "whose values cases give under that name; rename the modality."
        )
    position = {case: i for i, case in enumerate(cohort.case_id)}
    tables = {}
    for name in (*inference, *cohort.modalities("privileged")):
        frame = cohort.tables[name]
        row = np.array([position[case] for case in frame.index], dtype=np.int64)
        raw = raw_table(frame, schema_of(frame))
        tables[name] = ModalityRows(name=name, raw=raw, row=row)
    data = TrainingData(
        modalities=inference,
        privileged=cohort.modalities("privileged"),
        tables=tables,
        label=cohort.label.astype(np.int8),
        fold=cohort.fold.astype(np.int16),
        times=tuple(times),
        gap=gaps_of(cohort.temporal, times, cohort.n_patients) if times else None,
    )
    check_folds(data.folds)
    return data


def usable(data: TrainingData) -> TrainingData:
    """The data without privileged modalities that too few patients have to teach anything."""
    keep = tuple(m for m in data.privileged if data.tables[m].row.size >= 5 * MIN_ROWS)
    return replace(data, privileged=keep)
