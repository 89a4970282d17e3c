"""Prices of carbon and of room at which the sum of all cases' programmes is lowest.

For any prices of at least 0 the sum is an upper bound, so stopping early only loosens it. With
carbon alone the sum is convex in one price a session: bisection on its slope. Where hours have
room for so many transfers, there is one price an hour too: projected subgradient steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int64

from agent.bounds_hours import OUT_OF_REACH, VisitHours, cheapest_g_per_kwh
from agent.bounds_programme import Programme, corners, read

BISECTIONS = 40
FIRST_STEPS = 120
NEXT_STEPS = 20
RATE = 0.1
"""First step of a price, as a share of what processing is worth."""


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
        steps, near = FIRST_STEPS, carbon
    else:
        steps = NEXT_STEPS
    return _with_room(programme, energy_kwh, sessions, near, steps)


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
    """The sum at some prices, and how far it oversteps budget and room there."""

    value: Float64[np.ndarray, " batch"]
    price: Float64[np.ndarray, "batch cases sources"]
    over_g: Float64[np.ndarray, " batch"]
    over_slots: Float64[np.ndarray, "batch hours"]


def _evaluate(
    programme: Programme,
    energy_kwh: Float64[np.ndarray, " sources"],
    sessions: Sessions,
    per_g: Float64[np.ndarray, " batch"],
    per_slot: Float64[np.ndarray, "batch hours"],
) -> _Point:
    hours, slots = sessions.hours, float(sessions.hours.slots or 0)
    n_batch, n_hours = hours.g_per_kwh.shape
    batch = np.arange(n_batch)[:, None]
    charged = (per_g[:, None] + sessions.price_per_g) * hours.g_per_kwh
    prices, chosen = [], []
    for kwh in energy_kwh:
        each = np.where(hours.feasible, (charged * kwh + per_slot)[:, None, :], OUT_OF_REACH)
        hour = each.argmin(axis=2)
        chosen.append(hour)
        prices.append(np.take_along_axis(each, hour[..., None], axis=2)[..., 0])
    price = np.stack(prices, axis=2)
    value, use = read(programme, sessions.patient, corners(programme.grid, price))
    load, spent = np.zeros(n_batch * n_hours), np.zeros(n_batch)
    for s, hour in enumerate(chosen):
        at = (batch * n_hours + hour).ravel()
        load += np.bincount(at, weights=use[..., s].ravel(), minlength=len(load))
        spent += (use[..., s] * hours.g_per_kwh[batch, hour]).sum(axis=1) * energy_kwh[s]
    budget = sessions.budget_g_co2e
    paid = np.multiply(per_g, budget, out=np.zeros_like(per_g), where=per_g > 0.0)
    total = value.sum(axis=1) + paid + slots * per_slot.sum(axis=1)
    return _Point(
        value=total,
        price=price,
        over_g=spent - budget,
        over_slots=load.reshape(n_batch, n_hours) - slots,
    )


def _with_room(
    programme: Programme,
    energy_kwh: Float64[np.ndarray, " sources"],
    sessions: Sessions,
    near: Spending,
    steps: int,
) -> Spending:
    """Subgradient steps scaled by their running size, as in Adam; the best point is kept."""
    worth = float(np.maximum(programme.first, 0.0).mean()) + 1e-12
    per_g, per_slot = near.per_g.copy(), near.per_slot.copy()
    scale_g = RATE * np.maximum(per_g, worth / _grams(energy_kwh, sessions))
    size_g, size_slot = np.zeros_like(per_g), np.zeros_like(per_slot)
    best = replace(near, value=np.full(len(per_g), np.inf))
    for step in range(steps):
        here = _evaluate(programme, energy_kwh, sessions, per_g, per_slot)
        best = _better(best, here, per_g, per_slot)
        slope_g = np.where(np.isfinite(here.over_g), here.over_g, 0.0)
        size_g = np.maximum(0.95 * size_g, np.abs(slope_g))
        size_slot = np.maximum(0.95 * size_slot, np.abs(here.over_slots))
        pace = 1.0 / np.sqrt(1.0 + step)
        per_g = per_g + pace * scale_g * slope_g / np.maximum(size_g, 1e-12)
        per_slot = per_slot + pace * RATE * worth * here.over_slots / np.maximum(size_slot, 1e-12)
        per_g, per_slot = np.maximum(per_g, 0.0), np.maximum(per_slot, 0.0)
    return best


def _grams(energy_kwh: Float64[np.ndarray, " sources"], sessions: Sessions) -> float:
    return float(sessions.hours.g_per_kwh.mean() * energy_kwh.mean()) + 1e-12


def _better(
    best: Spending,
    here: _Point,
    per_g: Float64[np.ndarray, " batch"],
    per_slot: Float64[np.ndarray, "batch hours"],
) -> Spending:
    wins = here.value < best.value
    return Spending(
        value=np.where(wins, here.value, best.value),
        price=np.where(wins[:, None, None], here.price, best.price),
        per_g=np.where(wins, per_g, best.per_g),
        per_slot=np.where(wins[:, None], per_slot, best.per_slot),
    )
