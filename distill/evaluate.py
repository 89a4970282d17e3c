"""Evaluate a bundle on an unseen cohort folder with the same modalities. Needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from distill.bundle import TRAINING_IDS, hash_case_id
from distill.calibrate import lacking
from distill.cohort import Cohort
from distill.coverage import conformal_sets
from distill.errors import FeatureError
from distill.figures import student_figures
from distill.masks import everything_masks, set_masks, single_masks
from distill.runtime import StudentRuntime
from distill.table import raw_table
from distill.transfers import BASE_MODALITY, EvidenceSets


def read_tables(runtime: StudentRuntime, cohort: Cohort) -> tuple[dict[str, Any], list[str]]:
    """Raw rows of the bundle's modalities, and notes on what was ignored or is absent.

    Columns may stand in any order; columns that the bundle does not know are ignored.

    Raises:
        FeatureError: naming the columns that a table lacks.
    """
    tables: dict[str, Any] = {}
    notes: list[str] = []
    for name in runtime.modalities:
        if name not in cohort.tables:
            notes.append(f"modality {name} is not in this cohort; nobody has it")
            continue
        frame, schema = cohort.tables[name], runtime.schema(name)
        try:
            raw = raw_table(frame, schema)
        except FeatureError as error:
            raise FeatureError(f"Cohort {cohort.name!r}, modality {name}: {error}") from error
        having = cohort.present(name)
        empty = raw.filled() == 0
        if empty.any() and name == BASE_MODALITY:
            notes.append(f"{name}: {int(empty.sum())} patients have no value in it; imputed")
        elif empty.any():
            having[np.flatnonzero(having)[empty]] = False
            raw = raw.take(np.flatnonzero(~empty))
            notes.append(f"{name}: {int(empty.sum())} patients have no value in it; it is missing")
        extra = [str(c) for c in frame.columns if str(c) not in set(schema.columns)]
        if extra:
            notes.append(f"{name}: {len(extra)} unknown columns ignored ({', '.join(extra[:5])})")
        tables[name] = (raw, having)
    unused = [m for m in cohort.tables if m not in runtime.modalities]
    if unused:
        notes.append(f"modalities not used: {', '.join(unused)}")
    return tables, notes


def evaluate_bundle(runtime: StudentRuntime, cohort: Cohort, *, seed: int = 0) -> dict[str, Any]:
    """The JSON of ``greenboard evaluate``: same keys as ``metrics.json``.

    Args:
        runtime: an opened bundle.
        cohort: patients with labels; the same classes, any hospitals.
        seed: for the bootstrap intervals.

    Raises:
        FeatureError: if a table lacks columns or the classes are others.
    """
    label = cohort.manifest.label
    if (label.negative, label.positive) != runtime.classes:
        raise FeatureError(
            f"Cohort {cohort.name!r} tells {label.positive!r} from {label.negative!r}, but the "
            f"bundle was trained for {runtime.classes[1]!r} against {runtime.classes[0]!r}."
        )
    tables, notes = read_tables(runtime, cohort)
    n, modalities = cohort.n_patients, runtime.modalities
    present = np.zeros((n, len(modalities)), dtype=bool)
    for j, name in enumerate(modalities):
        if name in tables:
            present[:, j] = tables[name][1]
    known = set(runtime.bundle.json(TRAINING_IDS)["sha256"])
    seen = sum(hash_case_id(case) in known for case in cohort.case_id)
    if seen:
        notes.append(
            f"{seen} of {n} case ids were in training: figures are too good if these are the "
            "same patients"
        )
    x = runtime.features(tables, n, runtime.gaps(cohort.temporal, n))
    return {
        "cohort": cohort.name,
        "synthetic": cohort.synthetic,
        "bundle": runtime.bundle_version,
        "n": n,
        "seen_in_training": seen,
        "notes": notes,
        **_figures(runtime, cohort, x, present, seed),
    }


def _figures(
    runtime: StudentRuntime,
    cohort: Cohort,
    x: Float32[np.ndarray, "patients inputs features"],
    present: Bool[np.ndarray, "patients modalities"],
    seed: int,
) -> dict[str, Any]:
    modalities = runtime.modalities
    sets = EvidenceSets.enumerate(runtime.transfers)
    masks = np.concatenate([
        set_masks(sets, modalities), single_masks(modalities, runtime.transfers)
    ])  # fmt: skip
    logit = runtime.score(x, masks[None]).logit
    logit[lacking(masks, present)] = np.nan
    everything = everything_masks(present, modalities, runtime.transfers)
    full = runtime.score(x, everything[:, None]).logit[:, 0]
    evidence, single = np.split(logit, [len(sets.bits)], axis=1)
    # One calibration for everybody: no fold of this cohort was in training.
    inside = conformal_sets(
        {0: runtime.calibration}, np.zeros(cohort.n_patients, dtype=np.int64), present, sets=sets,
        modalities=modalities, full=full, evidence=evidence, single=single,
    )  # fmt: skip
    return student_figures(
        cohort.label, sets=sets, modalities=modalities, full=full, evidence=evidence,
        single=single, seed=seed, group=cohort.named_group, inside=inside,
    )  # fmt: skip
