"""A student small enough to train in a tenth of a second, and a world for it that stands still."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.batches import Batches
from distill.carbon_aware import CarbonRun
from distill.carbon_book import CarbonSettings
from distill.config import TrainConfig
from distill.fit import student_loss
from distill.loop import StepControl, train_student
from distill.student import Student, StudentShape
from distill.transfers import all_transfers

NAMES = ("clinical", "genomics", "pathology")
SHAPE = StudentShape(modalities=NAMES, transfers=all_transfers(NAMES), features=5, width=8,
                     latent=4, token=8, heads=2)  # fmt: skip
CONFIG = TrainConfig(epochs=4, batch=16, sets_per_patient=2, width=8, latent=4, token=8, heads=2)
SEED, STEPS_PER_EPOCH = 11, 3
STEP_KWH = 1e-3
EVENTFUL: dict[str, Any] = {"temperature": 3.0, "anneal": "carbon", "rate_by_intensity": 1.0}
"""Settings under which every step depends on the grid."""


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
        labelled=torch.ones(rows),
        teacher=torch.from_numpy(rng.random((rows, 3)).astype(np.float32)),
        latent=torch.from_numpy(rng.standard_normal((rows, 3, 4)).astype(np.float32)),
        synthetic_x=torch.from_numpy(rng.standard_normal((synthetic, 3, 5)).astype(np.float32)),
        synthetic_logit=torch.from_numpy(rng.standard_normal((synthetic, 3)).astype(np.float32)),
        prior=0.1,
    )


class World:
    """A grid and a meter that depend on how many steps were taken, and on nothing else.

    A step takes ``STEP_KWH``; the intensity of step k of an epoch is ``grid[k mod len(grid)]``.
    The run's book tells how many steps that is, so a resumed run meets the same world.
    """

    def __init__(self, grid: tuple[float | None, ...] = (100.0, 300.0)) -> None:
        self.grid = grid
        self.run: CarbonRun | None = None

    @property
    def steps(self) -> int:
        return 0 if self.run is None else self.run.book.steps

    def intensity(self) -> float | None:
        return self.grid[self.steps % len(self.grid)]


class StepMeter:
    """Counts ``STEP_KWH`` more at each look that follows a step."""

    def __init__(self) -> None:
        self.kwh = 0.0

    def __call__(self) -> float:
        return self.kwh


def make_run(
    folder: Path | None = None,
    *,
    grid: tuple[float | None, ...] = (100.0, 300.0),
    resume: bool = False,
    students: int = 1,
    defer: Any = None,
    metered: bool = True,
    **settings: Any,
) -> CarbonRun:
    world, meter = World(grid), StepMeter()
    asked = {"keep_every_s": 0.0, "least_epochs": 1, "step_kwh": STEP_KWH, **settings}
    run = CarbonRun(
        CarbonSettings(**asked),
        intensity=world.intensity, energy_kwh=meter if metered else lambda: None,
        folder=folder, fingerprint="toy", resume=resume, students=students,
        **({} if defer is None else {"defer": defer}),
    )  # fmt: skip
    world.run = run
    charge = run.till.charge

    def charged(*, step: bool = False) -> float:
        meter.kwh += STEP_KWH * step
        return charge(step=step)

    run.till.charge = charged  # type: ignore[method-assign]
    return run


def train(control: StepControl | None, config: TrainConfig = CONFIG) -> Student:
    return train_student(make_batches(), SHAPE, config, SEED, loss=student_loss, control=control)


def same_weights(one: Student, other: Student) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
