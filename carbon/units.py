"""Quantities with exact conversions: energy, power, carbon intensity, emissions.

A number whose unit is in its type cannot be multiplied by the wrong thing. Only what the package
computes with is here; negative values are refused, since none of these can be one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from carbon.errors import UnitError

J_PER_KWH = 3_600_000.0
"""Exact: 1 kW for 3,600 s."""


def _require(what: str, value: float) -> None:
    if not math.isfinite(value) or value < 0:
        raise UnitError(f"{what} is {value}; it must be finite and not negative.")


@dataclass(frozen=True, kw_only=True, order=True)
class Energy:
    """An amount of energy, kept in joules."""

    joules: float

    def __post_init__(self) -> None:
        _require("Energy in joules", self.joules)

    @classmethod
    def from_kwh(cls, kwh: float) -> Energy:
        """From kilowatt-hours."""
        return cls(joules=kwh * J_PER_KWH)

    @property
    def kwh(self) -> float:
        """Kilowatt-hours."""
        return self.joules / J_PER_KWH

    def __add__(self, other: Energy) -> Energy:
        return Energy(joules=self.joules + other.joules)


@dataclass(frozen=True, kw_only=True, order=True)
class Power:
    """A rate of energy use, in watts."""

    watts: float

    def __post_init__(self) -> None:
        _require("Power in watts", self.watts)

    def over(self, seconds: float) -> Energy:
        """The energy of drawing this power for so many seconds."""
        _require("Duration in seconds", seconds)
        return Energy(joules=self.watts * seconds)


@dataclass(frozen=True, kw_only=True, order=True)
class Emissions:
    """Greenhouse gas, in grams of CO2 equivalent."""

    g_co2e: float

    def __post_init__(self) -> None:
        _require("Emissions in gCO2e", self.g_co2e)

    def __add__(self, other: Emissions) -> Emissions:
        return Emissions(g_co2e=self.g_co2e + other.g_co2e)


@dataclass(frozen=True, kw_only=True, order=True)
class CarbonIntensity:
    """Grams of CO2 equivalent per kilowatt-hour of electricity."""

    g_per_kwh: float

    def __post_init__(self) -> None:
        _require("Carbon intensity in gCO2e/kWh", self.g_per_kwh)

    @classmethod
    def from_lbs_per_mwh(cls, lbs_per_mwh: float) -> CarbonIntensity:
        """From pounds per megawatt-hour; the avoirdupois pound is 453.59237 g by definition."""
        return cls(g_per_kwh=lbs_per_mwh * 453.59237 / 1000.0)

    def of(self, energy: Energy) -> Emissions:
        """What using this much energy emits."""
        return Emissions(g_co2e=energy.kwh * self.g_per_kwh)
