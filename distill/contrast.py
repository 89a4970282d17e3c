"""Alignment and relational losses: whether the student places patients as the teachers do.

Both compare patients with patients, so they need no common coordinates: InfoNCE asks that a
bridge's estimate be nearest to the target's latent of the *same* patient, the relational loss that
patients whom a teacher finds alike be alike to the student. Neither looks at labels or hospitals.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from distill.losses import weighted_mean

TINY = 1e-8


def info_nce(
    estimate: Float[Tensor, "batch size"],
    latent: Float[Tensor, "batch size"],
    paired: Float[Tensor, " batch"],
    temperature: float,
) -> Float[Tensor, ""]:
    """InfoNCE over the paired patients of one batch, cosine similarity, both directions.

    Every other paired patient of the batch is a negative (van den Oord et al. 2018, equation 4;
    symmetric as in Radford et al. 2021, figure 3). With n patients that all look alike it is
    log(n); 0 where fewer than two are paired.

    Args:
        estimate: what the student makes of the target from the source.
        latent: the target's frozen latent.
        paired: 1 where the patient has both, else 0.
        temperature: divides the cosines.
    """
    have = torch.nonzero(paired).squeeze(1)
    if have.numel() < 2:
        return estimate.sum() * 0.0
    first = functional.normalize(estimate[have], dim=-1, eps=TINY)
    second = functional.normalize(latent[have], dim=-1, eps=TINY)
    similar = first @ second.T / temperature
    own = torch.arange(have.numel())
    there = functional.cross_entropy(similar, own)
    back = functional.cross_entropy(similar.T, own)
    return 0.5 * (there + back)


def _distances(x: Float[Tensor, "rows size"]) -> Float[Tensor, "rows rows"]:
    squared = (x.unsqueeze(1) - x.unsqueeze(0)).pow(2).sum(-1)
    # The root has no slope at 0, where every patient meets itself.
    return torch.sqrt(squared + TINY)


def relational_distance(
    student: Float[Tensor, "batch width"],
    latent: Float[Tensor, "batch size"],
    paired: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Difference between the two spaces' distances of patients, each over its own mean distance.

    Distance-wise relational distillation (Park et al. 2019, equations 5 and 6; Huber loss). It does
    not change when either space is scaled, moved or turned; 0 where fewer than two are paired.

    Args:
        student: the student's representation of a modality.
        latent: the teacher's latent of a modality; sizes may differ.
        paired: 1 where the patient has both, else 0.
    """
    have = torch.nonzero(paired).squeeze(1)
    n = have.numel()
    if n < 2:
        return student.sum() * 0.0
    apart = 1.0 - torch.eye(n)
    scaled = []
    for space in (student[have], latent[have]):
        distance = _distances(space)
        scaled.append(distance / weighted_mean(distance, apart).clamp(min=TINY))
    each = functional.smooth_l1_loss(scaled[0], scaled[1], reduction="none")
    return weighted_mean(each, apart)
