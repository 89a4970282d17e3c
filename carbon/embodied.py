"""Embodied carbon M of the Software Carbon Intensity, from hardware that somebody declares.

    M = TE x (TiR / EL) x (RR / ToR)

(ISO/IEC 21031:2024): total embodied emissions, the share of the expected lifespan that was
reserved, and the share of the machine that was reserved. TE is a maker's figure, never a guess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from carbon.errors import AccountError

HOURS_PER_YEAR = 8766.0
"""Julian year, 365.25 days."""


@dataclass(frozen=True, kw_only=True)
class DeclaredHardware:
    """A machine and the part of it that the work reserves.

    Attributes:
        embodied_kg_co2e: TE, emissions of making, moving and scrapping it, kgCO2e.
        lifespan_h: EL, expected hours until it is replaced.
        resources_reserved: RR, for example cores that the work holds.
        resources_total: ToR, the same of the whole machine.
        source: where TE is from, for example a maker's product carbon footprint.
    """

    embodied_kg_co2e: float
    lifespan_h: float
    resources_reserved: float = 1.0
    resources_total: float = 1.0
    source: str

    def __post_init__(self) -> None:
        if not math.isfinite(self.embodied_kg_co2e) or self.embodied_kg_co2e < 0:
            raise AccountError(
                f"Embodied carbon is {self.embodied_kg_co2e:g} kg; it is finite and not negative."
            )
        if not math.isfinite(self.lifespan_h) or self.lifespan_h <= 0:
            raise AccountError(f"A lifespan of {self.lifespan_h:g} h; it must be above 0.")
        if not 0 <= self.resources_reserved <= self.resources_total < math.inf:
            raise AccountError(
                f"{self.resources_reserved:g} of {self.resources_total:g} resources reserved; the "
                "part is between 0 and the whole."
            )
        if self.resources_total == 0:
            raise AccountError("The machine has 0 resources; give for example its cores.")
        if not self.source.strip():
            raise AccountError("Embodied carbon has a figure but no source; say where it is from.")

    def embodied_g_co2e(self, reserved_s: float) -> float:
        """M for so many seconds, gCO2e.

        Raises:
            AccountError: if the time is negative, not finite, or longer than the lifespan.
        """
        hours = reserved_s / 3600.0
        if not 0 <= hours <= self.lifespan_h:
            raise AccountError(
                f"{hours:g} h of a machine that lasts {self.lifespan_h:g} h: outside 0 to its "
                "lifespan."
            )
        share = self.resources_reserved / self.resources_total
        return self.embodied_kg_co2e * 1000.0 * (hours / self.lifespan_h) * share
