"""Cutting the student's latent: the cut is exact, the refit repeats, nobody scored has a say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.batches import Batches
from distill.cohort import Cohort
from distill.config import TrainConfig
from distill.crossfit import TeacherLattice
from distill.fit import FittedStudent, fit_student, make_batches
from distill.selection.classical import GreedySolver
from distill.selection.latent import (
    choose_units,
    encoder_units,
    magnitudes,
    narrow,
    refit,
    unit_problems,
)
from distill.selection.problem import SelectionError
from distill.student import Student, StudentShape
from distill.train import training_data
from distill.transfers import all_transfers

MODALITIES = ("clinical", "genomics", "pathology")
HELD_OUT = frozenset({4})


def student(width: int = 10) -> Student:
    torch.manual_seed(0)
    model = Student(
        StudentShape(
            modalities=MODALITIES, transfers=all_transfers(MODALITIES), features=6, width=width,
            latent=4, token=8, heads=2,
        )
    )  # fmt: skip
    for parameter in model.parameters():  # biases and the interaction start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def inputs(rows: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, len(MODALITIES), 6, generator=generator)
    mask = (torch.rand(rows, 5, 9, generator=generator) < 0.6).float()
    return x, mask


def test_keeping_all_units_in_any_order_changes_nothing() -> None:
    model = student()
    kept = np.stack([np.random.default_rng(m).permutation(10) for m in range(3)])
    for before, after in zip(model(*inputs()), narrow(model, kept)(*inputs())):
        torch.testing.assert_close(before, after)


def test_cutting_units_is_the_same_as_silencing_them() -> None:
    """The cut student against the whole one with every weight of the cut units at zero."""
    model, kept = student(), np.array([[0, 3, 5, 9], [9, 2, 1, 4], [6, 7, 8, 0]])
    silenced = student()
    with torch.no_grad():
        for m in range(3):
            cut = [u for u in range(10) if u not in kept[m]]
            for layer in (silenced.encoder.first, silenced.encoder.inner):
                layer.weight[m][:, cut] = 0
                layer.bias[m][:, cut] = 0
    x, mask = inputs()
    for before, after in zip(silenced(x, mask), narrow(model, kept)(x, mask)):
        torch.testing.assert_close(before, after)


def test_the_cut_student_is_smaller_and_leaves_the_other_as_it_was() -> None:
    model = student()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cut = narrow(model, np.tile(np.arange(6), (3, 1)))
    assert cut.shape.width == 6
    assert cut.encoder.inner.weight.shape == (3, 6, 6)
    with torch.no_grad():
        for parameter in cut.parameters():
            parameter.zero_()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ([[0, 0]] * 3, "some twice or below 0"),
        ([[0, 1]] * 2, "different units for each of 3 modalities"),
        ([[-1, 1]] * 3, "some twice or below 0"),
        ([[0, 10]] * 3, "Unit 10 came; the encoder has units 0 to 9"),
    ],
)
def test_units_that_are_not_there_are_refused(kept: list[list[int]], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        narrow(student(), np.array(kept))


def test_magnitude_is_the_norm_of_the_weights_that_leave_a_unit() -> None:
    model = student()
    with torch.no_grad():
        model.branch_token.weight[:, 4] = 0
        model.encoder.head.weight[1, 4] = 0
        model.encoder.inner.weight[1, 4] = 0
        for t, source in enumerate(model.shape.sources):
            if source == 1:
                model.bridges.first.weight[t, 4] = 0
    found = magnitudes(model)
    assert found.shape == (3, 10)
    assert found[1, 4] == 0.0
    assert (np.delete(found[1], 4) > 0).all()
    assert found[0, 4] > 0


@pytest.fixture(scope="module")
def fitted(
    tiny_cohort: Cohort, tiny_config: TrainConfig
) -> tuple[FittedStudent, Batches, TrainConfig]:
    return fit(tiny_cohort, replace(tiny_config, epochs=4))


def fit(cohort: Cohort, config: TrainConfig) -> tuple[FittedStudent, Batches, TrainConfig]:
    lattice = TeacherLattice(data=training_data(cohort), config=config)
    model = fit_student(lattice, HELD_OUT)
    batches = make_batches(lattice, HELD_OUT, model.preprocessors, model.shape.features)
    return model, batches, config


def chosen_units(model: FittedStudent, batches: Batches) -> np.ndarray:
    units = encoder_units(model.model, batches.x)
    label = batches.label.numpy().astype(np.int64)
    problems = unit_problems(units, batches.present, label, 7)
    return choose_units(problems, GreedySolver(), np.random.default_rng(0))


def test_a_refit_repeats_bit_for_bit_and_learns(
    fitted: tuple[FittedStudent, Batches, TrainConfig],
) -> None:
    model, batches, config = fitted
    cut = narrow(model.model, chosen_units(model, batches))
    first, again = (refit(cut, batches, config, epochs=2, seed=3) for _ in range(2))
    other = refit(cut, batches, config, epochs=2, seed=4)
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters())]
    assert all(same)
    assert not torch.equal(first.encoder.first.weight, other.encoder.first.weight)
    assert not torch.equal(first.encoder.first.weight, cut.encoder.first.weight)
    assert not any(p.requires_grad for p in first.parameters())


def test_the_scored_hospitals_change_nothing(
    tiny_cohort: Cohort,
    fitted: tuple[FittedStudent, Batches, TrainConfig],
) -> None:
    """Planted leak: other labels and other values in the held-out fold give the same units."""
    model, batches, config = fitted
    before = chosen_units(model, batches)
    assert tiny_cohort.fold is not None
    out = tiny_cohort.fold == 4
    flipped = np.where(out, 1 - tiny_cohort.label, tiny_cohort.label).astype(np.int8)
    cases = set(np.array(tiny_cohort.case_id, dtype=object)[out])
    tables = dict(tiny_cohort.tables)
    planted = tables["pathology"].copy()
    planted.loc[[c in cases for c in planted.index], planted.columns[0]] = 99.0
    tables["pathology"] = planted
    leaky = replace(tiny_cohort, label=flipped, tables=tables)
    again = chosen_units(*fit(leaky, config)[:2])
    np.testing.assert_array_equal(before, again)
    # The control: the same change among the training patients is seen.
    other = chosen_units(model, replace(batches, label=batches.label.flip(0)))
    assert not np.array_equal(before, other)


def test_units_of_one_class_are_refused() -> None:
    units = np.random.default_rng(0).standard_normal((30, 1, 4))
    with pytest.raises(SelectionError, match="are of one class"):
        unit_problems(units, np.ones((30, 1), dtype=bool), np.ones(30, dtype=np.int64), 2)
