"""The student's objective: one sum of weighted terms, each of which its weight switches off.

A term whose weight is 0 is not computed at all, so the weights of the student are those of a
training without it, bit for bit. Which weights are used is chosen by :mod:`distill.choice`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from distill.batches import Batches
from distill.bridge import bridge_loss
from distill.config import TrainConfig
from distill.contrast import info_nce, relational_distance
from distill.loop import Draw
from distill.student import Encoded, Student
from distill.tempered import mixed_cross_entropy, tempered_cross_entropy

DISTILLED = (
    "soft_share",
    "doubt_share",
    "match_weight",
    "fused_match_weight",
    "bridge_soft_weight",
    "bridge_latent_weight",
    "contrast_weight",
    "relational_weight",
)
"""The weights of everything that teachers say; without them what is left is supervision."""


def weights_of(config: TrainConfig) -> dict[str, float]:
    """The weights of the teachers' terms, for reports."""
    return {name: float(getattr(config, name)) for name in DISTILLED}


def supervised_twin(config: TrainConfig) -> TrainConfig:
    """The same network, steps and evidence sets, fitted to hard labels alone: the control."""
    return replace(config, **dict.fromkeys(DISTILLED, 0.0))  # type: ignore[arg-type]


def student_loss(
    model: Student, data: Batches, draw: Draw, config: TrainConfig
) -> Float[Tensor, ""]:
    """The whole objective on one batch; the terms are described in ``distill/README.md``."""
    encoded = model.encode(data.x[draw.rows])
    fused = model.fuse(encoded, draw.mask).logit
    total = set_loss(fused, data, draw, config)
    if config.branch_weight:
        present = _present(data, draw)
        branch = _task(encoded.branch_logit, present, data, draw, config)
        total = total + config.branch_weight * branch
    if config.match_weight or config.fused_match_weight:
        total = total + matching_loss(model, data, draw, config)
    total = total + bridge_loss(model.shape, data, encoded, draw.rows, config)
    if config.contrast_weight:
        total = total + config.contrast_weight * alignment_loss(model, data, encoded, draw, config)
    if config.relational_weight:
        total = total + config.relational_weight * relational_loss(data, encoded, draw)
    return total


def set_loss(
    fused: Float[Tensor, "batch sets"], data: Batches, draw: Draw, config: TrainConfig
) -> Float[Tensor, ""]:
    """Task loss of random evidence sets, against what can be known from each of them.

    Where the teachers of a set know little, the label is mostly noise to whoever sees only that
    set, and fitting it is overfitting. So the doubt of a mixture is the share of the loss that goes
    to the teachers' own held-out log-odds, summed over the mixture, instead of the label.
    """
    if data.doubt is None or not config.doubt_share:
        return _task(fused, torch.ones_like(fused), data, draw, config)
    m = data.teacher.shape[1]
    processed = draw.mask[..., :m]
    bits = 2 ** torch.arange(m, dtype=torch.float32)
    doubt = config.doubt_share * data.doubt[(processed * bits).sum(-1).long()]
    own = torch.logit(data.teacher[draw.rows], eps=1e-4) - data.prior
    summed = data.prior + (processed * own.unsqueeze(1)).sum(-1)
    taught = tempered_cross_entropy(fused, summed, doubt, draw.temperature)
    task = _task(fused, 1 - doubt, data, draw, config)
    return (1 - doubt.mean()) * task + doubt.mean() * taught


def _present(data: Batches, draw: Draw) -> Float[Tensor, "batch modalities"]:
    return torch.from_numpy(data.present[draw.rows.numpy()]).float()


def _task(
    logit: Float[Tensor, "batch slots"],
    weight: Float[Tensor, "batch slots"],
    data: Batches,
    draw: Draw,
    config: TrainConfig,
) -> Float[Tensor, ""]:
    target = data.target[draw.rows].unsqueeze(1).expand_as(logit)
    label = data.label[draw.rows].unsqueeze(1).expand_as(logit)
    return mixed_cross_entropy(
        logit, target, label, weight,
        soft_share=config.soft_share, temperature=draw.temperature,
    )  # fmt: skip


def matching_loss(
    model: Student, data: Batches, draw: Draw, config: TrainConfig
) -> Float[Tensor, ""]:
    """Function matching: the teachers' answers on synthetic rows, alone and summed over sets."""
    encoded = model.encode(data.synthetic_x[draw.synthetic])
    logit = data.synthetic_logit[draw.synthetic]
    total = logit.new_zeros(())
    if config.match_weight:
        ones = torch.ones_like(logit)
        alone = tempered_cross_entropy(encoded.branch_logit, logit, ones, draw.temperature)
        total = config.match_weight * alone
    if config.fused_match_weight:
        fused = model.fuse(encoded, draw.synthetic_mask).logit
        processed = draw.synthetic_mask[..., : logit.shape[1]]
        summed = data.prior + (processed * (logit - data.prior).unsqueeze(1)).sum(-1)
        ones = torch.ones_like(fused)
        together = tempered_cross_entropy(fused, summed, ones, draw.temperature)
        total = total + config.fused_match_weight * together
    return total


def alignment_loss(
    model: Student, data: Batches, encoded: Encoded, draw: Draw, config: TrainConfig
) -> Float[Tensor, ""]:
    """InfoNCE between each bridge's estimate and its target's latent, mean over the bridges."""
    present, latent = _present(data, draw), data.latent[draw.rows]
    each = [
        info_nce(
            encoded.bridge_latent[:, t], latent[:, target],
            present[:, source] * present[:, target], config.contrast_temperature,
        )
        for t, (source, target) in enumerate(zip(model.shape.sources, model.shape.targets))
    ]  # fmt: skip
    return torch.stack(each).mean()


def relational_loss(data: Batches, encoded: Encoded, draw: Draw) -> Float[Tensor, ""]:
    """Relational distance between each encoder and its teacher's latent, mean over modalities."""
    present, latent = _present(data, draw), data.latent[draw.rows]
    each = [
        relational_distance(encoded.branch[:, j], latent[:, j], present[:, j])
        for j in range(present.shape[1])
    ]
    return torch.stack(each).mean()
