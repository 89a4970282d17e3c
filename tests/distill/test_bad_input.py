"""Cohorts that training cannot, or can only just, learn from: one clear error, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.arrays import training_data, usable
from distill.cohort import Cohort
from distill.config import TrainConfig
from distill.crossfit import TeacherLattice
from distill.errors import TrainingError
from distill.fit import fit_student
from distill.train import fit

ZERO = frozenset({0})


def lattice_of(cohort: Cohort, config: TrainConfig) -> TeacherLattice:
    return TeacherLattice(data=usable(training_data(cohort)), config=config)


def test_folds_of_one_class_are_one_clear_error(tiny_cohort: Cohort, tiny_config: TrainConfig):
    label = np.where(tiny_cohort.fold == 2, tiny_cohort.label, 0).astype(np.int8)
    with pytest.raises(TrainingError, match="Every fold needs both classes"):
        fit(replace(tiny_cohort, label=label), tiny_config)


def test_an_inference_modality_with_a_single_patient_is_one_clear_error(
    tiny_cohort: Cohort, tiny_config: TrainConfig, tmp_path: Path
):
    tables = {**tiny_cohort.tables, "genomics": tiny_cohort.tables["genomics"].iloc[:1]}
    with pytest.raises(TrainingError, match=r"'genomics'.*ignored"):
        fit(replace(tiny_cohort, tables=tables), tiny_config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kept", [0, 1])
def test_without_a_privileged_modality_or_with_one_patient_of_it_the_rest_is_trained(
    tiny_cohort: Cohort, tiny_config: TrainConfig, kept: int
):
    few = tiny_cohort.tables["proteomics"].iloc[:kept]
    cohort = replace(tiny_cohort, tables={**tiny_cohort.tables, "proteomics": few})
    lattice = lattice_of(cohort, replace(tiny_config, epochs=2))
    assert lattice.data.privileged == ()
    student = fit_student(lattice, ZERO)
    assert all(bool(p.isfinite().all()) for p in student.model.parameters())


def test_missing_cells_and_empty_columns_reach_no_weight(
    make_cohort: Callable[..., Cohort], tiny_config: TrainConfig
):
    cohort = make_cohort(seed=4)
    pathology = cohort.tables["pathology"].copy()
    pathology["area 3"] = np.nan
    pathology.iloc[::3, 1] = np.nan
    tables = {"clinical": cohort.tables["clinical"], "pathology": pathology}
    student = fit_student(
        lattice_of(replace(cohort, tables=tables), replace(tiny_config, epochs=2)), ZERO
    )
    assert all(bool(p.isfinite().all()) for p in student.model.parameters())
