"""Distillation losses at a temperature, for two classes.

With two classes there is one log-odds and no ranking of wrong classes to pass on, so a temperature
only rescales it: between temperature 1 (cross-entropy) and infinity (squared error of log-odds, up
to a factor) the minimum stays where student and teacher agree, and what changes is how much weight
confident answers get.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from distill.losses import soft_cross_entropy

SURE = 1e-4
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken."""


def tempered_cross_entropy(
    logit: Float[Tensor, "*shape"],
    teacher_logit: Float[Tensor, "*shape"],
    weight: Float[Tensor, "*shape"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of both log-odds divided by the temperature, times its square.

    The square keeps the gradient's size about the same at every temperature (Hinton et al. 2015,
    section 2). At 1 it is :func:`distill.losses.soft_cross_entropy`, bit for bit.
    """
    if temperature == 1.0:
        return soft_cross_entropy(logit, torch.sigmoid(teacher_logit), weight)
    soft = torch.sigmoid(teacher_logit / temperature)
    return temperature**2 * soft_cross_entropy(logit / temperature, soft, weight)


def mixed_cross_entropy(
    logit: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    label: Float[Tensor, "*shape"],
    weight: Float[Tensor, "*shape"],
    *,
    soft_share: float,
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy with a mixture of hard and soft labels, the soft part at a temperature.

    Args:
        logit: log-odds of the student.
        target: ``(1 - soft_share) * label + soft_share * soft``.
        label: hard labels.
        weight: weight of every entry.
        soft_share: share of the soft label in ``target``.
        temperature: of the soft part; at 1 the mixture is used as it is.
    """
    if temperature == 1.0 or soft_share == 0.0:
        return soft_cross_entropy(logit, target, weight)
    soft = ((target - (1 - soft_share) * label) / soft_share).clamp(SURE, 1 - SURE)
    hard = soft_cross_entropy(logit, label, weight)
    distilled = tempered_cross_entropy(logit, torch.logit(soft), weight, temperature)
    return (1 - soft_share) * hard + soft_share * distilled
