from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.cohort import Cohort
from distill.config import TrainConfig
from distill.evidence import EvidenceTable
from distill.masks import set_masks
from distill.metrics import auc_value
from distill.train import Trained, Trainer, training_data, usable
from distill.transfers import EvidenceSets, all_transfers

MASKS = set_masks(
    EvidenceSets.enumerate(all_transfers(("clinical", "genomics", "pathology"))),
    ("clinical", "genomics", "pathology"),
)


def full_of_fold(cohort: Cohort, config: TrainConfig, fold: int) -> np.ndarray:
    trainer = Trainer(data=training_data(cohort), config=config)
    return trainer.score_fold(fold, MASKS).full


def test_student_beats_chance_and_privileged_teacher_is_scored(trained: Trained):
    assert trained.metrics["full"]["auc"]["value"] > 0.75
    assert trained.metrics["full"]["auc"]["n"] == 200
    assert set(trained.metrics["teachers"]) == {"clinical", "genomics", "pathology", "proteomics"}


def test_metrics_have_the_keys_that_other_tools_read(bundle_path: Path):
    metrics = json.loads((bundle_path / "metrics.json").read_text())
    cards = [
        metrics["full"],
        metrics["evidence"]["skip"],
        metrics["evidence"]["genomics->pathology+clinical->genomics"],
        metrics["single"]["genomics"],
        metrics["baselines"]["late_fusion"],
        metrics["teachers"]["proteomics"],
    ]
    for card in cards:
        for name in ("auc", "brier", "ece"):
            assert set(card[name]) == {"value", "ci95", "n"}
    assert len(metrics["evidence"]) == 64
    assert metrics["best_baseline"] in metrics["baselines"]
    assert metrics["training"]["energy_kwh"]["value"] is None
    assert metrics["training"]["energy_kwh"]["reason"]


def test_evidence_table_is_finite_where_reachable_and_agrees_with_metrics(
    bundle_path: Path, tiny_cohort: Cohort
):
    table = EvidenceTable.load(bundle_path / "evidence.npz")
    metrics = json.loads((bundle_path / "metrics.json").read_text())
    assert table.n_patients == 200
    assert np.isfinite(table.logit[:, 0]).all()  # clinical alone is always scored
    assert np.array_equal(np.isfinite(table.disagreement), table.reachable)
    assert (table.disagreement[:, 0] == 0).all()
    assert np.array_equal(table.present[:, 1], tiny_cohort.present("genomics"))
    for k in (0, 5, 63):
        seen = table.reachable[:, k]
        got = auc_value(table.label[seen].astype(int), table.logit[seen, k].astype(float))
        expected = metrics["evidence"][table.sets.name(k)]["auc"]
        assert got == pytest.approx(expected["value"], abs=2e-3)
        assert seen.sum() == expected["n"]
    assert table.pipeline_kwh.tolist() == [0.0, 0.6, 0.06]


def test_labels_of_the_scored_fold_leave_its_predictions_bit_for_bit_the_same(
    tiny_cohort: Cohort, tiny_config: TrainConfig
):
    inside = tiny_cohort.fold == 1
    flipped = tiny_cohort.label.copy()
    flipped[inside] = np.random.default_rng(0).permutation(flipped[inside])
    assert (flipped != tiny_cohort.label).any()
    before = full_of_fold(tiny_cohort, tiny_config, 1)
    assert np.array_equal(before, full_of_fold(replace(tiny_cohort, label=flipped), tiny_config, 1))


def test_other_patients_of_the_scored_fold_change_nothing_either(
    tiny_cohort: Cohort, tiny_config: TrainConfig
):
    case = tiny_cohort.case_id[1]  # fold 1, as are 6, 11, ...
    table = tiny_cohort.tables["pathology"].copy()
    others = [c for c in table.index if c != case and int(c[2:]) % 5 == 1]
    table.loc[others] = 1e3
    changed = replace(tiny_cohort, tables={**tiny_cohort.tables, "pathology": table})
    data = training_data(tiny_cohort)
    first = Trainer(data=data, config=tiny_config)
    second = Trainer(data=training_data(changed), config=tiny_config)
    excluded = frozenset({1})
    assert first.student(excluded).preprocessors == second.student(excluded).preprocessors
    rows = np.flatnonzero(data.fold == 1)
    at = rows.tolist().index(1)
    before, after = first.score_fold(1, MASKS), second.score_fold(1, MASKS)
    assert np.allclose(before.logit[at], after.logit[at], atol=1e-5)
    assert not np.allclose(before.full, after.full)


def test_same_seed_same_student_other_seed_another(tiny_cohort: Cohort, tiny_config: TrainConfig):
    before = full_of_fold(tiny_cohort, tiny_config, 2)
    assert np.array_equal(before, full_of_fold(tiny_cohort, tiny_config, 2))
    assert not np.array_equal(before, full_of_fold(tiny_cohort, replace(tiny_config, seed=1), 2))


def confounded(make_cohort: Callable[..., Cohort]) -> Cohort:
    """Every hospital has one class only, the features are noise, and columns name the hospital."""
    cohort = make_cohort(seed=5)
    rng = np.random.default_rng(0)
    # Two hospitals of each class in every fold; a hospital's number says nothing of its class.
    kind = np.concatenate([rng.permutation([0, 0, 1, 1]) for _ in range(5)])
    site = np.array([int(g[1:]) for g in cohort.group])
    tables = {}
    for name, frame in cohort.tables.items():
        order = rng.permutation(len(frame))
        tables[name] = frame.iloc[order].set_axis(frame.index)
    clinical = tables["clinical"].copy()
    clinical["hospital"] = list(cohort.group)
    clinical["from_id"] = [float(c.split("-")[1]) % 20 for c in cohort.case_id]
    label = kind[site % 5 * 4 + site // 5].astype(np.int8)
    return replace(cohort, label=label, tables={**tables, "clinical": clinical})


def test_planted_hospital_and_id_columns_gain_nothing_across_hospitals(
    make_cohort: Callable[..., Cohort], tiny_config: TrainConfig
):
    planted = confounded(make_cohort)
    logit = np.full(200, np.nan)
    trainer = Trainer(data=training_data(planted), config=tiny_config)
    for f in range(5):
        logit[planted.fold == f] = trainer.score_fold(f, MASKS).logit[:, 0]
    # The control shows that the plant works: with hospitals split it gives the label away.
    mixed = replace(planted, fold=(np.arange(200) // 20 % 5).astype(np.int16))
    inside = mixed.fold == 0
    leaky = Trainer(data=training_data(mixed), config=tiny_config).score_fold(0, MASKS).logit[:, 0]
    assert auc_value(planted.label.astype(int), logit) < 0.65
    assert auc_value(mixed.label[inside].astype(int), leaky) > 0.75


def test_case_ids_and_hospitals_are_never_features(trained: Trained):
    names = {n for p in trained.student.preprocessors for n in p.feature_names}
    words = {*trained.cohort.case_id, *trained.cohort.group, "case_id", "site", "fold", "kind"}
    assert not any(word in name for name in names for word in words)


def test_a_privileged_modality_of_few_patients_is_left_out(tiny_cohort: Cohort):
    few = tiny_cohort.tables["proteomics"].iloc[:30]
    data = training_data(replace(tiny_cohort, tables={**tiny_cohort.tables, "proteomics": few}))
    assert data.privileged == ("proteomics",)
    assert usable(data).privileged == ()


def test_progress_counts_every_step_and_ends_at_its_total(
    trained: Trained, progress_steps: list[tuple[int, int, str]]
):
    assert [step[0] for step in progress_steps] == list(range(1, len(progress_steps) + 1))
    assert progress_steps[-1][0] == progress_steps[-1][1]
