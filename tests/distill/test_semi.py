from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from api.cli.main import app
from distill.cohort import Cohort
from distill.cohort_write import write_cohort
from distill.config import TrainConfig
from distill.crossfit import TeacherLattice, TrainingData
from distill.errors import TrainingError
from distill.fit import fit_student, make_batches, soft_labels
from distill.semi import check_labels, draw_labels, keep_labels
from distill.train import Trained, Trainer, training_data
from distill.write import write_bundle

NOTHING = frozenset[int]()
TRIPLES = [frozenset({a, b, c}) for a in range(5) for b in range(a) for c in range(b)]


@pytest.fixture(scope="module")
def data(make_cohort: Callable[..., Cohort]) -> TrainingData:
    return training_data(make_cohort())


@pytest.fixture(scope="module")
def few(data: TrainingData) -> TrainingData:
    return keep_labels(data, 110, seed=3)


def without_unkept_labels(data: TrainingData) -> TrainingData:
    """The same patients with every label that is not kept turned round."""
    return replace(data, label=np.where(data.labelled, data.label, 1 - data.label).astype(np.int8))


def test_labels_are_drawn_by_class_and_fold_and_again_with_the_seed(data: TrainingData):
    kept = draw_labels(data, 60, seed=1)
    assert kept.sum() == 60
    assert abs(data.label[kept].mean() - data.label.mean()) < 0.02
    assert all(10 <= (kept & (data.fold == f)).sum() <= 14 for f in data.folds)
    assert np.array_equal(kept, draw_labels(data, 60, seed=1))
    assert not np.array_equal(kept, draw_labels(data, 60, seed=2))


def test_all_labels_are_kept_by_default(data: TrainingData):
    assert data.labelled.all()
    assert keep_labels(data, None, seed=0) is data
    assert keep_labels(data, 200, seed=0).labelled.all()


@pytest.mark.parametrize("count", [0, 201])
def test_a_number_of_labels_that_is_not_there_is_refused(data: TrainingData, count: int):
    with pytest.raises(TrainingError, match=f"{count} labels were asked for; the cohort has 200"):
        draw_labels(data, count, seed=0)


def test_labels_below_what_can_be_fitted_are_refused_and_what_would_do_is_said(data: TrainingData):
    with pytest.raises(TrainingError, match=r"40 labels are too few for modality") as refused:
        check_labels(keep_labels(data, 40, seed=0), TRIPLES)
    (said,) = re.findall(r"Keep about (\d+) labels", str(refused.value))
    check_labels(keep_labels(data, int(said), seed=0), TRIPLES)


def test_a_privileged_teacher_without_unlabelled_pairs_is_refused(data: TrainingData):
    table = data.tables["proteomics"]
    having = np.zeros(200, dtype=bool)
    having[table.row] = True
    with pytest.raises(TrainingError, match="'proteomics' has no unlabelled patient"):
        check_labels(replace(data, label_kept=having), TRIPLES)


def test_a_fold_of_one_class_is_refused(data: TrainingData):
    label = np.where(data.fold == 2, 1, data.label).astype(np.int8)
    with pytest.raises(TrainingError, match=r"Fold 2 has 40 patients, all of class 1"):
        check_labels(replace(data, label=label), TRIPLES)


def test_whoever_a_teacher_was_fitted_on_is_held_out_and_others_get_its_plain_word(
    few: TrainingData, tiny_config: TrainConfig
):
    lattice = TeacherLattice(data=few, config=tiny_config)
    excluded = frozenset({0})
    for modality, taught in (("proteomics", few.labelled), ("genomics", np.ones(200, dtype=bool))):
        teacher, logit = lattice.teacher(modality, excluded)
        table = few.tables[modality]
        plain = np.full(200, np.nan)
        plain[table.row] = teacher.logit(table.raw)
        seen = np.isfinite(logit)
        assert np.array_equal(logit[seen & ~taught], plain[seen & ~taught])
        held_out = ~np.isclose(logit[seen & taught], plain[seen & taught])
        assert held_out.mean() > 0.95
    together, _ = soft_labels(lattice, excluded)
    assert np.isfinite(together[few.fold != 0]).all()


def test_privileged_modalities_label_the_rest_for_the_teachers_of_the_others(
    few: TrainingData, tiny_config: TrainConfig
):
    target = TeacherLattice(data=few, config=tiny_config).target(frozenset({0}))
    having = np.isin(np.arange(200), few.tables["proteomics"].row)
    seen = few.fold != 0
    assert np.array_equal(np.isfinite(target), seen & (few.labelled | having))
    silent = np.isfinite(target) & ~few.labelled
    assert ((target[silent] > 0.5) == few.label[silent]).mean() > 0.65
    alone = TeacherLattice(data=replace(few, privileged=()), config=tiny_config)
    assert np.array_equal(np.isfinite(alone.target(frozenset({0}))), seen & few.labelled)


def test_the_task_loss_sees_labelled_rows_only(few: TrainingData, tiny_config: TrainConfig):
    lattice = TeacherLattice(data=few, config=tiny_config)
    student = fit_student(lattice, frozenset({0, 1}))
    batches = make_batches(
        lattice, frozenset({0, 1}), student.preprocessors, student.shape.features
    )
    rows = np.flatnonzero(few.rows(frozenset({0, 1})))
    labelled = few.labelled[rows]
    assert np.array_equal(batches.labelled.numpy() > 0, labelled)
    assert np.array_equal(batches.label.numpy()[labelled], few.label[rows[labelled]])
    soft = batches.label.numpy()[~labelled]
    assert ((soft > 0) & (soft < 1)).all()
    assert np.allclose(batches.target.numpy()[~labelled], soft, atol=1e-6)


def test_turning_unkept_labels_round_changes_no_bit(few: TrainingData, tiny_config: TrainConfig):
    excluded = frozenset({4})
    trainers = [Trainer(data=d, config=tiny_config) for d in (few, without_unkept_labels(few))]
    weights = [t.student(excluded).model.state_dict() for t in trainers]
    for name, value in weights[0].items():
        assert np.array_equal(value.numpy(), weights[1][name].numpy()), name
    first, second = (t.calibration(excluded) for t in trainers)
    assert first == second


def test_a_kept_label_does_change_the_student(few: TrainingData, tiny_config: TrainConfig):
    """The control: the same turn of labels that are kept is seen."""
    excluded = frozenset({3, 4})
    label = np.where(few.labelled & (few.fold == 0), 1 - few.label, few.label).astype(np.int8)
    one, other = (
        fit_student(TeacherLattice(data=d, config=tiny_config), excluded).model.state_dict()
        for d in (few, replace(few, label=label))
    )
    assert any(not np.array_equal(v.numpy(), other[k].numpy()) for k, v in one.items())


def test_command_refuses_in_one_line_and_leaves_nothing(tiny_cohort: Cohort, tmp_path):
    folder, out = tmp_path / "cohort", tmp_path / "bundle"
    write_cohort(tiny_cohort, folder)
    for count, said in (("201", "the cohort has 200"), ("12", "too few for modality")):
        call = ["train", "--cohort", str(folder), "--out", str(out), "--labels", count]
        result = CliRunner().invoke(app, call)
        assert result.exit_code != 0
        assert said in str(result.exception or result.output)
    assert not out.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cohort"]


def test_bundle_and_card_say_how_many_labels_were_used(
    trained: Trained, bundle_path: Path, tmp_path: Path
):
    few = replace(trained, data=keep_labels(trained.data, 110, seed=0))
    kwh = {"clinical": 0.0, "genomics": 0.6, "pathology": 0.06}
    out = write_bundle(
        few, tmp_path / "few", pipeline_kwh=kwh, transfer_kwh=1e-7,
        created=datetime(2024, 5, 1, tzinfo=UTC),
    )  # fmt: skip
    for folder, used in ((out, 110), (bundle_path, 200)):
        for name in ("manifest.json", "metrics.json"):
            assert json.loads((folder / name).read_text())["n_labels"] == used
    assert (
        "with 110 labels: the other 90 were labelled by teachers" in (out / "card.md").read_text()
    )
    assert "all of them labelled" in (bundle_path / "card.md").read_text()
