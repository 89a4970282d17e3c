"""Writing the observations of many sessions into one array, already scaled.

The same numbers as :meth:`ObservationLayout.encode` of the physical values (a test compares), from
tables that were scaled beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64

from envs import worklist
from envs.dynamics import flow_of
from envs.observation import ObservationLayout
from envs.setup import ReviewSetup
from envs.state import SessionState


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
    setup: slice
    sharing: slice


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
        setup=layout.group("setup"),
        sharing=layout.group("sharing"),
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
    now_h = flow_of(setup).now_h(state, rows, setup)
    slack_h = state.deadline_h[rows, state.case] - now_h
    out[:, at.slack] = layout.scale_field("slack_h", slack_h)
    out[:, at.deferred] = state.was_deferred[rows, state.case]


def _write_session(
    out: Float32[np.ndarray, "batch fields"], state: SessionState, setup: ReviewSetup, at: Columns
) -> None:
    layout = setup.layout
    left_g = state.budget_g - state.spent_g
    share = left_g / np.where(state.budget_g > 0.0, state.budget_g, 1.0)
    flow, rows = flow_of(setup), np.arange(len(out))
    out[:, at.grid] = state.grid_view[rows, state.hour]
    out[:, at.budget_left] = layout.scale_field("budget_left", share)
    out[:, at.budget_left_g] = layout.scale_field("budget_left_g_co2e", left_g)
    out[:, at.time_left] = layout.scale_field("time_left", flow.time_left_h(state, setup))
    cases_left = setup.config.n_cases - state.n_closed
    waiting = needs(state).sum(axis=1)
    better = (state.best > state.best[rows, state.case][:, None]) & _here(state)
    slots_now, slots = flow.room(state, setup)
    contest = (waiting, cases_left - waiting, better.sum(axis=1), slots_now, slots)
    out[:, at.cases_left] = layout.scale_field("cases_left", cases_left.astype(np.float64))
    names = layout.names[at.contest]
    for column, (name, values) in enumerate(zip(names, contest), start=at.contest.start):
        out[:, column] = layout.scale_field(name, values.astype(np.float64))


def _here(state: SessionState) -> Bool[np.ndarray, "batch cases"]:
    return np.asarray(state.arrive_h <= state.hour[:, None])


def needs(state: SessionState) -> Int64[np.ndarray, "batch needs"]:
    """How many waiting cases' best transfer needs each modality's pipeline (last: none)."""
    rows = np.arange(len(state.over))
    return np.asarray(state.needs_first[rows, state.moment(rows)] + state.needs_since)


def sharing(state: SessionState, setup: ReviewSetup) -> Int64[np.ndarray, "batch transfers"]:
    """Other waiting cases whose best transfer needs the pipeline that each transfer would run."""
    outlook = setup.outlook
    counts = needs(state)[:, outlook.source]
    own = outlook.needs[state.pool * setup.tables.n_sets + state.current_set]
    counts -= own[:, None] == outlook.source
    # A session that is over has nobody waiting, not even the case that was last under review.
    return np.asarray(np.maximum(counts, 0) * outlook.is_new[state.current_set])


def _write_actions(
    out: Float32[np.ndarray, "batch fields"], state: SessionState, setup: ReviewSetup, at: Columns
) -> None:
    tables, layout = setup.tables, setup.layout
    field = layout.fields[at.g_co2e.start]
    logit = tables.logit[state.pool * tables.n_sets + state.current_set]
    gain = setup.gain_model.predict(state.current_set, logit)
    if setup.has_setup:
        due_kwh = worklist.due_setup_kwh(state, setup)
        kwh = tables.step_kwh[state.current_set] + due_kwh
        root_kwh = np.sqrt(kwh).astype(np.float32)
        out[:, at.setup] = np.sqrt(due_kwh)
    else:
        root_kwh = tables.step_root_kwh[state.current_set]
        out[:, at.setup] = 0.0
    g_now = state.g_per_kwh[np.arange(len(out)), state.hour]
    root_g = np.sqrt(g_now / field.scale).astype(np.float32)
    out[:, at.gain] = gain * np.float32(1.0 / layout.fields[at.gain.start].scale)
    out[:, at.energy] = root_kwh
    out[:, at.sharing] = sharing(state, setup) * np.float32(
        1.0 / layout.fields[at.sharing.start].scale
    )
    np.minimum(root_kwh * root_g[:, None], np.float32(field.high), out=out[:, at.g_co2e])
