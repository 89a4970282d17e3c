"""What a training run has spent, and the settings of a run that looks at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from distill.errors import TrainingError

Anneal = Literal["steps", "carbon"]
ENOUGH_STEPS = 50
"""Steps after which the energy of a step is taken from this run and no longer assumed."""


@dataclass(frozen=True, kw_only=True)
class CarbonSettings:
    """What a carbon-aware run is to do; the defaults change nothing about a run.

    Attributes:
        budget_g_co2e: gross emissions of the whole run, gCO2e; None: no limit.
        temperature: of the distillation terms at the start of each student's training; it falls in
            a straight line to 1. 1: none.
        anneal: over what it falls: the student's ``steps``, or the ``carbon`` foreseen for it.
        rate_by_intensity: learning rate times (reference / intensity) to this power, 0.25 to 4
            times; 0: as scheduled.
        reference_g_per_kwh: the intensity that counts as usual; None: that of the first step.
        least_epochs: a budget that allows a student fewer stops the run instead.
        step_kwh: energy of a step until enough were taken to know it: 10 ms of one core at 12 W.
        unknown_g_per_kwh: charged where no intensity was ever known: near that of coal, so that an
            unknown grid never stretches a budget.
        keep_every_s: least time between two checkpoints of a student.
    """

    budget_g_co2e: float | None = None
    temperature: float = 1.0
    anneal: Anneal = "steps"
    rate_by_intensity: float = 0.0
    reference_g_per_kwh: float | None = None
    least_epochs: int = 20
    step_kwh: float = 3.4e-8
    unknown_g_per_kwh: float = 800.0
    keep_every_s: float = 10.0

    def __post_init__(self) -> None:
        positive = ("budget_g_co2e", "temperature", "reference_g_per_kwh", "step_kwh",
                    "unknown_g_per_kwh", "least_epochs")  # fmt: skip
        for name in (*positive, "rate_by_intensity", "keep_every_s"):
            value, above = getattr(self, name), name in positive
            if value is None:
                continue
            if not math.isfinite(value) or value < 0 or (above and value == 0):
                allowed = "above 0" if above else "0 or more"
                raise TrainingError(f"{name} is {value}; it must be finite and {allowed}.")


@dataclass(kw_only=True)
class CarbonBook:
    """Running sums of one run, interruptions included.

    Attributes:
        kwh: energy of everything: teachers, students, baselines.
        g_co2e: gross emissions of it.
        steps: optimiser steps taken.
        step_kwh: energy of those.
        assumed_kwh: part of ``kwh`` that was charged at an assumed intensity.
        assumed_steps: steps whose energy was assumed, since the meter gave none.
        waits: how often an epoch was put off.
        waited_h: for how long in all.
        highest_g_per_kwh: highest intensity seen; None before the first.
        reference_g_per_kwh: intensity of the first step; None before it.
        resumed: how often the run was taken up again.
    """

    kwh: float = 0.0
    g_co2e: float = 0.0
    steps: int = 0
    step_kwh: float = 0.0
    assumed_kwh: float = 0.0
    assumed_steps: int = 0
    waits: int = 0
    waited_h: float = 0.0
    highest_g_per_kwh: float | None = None
    reference_g_per_kwh: float | None = None
    resumed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> CarbonBook:
        """From what :meth:`as_dict` gave."""
        return cls(**{f.name: values[f.name] for f in fields(cls)})


class Till:
    """Charges energy to the book at the intensity of the moment.

    Args:
        settings: what to assume where something is unknown.
        intensity: of the grid at present, gCO2e/kWh; None where unknown or too old.
        energy_kwh: used by the run so far, kWh, never falling; None where nothing measures it.
        book: the sums so far.
    """

    def __init__(
        self,
        settings: CarbonSettings,
        *,
        intensity: Callable[[], float | None],
        energy_kwh: Callable[[], float | None],
        book: CarbonBook,
    ) -> None:
        self.settings = settings
        self.book = book
        self._intensity = intensity
        self._energy_kwh = energy_kwh
        self._last_kwh = self._used()
        if self._last_kwh is None and settings.budget_g_co2e is not None:
            raise TrainingError(
                "A carbon budget needs to know the energy, and the meter gives none. Use a meter "
                "that measures or models it, or train without a budget."
            )

    @property
    def step_kwh(self) -> float:
        """Energy of one step: from this run once it has taken enough of them."""
        if self.book.steps < ENOUGH_STEPS:
            return self.settings.step_kwh
        return self.book.step_kwh / self.book.steps

    @property
    def reference_g_per_kwh(self) -> float:
        """The intensity that counts as usual."""
        given = self.settings.reference_g_per_kwh or self.book.reference_g_per_kwh
        return given or self.intensity()[0] or self.settings.unknown_g_per_kwh

    def intensity(self) -> tuple[float, bool]:
        """The present intensity, and whether it is known.

        Unknown: the highest that this run has seen, else ``unknown_g_per_kwh``.

        Raises:
            TrainingError: if the source gives NaN, infinity or a negative number.
        """
        value = self._intensity()
        if value is None:
            return self.book.highest_g_per_kwh or self.settings.unknown_g_per_kwh, False
        if not math.isfinite(value) or value < 0:
            raise TrainingError(
                f"The grid's carbon intensity is {value} gCO2e/kWh; it must be finite and 0 or "
                "more. A source that does not know it has to say so (None)."
            )
        self.book.highest_g_per_kwh = max(value, self.book.highest_g_per_kwh or 0.0)
        return value, True

    def charge(self, *, step: bool = False) -> float:
        """Book what was used since the last look, as one step or as anything else; in gCO2e."""
        used, book = self._used(), self.book
        if used is None or self._last_kwh is None:
            kwh = self.step_kwh if step else 0.0
            book.assumed_steps += step
        else:
            kwh = max(0.0, used - self._last_kwh)
        self._last_kwh = used
        intensity, known = self.intensity()
        book.kwh += kwh
        book.g_co2e += kwh * intensity
        book.assumed_kwh += 0.0 if known else kwh
        if step:
            book.steps += 1
            book.step_kwh += kwh
            if book.reference_g_per_kwh is None:
                book.reference_g_per_kwh = intensity
        return kwh * intensity

    def _used(self) -> float | None:
        used = self._energy_kwh()
        if used is not None and (not math.isfinite(used) or used < 0):
            raise TrainingError(
                f"The energy used so far is {used} kWh; it must be finite and 0 or more."
            )
        return used


def aware_line(training: Mapping[str, Any]) -> str:
    """What a carbon-aware run did, for the model card; empty for any other run."""
    aware = training.get("carbon_aware")
    if aware is None:
        return ""
    epochs, budget = aware["epochs"], aware["budget_g_co2e"]
    limit = "no carbon budget" if budget is None else f"a carbon budget of {budget:.4g} gCO2e"
    simulated = " in simulated time" if aware.get("simulated_time") else ""
    return (
        f" Carbon-aware, with {limit}: {aware['g_co2e']:.4g} gCO2e charged; "
        f"{min(epochs, default=0)} to {max(epochs, default=0)} epochs a student; put off "
        f"{aware['waits']} times, {aware['waited_h']:.1f} h in all{simulated}; ended: "
        f"{aware['stopped']}."
    )
