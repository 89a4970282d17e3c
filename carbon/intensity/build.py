"""Put sources together from plain arguments: names, paths, numbers and credentials.

Nothing here reads the environment or a file of tokens: whoever calls does that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from carbon.errors import BasisError, IntensityError
from carbon.intensity.chain import ChainSource
from carbon.intensity.fixed import FixedSource
from carbon.intensity.http import HttpClient
from carbon.intensity.protocol import (
    Accounting,
    Basis,
    IntensitySource,
    Scope,
    make_basis,
    utc_now,
)
from carbon.intensity.recorded import RecordedSource, Trace, load_trace
from carbon.intensity.secret import Secret
from carbon.intensity.synthetic import SyntheticSource

NESO_URL = "https://api.carbonintensity.org.uk"
ELECTRICITY_MAPS_URL = "https://api.electricitymaps.com/v3"
WATTTIME_URL = "https://api.watttime.org"
GB = "GB"


@dataclass(frozen=True, kw_only=True)
class ProviderAccess:
    """Credentials and addresses of the providers that ask who comes.

    Attributes:
        electricity_maps_token: the token.
        watttime_user: user name of the account.
        watttime_password: its password.
        electricity_maps_url: another address that speaks the same shape.
        watttime_url: another address that speaks the same shape.
    """

    electricity_maps_token: Secret | None = None
    watttime_user: Secret | None = None
    watttime_password: Secret | None = None
    electricity_maps_url: str = ELECTRICITY_MAPS_URL
    watttime_url: str = WATTTIME_URL


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """Which grid, from whom, and what to fall back to.

    Attributes:
        sources: names in order of preference: neso, electricity-maps, watttime, trace, synthetic,
            fixed. Empty chooses: the trace if one is given, the fixed figure if one is given, else
            neso; then synthetic.
        trace: a recorded trace or its file; replayed where its dates have passed.
        basis: direct or life-cycle; for a trace, which column is read.
        accounting: production or consumption, where known; sources in one chain must agree.
        zone: the grid: a name for traces and fixed figures, a zone of Electricity Maps (``DE``),
            a region of WattTime (``CAISO_NORTH``); neso is always GB.
        neso_region: of neso, one region (1 to 17) instead of the nation; forecasts only.
        neso_postcode: of neso, one postcode instead of the nation; forecasts only.
        fixed_g_per_kwh: the fixed figure, gCO2e/kWh.
        fixed_origin: where it was published.
        seed: of the synthetic grid.
        cache_dir: folder for provider answers; memory only where not given.
        neso_url: another address that speaks NESO's shape.
        access: credentials of the providers that need them.
    """

    sources: tuple[str, ...] = ()
    trace: Path | Trace | None = None
    basis: Scope = "direct"
    accounting: Accounting = "unstated"
    zone: str | None = None
    neso_region: int | None = None
    neso_postcode: str | None = None
    fixed_g_per_kwh: float | None = None
    fixed_origin: str = "the command or configuration"
    seed: int = 0
    cache_dir: Path | None = None
    neso_url: str = NESO_URL
    access: ProviderAccess = field(default_factory=ProviderAccess)

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
    if "neso" not in names and (config.neso_region, config.neso_postcode) != (None, None):
        raise IntensityError("A region or postcode is for the source 'neso' alone; name it too.")
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
    from carbon.intensity.neso_answers import NesoPlace  # noqa: PLC0415

    place = NesoPlace(region_id=config.neso_region, postcode=config.neso_postcode)
    if config.zone not in (None, GB, place.zone):
        raise IntensityError(f"neso knows the zone {GB} only, not {config.zone!r}.")
    source = NesoSource(
        place=place,
        client=_client(clock),
        cache=ResponseCache(config.cache_dir),
        base_url=config.neso_url,
        clock=clock,
    )
    return _watched(_require_basis(config, source))


def _electricity_maps(config: GridConfig, basis: Basis, clock: Clock) -> IntensitySource:
    from carbon.intensity.cache import ResponseCache  # noqa: PLC0415
    from carbon.intensity.electricity_maps import ElectricityMapsSource  # noqa: PLC0415

    token = config.access.electricity_maps_token
    if token is None:
        raise IntensityError(
            "The source 'electricity-maps' needs a token: give --token-file FILE with the token in "
            "it, or set GREENBOARD_ELECTRICITY_MAPS_TOKEN. It never goes on the command line."
        )
    source = ElectricityMapsSource(
        zone=_zone(config, "electricity-maps", "DE or US-CAL-CISO"),
        token=token,
        scope=config.basis,
        client=_client(clock),
        cache=ResponseCache(config.cache_dir),
        base_url=config.access.electricity_maps_url,
        clock=clock,
    )
    return _watched(_require_basis(config, source))


def _watttime(config: GridConfig, basis: Basis, clock: Clock) -> IntensitySource:
    from carbon.intensity.cache import ResponseCache  # noqa: PLC0415
    from carbon.intensity.watttime import WattTimeSource  # noqa: PLC0415

    user, password = config.access.watttime_user, config.access.watttime_password
    if user is None or password is None:
        raise IntensityError(
            "The source 'watttime' needs an account: give --token-file FILE with the user name on "
            "its first line and the password on its second, or set GREENBOARD_WATTTIME_USER and "
            "GREENBOARD_WATTTIME_PASSWORD. They never go on the command line."
        )
    source = WattTimeSource(
        region=_zone(config, "watttime", "CAISO_NORTH"),
        user=user,
        password=password,
        client=_client(clock),
        cache=ResponseCache(config.cache_dir),
        base_url=config.access.watttime_url,
        clock=clock,
    )
    return _watched(_require_basis(config, source))


def _client(clock: Clock) -> HttpClient:
    # Unseeded on purpose: the jitter is there so that no two clients pause alike.
    return HttpClient(rng=np.random.default_rng(), clock=clock)


def _watched(source: IntensitySource) -> IntensitySource:
    from carbon.intensity.watch import WatchedSource  # noqa: PLC0415

    return WatchedSource(source)


def _zone(config: GridConfig, name: str, example: str) -> str:
    if config.zone is None:
        raise IntensityError(
            f"The source {name!r} needs a zone, for example {example}; it is never guessed from "
            "where the machine is."
        )
    return config.zone


def _require_basis(config: GridConfig, source: IntensitySource) -> IntensitySource:
    """The source, if what it gives is on the basis that was asked for."""
    _signal, scope, accounting = source.basis.split("-")
    if config.basis != scope or config.accounting not in ("unstated", accounting):
        asked = f"{config.basis}, {config.accounting}"
        raise BasisError(
            f"{source.name} gives {source.basis} figures, not {asked!r}. Take {scope}, or another "
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
    "electricity-maps": _electricity_maps,
    "watttime": _watttime,
    "trace": _trace,
    "synthetic": _synthetic,
    "fixed": _fixed,
}
