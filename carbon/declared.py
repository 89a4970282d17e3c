"""What somebody declares for an account: recovered heat and hardware, each with its source.

[heat]
recovered = 0.6                      # r, share of the electricity, 0 to 1
used = 0.9                           # u, share of the recovered heat, 0 to 1
displaced_g_per_kwh_heat = 203.0     # h, gCO2e per kWh of the heat that is replaced
source = "gas boiler, 0.183 kg/kWh gross CV at 90 %"
scope = "direct"                     # or life, if h counts the fuel's life cycle

[hardware]
embodied_kg_co2e = 1300.0            # TE of the machine, kgCO2e
lifespan_h = 35064.0                 # EL, hours
resources_reserved = 8.0             # RR, for example cores
resources_total = 64.0               # ToR
source = "the maker's product carbon footprint"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carbon.embodied import DeclaredHardware
from carbon.errors import AccountError, HeatError
from carbon.heat import GAS_BOILER_G_PER_KWH_HEAT, GAS_BOILER_SOURCE, HeatRecovery
from carbon.intensity.protocol import Scope


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Declared heat recovery and hardware; None for what was not declared."""

    heat: HeatRecovery | None = None
    hardware: DeclaredHardware | None = None


class _Heat(BaseModel):
    model_config = ConfigDict(extra="forbid")

    recovered: float
    used: float
    displaced_g_per_kwh_heat: float = GAS_BOILER_G_PER_KWH_HEAT
    source: str = GAS_BOILER_SOURCE
    scope: Scope = "direct"


class _Hardware(BaseModel):
    model_config = ConfigDict(extra="forbid")

    embodied_kg_co2e: float
    lifespan_h: float
    resources_reserved: float = 1.0
    resources_total: float = 1.0
    source: str = Field(min_length=1)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    heat: _Heat | None = None
    hardware: _Hardware | None = None


def read_declared(path: Path) -> Declared:
    """Read a TOML file with ``[heat]``, ``[hardware]`` or both.

    Raises:
        AccountError: if it cannot be read, or holds something else.
        HeatError: if the heat makes no sense, for example a recovered fraction above 1.
    """
    try:
        found = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AccountError(f"{path} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AccountError(f"{path}: {where}: {first['msg']}.") from error
    heat, hardware = found.heat, found.hardware
    return Declared(
        heat=None if heat is None else HeatRecovery(**heat.model_dump()),
        hardware=None if hardware is None else DeclaredHardware(**hardware.model_dump()),
    )


def parse_heat(text: str, *, source: str | None = None, scope: Scope = "direct") -> HeatRecovery:
    """Read ``r:u:h`` (h in gCO2e per kWh of heat), or ``r:u`` for a gas boiler's h.

    Args:
        text: the figures.
        source: where h comes from; needed where it is not the gas boiler's.
        scope: what h counts.

    Raises:
        HeatError: if it is not that, or makes no sense.
    """
    parts = text.split(":")
    try:
        figures = [float(part) for part in parts]
    except ValueError as error:
        raise HeatError(f"{text!r}: {error}; write r:u:h, for example 0.6:0.9:203.") from error
    if len(figures) not in (2, 3):
        raise HeatError(
            f"{text!r} is no heat recovery; write r:u:h: recovered share, used share, gCO2e per "
            "kWh of displaced heat, for example 0.6:0.9:203."
        )
    h = figures[2] if len(figures) == 3 else GAS_BOILER_G_PER_KWH_HEAT
    return HeatRecovery(
        recovered=figures[0],
        used=figures[1],
        displaced_g_per_kwh_heat=h,
        source=source if source is not None else GAS_BOILER_SOURCE,
        scope=scope,
    )


def parse_hardware(text: str, *, source: str | None) -> DeclaredHardware:
    """Read ``KG:HOURS`` or ``KG:HOURS:RESERVED:TOTAL``; for example ``1300:35064:8:64``.

    Args:
        text: the figures: kgCO2e of the machine, its life in hours, and which part is reserved.
        source: where the kilograms come from.

    Raises:
        AccountError: if it is not that, makes no sense, or names no source.
    """
    parts = text.split(":")
    try:
        figures = [float(part) for part in parts]
    except ValueError as error:
        raise AccountError(f"{text!r}: {error}; write for example 1300:35064:8:64.") from error
    if len(figures) not in (2, 4):
        raise AccountError(
            f"{text!r} is no hardware; write KG:HOURS, or KG:HOURS:RESERVED:TOTAL, for example "
            "1300:35064:8:64 for 8 of 64 cores of a machine of 1,300 kgCO2e that lasts 4 years."
        )
    reserved, total = figures[2:] if len(figures) == 4 else (1.0, 1.0)
    return DeclaredHardware(
        embodied_kg_co2e=figures[0],
        lifespan_h=figures[1],
        resources_reserved=reserved,
        resources_total=total,
        source=source or "",
    )
