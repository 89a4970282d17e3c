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
    """What one step trains on: patients, synthetic rows, and evidence sets of both.

    Attributes:
        rows: patients of the batch.
        synthetic: synthetic rows of the batch.
        mask: evidence sets of the patients.
        synthetic_mask: evidence sets of the synthetic rows.
        temperature: of the distillation terms of the loss, as the control says at this step.
    """

    rows: Int[Tensor, " batch"]
    synthetic: Int[Tensor, " synthetic"]
    mask: Float[Tensor, "batch sets tokens"]
    synthetic_mask: Float[Tensor, "synthetic mixtures tokens"]
    temperature: float = 1.0


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
    """Hooks into the loop; one control serves the training of one student."""

    def epochs(self, planned: int, steps_per_epoch: int) -> int:
        """How many epochs to train for, asked once, before the schedule is laid out."""

    def prepare(self, optimiser: Optimizer) -> Optimizer:
        """The optimiser to train with: the one given, or one that wraps it."""

    def start(self, state: LoopState) -> None:
        """Called once with the new state; may put an earlier one in its place."""

    def before_epoch(self, state: LoopState) -> None:
        """Called before every epoch; may wait, or keep ``state``."""

    def temperature(self) -> float:
        """Of the distillation terms, asked before every step."""

    def after_step(self, state: LoopState, loss: float) -> None:
        """Called after every optimiser step with the loss that it was made on."""

    def should_stop(self) -> bool:
        """Asked before every epoch and after every step; true ends training where it is."""

    def finish(self, state: LoopState) -> None:
        """Called once at the end; may put better weights into the model."""


class Unattended:
    """The default control: every step of every epoch, at once."""

    def epochs(self, planned: int, steps_per_epoch: int) -> int:
        """As planned."""
        return planned

    def prepare(self, optimiser: Optimizer) -> Optimizer:
        """The one given."""
        return optimiser

    def start(self, state: LoopState) -> None:
        """From the beginning."""

    def before_epoch(self, state: LoopState) -> None:
        """Nothing to wait for."""

    def temperature(self) -> float:
        """One: teachers' probabilities as they are."""
        return 1.0

    def after_step(self, state: LoopState, loss: float) -> None:
        """Nothing to count."""

    def should_stop(self) -> bool:
        """Never."""
        return False

    def finish(self, state: LoopState) -> None:
        """The last weights."""


Attend = Callable[[int], StepControl]
"""Gives the control of the student that is trained with this seed."""


def start_state(
    shape: StudentShape, config: TrainConfig, seed: int, steps: int, hooks: StepControl
) -> LoopState:
    """A new student with AdamW and a one-cycle schedule; seeds torch's generator."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Student(shape).train()
    optimiser = hooks.prepare(
        torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=config.learning_rate, total_steps=steps
    )
    return LoopState(model=model, optimiser=optimiser, schedule=schedule, rng=rng)


def draw_batch(
    data: Batches,
    rows: Int[np.ndarray, " batch"],
    shape: StudentShape,
    config: TrainConfig,
    rng: np.random.Generator,
    *,
    temperature: float = 1.0,
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
        temperature=temperature,
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
    per_epoch = math.ceil(data.x.shape[0] / config.batch)
    epochs = hooks.epochs(config.epochs, per_epoch)
    state = start_state(shape, config, seed, epochs * per_epoch, hooks)
    hooks.start(state)
    while state.epoch < epochs and not hooks.should_stop():
        hooks.before_epoch(state)
        if hooks.should_stop() or not run_epoch(state, data, config, loss, hooks):
            break
        state.epoch += 1
    hooks.finish(state)
    return state.model.eval().requires_grad_(False)


def run_epoch(
    state: LoopState, data: Batches, config: TrainConfig, loss: StudentLoss, hooks: StepControl
) -> bool:
    """One pass over the training rows; false if it was stopped on the way."""
    n = data.x.shape[0]
    order = state.rng.permutation(n)
    for start in range(0, n, config.batch):
        rows = order[start : start + config.batch]
        temperature = hooks.temperature()
        draw = draw_batch(data, rows, state.model.shape, config, state.rng, temperature=temperature)
        state.optimiser.zero_grad()
        value = loss(state.model, data, draw, config)
        value.backward()  # type: ignore[no-untyped-call]
        state.optimiser.step()
        state.schedule.step()
        state.step += 1
        hooks.after_step(state, float(value.detach()))
        if hooks.should_stop() and start + config.batch < n:
            return False
    return True
