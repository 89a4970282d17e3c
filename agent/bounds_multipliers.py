"""Prices of carbon and of room at which the sum of all cases' programmes is lowest.

For any prices of at least 0 the sum is an upper bound, so stopping early only loosens it. With
carbon alone the sum is convex in one price a session: bisection on its slope. Where hours have
room for so many transfers, there is one price an hour too, and the cheapest of a case's hours
depends on them: a smoothed sum is minimised by L-BFGS-B, then the true one is read off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import minimize

from agent.bounds_hours import OUT_OF_REACH, VisitHours, cheapest_g_per_kwh
from agent.bounds_programme import Programme, corners, read

BISECTIONS = 40
ITERATIONS = 30
FIRST_WIDTHS = (0.04, 0.01)
NEXT_WIDTHS = (0.004,)
"""Widths of the soft minimum over hours, as a share of what a case is worth."""


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """The sessions that are bounded together.

    Attributes:
        patient: pool index of each case.
        hours: when each can be worked on.
        budget_g_co2e: of each session; infinite where there is none.
        price_per_g: taken from the gain for each gram.
    """

    patient: Int64[np.ndarray, "batch cases"]
    hours: VisitHours
    budget_g_co2e: Float64[np.ndarray, " batch"]
    price_per_g: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Spending:
    """The lowest sum found.

    Attributes:
        value: of each session.
        price: what processing each modality costs each case there.
        per_g: price of carbon, on top of the reward's own.
        per_slot: price of a transfer in each hour.
    """

    value: Float64[np.ndarray, " batch"]
    price: Float64[np.ndarray, "batch cases sources"]
    per_g: Float64[np.ndarray, " batch"]
    per_slot: Float64[np.ndarray, "batch hours"]


def cheapest_prices(
    programme: Programme,
    energy_kwh: Float64[np.ndarray, " sources"],
    sessions: Sessions,
    near: Spending | None = None,
) -> Spending:
    """Minimise the sum over the prices.

    Args:
        programme: the cases' values by price.
        energy_kwh: of processing each modality.
        sessions: patients, hours and budgets.
        near: prices to begin at, from a similar programme.
    """
    if sessions.hours.slots is None or near is None:
        carbon = _carbon_alone(programme, energy_kwh, sessions)
        if sessions.hours.slots is None:
            return carbon
        return _with_room(programme, energy_kwh, sessions, carbon, FIRST_WIDTHS)
    return _with_room(programme, energy_kwh, sessions, near, NEXT_WIDTHS)


def _carbon_alone(
    programme: Programme, energy_kwh: Float64[np.ndarray, " sources"], sessions: Sessions
) -> Spending:
    grams = cheapest_g_per_kwh(sessions.hours)[..., None] * energy_kwh
    budget = sessions.budget_g_co2e

    def total(per_g: Float64[np.ndarray, " batch"]) -> tuple[np.ndarray, np.ndarray]:
        price = (per_g[:, None, None] + sessions.price_per_g) * grams
        value, use = read(programme, sessions.patient, corners(programme.grid, price))
        spent = (use * grams).sum(axis=(1, 2))
        paid = np.multiply(per_g, budget, out=np.zeros_like(per_g), where=per_g > 0.0)
        return value.sum(axis=1) + paid, spent - budget

    low, high = np.zeros(len(budget)), np.zeros(len(budget))
    best, over = total(low)
    while (over > 0.0).any():
        high = np.where(over > 0.0, np.maximum(high * 4.0, 1e-9), high)
        over = total(high)[1]
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        here, over = total(middle)
        best = np.minimum(best, here)
        low, high = np.where(over > 0.0, middle, low), np.where(over > 0.0, high, middle)
    best = np.minimum(best, total(high)[0])
    return Spending(
        value=best,
        price=(high[:, None, None] + sessions.price_per_g) * grams,
        per_g=high,
        per_slot=np.zeros(sessions.hours.g_per_kwh.shape),
    )


@dataclass(frozen=True, kw_only=True)
class _Point:
    """The sum at some prices, and what of budget and room is left there."""

    value: Float64[np.ndarray, " batch"]
    price: Float64[np.ndarray, "batch cases sources"]
    left_g: Float64[np.ndarray, " batch"]
    left_slots: Float64[np.ndarray, "batch hours"]


def _evaluate(
    programme: Programme,
    energy_kwh: Float64[np.ndarray, " sources"],
    sessions: Sessions,
    at: tuple[Float64[np.ndarray, " batch"], Float64[np.ndarray, "batch hours"]],
    width: float = 0.0,
) -> _Point:
    """The sum at prices per gram and per slot.

    Args:
        programme: the cases' values by price.
        energy_kwh: of processing each modality.
        sessions: patients, hours and budgets.
        at: price of carbon, on top of the reward's own, and of a slot in each hour.
        width: 0 for the cheapest of a case's hours; above it for a soft minimum, which makes
            the sum smooth in the prices.
    """
    (per_g, per_slot), hours = at, sessions.hours
    slots, budget = float(hours.slots or 0), sessions.budget_g_co2e
    charged = (per_g[:, None] + sessions.price_per_g) * hours.g_per_kwh
    each = [
        np.where(hours.feasible, (charged * kwh + per_slot)[:, None, :], OUT_OF_REACH)
        for kwh in energy_kwh
    ]
    cheapest = [_soft_min(costs, width) for costs in each]
    price = np.stack([low for low, _ in cheapest], axis=2)
    value, use = read(programme, sessions.patient, corners(programme.grid, price))
    left_slots, left_g = np.full(per_slot.shape, slots), budget.copy()
    for s, (_, share) in enumerate(cheapest):
        load = (use[:, None, :, s] @ share)[:, 0]
        left_slots -= load
        left_g -= (load * hours.g_per_kwh).sum(axis=1) * energy_kwh[s]
    paid = np.multiply(per_g, budget, out=np.zeros_like(per_g), where=per_g > 0.0)
    total = value.sum(axis=1) + paid + slots * per_slot.sum(axis=1)
    return _Point(value=total, price=price, left_g=left_g, left_slots=left_slots)


def _soft_min(
    cost: Float64[np.ndarray, "batch cases hours"], width: float
) -> tuple[Float64[np.ndarray, "batch cases"], Float64[np.ndarray, "batch cases hours"]]:
    """The least cost over hours and the share of each hour in it.

    The soft minimum is -width log of the mean of exp(-cost / width): from the least to the mean.
    """
    low = cost.min(axis=2, keepdims=True)
    if width == 0.0:
        least = cost == low
        first = least & (np.cumsum(least, axis=2) == 1)
        return low[..., 0], first.astype(np.float64)
    near = np.exp((low - cost) / width)
    total, n = near.sum(axis=2, keepdims=True), (cost < OUT_OF_REACH).sum(axis=2)
    return low[..., 0] - width * np.log(total[..., 0] / np.maximum(n, 1)), near / total


def _with_room(
    programme: Programme,
    energy_kwh: Float64[np.ndarray, " sources"],
    sessions: Sessions,
    near: Spending,
    widths: tuple[float, ...],
) -> Spending:
    """Minimise a smooth version, ever less smooth, and judge it by the true sum.

    The price of carbon is counted in what it makes of a typical transfer, so that it is of a size
    with those of slots.
    """
    typical_g = float(sessions.hours.g_per_kwh.mean() * energy_kwh.mean()) + 1e-12
    worth = float(np.maximum(programme.first, 0.0).mean()) + 1e-12
    shape = (len(near.per_g), 1 + near.per_slot.shape[1])
    point = np.column_stack([near.per_g * typical_g, near.per_slot]).ravel() / worth

    def prices(flat: Float64[np.ndarray, " _"]) -> tuple[np.ndarray, np.ndarray]:
        table = np.maximum(flat.reshape(shape), 0.0) * worth
        return table[:, 0] / typical_g, table[:, 1:]

    def smooth(flat: Float64[np.ndarray, " _"], width: float) -> tuple[float, np.ndarray]:
        here = _evaluate(programme, energy_kwh, sessions, prices(flat), width * worth)
        left = np.where(np.isfinite(here.left_g), here.left_g, 0.0) / typical_g
        slope = np.column_stack([left, here.left_slots])
        return float(here.value.sum()) / worth, slope.ravel()

    best = replace(near, value=np.full(shape[0], np.inf))
    for width in (None, *widths):
        if width is not None:
            point = minimize(
                smooth, point, args=(width,), jac=True, method="L-BFGS-B",
                bounds=[(0.0, None)] * point.size, options={"maxiter": ITERATIONS, "maxcor": 20},
            ).x  # fmt: skip
        at = prices(point)
        best = _better(best, _evaluate(programme, energy_kwh, sessions, at), at)
    return best


def _better(
    best: Spending,
    here: _Point,
    at: tuple[Float64[np.ndarray, " batch"], Float64[np.ndarray, "batch hours"]],
) -> Spending:
    wins = here.value < best.value
    return Spending(
        value=np.where(wins, here.value, best.value),
        price=np.where(wins[:, None, None], here.price, best.price),
        per_g=np.where(wins, at[0], best.per_g),
        per_slot=np.where(wins[:, None], at[1], best.per_slot),
    )
