"""A control of the training loop that looks at the grid: budget, temperature, waiting, checkpoints.

It knows no provider, meter or clock: intensity, energy and waiting are callables, which
:mod:`agent.carbon_training` makes of a carbon monitor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from distill.carbon_book import CarbonBook, CarbonSettings, Till
from distill.carbon_optimiser import CarbonAwareOptimizer, intensity_scale
from distill.checkpoint import (
    BEST,
    Checkpoint,
    capture,
    read_checkpoint,
    replace_file,
    restore,
    weights_of,
    write_checkpoint,
)
from distill.errors import BudgetSpentError, TrainingError
from distill.loop import LoopState

MARGIN = 0.02
"""Share of the budget that is not planned with: the energy of a step varies."""
FORMAT = 1
RUN_FILE = "run.json"


def no_wait(share_left: float) -> float:
    """Never put anything off."""
    return 0.0


def annealed(start: float, used: float) -> float:
    """Temperature after this share of the way: from ``start`` in a straight line to 1."""
    return 1.0 + (start - 1.0) * (1.0 - min(1.0, max(0.0, used)))


class CarbonRun:
    """One training run, of one student or of all that a bundle takes.

    Args:
        settings: what to do.
        intensity: of the grid at present, gCO2e/kWh; None where unknown or too old.
        energy_kwh: used by the run so far, kWh; None where nothing measures it.
        defer: called before each epoch with the share of the run's epochs that is left; may wait
            for cleaner electricity, and gives the hours that it waited.
        students: how many students the run trains.
        folder: where checkpoints go; None keeps none.
        fingerprint: names data and settings: a checkpoint of others is refused.
        resume: whether to go on from the checkpoints in ``folder``.
        monotonic: clock between checkpoints.

    Raises:
        TrainingError: if the folder holds a run and it is not to be resumed, or the reverse, or it
            is of another fingerprint; or if there is a budget and no energy.
    """

    def __init__(
        self,
        settings: CarbonSettings,
        *,
        intensity: Callable[[], float | None],
        energy_kwh: Callable[[], float | None],
        defer: Callable[[float], float] = no_wait,
        students: int = 1,
        folder: Path | None = None,
        fingerprint: str = "",
        resume: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.students = students
        self.monotonic = monotonic
        self.folder = folder
        self.done: dict[int, dict[str, Any]] = {}
        self._defer = defer
        book = _open_folder(folder, fingerprint, resume=resume)
        self.till = Till(settings, intensity=intensity, energy_kwh=energy_kwh, book=book)

    @property
    def book(self) -> CarbonBook:
        """What was spent so far."""
        return self.till.book

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        budget = self.settings.budget_g_co2e
        return budget is not None and self.book.g_co2e >= budget

    def attend(self, seed: int) -> CarbonControl:
        """The control of the student with this seed; see :data:`distill.loop.Attend`."""
        return CarbonControl(self, seed)

    def charge(self) -> None:
        """Book what was used outside the training loop so far."""
        self.till.charge()

    def affordable(self, planned: int, steps_per_epoch: int) -> int:
        """Epochs of the next student: as planned, or its even share of what the budget has left.

        Raises:
            BudgetSpentError: if that is fewer than ``least_epochs`` (or than planned).
        """
        budget = self.settings.budget_g_co2e
        if budget is None:
            return planned
        left = (1.0 - MARGIN) * budget - self.book.g_co2e
        waiting = max(1, self.students - len(self.done))
        epoch_g = steps_per_epoch * self.till.step_kwh * self.till.intensity()[0]
        afforded = planned if epoch_g == 0 else int(max(0.0, left) / waiting / epoch_g)
        least = min(planned, self.settings.least_epochs)
        if afforded < least:
            need = self.book.g_co2e + waiting * least * epoch_g
            raise BudgetSpentError(
                f"Stopped: of {budget:.4g} gCO2e {self.book.g_co2e:.4g} are spent, and "
                f"{waiting} of {self.students} students are still to be trained, {least} epochs "
                f"each at least: that takes {need / (1.0 - MARGIN):.4g} gCO2e in all, by estimate."
            )
        return min(planned, afforded)

    def wait(self, share_left: float) -> None:
        """Let ``defer`` put the next epoch off, and book that."""
        waited_h = self._defer(share_left)
        self.book.waits += waited_h > 0
        self.book.waited_h += waited_h

    def share_left(self, student_share: float) -> float:
        """Share of the run's epochs still to come, with this much of the present student's left."""
        return (max(0, self.students - len(self.done) - 1) + student_share) / self.students

    def path_of(self, seed: int) -> Path | None:
        """Where a student's checkpoint is."""
        return None if self.folder is None else self.folder / f"student-{seed}.safetensors"

    def kept(self, seed: int) -> Checkpoint | None:
        """A student's checkpoint, if there is one."""
        path = self.path_of(seed)
        return read_checkpoint(path) if path is not None and path.is_file() else None

    def record(self) -> dict[str, Any]:
        """What the run did, as JSON values."""
        stopped = sum(not student["finished"] for student in self.done.values())
        settings = self.settings
        return {
            "budget_g_co2e": settings.budget_g_co2e,
            **self.book.as_dict(),
            "students": len(self.done),
            "epochs": [student["epochs"] for student in self.done.values()],
            "planned_epochs": [student["planned"] for student in self.done.values()],
            "temperature": settings.temperature,
            "anneal": settings.anneal if settings.temperature != 1.0 else None,
            "rate_by_intensity": settings.rate_by_intensity,
            "stopped": "carbon budget spent" if stopped else "every epoch done",
        }


class CarbonControl:
    """Hooks for the training of one student within a :class:`CarbonRun`."""

    def __init__(self, run: CarbonRun, seed: int) -> None:
        self.run = run
        self.seed = seed
        self._found = run.kept(seed)
        self._steps_per_epoch = 1
        self._planned = self._epochs = self._step = self._epoch = 0
        self._used_g = self._expected_g = 0.0
        self._losses: list[float] = []
        self._best: dict[str, Tensor] = {}
        self._best_loss: float | None = None
        self._boundary: Checkpoint | None = None
        self._kept_s = run.monotonic()

    def epochs(self, planned: int, steps_per_epoch: int) -> int:
        """As planned, as kept in the checkpoint, or as many as the budget's share allows."""
        self.run.charge()
        self._planned, self._steps_per_epoch = planned, steps_per_epoch
        if self._found is not None:
            extra = self._found.extra
            self._epochs = int(extra["epochs"])
            self._used_g, self._expected_g = float(extra["used_g"]), float(extra["expected_g"])
            self._best_loss = extra["best_loss"]
            return self._epochs
        self._epochs = self.run.affordable(planned, steps_per_epoch)
        till = self.run.till
        reference = self.run.settings.reference_g_per_kwh or till.intensity()[0]
        self._expected_g = self._epochs * steps_per_epoch * till.step_kwh * reference
        return self._epochs

    def prepare(self, optimiser: Optimizer) -> Optimizer:
        """With a learning rate by intensity, if that was asked for."""
        strength, till = self.run.settings.rate_by_intensity, self.run.till
        if strength == 0:
            return optimiser

        def scale() -> float:
            # A grid that is not known has no say: the rate is as scheduled.
            intensity, known = till.intensity()
            reference = till.reference_g_per_kwh
            return intensity_scale(intensity, reference, strength) if known else 1.0

        return CarbonAwareOptimizer(optimiser, scale)

    def start(self, state: LoopState) -> None:
        """Go on from the checkpoint, if there is one."""
        if self._found is not None:
            restore(self._found, state)
            self._best = weights_of(self._found, BEST)
            self._step, self._epoch = state.step, state.epoch

    def before_epoch(self, state: LoopState) -> None:
        """Keep the state, then wait if that is worth it."""
        self.run.charge()
        self._epoch = state.epoch
        self._losses.clear()
        if self.run.folder is not None:
            self._boundary = capture(state, self._extra(finished=False), self._best)
            if self.run.monotonic() - self._kept_s >= self.run.settings.keep_every_s:
                self._keep(self._boundary)
        self.run.wait(self.run.share_left(1.0 - state.epoch / self._epochs))

    def temperature(self) -> float:
        """Falls to 1 over the steps, or over the carbon foreseen for this student."""
        settings = self.run.settings
        if settings.temperature == 1.0:
            return 1.0
        if settings.anneal == "steps":
            used = self._step / (self._epochs * self._steps_per_epoch)
        else:
            used = self._used_g / self._expected_g if self._expected_g > 0 else 0.0
        return annealed(settings.temperature, used)

    def after_step(self, state: LoopState, loss: float) -> None:
        """Charge the step; at the end of an epoch, keep its weights if they are the best."""
        self._used_g += self.run.till.charge(step=True)
        self._step = state.step
        self._losses.append(loss)
        if state.step % self._steps_per_epoch:
            return
        mean = sum(self._losses) / len(self._losses)
        # At a temperature that falls, losses of different epochs cannot be compared.
        falling = self.run.settings.temperature != 1.0
        if falling or self._best_loss is None or mean < self._best_loss:
            self._best_loss = mean
            self._best = {k: v.detach().clone() for k, v in state.model.state_dict().items()}

    def should_stop(self) -> bool:
        """When the budget is used up."""
        return self.run.spent and self._step < self._epochs * self._steps_per_epoch

    def finish(self, state: LoopState) -> None:
        """After a stop, the weights of the best whole epoch; and the checkpoint on disk."""
        self.run.charge()
        finished = state.epoch >= self._epochs
        if finished and self._boundary is not None:
            self._boundary = capture(state, self._extra(finished=True))
        elif not finished and self._best:
            state.model.load_state_dict(self._best)
        if self._boundary is not None:  # None for a student that was finished before a resumption
            self._keep(self._boundary)
        self.run.done[self.seed] = {
            "epochs": state.epoch, "planned": self._planned, "finished": finished,
        }  # fmt: skip

    def _extra(self, *, finished: bool) -> dict[str, Any]:
        return {
            "seed": self.seed, "epochs": self._epochs, "finished": finished,
            "used_g": self._used_g, "expected_g": self._expected_g, "best_loss": self._best_loss,
            "book": self.run.book.as_dict(),
        }  # fmt: skip

    def _keep(self, found: Checkpoint) -> None:
        path = self.run.path_of(self.seed)
        if path is not None:
            # What was spent since is spent: the sums go on disk as they are now.
            book = {**found.extra, "book": self.run.book.as_dict()}
            write_checkpoint(path, Checkpoint(tensors=found.tensors, facts=found.facts, extra=book))
            self._kept_s = self.run.monotonic()


def _open_folder(folder: Path | None, fingerprint: str, *, resume: bool) -> CarbonBook:
    """The sums to go on from."""
    if folder is None:
        if resume:
            raise TrainingError("There is nothing to resume: no checkpoint folder was given.")
        return CarbonBook()
    marker = folder / RUN_FILE
    if not resume:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise TrainingError(
                f"{folder} already holds something. Resume the run that it is of, or remove it."
            )
        content = json.dumps({"format": FORMAT, "fingerprint": fingerprint}) + "\n"
        replace_file(marker, content.encode())
        return CarbonBook()
    _check_marker(marker, fingerprint)
    books = [
        CarbonBook.of(read_checkpoint(path).extra["book"])
        for path in sorted(folder.glob("student-*.safetensors"))
    ]
    book = max(books, key=lambda one: one.kwh, default=CarbonBook())
    book.resumed += 1
    return book


def _check_marker(marker: Path, fingerprint: str) -> None:
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise TrainingError(f"There is no run to resume in {marker.parent}: {error}.") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise TrainingError(f"{marker} is not of format {FORMAT}.")
    if found.get("fingerprint") != fingerprint:
        raise TrainingError(
            f"The run in {marker.parent} is of other patients or settings. Give the same as then, "
            "or another folder."
        )
