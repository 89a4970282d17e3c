"""Bridges: what a source modality says of a target, learnt from the target's frozen teacher.

The network itself is :class:`distill.student.Bridges`, a part of the student, so that a bridge is
run on the source's latent at no further cost.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from distill.batches import Batches
from distill.config import TrainConfig
from distill.losses import latent_regression, soft_cross_entropy
from distill.student import Encoded, StudentShape


def bridge_loss(
    shape: StudentShape,
    data: Batches,
    encoded: Encoded,
    rows: Int[Tensor, " batch"],
    config: TrainConfig,
) -> Float[Tensor, ""]:
    """Task cross-entropy, soft-label cross-entropy, and regression to the target's latent.

    The first is over labelled patients with the source; the other two need the target, for its
    teacher's probability (held out where there is a label) and its task-trained latent. A term
    whose weight is 0 is not computed.
    """
    present = torch.from_numpy(data.present[rows.numpy()]).float()
    source, target = list(shape.sources), list(shape.targets)
    has_source = present[:, source]
    paired = has_source * present[:, target]
    known = has_source * data.labelled[rows].unsqueeze(1)
    hard = data.label[rows].unsqueeze(1).expand_as(encoded.bridge_logit)
    soft = data.teacher[rows][:, target]
    total = encoded.bridge_logit.new_zeros(())
    if config.bridge_task_weight:
        task = soft_cross_entropy(encoded.bridge_logit, hard, known)
        total = total + config.bridge_task_weight * task
    if config.bridge_soft_weight:
        taught = soft_cross_entropy(encoded.bridge_logit, soft, paired)
        total = total + config.bridge_soft_weight * taught
    if config.bridge_latent_weight:
        latent = data.latent[rows][:, target]
        near = latent_regression(encoded.bridge_latent, latent, paired)
        total = total + config.bridge_latent_weight * near
    return total
