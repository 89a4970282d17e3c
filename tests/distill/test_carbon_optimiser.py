from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from distill.carbon_optimiser import CarbonAwareOptimizer, intensity_scale
from distill.errors import TrainingError


def weight(value: float = 2.0, gradient: float = 0.5) -> nn.Parameter:
    parameter = nn.Parameter(torch.tensor([value], dtype=torch.float64))
    parameter.grad = torch.tensor([gradient], dtype=torch.float64)
    return parameter


def test_sgd_steps_by_rate_times_factor_times_gradient():
    w = weight()
    CarbonAwareOptimizer(torch.optim.SGD([w], lr=0.1), lambda: 0.5).step()
    assert w.item() == pytest.approx(2.0 - 0.1 * 0.5 * 0.5, abs=1e-15)


def test_momentum_is_not_scaled_only_the_step_is():
    w, factors = weight(), iter([0.5, 2.0])
    optimiser = CarbonAwareOptimizer(
        torch.optim.SGD([w], lr=0.1, momentum=0.9), lambda: next(factors)
    )
    optimiser.step()
    optimiser.step()
    first, second = 0.5, 0.9 * 0.5 + 0.5
    assert w.item() == pytest.approx(2.0 - 0.1 * 0.5 * first - 0.1 * 2.0 * second, abs=1e-15)


def test_adamw_scales_the_step_and_the_decay_that_is_coupled_to_it():
    w, lr, decay, eps, factor = weight(), 0.1, 0.05, 1e-8, 0.5
    base = torch.optim.AdamW([w], lr=lr, weight_decay=decay, eps=eps)
    CarbonAwareOptimizer(base, lambda: factor).step()
    rate = lr * factor
    # The bias-corrected moments of a first step are the gradient and its square.
    assert w.item() == pytest.approx(2.0 * (1 - rate * decay) - rate * 0.5 / (0.5 + eps), abs=1e-12)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop,
                                  torch.optim.Adagrad, torch.optim.NAdam])  # fmt: skip
def test_a_factor_of_one_changes_nothing_bit_for_bit(kind):
    plain, wrapped = weight(), weight()
    one, other = kind([plain], lr=0.05), CarbonAwareOptimizer(kind([wrapped], lr=0.05), lambda: 1.0)
    for _ in range(5):
        one.step()
        other.step()
    assert torch.equal(plain, wrapped)


def test_a_factor_of_zero_leaves_the_weights_alone():
    w = weight()
    CarbonAwareOptimizer(torch.optim.AdamW([w], lr=0.1), lambda: 0.0).step()
    assert w.item() == 2.0


def test_schedulers_see_unscaled_rates_and_run_without_a_warning():
    w = weight()
    optimiser = CarbonAwareOptimizer(torch.optim.AdamW([w], lr=0.1), lambda: 0.25)
    plain = torch.optim.AdamW([weight()], lr=0.1)
    ours, theirs = (
        torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=10)
        for o in (optimiser, plain)
    )
    for _ in range(9):
        optimiser.step()
        plain.step()
        ours.step()
        theirs.step()
        assert optimiser.param_groups[0]["lr"] == plain.param_groups[0]["lr"]
        assert optimiser.param_groups[0]["betas"] == plain.param_groups[0]["betas"]


def test_plateau_scheduler_closure_hooks_groups_and_gradients_are_those_of_the_base():
    w, called = weight(), []
    base = torch.optim.SGD([w], lr=0.1)
    optimiser = CarbonAwareOptimizer(base, lambda: 1.0)
    assert optimiser.param_groups is base.param_groups
    assert optimiser.state is base.state
    optimiser.register_step_post_hook(lambda *_: called.append("hook"))
    assert optimiser.step(lambda: 3.0) == 3.0
    assert called == ["hook"]
    torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, patience=0).step(1.0)
    optimiser.add_param_group({"params": [weight()]})
    assert len(base.param_groups) == 2
    optimiser.zero_grad()
    assert w.grad is None
    assert "SGD" in repr(optimiser)


def test_state_goes_to_and_from_the_base_with_or_without_the_wrapper():
    one, other = weight(), weight()
    first = CarbonAwareOptimizer(torch.optim.AdamW([one], lr=0.1), lambda: 0.5)
    first.step()
    second = torch.optim.AdamW([other], lr=0.9)
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["lr"] == 0.1
    third = CarbonAwareOptimizer(torch.optim.AdamW([weight()], lr=0.9), lambda: 1.0)
    third.load_state_dict(second.state_dict())
    assert third.state_dict()["state"][0]["exp_avg"].item() == pytest.approx(0.05)


@pytest.mark.parametrize("factor", [math.nan, math.inf, -0.1])
def test_a_factor_that_is_no_number_is_refused_and_nothing_changes(factor: float):
    w = weight()
    optimiser = CarbonAwareOptimizer(torch.optim.SGD([w], lr=0.1), lambda: factor)
    with pytest.raises(TrainingError, match="factor on the learning rate"):
        optimiser.step()
    assert w.item() == 2.0
    assert optimiser.param_groups[0]["lr"] == 0.1


def test_rates_are_put_back_when_a_step_fails():
    optimiser = CarbonAwareOptimizer(torch.optim.SGD([weight()], lr=0.1), lambda: 0.5)

    def fails() -> float:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        optimiser.step(fails)
    assert optimiser.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(("intensity", "strength", "expected"), [
    (200.0, 1.0, 1.0), (400.0, 1.0, 0.5), (100.0, 1.0, 2.0), (400.0, 0.5, 0.5**0.5),
    (400.0, 0.0, 1.0), (1e6, 1.0, 0.25), (1e-6, 1.0, 4.0), (0.0, 1.0, 4.0), (0.0, 0.0, 1.0),
])  # fmt: skip
def test_scale_by_intensity(intensity: float, strength: float, expected: float):
    assert intensity_scale(intensity, 200.0, strength) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [(math.nan, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, -1.0),
                                 (-1.0, 1.0, 1.0), (1.0, math.inf, 1.0)])  # fmt: skip
def test_scale_refuses_what_is_no_intensity(bad: tuple[float, float, float]):
    with pytest.raises(TrainingError, match="Learning rate by intensity"):
        intensity_scale(*bad)
