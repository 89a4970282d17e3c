"""When each case can be worked on: hours, their intensities, and their room.

Every bound lets a case be worked on in the best of these hours, whoever else is waiting, and knows
the intensities beforehand. No policy does better, since it meets each case in some of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from envs.dynamics import SessionState
from envs.setup import ReviewSetup

OUT_OF_REACH = 1e12
"""Stands for the intensity of a case that no hour has room for, gCO2e/kWh."""


@dataclass(frozen=True, kw_only=True)
class VisitHours:
    """The hours of B sessions of N cases.

    Attributes:
        g_per_kwh: true intensity of each hour.
        feasible: whether the case can be worked on in the hour.
        slots: transfers that an hour has room for; None where transfers take no room.
    """

    g_per_kwh: Float64[np.ndarray, "batch hours"]
    feasible: Bool[np.ndarray, "batch cases hours"]
    slots: int | None


def visit_hours(setup: ReviewSetup, state: SessionState) -> VisitHours:
    """The hours in which the rules let each case be worked on, in sessions just begun."""
    if setup.rules == "worklist":
        return _worklist_hours(setup, state)
    return _queue_hours(setup, state)


def _queue_hours(setup: ReviewSetup, state: SessionState) -> VisitHours:
    """The hour of the first visit; where a case may be deferred, later ones to its deadline."""
    n, slots = setup.config.n_cases, setup.config.slots_per_hour
    first = np.argsort(state.queue[:, :n], axis=1) // slots
    hour = np.arange(state.g_per_kwh.shape[1])
    feasible = hour == first[:, :, None]
    if setup.rules == "sequential":
        # The earliest revisit is the n-th visit; an hour counts if one of its visits is on time.
        begins = np.maximum(hour, n / slots)
        later = (hour >= n // slots) & (begins <= state.deadline_h[:, :, None])
        feasible = feasible | later
    return VisitHours(g_per_kwh=state.g_per_kwh, feasible=feasible, slots=None)


def _worklist_hours(setup: ReviewSetup, state: SessionState) -> VisitHours:
    """From arrival to the session's end: a case that finds its hours full is reviewed late."""
    hour = np.arange(state.g_per_kwh.shape[1])
    arrived = hour >= state.arrive_h[:, :, None]
    feasible = arrived & (hour < state.session_h[:, None])[:, None, :]
    return VisitHours(
        g_per_kwh=state.g_per_kwh, feasible=feasible, slots=setup.config.slots_per_hour
    )


def cheapest_g_per_kwh(hours: VisitHours) -> Float64[np.ndarray, "batch cases"]:
    """Lowest intensity at which each case can be worked on; out of reach if there is no hour."""
    intensity = np.where(hours.feasible, hours.g_per_kwh[:, None, :], OUT_OF_REACH)
    return np.asarray(intensity.min(axis=2))
