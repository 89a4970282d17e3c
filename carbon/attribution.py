"""This process's part of what whole-machine counters saw, for machines that others use as well.

    part = counted energy x (CPU time of this process / CPU time of the whole machine)

over the window. What the machine draws when idle is thereby shared out like the work. The result is
modelled, since the share is a model; the whole figure stays in its reason, so both are on record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from carbon.backends import ProcessUse, this_process
from carbon.counters import NvmlMeter, RaplMeter
from carbon.meter import ComponentReading, Meter, MeterRun

GPU_NOTE = (
    "whole devices: what other processes drew on them is included, since the counter does not "
    "tell processes apart"
)


def machine_busy_s() -> float:
    """CPU seconds that all processes together have used since the machine started."""
    import psutil  # noqa: PLC0415

    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # Linux counts guests in user time already.
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - counted_twice)


@dataclass(frozen=True, kw_only=True)
class CpuShare:
    """How much of the machine's CPU time this process had in a window.

    Attributes:
        process_s: CPU seconds of this process and its children that have ended.
        machine_s: CPU seconds of all processes.
    """

    process_s: float
    machine_s: float

    @property
    def share(self) -> float | None:
        """Between 0 and 1; None where the window was too short for the machine's clock."""
        if self.machine_s <= 0:
            return None
        # The machine counts in ticks of 10 ms, so a process may seem to have had more than all.
        return min(1.0, self.process_s / self.machine_s)


def attribute(part: ComponentReading, used: CpuShare) -> ComponentReading:
    """This process's part of one whole-machine figure; GPUs stay whole, and say so."""
    if part.joules is None:
        return part
    if part.component == "gpu":
        return replace(part, reason="; ".join(filter(None, [part.reason, GPU_NOTE])))
    if used.share is None:
        return replace(
            part,
            joules=None,
            reason=f"{part.source} counted {part.joules:.6g} J for the whole machine in a window "
            "too short to tell this process's share of its CPU time",
        )
    return ComponentReading(
        component=part.component,
        joules=part.joules * used.share,
        basis="modelled",
        source=f"{part.source} x this process's share of CPU time",
        reason=f"the whole machine's {part.joules:.6g} J shared out by CPU time: "
        f"{used.process_s:.3f} of {used.machine_s:.3f} s ({used.share:.1%})",
    )


class AttributedRun:
    """A whole-machine measurement and the CPU times beside it."""

    def __init__(self, run: MeterRun, meter: AttributedMeter) -> None:
        self._meter = meter
        self._busy_s = meter.busy_s()
        self._use = meter.probe()
        self._run = run

    @property
    def sample_every_s(self) -> float | None:
        """As the counter wishes."""
        return self._run.sample_every_s

    def sample(self) -> None:
        """Look at the counter now."""
        self._run.sample()

    def end(self) -> tuple[ComponentReading, ...]:
        """This process's part of each figure."""
        parts = self._run.end()
        used = CpuShare(
            process_s=max(0.0, self._meter.probe().cpu_s - self._use.cpu_s),
            machine_s=max(0.0, self._meter.busy_s() - self._busy_s),
        )
        return tuple(attribute(part, used) for part in parts)


class AttributedMeter:
    """A whole-machine counter, shared out to this process by CPU time.

    Args:
        whole: the counter.
        probe: looks at this process.
        busy_s: CPU seconds of the whole machine.
    """

    def __init__(
        self,
        whole: Meter,
        *,
        probe: Callable[[], ProcessUse] = this_process,
        busy_s: Callable[[], float] = machine_busy_s,
    ) -> None:
        self._whole = whole
        self.probe = probe
        self.busy_s = busy_s

    @property
    def name(self) -> str:
        """The counter's name, with ``process`` before it."""
        return f"process {self._whole.name}"

    def begin(self) -> AttributedRun:
        """Start."""
        return AttributedRun(self._whole.begin(), self)


def process_counters() -> tuple[Meter, Meter]:
    """RAPL and NVML, shared out to this process."""
    return AttributedMeter(RaplMeter()), AttributedMeter(NvmlMeter())
