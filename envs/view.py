"""Writing the observations of many sessions into one array, already scaled.

The same numbers as :meth:`ObservationLayout.encode` of the physical values (a test compares), from
tables that were scaled beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from envs.dynamics import SessionState
from envs.observation import ObservationLayout
from envs.setup import ReviewSetup


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where the groups of fields begin and end in the vector."""

    belief: slice
    traits: slice
    progress: slice
    urgency: int
    slack: int
    deferred: int
    grid: slice
    budget_left: int
    budget_left_g: int
    time_left: int
    cases_left: int
    contest: slice
    gain: slice
    energy: slice
    g_co2e: slice
    runs: slice


def columns_of(layout: ObservationLayout) -> Columns:
    """Look the columns up once."""
    grid = layout.index("intensity_now")
    return Columns(
        belief=slice(0, 4),
        traits=slice(layout.group("present").start, layout.group("quality").stop),
        progress=slice(layout.group("processed").start, layout.group("run").stop),
        urgency=layout.index("urgency"),
        slack=layout.index("slack_h"),
        deferred=layout.index("deferred"),
        grid=slice(grid, layout.index("intensity_uncertainty") + 1),
        budget_left=layout.index("budget_left"),
        budget_left_g=layout.index("budget_left_g_co2e"),
        time_left=layout.index("time_left"),
        cases_left=layout.index("cases_left"),
        contest=slice(layout.index("waiting"), layout.index("slots_left") + 1),
        gain=layout.group("gain"),
        energy=layout.group("energy"),
        g_co2e=layout.group("g_co2e"),
        runs=slice(layout.group("setup").start, layout.group("sharing").stop),
    )


def observe(
    state: SessionState, setup: ReviewSetup, at: Columns
) -> Float32[np.ndarray, "batch fields"]:
    """Observations of every session, as a new array."""
    out = np.empty((len(state.over), setup.layout.size), dtype=np.float32)
    _write_case(out, state, setup, at)
    _write_session(out, state, setup, at)
    _write_actions(out, state, setup, at)
    return out


def _write_case(
    out: Float32[np.ndarray, "batch fields"], state: SessionState, setup: ReviewSetup, at: Columns
) -> None:
    tables, layout = setup.tables, setup.layout
    rows = np.arange(len(out))
    out[:, at.belief] = tables.belief[state.pool * tables.n_sets + state.current_set]
    out[:, at.traits] = tables.traits[state.pool]
    out[:, at.progress] = tables.progress[state.current_set]
    out[:, at.urgency] = state.urgency[rows, state.case]
    now_h = state.head / setup.config.slots_per_hour
    slack_h = state.deadline_h[rows, state.case] - now_h
    out[:, at.slack] = layout.scale_field("slack_h", slack_h)
    out[:, at.deferred] = state.was_deferred[rows, state.case]


def _write_session(
    out: Float32[np.ndarray, "batch fields"], state: SessionState, setup: ReviewSetup, at: Columns
) -> None:
    layout = setup.layout
    left_g = state.budget_g - state.spent_g
    share = left_g / np.where(state.budget_g > 0.0, state.budget_g, 1.0)
    visits = (state.tail - state.head).astype(np.float64)
    hours = visits / setup.config.slots_per_hour
    out[:, at.grid] = state.grid_view[np.arange(len(out)), state.hour]
    out[:, at.budget_left] = layout.scale_field("budget_left", share)
    out[:, at.budget_left_g] = layout.scale_field("budget_left_g_co2e", left_g)
    out[:, at.time_left] = layout.scale_field("time_left", hours)
    out[:, at.cases_left] = layout.scale_field("cases_left", visits)
    nothing, one = np.zeros(len(out)), np.ones(len(out))
    contest = (visits, nothing, nothing, one, visits)
    names = layout.names[at.contest]
    for column, (name, values) in enumerate(zip(names, contest), start=at.contest.start):
        out[:, column] = layout.scale_field(name, values)


def _write_actions(
    out: Float32[np.ndarray, "batch fields"], state: SessionState, setup: ReviewSetup, at: Columns
) -> None:
    tables, layout = setup.tables, setup.layout
    field = layout.fields[at.g_co2e.start]
    logit = tables.logit[state.pool * tables.n_sets + state.current_set]
    gain = setup.gain_model.predict(state.current_set, logit)
    root_kwh = tables.step_root_kwh[state.current_set]
    g_now = state.g_per_kwh[np.arange(len(out)), state.hour]
    root_g = np.sqrt(g_now / field.scale).astype(np.float32)
    out[:, at.gain] = gain * np.float32(1.0 / layout.fields[at.gain.start].scale)
    out[:, at.energy] = root_kwh
    out[:, at.runs] = 0.0
    np.minimum(root_kwh * root_g[:, None], np.float32(field.high), out=out[:, at.g_co2e])
