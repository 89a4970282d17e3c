"""Hardware energy counters: RAPL for processors and memory, NVML for NVIDIA GPUs.

Both count the whole machine, every process on it included. RAPL is read straight from Linux's
powercap tree (Documentation/power/powercap/powercap.rst), NVML through nvidia-ml-py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carbon.meter import Component, ComponentReading

SYSFS = Path("/sys/class/powercap")
UJ_PER_J = 1_000_000.0
MJ_PER_J = 1_000.0
ZONE_PATTERN = re.compile(r"intel-rapl:\d+(:\d+)?")
"""Packages and their parts; AMD processors use the same names. ``intel-rapl-mmio`` counts the
same package a second time."""

HIGHEST_PACKAGE_W = 1_000.0
"""No package draws more; bounds how fast a counter can come round."""
MIN_SAMPLE_S = 0.1
"""Looking more often would itself use energy."""


@dataclass(kw_only=True)
class _Zone:
    """One RAPL counter and what it has counted so far."""

    label: str
    component: Component
    path: Path
    range_uj: int
    last_uj: int | None = None
    total_uj: int = 0
    problem: str | None = None

    def sample(self) -> None:
        """Add what was used since the last look; a counter that wrapped is unrolled once."""
        if self.problem is not None:
            return
        try:
            now_uj = int(self.path.read_text().strip())
        except (OSError, ValueError) as error:
            self.problem = f"{self.path} cannot be read ({_plain(error)})"
            return
        if self.last_uj is not None:
            delta = now_uj - self.last_uj
            self.total_uj += delta if delta >= 0 else delta + self.range_uj + 1
        self.last_uj = now_uj


class RaplRun:
    """One measurement with RAPL; see :class:`carbon.meter.MeterRun`."""

    def __init__(self, zones: list[_Zone], problem: str | None) -> None:
        self._zones = zones
        self._problem = problem
        for zone in zones:
            zone.sample()

    @property
    def sample_every_s(self) -> float | None:
        """Half of the shortest time in which a counter could come round."""
        ranges = [zone.range_uj for zone in self._zones if zone.problem is None]
        if not ranges:
            return None
        return max(MIN_SAMPLE_S, min(ranges) / UJ_PER_J / HIGHEST_PACKAGE_W / 2)

    def sample(self) -> None:
        """Look at every counter now."""
        for zone in self._zones:
            zone.sample()

    def end(self) -> tuple[ComponentReading, ...]:
        """Energy of the packages (cpu) and, where counted apart, of the memory."""
        self.sample()
        if self._problem is not None:
            return (_missing("cpu", "rapl", self._problem),)
        return tuple(
            self._sum(component)
            for component in ("cpu", "memory")
            if any(zone.component == component for zone in self._zones)
        )

    def _sum(self, component: Component) -> ComponentReading:
        zones = [zone for zone in self._zones if zone.component == component]
        source = f"rapl {', '.join(zone.label for zone in zones)} (whole machine)"
        problems = [zone.problem for zone in zones if zone.problem is not None]
        if problems:
            # One package of two would be half the truth under the name of the whole.
            return _missing(component, source, "; ".join(problems))
        total_uj = sum(zone.total_uj for zone in zones)
        return ComponentReading(
            component=component, joules=total_uj / UJ_PER_J, basis="measured", source=source
        )


class RaplMeter:
    """Processor packages, and memory where it is counted apart.

    Cores and graphics are parts of their package and ``psys`` contains everything, so neither is
    added.

    Args:
        sysfs: the powercap tree.
    """

    def __init__(self, sysfs: Path = SYSFS) -> None:
        self._sysfs = sysfs

    @property
    def name(self) -> str:
        """``rapl``."""
        return "rapl"

    def begin(self) -> RaplRun:
        """Start; zones that cannot be read become readings with a reason."""
        zones: list[_Zone] = []
        try:
            folders = sorted(self._sysfs.iterdir())
        except OSError as error:
            return RaplRun([], f"no RAPL counters at {self._sysfs} ({_plain(error)})")
        for folder in folders:
            zone = _open_zone(folder) if ZONE_PATTERN.fullmatch(folder.name) else None
            if zone is not None:
                zones.append(zone)
        if not any(zone.component == "cpu" for zone in zones):
            return RaplRun([], f"no RAPL package under {self._sysfs}")
        return RaplRun(zones, None)


def _open_zone(folder: Path) -> _Zone | None:
    try:
        label = (folder / "name").read_text().strip()
    except OSError as error:
        # Without its name a zone may be a package: it must not vanish from the sum unsaid.
        if folder.name.count(":") > 1:
            return None
        return _Zone(
            label=folder.name, component="cpu", path=folder / "energy_uj", range_uj=0,
            problem=f"{folder / 'name'} cannot be read ({_plain(error)})",
        )  # fmt: skip
    component: Component
    if label.startswith("package"):
        component = "cpu"
    elif label == "dram":
        component = "memory"
    else:
        return None
    zone = _Zone(label=label, component=component, path=folder / "energy_uj", range_uj=0)
    try:
        zone.range_uj = int((folder / "max_energy_range_uj").read_text().strip())
    except (OSError, ValueError) as error:
        zone.problem = f"{folder / 'max_energy_range_uj'} cannot be read ({_plain(error)})"
    return zone


class NvmlRun:
    """One measurement with NVML; see :class:`carbon.meter.MeterRun`."""

    def __init__(self, library: Any, handles: list[Any], problem: str | None) -> None:
        self._library = library
        self._handles = handles
        self._problem = problem
        self._start_mj: list[int] = []
        self._begin()

    @property
    def sample_every_s(self) -> None:
        """Never: the counter has 64 bits of millijoules."""
        return

    def sample(self) -> None:
        """Nothing to do between beginning and end."""

    def end(self) -> tuple[ComponentReading, ...]:
        """Energy of all GPUs together."""
        source = f"nvml {len(self._handles)} GPU (whole devices)"
        if self._problem is not None:
            return (_missing("gpu", "nvml", self._problem),)
        end_mj = self._read()
        if end_mj is None:
            return (_missing("gpu", source, str(self._problem)),)
        used = [end - start for start, end in zip(self._start_mj, end_mj)]
        if min(used) < 0:
            return (_missing("gpu", source, "a GPU counter went back: the driver was reloaded"),)
        joules = sum(used) / MJ_PER_J
        return (ComponentReading(component="gpu", joules=joules, basis="measured", source=source),)

    def _begin(self) -> None:
        if self._problem is None:
            self._start_mj = self._read() or []

    def _read(self) -> list[int] | None:
        try:
            return [
                int(self._library.nvmlDeviceGetTotalEnergyConsumption(handle))
                for handle in self._handles
            ]
        except self._library.NVMLError as error:
            self._problem = f"the GPU's energy counter cannot be read ({error})"
            return None


class NvmlMeter:
    """All NVIDIA GPUs of the machine, by their energy counters (Volta and later).

    Args:
        library: something that speaks nvidia-ml-py's functions; the real one where not given.
    """

    def __init__(self, library: Any | None = None) -> None:
        self._library = library
        self._handles: list[Any] | None = None
        self._problem: str | None = None

    @property
    def name(self) -> str:
        """``nvml``."""
        return "nvml"

    def begin(self) -> NvmlRun:
        """Start; without a GPU or driver, the reading says so."""
        if self._handles is None:
            self._open()
        return NvmlRun(self._library, self._handles or [], self._problem)

    def _open(self) -> None:
        # Tried once: a machine does not grow a GPU, and a window must cost under a millisecond.
        self._handles = []
        library = self._library if self._library is not None else _load_nvml()
        if library is None:
            self._problem = "nvidia-ml-py is not installed"
            return
        self._library = library
        try:
            library.nvmlInit()
            count = library.nvmlDeviceGetCount()
            self._handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        except library.NVMLError as error:
            self._problem = f"no NVIDIA GPU can be asked ({error})"
            return
        if not self._handles:
            self._problem = "there is no NVIDIA GPU"


def _load_nvml() -> Any | None:
    try:
        import pynvml  # noqa: PLC0415
    except ImportError:
        return None
    return pynvml


def _missing(component: Component, source: str, reason: str) -> ComponentReading:
    return ComponentReading(
        component=component, joules=None, basis="measured", source=source, reason=reason
    )


def _plain(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied: counters are readable by root only unless access is granted"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
