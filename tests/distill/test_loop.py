from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.batches import Batches
from distill.config import TrainConfig
from distill.fit import student_loss
from distill.loop import Draw, LoopState, Unattended, train_student
from distill.sampling import random_sets
from distill.student import Student, StudentShape
from distill.transfers import all_transfers

NAMES = ("clinical", "genomics", "pathology")
SHAPE = StudentShape(modalities=NAMES, transfers=all_transfers(NAMES), features=5, width=8,
                     latent=4, token=8, heads=2)  # fmt: skip
CONFIG = TrainConfig(epochs=3, batch=16, sets_per_patient=2, width=8, latent=4, token=8, heads=2)


def make_batches(rows: int = 40, synthetic: int = 30) -> Batches:
    rng = np.random.default_rng(5)
    present = rng.random((rows, 3)) < 0.7
    present[:, 0] = True
    label = torch.from_numpy((rng.random(rows) < 0.5).astype(np.float32))
    x = rng.standard_normal((rows, 3, 5)) + label.numpy()[:, None, None]
    return Batches(
        x=torch.from_numpy((x * present[..., None]).astype(np.float32)),
        present=present,
        target=label * 0.8 + 0.1,
        label=label,
        teacher=torch.from_numpy(rng.random((rows, 3)).astype(np.float32)),
        latent=torch.from_numpy(rng.standard_normal((rows, 3, 4)).astype(np.float32)),
        labelled=torch.ones(rows),
        synthetic_x=torch.from_numpy(rng.standard_normal((synthetic, 3, 5)).astype(np.float32)),
        synthetic_logit=torch.from_numpy(rng.standard_normal((synthetic, 3)).astype(np.float32)),
        prior=0.1,
    )


def plain_loop(data: Batches, shape: StudentShape, config: TrainConfig, seed: int) -> Student:
    """The same training written out in one piece, without hooks."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Student(shape).train()
    n = data.x.shape[0]
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate,
                                  weight_decay=config.weight_decay, fused=True)  # fmt: skip
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=config.learning_rate,
        total_steps=config.epochs * math.ceil(n / config.batch),
    )  # fmt: skip
    for _ in range(config.epochs):
        order = rng.permutation(n)
        for start in range(0, n, config.batch):
            rows = order[start : start + config.batch]
            mask = random_sets(data.present[rows], shape, config.sets_per_patient, rng)
            synthetic = rng.integers(0, data.synthetic_x.shape[0], config.batch)
            optimiser.zero_grad()
            every = np.ones((config.batch, len(shape.modalities)), dtype=bool)
            draw = Draw(
                rows=torch.from_numpy(rows), synthetic=torch.from_numpy(synthetic),
                mask=torch.from_numpy(mask),
                synthetic_mask=torch.from_numpy(random_sets(every, shape, 2, rng)),
            )  # fmt: skip
            student_loss(model, data, draw, config).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def same_weights(one: Student, other: Student) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Counting(Unattended):
    """Stops after so many steps and writes down what it was called for."""

    def __init__(self, steps: int | None = None) -> None:
        self.most, self.calls, self.steps, self.losses = steps, [], 0, []

    def before_epoch(self, state: LoopState) -> None:
        self.calls.append(("epoch", state.epoch, state.step))

    def after_step(self, state: LoopState, loss: float) -> None:
        self.steps = state.step
        self.losses.append(loss)

    def should_stop(self) -> bool:
        return self.most is not None and self.steps >= self.most

    def finish(self, state: LoopState) -> None:
        self.calls.append(("finish", state.epoch, state.step))


def test_the_loop_without_a_control_gives_the_weights_of_the_plain_loop_bit_for_bit():
    data = make_batches()
    expected = plain_loop(data, SHAPE, CONFIG, 11)
    assert same_weights(train_student(data, SHAPE, CONFIG, 11, loss=student_loss), expected)


def test_a_control_that_only_watches_changes_nothing():
    data, watching = make_batches(), Counting()
    seen = train_student(data, SHAPE, CONFIG, 11, loss=student_loss, control=watching)
    assert same_weights(seen, train_student(data, SHAPE, CONFIG, 11, loss=student_loss))
    assert watching.calls == [
        ("epoch", 0, 0), ("epoch", 1, 3), ("epoch", 2, 6), ("finish", 3, 9),
    ]  # fmt: skip
    assert len(watching.losses) == 9
    assert all(np.isfinite(watching.losses))


@pytest.mark.parametrize(("steps", "epochs"), [(0, 0), (1, 0), (3, 1), (4, 1)])
def test_a_control_stops_between_and_within_epochs(steps: int, epochs: int):
    stopping = Counting(steps)
    train_student(make_batches(), SHAPE, CONFIG, 11, loss=student_loss, control=stopping)
    assert stopping.calls[-1] == ("finish", epochs, steps)


def test_a_control_that_shortens_training_gets_the_schedule_of_the_shorter_one():
    class Shorter(Unattended):
        def epochs(self, planned: int, steps_per_epoch: int) -> int:
            assert (planned, steps_per_epoch) == (3, 3)
            return 2

    data = make_batches()
    short = train_student(data, SHAPE, CONFIG, 11, loss=student_loss, control=Shorter())
    assert same_weights(short, plain_loop(data, SHAPE, replace(CONFIG, epochs=2), 11))
