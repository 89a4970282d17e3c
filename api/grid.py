"""Which grid an entry point was told to look at: from plain options to a configuration."""

from __future__ import annotations

from pathlib import Path

from api.settings import Settings, read_access
from carbon.intensity.build import GridConfig
from carbon.intensity.protocol import Scope


def grid_config(
    trace: Path | None,
    source: str,
    cache: Path | None = None,
    *,
    zone: str | None = None,
    basis: Scope = "direct",
    region: int | None = None,
    postcode: str | None = None,
    token_file: Path | None = None,
) -> GridConfig:
    """The grid that the options name; credentials come from the file or the environment.

    Args:
        trace: a recorded trace.
        source: sources in order, commas between; chosen by what is given where empty.
        cache: folder under which provider answers are kept; in memory where not given.
        zone: zone of Electricity Maps, region of WattTime, or name of the grid.
        basis: direct or life-cycle.
        region: of NESO, a region instead of the nation.
        postcode: of NESO, a postcode instead of the nation.
        token_file: where the credentials of the named source are kept.

    Raises:
        SettingsError: if the credentials cannot be read.
    """
    return GridConfig(
        sources=tuple(name.strip() for name in source.split(",") if name.strip()),
        trace=trace,
        zone=zone,
        basis=basis,
        neso_region=region,
        neso_postcode=postcode,
        cache_dir=cache / "carbon" if cache is not None else None,
        access=read_access(token_file, source),
    )


def grid_of(settings: Settings) -> GridConfig:
    """The grid that a server's settings name.

    Raises:
        SettingsError: if the credentials cannot be read.
    """
    return grid_config(
        settings.trace,
        settings.source,
        settings.state,
        zone=settings.zone,
        basis=settings.basis,
        region=settings.neso_region,
        postcode=settings.neso_postcode,
        token_file=settings.token_file,
    )
