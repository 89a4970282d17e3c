from __future__ import annotations

import pytest
import torch

from distill.losses import soft_cross_entropy
from distill.tempered import mixed_cross_entropy, tempered_cross_entropy

Z = torch.tensor([-2.0, 0.3, 1.5], requires_grad=True)
TEACHER = torch.tensor([-1.0, 0.8, 3.0])
ONES = torch.ones(3)


def gradient(loss: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, Z)[0]


def test_at_temperature_one_it_is_the_plain_loss_bit_for_bit():
    plain = soft_cross_entropy(Z, torch.sigmoid(TEACHER), ONES)
    assert torch.equal(tempered_cross_entropy(Z, TEACHER, ONES, 1.0), plain)
    label = torch.tensor([0.0, 1.0, 1.0])
    target = 0.3 * label + 0.7 * torch.sigmoid(TEACHER)
    mixed = mixed_cross_entropy(Z, target, label, ONES, soft_share=0.7, temperature=1.0)
    assert torch.equal(mixed, soft_cross_entropy(Z, target, ONES))


@pytest.mark.parametrize("t", [0.5, 2.0, 4.0])
def test_gradient_is_t_times_the_difference_of_the_softened_probabilities(t: float):
    expected = t * (torch.sigmoid(Z / t) - torch.sigmoid(TEACHER / t)) / 3
    got = gradient(tempered_cross_entropy(Z, TEACHER, ONES, t))
    assert torch.allclose(got, expected.detach(), atol=1e-6)


def test_a_high_temperature_is_a_quarter_of_the_difference_of_the_log_odds():
    got = gradient(tempered_cross_entropy(Z, TEACHER, ONES, 100.0))
    assert torch.allclose(got, ((Z - TEACHER) / 4 / 3).detach(), atol=2e-4)


def test_every_temperature_is_least_where_student_and_teacher_agree():
    for t in (0.5, 1.0, 3.0):
        at = TEACHER.clone().requires_grad_()
        (slope,) = torch.autograd.grad(tempered_cross_entropy(at, TEACHER, ONES, t), at)
        assert slope.abs().max() < 1e-6


def test_the_soft_part_of_a_mixture_is_found_again_and_softened_alone():
    label = torch.tensor([0.0, 1.0, 1.0])
    target = 0.3 * label + 0.7 * torch.sigmoid(TEACHER)
    mixed = mixed_cross_entropy(Z, target, label, ONES, soft_share=0.7, temperature=2.0)
    hard = soft_cross_entropy(Z, label, ONES)
    expected = 0.3 * hard + 0.7 * tempered_cross_entropy(Z, TEACHER, ONES, 2.0)
    assert mixed.item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_soft_labels_a_temperature_changes_nothing():
    label = torch.tensor([0.0, 1.0, 1.0])
    mixed = mixed_cross_entropy(Z, label, label, ONES, soft_share=0.0, temperature=3.0)
    assert torch.equal(mixed, soft_cross_entropy(Z, label, ONES))
