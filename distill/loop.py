"""The student's training loop, and the hooks by which a caller steers it.

The loop knows nothing of clocks, grids or files: what waits, stops early or keeps a checkpoint is
a :class:`StepControl`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from distill.batches import Batches
from distill.config import TrainConfig
from distill.sampling import random_sets
from distill.student import Student, StudentShape


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one step trains on: patients, synthetic rows, and evidence sets of both."""

    rows: Int[Tensor, " batch"]
    synthetic: Int[Tensor, " synthetic"]
    mask: Float[Tensor, "batch sets tokens"]
    synthetic_mask: Float[Tensor, "synthetic mixtures tokens"]


StudentLoss = Callable[[Student, Batches, Draw, TrainConfig], Tensor]
"""The objective on one batch, a scalar."""


@dataclass(kw_only=True)
class LoopState:
    """Where a training run stands: all that the next step depends on, torch's generator apart.

    Attributes:
        model: the student being fitted.
        optimiser: its optimiser.
        schedule: the learning rate's schedule, stepped once a batch.
        rng: draws batches and evidence sets.
        epoch: epochs finished.
        step: optimiser steps taken.
    """

    model: Student
    optimiser: Optimizer
    schedule: LRScheduler
    rng: np.random.Generator
    epoch: int = 0
    step: int = 0


@runtime_checkable
class StepControl(Protocol):
    """Hooks into the loop, called in the order of the methods here."""

    def before_epoch(self, state: LoopState) -> None:
        """Called before every epoch; may wait, keep ``state``, or bring an earlier one back."""

    def after_step(self, state: LoopState) -> None:
        """Called after every optimiser step."""

    def should_stop(self) -> bool:
        """Asked before every epoch and after every step; true ends training where it is."""


class Unattended:
    """The default control: every step of every epoch, at once."""

    def before_epoch(self, state: LoopState) -> None:
        """Nothing to wait for."""

    def after_step(self, state: LoopState) -> None:
        """Nothing to count."""

    def should_stop(self) -> bool:
        """Never."""
        return False


def start_state(
    shape: StudentShape, config: TrainConfig, seed: int, steps_per_epoch: int
) -> LoopState:
    """A new student with AdamW and a one-cycle schedule; seeds torch's generator."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Student(shape).train()
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=config.learning_rate, total_steps=config.epochs * steps_per_epoch
    )
    return LoopState(model=model, optimiser=optimiser, schedule=schedule, rng=rng)


def draw_batch(
    data: Batches,
    rows: Int[np.ndarray, " batch"],
    shape: StudentShape,
    config: TrainConfig,
    rng: np.random.Generator,
) -> Draw:
    """These patients with random evidence sets, and as many synthetic rows as a batch has."""
    mask = random_sets(data.present[rows], shape, config.sets_per_patient, rng)
    synthetic = rng.integers(0, data.synthetic_x.shape[0], config.batch)
    every = np.ones((config.batch, len(shape.modalities)), dtype=bool)
    return Draw(
        rows=torch.from_numpy(rows),
        synthetic=torch.from_numpy(synthetic),
        mask=torch.from_numpy(mask),
        synthetic_mask=torch.from_numpy(random_sets(every, shape, 2, rng)),
    )


def train_student(
    data: Batches,
    shape: StudentShape,
    config: TrainConfig,
    seed: int,
    *,
    loss: StudentLoss,
    control: StepControl | None = None,
) -> Student:
    """Fit one student; every step sees several random evidence sets a patient.

    Args:
        data: tensors of the training patients and of the synthetic rows.
        shape: the student's sizes.
        config: settings.
        seed: of the weights, the batches and the evidence sets.
        loss: the objective on one batch.
        control: hooks; nobody attends by default.
    """
    hooks = control or Unattended()
    state = start_state(shape, config, seed, math.ceil(data.x.shape[0] / config.batch))
    while state.epoch < config.epochs:
        hooks.before_epoch(state)
        finished = state.epoch >= config.epochs or hooks.should_stop()
        if finished or not run_epoch(state, data, config, loss, hooks):
            break
        state.epoch += 1
    return state.model.eval().requires_grad_(False)


def run_epoch(
    state: LoopState, data: Batches, config: TrainConfig, loss: StudentLoss, hooks: StepControl
) -> bool:
    """One pass over the training rows; false if it was stopped on the way."""
    n = data.x.shape[0]
    order = state.rng.permutation(n)
    for start in range(0, n, config.batch):
        rows = order[start : start + config.batch]
        draw = draw_batch(data, rows, state.model.shape, config, state.rng)
        state.optimiser.zero_grad()
        loss(state.model, data, draw, config).backward()  # type: ignore[no-untyped-call]
        state.optimiser.step()
        state.schedule.step()
        state.step += 1
        hooks.after_step(state)
        if hooks.should_stop():
            return False
    return True
