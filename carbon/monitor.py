"""The one object that others hold: intensity, forecast, energy windows and the ledger."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from carbon.backends import make_meter
from carbon.entries import LedgerEntry, emissions_g_co2e
from carbon.errors import IntensityError, MeterError
from carbon.intensity.build import GridConfig, build_source
from carbon.intensity.fixed import TYPICAL_HOURLY_CV
from carbon.intensity.protocol import (
    Basis,
    IntensityReading,
    IntensitySource,
    as_utc,
    floor_hour,
    require_horizon,
    utc_now,
)
from carbon.intensity.trace import HOUR
from carbon.learned import Progress
from carbon.learned_source import ForecastOptions, LearnedSource, learned_source
from carbon.ledger import Ledger
from carbon.meter import EnergyBasis, EnergyReading, Meter, energy_window


@dataclass(kw_only=True)
class MonitoredWindow:
    """What :meth:`CarbonMonitor.window` hands out; filled in when the window closes."""

    _entry: LedgerEntry | None = field(default=None)
    _reading: EnergyReading | None = field(default=None)

    @property
    def entry(self) -> LedgerEntry:
        """What was recorded.

        Raises:
            MeterError: while the window is still open.
        """
        if self._entry is None:
            raise MeterError("The window is still open; read it after its 'with' block.")
        return self._entry

    @property
    def reading(self) -> EnergyReading:
        """The energy with its parts.

        Raises:
            MeterError: while the window is still open.
        """
        if self._reading is None:
            raise MeterError("The window is still open; read it after its 'with' block.")
        return self._reading

    def close(self, entry: LedgerEntry, reading: EnergyReading) -> None:
        """Fill in the outcome (called by the monitor)."""
        self._entry = entry
        self._reading = reading


class CarbonMonitor:
    """Knows the grid, measures work, and keeps the books. Safe to share between threads.

    Args:
        source: where intensities come from.
        meter: what energy is measured with.
        ledger: where entries go; None keeps no books, and entries are still returned.
        learned: the same source with a learned forecast, where there is a history to learn from.
        clock: the present (aware).
        monotonic: clock for the length of windows.
    """

    def __init__(
        self,
        *,
        source: IntensitySource,
        meter: Meter,
        ledger: Ledger | None = None,
        learned: LearnedSource | None = None,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.meter = meter
        self.ledger = ledger
        self.learned = learned
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._open: set[int] = set()
        self._overlapped: set[int] = set()
        self._next_window = 0

    @property
    def basis(self) -> Basis:
        """The basis of every intensity that this monitor gives."""
        return self.source.basis

    def now(self) -> IntensityReading:
        """The grid's intensity at present.

        Raises:
            IntensityError: if no source can say.
        """
        return self.source.now(as_utc(self._clock()))

    def forecast(self, hours: int) -> tuple[IntensityReading, ...]:
        """One reading for each of the next ``hours`` clock hours, each with an uncertainty.

        Learned where the source has a history and :meth:`fit` was called, else the source's own;
        hours beyond its horizon hold the last value known (persistence). Each note says which.
        Where the source knows no uncertainty, the typical hourly spread of a grid stands in, and
        the note says that.

        Raises:
            IntensityError: if not even the present is known.
        """
        at = as_utc(self._clock())
        readings, why = self._from_source(at, require_horizon(hours))
        if len(readings) < hours:
            readings += self._persistence(at, readings, hours, why)
        return tuple(_with_uncertainty(reading) for reading in readings)

    def fit(self, progress: Progress | None = None) -> str:
        """Fit the learned forecaster on what is known by now, and wait for it.

        Returns:
            Why it could not be fitted; empty if it was, or if the source has none.
        """
        if self.learned is None:
            return ""
        return self.learned.fit(as_utc(self._clock()), progress)

    def fit_in_background(self) -> None:
        """Start fitting the learned forecaster, if there is one; nothing waits for it."""
        if self.learned is not None:
            self.learned.fit_in_background(as_utc(self._clock()))

    def record(
        self,
        stage: str,
        *,
        case: str | None = None,
        energy_kwh: float | None,
        energy_basis: EnergyBasis = "modelled",
        energy_source: str = "declared",
        energy_reason: str | None = None,
        seconds: float | None = None,
        at: datetime | None = None,
        intensity: IntensityReading | None = None,
        note: str = "",
        policy: str | None = None,
        unit: str | None = None,
        session: str | None = None,
    ) -> LedgerEntry:
        """Book energy that was measured elsewhere or declared, for example a pipeline's.

        Args:
            stage: what was done.
            case: for which case.
            energy_kwh: kWh; None where unmeasured, with ``energy_reason``.
            energy_basis: measured or modelled.
            energy_source: counter or model.
            energy_reason: why there is no figure or why it was modelled.
            seconds: how long it took.
            at: when it was done; the present where not given.
            intensity: the grid at that time where the caller knows it; else the source is asked.
            note: anything else worth knowing.
            policy: the policy that decided on it.
            unit: the hospital unit that it was done for.
            session: the review session that it belongs to.

        Raises:
            LedgerError: if the entry is not fit for the books or cannot be written.
            UnitError: if the energy is negative or not finite.
        """
        time_ = as_utc(at if at is not None else self._clock())
        if intensity is None:
            intensity, problem = self._intensity_at(time_)
            note = "; ".join(filter(None, [note, problem]))
        entry = LedgerEntry(
            time=time_,
            stage=stage,
            case=case,
            energy_kwh=energy_kwh,
            energy_basis=energy_basis,
            energy_source=energy_source,
            energy_reason=energy_reason,
            seconds=seconds,
            intensity=intensity,
            g_co2e=emissions_g_co2e(energy_kwh, intensity),
            note=note,
            policy=policy,
            unit=unit,
            session=session,
        )
        if self.ledger is not None:
            self.ledger.append(entry)
        return entry

    @contextmanager
    def window(self, stage: str, case: str | None = None) -> Iterator[MonitoredWindow]:
        """Measure a ``with`` block and book it, also if the block raises: the energy is spent.

        The intensity is that of the middle of the window. Windows that overlap in time may count
        the same energy twice, since counters see the whole machine and the model the whole
        process; such entries say so.

        Args:
            stage: what is done.
            case: for which case.
        """
        opened = MonitoredWindow()
        number = self._enter()
        began = as_utc(self._clock())
        ended_by = ""
        measured = None
        try:
            with energy_window(self.meter, monotonic=self._monotonic) as measured:
                yield opened
        except BaseException as error:
            ended_by = f"ended by {type(error).__name__}"
            raise
        finally:
            overlap = self._leave(number)
            if measured is not None:
                note = "; ".join(filter(None, [ended_by, overlap]))
                self._book(
                    opened,
                    stage=stage,
                    case=case,
                    began=began,
                    reading=measured.reading,
                    note=note,
                )

    def _book(
        self,
        opened: MonitoredWindow,
        *,
        stage: str,
        case: str | None,
        began: datetime,
        reading: EnergyReading,
        note: str,
    ) -> None:
        ended = as_utc(self._clock())
        intensity, problem = self._intensity_at(began + (ended - began) / 2)
        entry = self.record(
            stage,
            case=case,
            energy_kwh=reading.kwh,
            energy_basis=reading.basis,
            energy_source=reading.source,
            energy_reason=reading.reason,
            seconds=reading.seconds,
            at=ended,
            intensity=intensity,
            note="; ".join(filter(None, [note, problem])),
        )
        opened.close(entry, reading)

    def _intensity_at(self, at: datetime) -> tuple[IntensityReading | None, str]:
        try:
            return self.source.now(at), ""
        except IntensityError as error:
            return None, f"intensity unknown: {error}"

    def _from_source(self, at: datetime, hours: int) -> tuple[tuple[IntensityReading, ...], str]:
        try:
            readings = (self.learned or self.source).forecast(at, hours)
        except IntensityError as error:
            return (), f"the source has no forecast: {error}"
        why = f"beyond the {len(readings)} hours that {self.source.name} foresees"
        return readings[:hours], why

    def _persistence(
        self, at: datetime, known: tuple[IntensityReading, ...], hours: int, why: str
    ) -> tuple[IntensityReading, ...]:
        last = known[-1] if known else self.source.now(at)
        return tuple(
            replace(
                last,
                time=floor_hour(at) + lead * HOUR,
                kind="fallback" if last.kind == "fallback" else "forecast",
                age_s=0.0,
                uncertainty_g_per_kwh=None,
            ).with_note(f"the last value held, {why}")
            for lead in range(len(known) + 1, hours + 1)
        )

    def _enter(self) -> int:
        with self._lock:
            number = self._next_window
            self._next_window += 1
            if self._open:
                self._overlapped |= self._open | {number}
            self._open.add(number)
            return number

    def _leave(self, number: int) -> str:
        with self._lock:
            self._open.discard(number)
            if number not in self._overlapped:
                return ""
            self._overlapped.discard(number)
            return "overlaps another window: the same energy may be counted in both"


def build_monitor(
    config: GridConfig | None = None,
    *,
    forecast: ForecastOptions | None = None,
    meter: Meter | str = "machine",
    ledger: Ledger | Path | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> CarbonMonitor:
    """A monitor from plain arguments; reads no environment variable.

    Args:
        config: the grid; NESO, then the synthetic day, where not given.
        forecast: how to forecast; learned where there is a history, once it was fitted.
        meter: a meter, or one of the names machine, modelled, null.
        ledger: a ledger or its file; None keeps no books.
        clock: the present (aware).

    Raises:
        CarbonError: as :func:`build_source`, and if the meter or the ledger is not usable.
    """
    grid = config if config is not None else GridConfig()
    source = build_source(grid, clock=clock)
    return CarbonMonitor(
        source=source,
        learned=learned_source(
            source,
            forecast if forecast is not None else ForecastOptions(),
            trace_file=grid.trace if isinstance(grid.trace, Path) else None,
        ),
        meter=make_meter(meter) if isinstance(meter, str) else meter,
        ledger=Ledger(ledger) if isinstance(ledger, Path) else ledger,
        clock=clock,
    )


def _with_uncertainty(reading: IntensityReading) -> IntensityReading:
    if reading.uncertainty_g_per_kwh is not None:
        return reading
    assumed = replace(reading, uncertainty_g_per_kwh=TYPICAL_HOURLY_CV * reading.g_per_kwh)
    return assumed.with_note(f"uncertainty assumed: {TYPICAL_HOURLY_CV:.0%} of the value")
