"""When would a deployment be carbon negative? Computed over a recorded year, never assumed.

Net per kWh is I - r x u x h, so it is negative in an hour exactly where the grid's intensity I is
below r x u x h; over a year the energy-weighted mean of I counts, not the share of hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from carbon.errors import AccountError
from carbon.heat import HeatRecovery
from carbon.intensity.protocol import Basis
from carbon.intensity.trace import Trace

YEAR_H = 8760


@dataclass(frozen=True, kw_only=True)
class CarbonNegativeDeployment:
    """What must hold for net < 0 at one place, and whether it held over one recorded year.

    Attributes:
        zone: the grid.
        trace: name of the recording.
        synthetic: whether the recording was generated.
        basis: of its intensities.
        period: the hours that were used, in words.
        hours: how many.
        whole_year: whether these are 8,760 hours or more.
        estimated_hours: of them, estimated by the provider or filled.
        heat: the declared heat recovery.
        hours_below: hours with an intensity below break-even.
        mean_g_per_kwh: mean intensity, each hour alike: work that runs all the time.
        weighted_g_per_kwh: mean intensity, weighted by when the work runs.
        weighting: how it was weighted.
        net_below_g_per_kwh: net of a kWh used only in the hours below break-even, alike; None
            where there are none.
        intensity: of the hours that were used, in order of time, gCO2e/kWh.
    """

    zone: str
    trace: str
    synthetic: bool
    basis: Basis
    period: str
    hours: int
    whole_year: bool
    estimated_hours: int
    heat: HeatRecovery
    hours_below: int
    mean_g_per_kwh: float
    weighted_g_per_kwh: float
    weighting: str
    net_below_g_per_kwh: float | None
    intensity: Float64[np.ndarray, " hours"] = field(repr=False, compare=False)

    @property
    def break_even_g_per_kwh(self) -> float:
        """The product r x u x h, gCO2e/kWh."""
        return self.heat.break_even_g_per_kwh

    @property
    def share_below(self) -> float:
        """Share of hours below break-even."""
        return self.hours_below / self.hours

    @property
    def net_g_per_kwh(self) -> float:
        """Energy-weighted net over the period, gCO2e per kWh of electricity."""
        return self.weighted_g_per_kwh - self.break_even_g_per_kwh

    @property
    def negative(self) -> bool:
        """Whether the net over the period is below 0."""
        return self.net_g_per_kwh < 0

    @property
    def needed_recovered(self) -> float | None:
        """The r above which the net would be negative, u and h as they are; None if above 1."""
        per_share = self.heat.used * self.heat.displaced_g_per_kwh_heat
        if per_share <= self.weighted_g_per_kwh:
            return None
        return self.weighted_g_per_kwh / per_share

    @property
    def conditions(self) -> tuple[str, ...]:
        """What must hold, in words, each with its figure."""
        heat = self.heat
        needed = self.needed_recovered
        share = (
            f"or r above {needed:.2f} with this u and h and this grid"
            if needed is not None
            else "no recovered fraction up to 1 is enough with this u and h on this grid"
        )
        return (
            f"the energy-weighted grid intensity is below r x u x h = {heat.recovered:g} x "
            f"{heat.used:g} x {heat.displaced_g_per_kwh_heat:g} = "
            f"{self.break_even_g_per_kwh:.1f} gCO2e/kWh; it was {self.weighted_g_per_kwh:.1f} "
            f"({self.weighting})",
            share,
            f"the heat would else have been made at {heat.displaced_g_per_kwh_heat:g} gCO2e per "
            f"kWh ({heat.source}), in every hour in which it is delivered",
            "r and u are metered over the whole year, summer included, not taken from a data sheet",
            *((remark,) if (remark := heat.remark(self.basis)) else ()),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, units in the keys."""
        return {
            "zone": self.zone,
            "trace": self.trace,
            "synthetic": self.synthetic,
            "basis": self.basis,
            "period": self.period,
            "whole_year": self.whole_year,
            "estimated_hours": self.estimated_hours,
            "break_even_g_co2e_per_kwh": _figure(self.break_even_g_per_kwh, 1),
            "hours_below": {"value": self.hours_below, "ci95": None, "n": self.hours},
            "share_of_hours_below": _figure(self.share_below, self.hours),
            "mean_g_co2e_per_kwh": _figure(self.mean_g_per_kwh, self.hours),
            "energy_weighted_g_co2e_per_kwh": _figure(self.weighted_g_per_kwh, self.hours),
            "weighting": self.weighting,
            "net_g_co2e_per_kwh": _figure(self.net_g_per_kwh, self.hours),
            "net_in_hours_below_g_co2e_per_kwh": _figure(
                self.net_below_g_per_kwh, self.hours_below
            ),
            "needed_recovered_fraction": _figure(self.needed_recovered, self.hours),
            "negative": self.negative,
            "conditions": list(self.conditions),
        }


def _figure(value: float | None, n: int) -> dict[str, Any]:
    # A recorded year is counted in full: there is no sampling error to give.
    return {"value": value, "ci95": None, "n": n}


def deployment_over_year(
    trace: Trace,
    heat: HeatRecovery,
    *,
    year: int | None = None,
    kwh_by_hour_of_day: Sequence[float] | None = None,
) -> CarbonNegativeDeployment:
    """Hold a heat recovery against a recorded year of the grid.

    Args:
        trace: the recording.
        heat: the declared heat recovery.
        year: calendar year (UTC); without it the last whole one, else all there is.
        kwh_by_hour_of_day: 24 energies (UTC) that say when the work runs; each hour alike without.

    Raises:
        AccountError: if the year is not in the trace, the energies are not 24 fit figures, or the
            scopes of heat and grid would flatter.
    """
    if not heat.fits(trace.basis):
        raise AccountError(f"Trace {trace.name}: {heat.remark(trace.basis)}.")
    rows, period = _rows(trace, year)
    intensity = trace.g_per_kwh[rows]
    weights, weighting = _weights(trace.time_utc[rows], kwh_by_hour_of_day)
    below = intensity < heat.break_even_g_per_kwh
    return CarbonNegativeDeployment(
        zone=trace.zone,
        trace=trace.name,
        synthetic=trace.synthetic,
        basis=trace.basis,
        period=period,
        hours=len(intensity),
        whole_year=len(intensity) >= YEAR_H,
        estimated_hours=int(trace.estimated[rows].sum()),
        heat=heat,
        hours_below=int(below.sum()),
        mean_g_per_kwh=float(intensity.mean()),
        weighted_g_per_kwh=float(np.average(intensity, weights=weights)),
        weighting=weighting,
        net_below_g_per_kwh=(
            float(intensity[below].mean()) - heat.break_even_g_per_kwh if below.any() else None
        ),
        intensity=intensity,
    )


def _rows(trace: Trace, year: int | None) -> tuple[Any, str]:
    years = trace.time_utc.astype("datetime64[Y]").astype(int) + 1970
    if year is None:
        found, counts = np.unique(years, return_counts=True)
        whole = found[counts >= YEAR_H]
        if not len(whole):
            span = f"{trace.start:%Y-%m-%d %H:%M} to {trace.end:%Y-%m-%d %H:%M} UTC"
            return np.ones(len(trace), dtype=bool), span
        year = int(whole[-1])
    rows = years == year
    if not rows.any():
        raise AccountError(
            f"Trace {trace.name} has no hour of {year}; it covers {trace.start:%Y-%m-%d} to "
            f"{trace.end:%Y-%m-%d}."
        )
    return rows, f"{year}, {int(rows.sum())} hours"


def _weights(times: Any, profile: Sequence[float] | None) -> tuple[Any, str]:
    alike = np.ones(len(times)), "each hour alike"
    if profile is None:
        return alike
    kwh = np.asarray(profile, dtype=np.float64)
    if kwh.shape != (24,) or not np.isfinite(kwh).all() or (kwh < 0).any():
        raise AccountError("The energies by hour of the day are 24 figures, none below 0.")
    hour_of_day = times.astype(np.int64) % 24
    weights = kwh[hour_of_day]
    if not weights.sum() > 0:
        return alike
    return weights, "weighted by the hours of the day (UTC) in which the work ran"
