"""What every source of carbon intensity gives: a value that says where it comes from.

An intensity without its basis is half a number: direct and life-cycle figures of one grid differ
by a quarter or more, production-based and consumption-based ones as well. So the basis is part of
every reading, and two bases never meet in one chain, comparison or sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, cast, get_args, runtime_checkable

from carbon.errors import BasisError, UnitError

Signal = Literal["average", "marginal"]
Scope = Literal["direct", "life"]
Accounting = Literal["production", "consumption", "unstated"]
Basis = Literal[
    "average-direct-production",
    "average-direct-consumption",
    "average-direct-unstated",
    "average-life-production",
    "average-life-consumption",
    "average-life-unstated",
    "marginal-direct-production",
    "marginal-direct-consumption",
    "marginal-direct-unstated",
    "marginal-life-production",
    "marginal-life-consumption",
    "marginal-life-unstated",
]
Kind = Literal["measured", "forecast", "estimated", "fallback"]

Z95 = 1.959964
"""Two-sided 95 % point of the normal distribution."""


def make_basis(
    signal: Signal = "average", scope: Scope = "direct", accounting: Accounting = "unstated"
) -> Basis:
    """Put the three choices together, for example ``average-direct-consumption``.

    Raises:
        BasisError: if one of them is not a known choice.
    """
    basis = f"{signal}-{scope}-{accounting}"
    if basis not in get_args(Basis):
        raise BasisError(
            f"Unknown basis {basis!r}. Allowed: average or marginal; direct or life; production, "
            "consumption or unstated."
        )
    return cast(Basis, basis)


def require_one_basis(bases: Iterable[Basis], *, what: str) -> Basis:
    """The one basis that all of these share.

    Args:
        bases: at least one basis.
        what: what was about to mix them, for the message.

    Raises:
        BasisError: if they differ.
    """
    found = sorted(set(bases))
    if len(found) != 1:
        raise BasisError(
            f"{what} would mix carbon intensities on different bases: {', '.join(found)}. "
            "Give every source the same basis (direct or life; production or consumption), or "
            "keep them apart."
        )
    return found[0]


@dataclass(frozen=True, kw_only=True)
class IntensityReading:
    """Grid carbon intensity at one time, with its provenance.

    Attributes:
        g_per_kwh: grams of CO2e per kWh of electricity.
        zone: the grid it describes, in the provider's words.
        time: start of the period it describes, UTC.
        basis: average or marginal, direct or life-cycle, production or consumption.
        provider: the source that gave it.
        kind: measured, forecast, estimated (modelled or replayed), or fallback (not from the
            source that was asked first; ``note`` says why).
        age_s: seconds from ``time`` to the moment that was asked about; 0 for times ahead.
        uncertainty_g_per_kwh: one standard error; None where nothing is known about it.
        note: how the value came about, in words.
        interval90_g_per_kwh: bounds that hold 90 % of the values, where a forecaster gives them.
    """

    g_per_kwh: float
    zone: str
    time: datetime
    basis: Basis
    provider: str
    kind: Kind
    age_s: float
    uncertainty_g_per_kwh: float | None = None
    note: str = ""
    interval90_g_per_kwh: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.g_per_kwh) or self.g_per_kwh < 0:
            raise UnitError(
                f"Carbon intensity from {self.provider} is {self.g_per_kwh} g/kWh; it must be "
                "finite and not negative."
            )
        for name in ("age_s", "uncertainty_g_per_kwh"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UnitError(
                    f"Reading from {self.provider}: {name} is {value}; it must be finite and "
                    "not negative."
                )
        bounds = self.interval90_g_per_kwh
        if bounds is not None and not 0 <= bounds[0] <= bounds[1] < math.inf:
            raise UnitError(
                f"Reading from {self.provider}: the 90 % interval is {bounds}; its bounds must be "
                "finite, not negative, and in order."
            )
        if self.time.utcoffset() is None:
            raise UnitError(f"Reading from {self.provider}: time {self.time} lacks a time zone.")

    @property
    def ci95(self) -> tuple[float, float] | None:
        """95 % interval by the normal approximation, cut at 0; None where nothing is known."""
        if self.uncertainty_g_per_kwh is None:
            return None
        half = Z95 * self.uncertainty_g_per_kwh
        return max(0.0, self.g_per_kwh - half), self.g_per_kwh + half

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; the time in ISO 8601, units in the keys.

        The 90 % interval is there only where it is known.
        """
        body: dict[str, Any] = {
            "g_per_kwh": self.g_per_kwh,
            "zone": self.zone,
            "time": self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "basis": self.basis,
            "provider": self.provider,
            "kind": self.kind,
            "age_s": self.age_s,
            "uncertainty_g_per_kwh": self.uncertainty_g_per_kwh,
            "note": self.note,
        }
        if self.interval90_g_per_kwh is not None:
            body["interval90_g_per_kwh"] = list(self.interval90_g_per_kwh)
        return body

    def with_note(self, note: str, *, kind: Kind | None = None) -> IntensityReading:
        """The same value with one more sentence on how it came about."""
        joined = f"{self.note}; {note}" if self.note else note
        return replace(self, note=joined, kind=kind if kind is not None else self.kind)


@runtime_checkable
class IntensitySource(Protocol):
    """Anything that knows the carbon intensity of one grid on one basis."""

    @property
    def name(self) -> str:
        """Who gives the values, as it appears in ``provider``."""
        ...

    @property
    def basis(self) -> Basis:
        """The one basis of everything that this source returns."""
        ...

    def now(self, at: datetime) -> IntensityReading:
        """The intensity at ``at`` (aware), knowing nothing that came later.

        Raises:
            IntensityError: if it cannot be had; the message says why.
        """
        ...

    def forecast(self, at: datetime, hours: int) -> tuple[IntensityReading, ...]:
        """One reading for each of the ``hours`` clock hours after the hour of ``at``.

        Shorter where the horizon ends sooner. Uses nothing that came after ``at``.

        Raises:
            IntensityError: if there is no forecast at all; the message says why.
        """
        ...


def utc_now() -> datetime:
    """The present, aware: the default clock."""
    return datetime.now(UTC)


def as_utc(at: datetime) -> datetime:
    """The same moment in UTC.

    Raises:
        UnitError: if ``at`` has no time zone, since guessing one would shift the grid by hours.
    """
    if at.utcoffset() is None:
        raise UnitError(
            f"Time {at.isoformat()} has no time zone; give an aware time, for example "
            "datetime.now(UTC)."
        )
    return at.astimezone(UTC)


def floor_hour(at: datetime) -> datetime:
    """Start of the clock hour of ``at``, in UTC."""
    return as_utc(at).replace(minute=0, second=0, microsecond=0)


def require_horizon(hours: int) -> int:
    """Check a forecast's length.

    Raises:
        UnitError: if ``hours`` is below 1.
    """
    if hours < 1:
        raise UnitError(f"A forecast of {hours} hours was asked for; give 1 or more.")
    return hours
