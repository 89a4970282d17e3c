"""Software Carbon Intensity (ISO/IEC 21031:2024): ((E x I) + M) per functional unit R.

A rate, not a balance: offsets and avoided emissions have no place in it, so there is no argument
for them, and it cannot fall below 0.
"""

from __future__ import annotations

import math

from carbon.errors import AccountError
from carbon.units import CarbonIntensity, Energy


def sci_g_co2e(*, operational_g_co2e: float, embodied_g_co2e: float, units: float) -> float:
    """SCI where E x I was summed before, gCO2e per functional unit.

    Args:
        operational_g_co2e: sum of E x I over the work, each at its own time, gCO2e.
        embodied_g_co2e: M of the same work, gCO2e.
        units: R, how many functional units it served, for example cases.

    Raises:
        AccountError: if a part is negative or not finite, or there is no functional unit.
    """
    for name, value in (("E x I", operational_g_co2e), ("M", embodied_g_co2e)):
        if not math.isfinite(value) or value < 0:
            raise AccountError(
                f"{name} is {value} gCO2e; SCI takes no credit, so it is finite and not negative."
            )
    if not math.isfinite(units) or units <= 0:
        raise AccountError(f"SCI is per functional unit, and there are {units}; it needs some.")
    return (operational_g_co2e + embodied_g_co2e) / units


def sci(*, energy_kwh: float, g_per_kwh: float, embodied_g_co2e: float, units: float) -> float:
    """SCI = ((E x I) + M) / R at one intensity, gCO2e per functional unit.

    Raises:
        AccountError: as :func:`sci_g_co2e`.
        UnitError: if the energy or the intensity is negative or not finite.
    """
    operational = CarbonIntensity(g_per_kwh=g_per_kwh).of(Energy.from_kwh(energy_kwh))
    return sci_g_co2e(
        operational_g_co2e=operational.g_co2e, embodied_g_co2e=embodied_g_co2e, units=units
    )
