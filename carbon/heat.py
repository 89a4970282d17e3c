"""Recovered heat: what it displaces, on a line of its own, never taken off the gross figure.

All electricity that a computer draws ends as heat. Where a share ``r`` of it is recovered, a share
``u`` of that is used, and the heat would otherwise have been made at ``h`` gCO2e per kWh, then

    avoided = E x r x u x h,    net = gross - avoided,    net < 0 only where I < r x u x h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from carbon.errors import HeatError
from carbon.intensity.protocol import Basis, Scope
from carbon.units import Energy

GAS_BOILER_G_PER_KWH_HEAT = 203.0
"""Natural gas, 183 gCO2e per kWh of gross calorific value, in a boiler of 90 % efficiency."""

GAS_BOILER_SOURCE = (
    "gas boiler: 183 gCO2e/kWh of natural gas (gross calorific value, combustion only) / 0.90 "
    "efficiency"
)


@dataclass(frozen=True, kw_only=True)
class HeatRecovery:
    """A declared installation that puts the heat of computers to use.

    Attributes:
        recovered: r, share of the electricity that is recovered as heat, 0 to 1 (the energy reuse
            factor, ISO/IEC 30134-6).
        used: u, share of the recovered heat that replaces other heat, 0 to 1.
        displaced_g_per_kwh_heat: h, gCO2e per kWh of the heat that is replaced.
        source: where h comes from.
        scope: what h counts: combustion alone (direct), or the fuel's whole life cycle.
    """

    recovered: float
    used: float
    displaced_g_per_kwh_heat: float = GAS_BOILER_G_PER_KWH_HEAT
    source: str = GAS_BOILER_SOURCE
    scope: Scope = "direct"

    def __post_init__(self) -> None:
        if math.isfinite(self.recovered) and self.recovered > 1:
            raise HeatError(
                f"The recovered fraction is {self.recovered:g}, above 1: energy cannot be "
                "recovered more than once (the energy reuse factor of ISO/IEC 30134-6 is at most "
                "1). Give the heat delivered divided by the electricity drawn; the gain of a heat "
                "pump is electricity of its own, to be booked as such."
            )
        for name, value in (("recovered", self.recovered), ("used", self.used)):
            if not 0 <= value <= 1:
                raise HeatError(f"The {name} fraction is {value:g}; it lies between 0 and 1.")
        if self.scope not in get_args(Scope):
            raise HeatError(f"Unknown scope {self.scope!r} of displaced heat: direct or life.")
        h = self.displaced_g_per_kwh_heat
        if not math.isfinite(h) or h < 0:
            raise HeatError(
                f"Displaced heat is {h:g} gCO2e per kWh; it must be finite and not negative."
            )
        if not self.source.strip():
            raise HeatError("The displaced heat has a figure but no source; say where it is from.")
        if h != GAS_BOILER_G_PER_KWH_HEAT and self.source == GAS_BOILER_SOURCE:
            raise HeatError(
                f"Displaced heat of {h:g} gCO2e per kWh is not the default gas boiler's "
                f"{GAS_BOILER_G_PER_KWH_HEAT:g}; say where it is from."
            )

    @property
    def break_even_g_per_kwh(self) -> float:
        """The product r x u x h: the grid intensity below which the net is negative, gCO2e/kWh."""
        return self.recovered * self.used * self.displaced_g_per_kwh_heat

    def avoided_g_co2e(self, energy_kwh: float) -> float:
        """E x r x u x h, gCO2e.

        Raises:
            UnitError: if the energy is negative or not finite.
        """
        return Energy.from_kwh(energy_kwh).kwh * self.break_even_g_per_kwh

    def fits(self, basis: Basis | None) -> bool:
        """Whether the avoided figure may be set against emissions on this basis.

        Life-cycle heat against direct electricity would count the fuel's supply chain on one side
        only, to our advantage; the other way round errs against us and is allowed, with a remark.
        """
        return basis is None or self.scope == "direct" or "-life-" in basis

    def remark(self, basis: Basis | None) -> str:
        """What is to be said about heat and grid counting different things; empty if they agree."""
        if not self.fits(basis):
            return (
                f"displaced heat counts its life cycle but {basis} electricity does not: setting "
                "one against the other would flatter; declare a direct h, or use life-cycle figures"
            )
        if basis is not None and self.scope == "direct" and "-life-" in basis:
            return (
                f"{basis} electricity counts its life cycle and the displaced heat combustion "
                "alone: avoided is understated"
            )
        return ""
