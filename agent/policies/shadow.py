"""Shadow prices: what a kWh and a slot are worth when the rest of the session wants them too.

Demand curves say, for each price of energy and of a slot, how much a case of the training patients
would take. Whatever is left, divided by the cases that are still to be decided, is the supply; the
prices at which demand meets it are found anew at every decision (certainty equivalence: the future
is taken as its average and solved again when it has turned out otherwise).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64


@dataclass(frozen=True, kw_only=True)
class DemandCurves:
    """What one case takes on average, at each pair of prices.

    Attributes:
        per_kwh: prices of energy, AUC per kWh, ascending from 0.
        per_slot: prices of a transfer's slot, AUC, ascending from 0.
        kwh: energy that a case takes at these prices, kWh.
        slots: transfers that a case takes at these prices.
    """

    per_kwh: Float64[np.ndarray, " prices"]
    per_slot: Float64[np.ndarray, " fees"]
    kwh: Float64[np.ndarray, "prices fees"]
    slots: Float64[np.ndarray, "prices fees"]

    def clear(
        self,
        kwh_per_case: Float64[np.ndarray, " batch"],
        slots_per_case: Float64[np.ndarray, " batch"],
        least_per_kwh: Float64[np.ndarray, " batch"],
    ) -> tuple[Float64[np.ndarray, " batch"], Float64[np.ndarray, " batch"]]:
        """The lowest prices at which neither energy nor slots are wanted beyond what there is.

        Args:
            kwh_per_case: energy that is left for each case still to be decided.
            slots_per_case: slots that are left for each; infinite where they do not bind.
            least_per_kwh: the energy's price is never below this.

        Returns:
            AUC per kWh, AUC per slot.
        """
        batch, fees = len(kwh_per_case), len(self.per_slot)
        price, taken = np.empty((batch, fees)), np.empty((batch, fees))
        for j in range(fees):
            price[:, j] = np.maximum(
                lowest_price(self.per_kwh, self.kwh[:, j], kwh_per_case), least_per_kwh
            )
            taken[:, j] = np.interp(price[:, j], self.per_kwh, self.slots[:, j])
        taken = np.minimum.accumulate(taken, axis=1)
        # the first fee that clears, and how far the one before it is from clearing
        clears = taken <= slots_per_case[:, None]
        after = np.where(clears.any(axis=1), clears.argmax(axis=1), fees - 1)
        before = np.maximum(after - 1, 0)
        rows = np.arange(batch)
        high, low = taken[rows, before], taken[rows, after]
        wanted = np.clip(np.where(np.isfinite(slots_per_case), slots_per_case, high), low, high)
        part = (high - wanted) / np.where(high > low, high - low, 1.0)
        fee = self.per_slot[before] + part * (self.per_slot[after] - self.per_slot[before])
        per_kwh = price[rows, before] + part * (price[rows, after] - price[rows, before])
        return per_kwh, fee


def lowest_price(
    prices: Float64[np.ndarray, " prices"],
    demand: Float64[np.ndarray, " prices"],
    supply: Float64[np.ndarray, " batch"],
) -> Float64[np.ndarray, " batch"]:
    """The lowest price at which the demand is no more than the supply, interpolated.

    Args:
        prices: ascending.
        demand: at each price; made falling where sampling noise has it rise.
        supply: one a row; beyond the demand at the lowest price, that price is the answer.
    """
    falling = np.minimum.accumulate(demand)
    after = (falling[None, :] > supply[:, None]).sum(axis=1)
    after = np.minimum(after, len(prices) - 1)
    before = np.maximum(after - 1, 0)
    high, low = falling[before], falling[after]
    part = (high - np.clip(supply, low, high)) / np.where(high > low, high - low, 1.0)
    found = prices[before] + part * (prices[after] - prices[before])
    return np.asarray(np.where(after == 0, prices[0], found))
