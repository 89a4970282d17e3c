"""Cut the student's latent: which units of each modality's encoder to keep, and a short refit.

A unit is one of the ``width`` numbers in which an encoder says what it has seen; the modality's
log-odds, its token and its bridges are all computed from them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from distill.batches import Batches
from distill.config import TrainConfig
from distill.fit import student_loss
from distill.loop import LoopState, Unattended, run_epoch
from distill.selection.information import BINS, binned, scores
from distill.selection.problem import SelectionError, SelectionProblem, Solver, mrmr_problem
from distill.student import GroupedLinear, Student

Kept = Int[np.ndarray, "modalities k"]
REFIT_SHARE = 0.5
"""Peak learning rate of the refit, as a share of training's: the units that stay are trained."""


@torch.no_grad()
def encoder_units(
    model: Student, x: Float[Tensor, "rows inputs features"]
) -> Float64[np.ndarray, "rows modalities width"]:
    """The latent of every modality, without dropout."""
    model.eval()
    return np.asarray(model.encode(x).branch.numpy(), dtype=np.float64)


def unit_problems(
    units: Float64[np.ndarray, "rows modalities width"],
    present: Bool[np.ndarray, "rows modalities"],
    label: Int[np.ndarray, " rows"],
    k: int,
    *,
    trade_off: float = 1.0,
    bins: int = BINS,
) -> tuple[SelectionProblem, ...]:
    """One problem a modality: which k of its units to keep.

    Give the training patients' rows only: that is what keeps a selection from the scored hospitals.

    Raises:
        SelectionError: if k is out of range, or a modality's patients are of one class.
    """
    problems = []
    for m in range(units.shape[1]):
        have = present[:, m]
        if np.unique(label[have]).size < 2:
            raise SelectionError(
                f"The {int(have.sum())} patients of modality number {m} are of one class; "
                "relevance needs both."
            )
        found = scores(binned(units[have, m], bins), label[have])
        names = [f"unit{u}" for u in range(units.shape[2])]
        problems.append(mrmr_problem(names, found.relevance, found.redundancy, k, trade_off))
    return tuple(problems)


def choose_units(
    problems: Sequence[SelectionProblem], solver: Solver, rng: np.random.Generator
) -> Kept:
    """Solve each modality's problem; one row of units a modality, as :func:`narrow` takes them."""
    return np.array([solver.solve(problem, rng).chosen for problem in problems], dtype=np.int64)


def magnitudes(model: Student) -> Float64[np.ndarray, "modalities width"]:
    """Norm of the weights that leave each unit: what pruning by magnitude goes by (a control)."""
    square = model.encoder.head.weight.detach().square().sum(-1)
    square = square + model.encoder.inner.weight.detach().square().sum(-1)
    square = square + model.branch_token.weight.detach().square().sum(0)
    bridged = model.bridges.first.weight.detach().square().sum(-1)
    square = square.index_add(0, torch.tensor(model.shape.sources), bridged)
    return np.asarray(square.sqrt().numpy(), dtype=np.float64)


def narrow(model: Student, kept: Kept) -> Student:
    """A student with these units of each encoder only, its other weights as they were.

    Modalities may keep different units, so what all of them shared, the map from units to a token,
    becomes one map a modality; the interface stays that of :class:`distill.student.Student`.

    Raises:
        SelectionError: if units are named twice or are not there.
    """
    width = model.shape.width
    twice = any(np.unique(row).size != row.size for row in kept)
    if kept.shape[0] != len(model.shape.modalities) or twice or kept.min() < 0:
        raise SelectionError(
            f"Units of shape {kept.shape} came, some twice or below 0; name different units for "
            f"each of {len(model.shape.modalities)} modalities."
        )
    if kept.max() >= width:
        raise SelectionError(f"Unit {kept.max()} came; the encoder has units 0 to {width - 1}.")
    out = copy.deepcopy(model)
    out.shape = replace(model.shape, width=kept.shape[1])
    units = torch.from_numpy(np.ascontiguousarray(kept))
    sources = units[list(model.shape.sources)]
    encoder, bridges = out.encoder, out.bridges
    _keep(encoder.first, columns=units)
    _keep(encoder.inner, rows=units, columns=units)
    _keep(encoder.head, rows=units)
    _keep(bridges.first, rows=sources)
    out.add_module("branch_token", _own_tokens(model.branch_token, units))
    return out


def _own_tokens(shared: nn.Linear, units: Int[Tensor, "modalities k"]) -> GroupedLinear:
    slots, k = units.shape
    own = GroupedLinear(slots, k, shared.out_features)
    with torch.no_grad():
        own.weight.copy_(shared.weight.T[units])
        own.bias.copy_(shared.bias.expand(slots, 1, -1))
    return own


def _keep(
    layer: GroupedLinear,
    *,
    rows: Int[Tensor, "slots kept"] | None = None,
    columns: Int[Tensor, "slots kept"] | None = None,
) -> None:
    weight, bias = layer.weight.detach(), layer.bias.detach()
    if rows is not None:
        weight = torch.take_along_dim(weight, rows.unsqueeze(-1), dim=1)
    if columns is not None:
        weight = torch.take_along_dim(weight, columns.unsqueeze(1), dim=2)
        bias = torch.take_along_dim(bias, columns.unsqueeze(1), dim=2)
    layer.weight, layer.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())


def refit(model: Student, data: Batches, config: TrainConfig, *, epochs: int, seed: int) -> Student:
    """A copy trained on for some epochs with the same objective, warmed up and annealed to zero.

    Args:
        model: where to start; it is not changed.
        data: the training patients' tensors.
        config: settings; ``epochs`` in it is not looked at.
        epochs: how many.
        seed: of batches, evidence sets and dropout.
    """
    torch.manual_seed(seed)
    fresh = copy.deepcopy(model).requires_grad_(True).train()
    steps = epochs * math.ceil(data.x.shape[0] / config.batch)
    rate = REFIT_SHARE * config.learning_rate
    optimiser = torch.optim.AdamW(
        fresh.parameters(), lr=rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps)
    state = LoopState(
        model=fresh, optimiser=optimiser, schedule=schedule, rng=np.random.default_rng(seed)
    )
    for _ in range(epochs):
        run_epoch(state, data, config, student_loss, Unattended())
    return fresh.eval().requires_grad_(False)
