"""Losses of distillation, as pure functions of log-odds and targets."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def weighted_mean(
    value: Float[Tensor, "*shape"], weight: Float[Tensor, "*shape"]
) -> Float[Tensor, ""]:
    """Mean over the entries with weight; 0 where no entry has any."""
    return (value * weight).sum() / weight.sum().clamp(min=1e-6)


def soft_cross_entropy(
    logit: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    weight: Float[Tensor, "*shape"],
) -> Float[Tensor, ""]:
    """Binary cross-entropy against probabilities (hard labels included), over weighted entries.

    It is linear in the target, so a mixture of hard and soft labels is one call with the mixed
    target (Hinton et al. 2015, section 2, at temperature 1).
    """
    each = functional.binary_cross_entropy_with_logits(logit, target, reduction="none")
    return weighted_mean(each, weight)


def latent_regression(
    estimate: Float[Tensor, "batch slots latent"],
    latent: Float[Tensor, "batch slots latent"],
    weight: Float[Tensor, "batch slots"],
) -> Float[Tensor, ""]:
    """Mean squared error against a frozen, task-trained latent, over paired patients."""
    return weighted_mean(((estimate - latent) ** 2).mean(dim=-1), weight)
