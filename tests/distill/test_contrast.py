from __future__ import annotations

import math

import pytest
import torch

from distill.contrast import info_nce, relational_distance

ALL = torch.ones(4)


def test_patients_that_all_look_alike_cost_log_n():
    same = torch.ones(4, 3)
    assert info_nce(same, torch.ones(4, 3), ALL, 0.1).item() == pytest.approx(math.log(4), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_orthogonal_patients_have_a_closed_form(temperature: float):
    # Cosine 1 with oneself, 0 with the three others: log(1 + 3 exp(-1/T)).
    expected = math.log(1 + 3 * math.exp(-1 / temperature))
    eye = torch.eye(4)
    got = info_nce(5 * eye, 0.1 * eye, ALL, temperature).item()
    assert got == pytest.approx(expected, rel=1e-3)
    # Paired with the wrong patient the own cosine is 0 and one other's is 1.
    wrong = info_nce(eye, eye.roll(1, 0), ALL, temperature).item()
    assert wrong == pytest.approx(math.log(3 + math.exp(1 / temperature)), rel=1e-5)


def test_unpaired_patients_are_no_negatives():
    paired = torch.tensor([1.0, 1.0, 0.0, 0.0])
    got = info_nce(torch.eye(4), torch.eye(4), paired, 1.0).item()
    assert got == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)


def test_relational_distance_by_hand():
    # Distances 1, 1, 2 (mean 4/3) against 1, 1, 1 (mean 1): scaled differences -1/4, -1/4, 1/2.
    line = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    expected = 0.5 * (1 / 16 + 1 / 16 + 1 / 4) / 3
    assert relational_distance(line, triangle, torch.ones(3)).item() == pytest.approx(
        expected, rel=1e-4
    )


def test_relational_distance_ignores_scale_place_and_turn():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    moved = 7.0 * (x @ turn) + 2.0
    assert relational_distance(x, moved, torch.ones(6)).item() == pytest.approx(0.0, abs=1e-8)
    other = torch.randn(6, 5, generator=generator)
    assert relational_distance(x, other, torch.ones(6)).item() > 1e-3


@pytest.mark.parametrize("pairs", [0, 1])
def test_a_modality_with_a_single_patient_costs_nothing_and_has_a_gradient(pairs: int):
    paired = (torch.arange(4) < pairs).float()
    student = torch.randn(4, 3, requires_grad=True)
    total = info_nce(student, torch.eye(4)[:, :3], paired, 0.1)
    total = total + relational_distance(student, torch.eye(4), paired)
    total.backward()
    assert total.item() == 0.0
    assert student.grad is not None
    assert torch.equal(student.grad, torch.zeros(4, 3))


def test_gradients_are_finite_where_patients_coincide():
    student = torch.zeros(4, 3, requires_grad=True)
    total = relational_distance(student, torch.eye(4), ALL) + info_nce(
        student, torch.eye(4)[:, :3], ALL, 0.1
    )
    total.backward()
    assert student.grad is not None
    assert bool(torch.isfinite(student.grad).all())
