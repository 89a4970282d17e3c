"""Measure the energy of a stretch of work, and say of every figure how it came about.

A figure is ``measured`` (hardware counters) or ``modelled`` (a formula). What could not be had is
``None`` with a reason, never 0, and a total says which parts it leaves out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from carbon.errors import MeterError, UnitError
from carbon.units import J_PER_KWH, Energy

EnergyBasis = Literal["measured", "modelled"]
Component = Literal["cpu", "memory", "gpu", "all"]


@dataclass(frozen=True, kw_only=True)
class ComponentReading:
    """Energy of one part of the machine.

    Attributes:
        component: which part; ``all`` where the source does not tell parts apart.
        joules: energy, J; None where it could not be had.
        basis: measured or modelled.
        source: the counter or the model.
        reason: why there is no figure, or why it had to be modelled; None where all is well.
    """

    component: Component
    joules: float | None
    basis: EnergyBasis
    source: str
    reason: str | None = None

    def __post_init__(self) -> None:
        if self.joules is None and not self.reason:
            raise UnitError(f"{self.source}: a part without a figure needs a reason.")
        if self.joules is not None:
            # Refuses what is not finite or is negative, wherever it came from.
            Energy(joules=self.joules)


@dataclass(frozen=True, kw_only=True)
class EnergyReading:
    """Energy of one window: the total, how it came about, and its parts.

    Attributes:
        joules: sum over the parts that have a figure, J; None if none has.
        basis: ``measured`` only if every part that is summed was.
        source: the sources that were summed.
        reason: what is not in the sum and why, and what had to be modelled and why; None where
            every part was measured.
        seconds: length of the window by a monotonic clock.
        components: the parts.
    """

    joules: float | None
    basis: EnergyBasis
    source: str
    reason: str | None
    seconds: float
    components: tuple[ComponentReading, ...] = ()

    @property
    def kwh(self) -> float | None:
        """Kilowatt-hours; None where unmeasured."""
        return None if self.joules is None else self.joules / J_PER_KWH


@runtime_checkable
class MeterRun(Protocol):
    """One measurement in progress."""

    @property
    def sample_every_s(self) -> float | None:
        """How often :meth:`sample` must be called, s; None if never."""
        ...

    def sample(self) -> None:
        """Look at the counters now, before they wrap around unseen."""
        ...

    def end(self) -> tuple[ComponentReading, ...]:
        """Stop, and give the energy of each part since the beginning."""
        ...


@runtime_checkable
class Meter(Protocol):
    """Anything that can measure or model the energy of a stretch of work.

    Whatever cannot be read becomes a reading without a figure; a meter never raises for it.
    """

    @property
    def name(self) -> str:
        """What it reads, in a few words."""
        ...

    def begin(self) -> MeterRun:
        """Start measuring."""
        ...


def combine(components: Sequence[ComponentReading], seconds: float) -> EnergyReading:
    """Add up the parts and say what the sum is made of."""
    known = [part for part in components if part.joules is not None]
    reasons = [
        f"{part.component} {'left out' if part.joules is None else 'modelled'}: {part.reason}"
        for part in components
        if part.reason
    ]
    measured = bool(known) and all(part.basis == "measured" for part in known)
    summed = known if known else components
    return EnergyReading(
        joules=sum((part.joules or 0.0 for part in known), 0.0) if known else None,
        basis="measured" if measured else "modelled",
        source=" + ".join(part.source for part in summed) or "none",
        reason="; ".join(reasons) or (None if known else "the meter has no parts"),
        seconds=seconds,
        components=tuple(components),
    )


@dataclass(kw_only=True)
class EnergyWindow:
    """What :func:`energy_window` hands out; filled in when the window closes."""

    _reading: EnergyReading | None = field(default=None)

    @property
    def reading(self) -> EnergyReading:
        """The energy of the window.

        Raises:
            MeterError: while the window is still open.
        """
        if self._reading is None:
            raise MeterError("The window is still open; read it after its 'with' block.")
        return self._reading

    def close(self, reading: EnergyReading) -> None:
        """Fill in the reading (called by the window)."""
        self._reading = reading


@contextmanager
def energy_window(
    meter: Meter, *, monotonic: Callable[[], float] = time.monotonic
) -> Iterator[EnergyWindow]:
    """Measure a ``with`` block; the reading is there after it, also if the block raised.

    Args:
        meter: what to measure with.
        monotonic: clock for the length.
    """
    opened = EnergyWindow()
    start_s = monotonic()
    run = meter.begin()
    stop = threading.Event()
    sampler = _start_sampler(run, stop)
    try:
        yield opened
    finally:
        stop.set()
        if sampler is not None:
            sampler.join()
        components = run.end()
        opened.close(combine(components, monotonic() - start_s))


def _start_sampler(run: MeterRun, stop: threading.Event) -> threading.Thread | None:
    every_s = run.sample_every_s
    if every_s is None:
        return None

    def keep_sampling() -> None:
        while not stop.wait(every_s):
            run.sample()

    sampler = threading.Thread(target=keep_sampling, name="energy-sampler", daemon=True)
    sampler.start()
    return sampler
