"""Meters to choose from: the whole machine, modelled CPU time, replay and null doubles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from carbon.counters import NvmlMeter, RaplMeter
from carbon.errors import MeterError
from carbon.meter import ComponentReading, Meter, MeterRun
from carbon.pipeline import PipelineAssumptions
from carbon.units import Power

BYTES_PER_GB = 1e9
MeterName = Literal["machine", "process", "modelled", "null"]


@dataclass(frozen=True, kw_only=True)
class ProcessUse:
    """What a process has used so far.

    Attributes:
        cpu_s: CPU seconds of the process and of its children that have ended.
        memory_bytes: resident memory now.
    """

    cpu_s: float
    memory_bytes: int


def this_process() -> ProcessUse:
    """CPU time and memory of this process, from the operating system."""
    import psutil  # noqa: PLC0415

    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        memory = process.memory_info().rss
    # Where the system does not count children, psutil leaves these two fields out.
    children_s = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    # The process's own times come in ticks of 10 ms there: a short window would use nothing.
    return ProcessUse(cpu_s=time.process_time() + children_s, memory_bytes=memory)


class ModelledRun:
    """One modelled measurement; see :class:`carbon.meter.MeterRun`."""

    def __init__(self, meter: ModelledMeter) -> None:
        self._meter = meter
        self._start_s = meter.monotonic()
        self._start = meter.probe()

    @property
    def sample_every_s(self) -> None:
        """Never."""
        return

    def sample(self) -> None:
        """Nothing to do between beginning and end."""

    def end(self) -> tuple[ComponentReading, ...]:
        """CPU time x watts a core, and mean resident memory x watts a gigabyte x time."""
        machine = self._meter.assumptions
        use = self._meter.probe()
        seconds = max(0.0, self._meter.monotonic() - self._start_s)
        cpu_s = max(0.0, use.cpu_s - self._start.cpu_s)
        gb = (self._start.memory_bytes + use.memory_bytes) / 2 / BYTES_PER_GB
        why = self._meter.reason
        core_w = machine.w_per_core * machine.usage
        return (
            ComponentReading(
                component="cpu",
                joules=Power(watts=core_w).over(cpu_s).joules,
                basis="modelled",
                source=f"CPU time of this process and its ended children x {core_w:g} W a core",
                reason=why,
            ),
            ComponentReading(
                component="memory",
                joules=Power(watts=gb * machine.w_per_gb).over(seconds).joules,
                basis="modelled",
                source=f"resident memory x {machine.w_per_gb:g} W a GB",
                reason=why,
            ),
        )


class ModelledMeter:
    """Energy of this process from a model; what is left where nothing can be counted.

    Args:
        assumptions: watts a core and a gigabyte. Their PUE is not applied: like the counters,
            this gives the energy of the computer alone.
        probe: looks at the process.
        monotonic: clock for the memory's share.
        reason: why it is modelled.
    """

    def __init__(
        self,
        *,
        assumptions: PipelineAssumptions | None = None,
        probe: Callable[[], ProcessUse] = this_process,
        monotonic: Callable[[], float] = time.monotonic,
        reason: str = "asked for the model",
    ) -> None:
        self.assumptions = assumptions if assumptions is not None else PipelineAssumptions()
        self.probe = probe
        self.monotonic = monotonic
        self.reason = reason

    @property
    def name(self) -> str:
        """``modelled``."""
        return "modelled"

    def begin(self) -> ModelledRun:
        """Start."""
        return ModelledRun(self)


class MachineRun:
    """Counters and the model side by side; the counters win part by part."""

    def __init__(self, counted: tuple[MeterRun, ...], modelled: MeterRun) -> None:
        self._counted = counted
        self._modelled = modelled

    @property
    def sample_every_s(self) -> float | None:
        """As often as the counter that needs it most."""
        wishes = [run.sample_every_s for run in self._counted]
        return min((wish for wish in wishes if wish is not None), default=None)

    def sample(self) -> None:
        """Look at every counter now."""
        for run in self._counted:
            run.sample()

    def end(self) -> tuple[ComponentReading, ...]:
        """One reading each for cpu, memory and gpu."""
        counted = {part.component: part for run in self._counted for part in run.end()}
        parts = []
        for model in self._modelled.end():
            count = counted.pop(model.component, None)
            if count is not None and count.joules is not None:
                parts.append(count)
                continue
            why = count.reason if count is not None else "it has no counter of its own"
            parts.append(
                ComponentReading(
                    component=model.component,
                    joules=model.joules,
                    basis="modelled",
                    source=model.source,
                    reason=why,
                )
            )
        return (*parts, *counted.values())


class MachineMeter:
    """RAPL and NVML where they can be read, part by part; the model for cpu and memory else.

    A GPU is never modelled: without its counter, its reading is None with the reason.

    Args:
        rapl: processor and memory counters.
        nvml: GPU counters.
        model: what stands in for cpu and memory.
        name: what it is called.
    """

    def __init__(
        self,
        *,
        rapl: Meter | None = None,
        nvml: Meter | None = None,
        model: Meter | None = None,
        name: str = "machine",
    ) -> None:
        self._name = name
        self._rapl = rapl if rapl is not None else RaplMeter()
        self._nvml = nvml if nvml is not None else NvmlMeter()
        self._model = model if model is not None else ModelledMeter()

    @property
    def name(self) -> str:
        """``machine``, or what it was called."""
        return self._name

    def begin(self) -> MachineRun:
        """Start all of them."""
        return MachineRun((self._rapl.begin(), self._nvml.begin()), self._model.begin())


class _GivenRun:
    """A run that answers with what it was given."""

    def __init__(self, components: tuple[ComponentReading, ...]) -> None:
        self._components = components

    @property
    def sample_every_s(self) -> None:
        """Never."""
        return

    def sample(self) -> None:
        """Nothing to look at."""

    def end(self) -> tuple[ComponentReading, ...]:
        """What was given."""
        return self._components


class ReplayMeter:
    """A double that hands out recorded readings in order, for tests and for replaying a run.

    Args:
        windows: the parts of each window.
    """

    def __init__(self, windows: Iterable[tuple[ComponentReading, ...]]) -> None:
        self._windows: Iterator[tuple[ComponentReading, ...]] = iter(windows)

    @classmethod
    def of_joules(cls, joules: Iterable[float]) -> ReplayMeter:
        """One measured figure a window, J."""
        return cls(
            (ComponentReading(component="all", joules=j, basis="measured", source="replay"),)
            for j in joules
        )

    @property
    def name(self) -> str:
        """``replay``."""
        return "replay"

    def begin(self) -> MeterRun:
        """The next recorded window.

        Raises:
            MeterError: if the recording has ended.
        """
        components = next(self._windows, None)
        if components is None:
            raise MeterError("The recording has no more windows; record more, or measure less.")
        return _GivenRun(components)


class NullMeter:
    """A double that measures nothing and says so.

    Args:
        reason: why nothing is measured.
    """

    def __init__(self, reason: str = "measuring is switched off") -> None:
        self._reason = reason

    @property
    def name(self) -> str:
        """``null``."""
        return "null"

    def begin(self) -> MeterRun:
        """A run whose only reading has no figure."""
        part = ComponentReading(
            component="all", joules=None, basis="measured", source="null", reason=self._reason
        )
        return _GivenRun((part,))


def _process_meter() -> Meter:
    # Attribution builds on the probes of this module.
    from carbon.attribution import process_counters  # noqa: PLC0415

    rapl, nvml = process_counters()
    return MachineMeter(rapl=rapl, nvml=nvml, name="process")


METERS: dict[MeterName, Callable[[], Meter]] = {
    "machine": MachineMeter,
    "process": _process_meter,
    "modelled": ModelledMeter,
    "null": NullMeter,
}


def make_meter(name: str) -> Meter:
    """A meter by name.

    Raises:
        MeterError: if there is none of that name.
    """
    for known, factory in METERS.items():
        if known == name:
            return factory()
    raise MeterError(f"Unknown meter {name!r}. Allowed: {', '.join(METERS)}.")
