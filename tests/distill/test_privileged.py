from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from distill.cohort import Cohort
from distill.config import TrainConfig
from distill.crossfit import TeacherLattice
from distill.privileged import held_out_probability, softened
from distill.table import RawTable, TableSchema
from distill.train import training_data


def table(values: np.ndarray) -> RawTable:
    names = tuple(f"P{j}" for j in range(values.shape[1]))
    return RawTable(
        schema=TableSchema(numbers=names, texts=()), numbers=values,
        texts=np.empty((len(values), 0), dtype=object),
    )  # fmt: skip


def test_half_the_label_and_half_the_mean_voice():
    nan = np.nan
    voices = np.array([[0.2, 0.6], [0.9, nan], [nan, nan]])
    assert softened(np.array([0.0, 1.0, 1.0]), voices) == pytest.approx([0.2, 0.95, 1.0])


def test_every_fold_is_predicted_by_the_others():
    rng = np.random.default_rng(0)
    label = np.tile([0, 1], 60)
    fold = np.repeat(np.arange(4), 30)
    values = rng.standard_normal((120, 5)) + label[:, None]
    first = held_out_probability(table(values), label, fold)
    assert np.corrcoef(first, label)[0, 1] > 0.5
    turned = label.copy()
    turned[fold == 2] = 1 - turned[fold == 2]
    second = held_out_probability(table(values), turned, fold)
    assert np.array_equal(first[fold == 2], second[fold == 2])
    assert not np.array_equal(first[fold != 2], second[fold != 2])


def test_folds_that_leave_one_class_or_nobody_stay_silent():
    values = np.random.default_rng(0).standard_normal((40, 3))
    label = np.repeat([0, 1], 20)
    assert np.isnan(held_out_probability(table(values), label, label)).all()
    assert held_out_probability(table(values[:0]), label[:0], label[:0]).size == 0
    assert np.isnan(held_out_probability(table(values[:1]), label[:1], label[:1])).all()


def test_targets_see_neither_excluded_folds_nor_labels_that_are_not_kept(
    tiny_cohort: Cohort, tiny_config: TrainConfig
):
    data = training_data(tiny_cohort)
    kept = np.random.default_rng(1).random(data.label.size) < 0.7
    turned = np.where(kept & (data.fold != 0), data.label, 1 - data.label).astype(np.int8)
    targets = [
        TeacherLattice(data=replace(data, label=label, label_kept=kept), config=tiny_config).target(
            frozenset({0})
        )
        for label in (data.label, turned)
    ]
    assert np.array_equal(targets[0], targets[1], equal_nan=True)
    heard = np.isin(np.arange(data.label.size), data.tables["proteomics"].row)
    assert np.array_equal(np.isfinite(targets[0]), (kept | heard) & (data.fold != 0))
    soft = targets[0][np.isfinite(targets[0])]
    assert ((soft > 0) & (soft < 1)).any()


def test_without_privileged_modalities_targets_are_the_labels(
    tiny_cohort: Cohort, tiny_config: TrainConfig
):
    data = replace(training_data(tiny_cohort), privileged=())
    target = TeacherLattice(data=data, config=tiny_config).target(frozenset({1}))
    assert np.array_equal(target[data.fold != 1], data.label[data.fold != 1])
