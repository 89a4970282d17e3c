"""Put sources together from plain arguments: names, paths and numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from carbon.errors import BasisError, IntensityError
from carbon.intensity.chain import ChainSource
from carbon.intensity.fixed import FixedSource
from carbon.intensity.protocol import (
    Accounting,
    Basis,
    IntensitySource,
    Scope,
    make_basis,
    utc_now,
)
from carbon.intensity.recorded import RecordedSource, Trace, load_trace
from carbon.intensity.synthetic import SyntheticSource

NESO_URL = "https://api.carbonintensity.org.uk"
GB = "GB"


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Which grid, from whom, and what to fall back to.

    Attributes:
        sources: names in order of preference: neso, trace, synthetic, fixed. Empty chooses: the
            trace if one is given, the fixed figure if one is given, else neso; then synthetic.
        trace: a recorded trace or its file; replayed where its dates have passed.
        basis: direct or life-cycle; for a trace, which column is read.
        accounting: production or consumption, where known; sources in one chain must agree.
        zone: name of the grid, for traces and fixed figures; neso is always GB.
        fixed_g_per_kwh: the fixed figure, gCO2e/kWh.
        fixed_origin: where it was published.
        seed: of the synthetic grid.
        cache_dir: folder for provider answers; memory only where not given.
        neso_url: another address that speaks NESO's shape.
    """

    sources: tuple[str, ...] = ()
    trace: Path | Trace | None = None
    basis: Scope = "direct"
    accounting: Accounting = "unstated"
    zone: str | None = None
    fixed_g_per_kwh: float | None = None
    fixed_origin: str = "the command or configuration"
    seed: int = 0
    cache_dir: Path | None = None
    neso_url: str = NESO_URL

    @property
    def chosen(self) -> tuple[str, ...]:
        """The sources in order, chosen by what is given where none were named."""
        if self.sources:
            return self.sources
        given = [
            name
            for name, value in (("trace", self.trace), ("fixed", self.fixed_g_per_kwh))
            if value is not None
        ]
        return (*(given or ["neso"]), "synthetic")


def build_source(config: GridConfig, *, clock: Callable[[], datetime] = utc_now) -> IntensitySource:
    """The sources of a configuration, as a fallback chain where there are several.

    Raises:
        IntensityError: if a source is unknown, named twice, or lacks what it needs.
        BasisError: if the sources differ in basis.
        TraceError: if the trace cannot be read.
    """
    names = config.chosen
    unknown = [name for name in names if name not in SOURCES]
    if unknown or len(set(names)) != len(names):
        what = f"Unknown source {unknown[0]!r}" if unknown else "A source is named twice"
        raise IntensityError(f"{what}. Allowed, each once: {', '.join(SOURCES)}.")
    built: list[IntensitySource] = []
    for name in names:
        # The synthetic grid stands for whatever it stands in for.
        basis = built[0].basis if built else _declared_basis(config)
        built.append(SOURCES[name](config, basis, clock))
    return built[0] if len(built) == 1 else ChainSource(built)


def _declared_basis(config: GridConfig) -> Basis:
    return make_basis("average", config.basis, config.accounting)


Clock = Callable[[], datetime]
Factory = Callable[[GridConfig, Basis, Clock], IntensitySource]


def _neso(config: GridConfig, basis: Basis, clock: Clock) -> IntensitySource:
    # pydantic and the HTTP client are for those who go online.
    from carbon.intensity.cache import ResponseCache  # noqa: PLC0415
    from carbon.intensity.neso import NesoSource  # noqa: PLC0415

    if config.zone not in (None, GB):
        raise IntensityError(f"neso knows the zone {GB} only, not {config.zone!r}.")
    source = NesoSource(
        cache=ResponseCache(config.cache_dir), base_url=config.neso_url, clock=clock
    )
    if config.basis != "direct":
        raise BasisError(
            f"neso gives {source.basis} figures, not {config.basis!r}. Take direct, or another "
            "source."
        )
    return source


def _trace(config: GridConfig, basis: Basis, clock: Clock) -> IntensitySource:
    if config.trace is None:
        raise IntensityError("The source 'trace' needs a file; give one, for example --trace FILE.")
    trace = config.trace
    if not isinstance(trace, Trace):
        trace = load_trace(trace, config.basis, accounting=config.accounting, zone=config.zone)
    return RecordedSource(trace, align="replay")


def _synthetic(config: GridConfig, basis: Basis, clock: Clock) -> IntensitySource:
    return SyntheticSource(seed=config.seed, basis=basis)


def _fixed(config: GridConfig, basis: Basis, clock: Clock) -> IntensitySource:
    if config.fixed_g_per_kwh is None or config.zone is None:
        raise IntensityError(
            "The source 'fixed' needs a figure in gCO2e/kWh and its zone; give both."
        )
    return FixedSource(
        config.fixed_g_per_kwh, zone=config.zone, basis=basis, origin=config.fixed_origin
    )


SOURCES: dict[str, Factory] = {
    "neso": _neso,
    "trace": _trace,
    "synthetic": _synthetic,
    "fixed": _fixed,
}
