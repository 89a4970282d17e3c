"""Writing the observations of many sessions into one array, already scaled.

The same numbers as :meth:`ObservationLayout.encode` of the physical values (a test compares), from
tables that were scaled beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from envs import worklist
from envs.dynamics import flow_of
from envs.observation import ObservationLayout
from envs.setup import ReviewSetup
from envs.state import SessionState

MEASURED = (
    "slack_h", "budget_left", "budget_left_g_co2e", "time_left", "cases_left", "waiting", "to_come",
    "ahead", "slots_left_now", "slots_left",
)  # fmt: skip
"""Fields worked out anew at every step; all but the first lie side by side in the vector."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where the groups of fields begin and end in the vector, and how they are scaled.

    Attributes:
        case: ``probability`` to ``run_<transfer>``.
        urgency: the field of this name.
        slack: ``slack_h``.
        deferred: the field of this name.
        grid: ``intensity_*``.
        session: ``budget_left`` to ``slots_left``.
        steps: ``gain`` and ``energy``.
        energy: the group of this name.
        g_co2e: the group of this name.
        setup: the group of this name.
        sharing: the group of this name.
        scale: of the :data:`MEASURED` fields, one a row.
        is_root: which of them are scaled as square roots.
        low: their lower bounds.
        high: their upper bounds.
    """

    case: slice
    urgency: int
    slack: int
    deferred: int
    grid: slice
    session: slice
    steps: slice
    energy: slice
    g_co2e: slice
    setup: slice
    sharing: slice
    scale: Float64[np.ndarray, "measured 1"]
    is_root: Bool[np.ndarray, " measured"]
    low: Float32[np.ndarray, "measured 1"]
    high: Float32[np.ndarray, "measured 1"]


def columns_of(layout: ObservationLayout) -> Columns:
    """Look the columns up once."""
    fields = [layout.fields[layout.index(name)] for name in MEASURED]
    return Columns(
        case=slice(0, layout.group("run").stop),
        urgency=layout.index("urgency"),
        slack=layout.index("slack_h"),
        deferred=layout.index("deferred"),
        grid=slice(layout.index("intensity_now"), layout.index("intensity_uncertainty") + 1),
        session=slice(layout.index(MEASURED[1]), layout.index(MEASURED[-1]) + 1),
        steps=slice(layout.group("gain").start, layout.group("energy").stop),
        energy=layout.group("energy"),
        g_co2e=layout.group("g_co2e"),
        setup=layout.group("setup"),
        sharing=layout.group("sharing"),
        scale=np.array([[field.scale] for field in fields]),
        is_root=np.array([field.kind == "sqrt" for field in fields]),
        low=np.array([[field.low] for field in fields], dtype=np.float32),
        high=np.array([[field.high] for field in fields], dtype=np.float32),
    )


def observe(
    state: SessionState, setup: ReviewSetup, at: Columns
) -> Float32[np.ndarray, "batch fields"]:
    """Observations of every session, as a new array."""
    out = np.empty((len(state.over), setup.layout.size), dtype=np.float32)
    out[:, at.case] = setup.sight.case(state.seen_at)
    out[:, at.urgency] = state.urgency.take(state.cell)
    out[:, at.deferred] = state.was_deferred.take(state.cell)
    _, hours, grid = state.grid_view.shape
    now = np.arange(len(out)) * hours + state.hour
    out[:, at.grid] = state.grid_view.reshape(-1, grid).take(now, axis=0)
    measured = _measured(state, setup, at)
    out[:, at.slack] = measured[0]
    out[:, at.session] = measured[1:].T
    _write_steps(out, state, setup, at)
    out[:, at.sharing] = _sharing(state, setup, setup.layout.fields[at.sharing.start].high)
    return out


def _measured(
    state: SessionState, setup: ReviewSetup, at: Columns
) -> Float32[np.ndarray, "measured batch"]:
    """The :data:`MEASURED` fields, one a row, scaled."""
    flow, rows = flow_of(setup), np.arange(len(state.over))
    raw = np.empty((len(MEASURED), len(rows)))
    np.subtract(state.deadline_h.take(state.cell), flow.now_h(state, rows, setup), out=raw[0])
    np.subtract(state.budget_g, state.spent_g, out=raw[2])
    np.divide(raw[2], np.where(state.budget_g > 0.0, state.budget_g, 1.0), out=raw[1])
    raw[3] = flow.time_left_h(state, setup)
    np.subtract(setup.config.n_cases, state.n_closed, out=raw[4])
    # Sums of small whole numbers as matrix products: exact, and quicker than along the rows.
    raw[5] = state.needs_now @ np.ones(state.needs_now.shape[1], dtype=np.float32)
    np.subtract(raw[4], raw[5], out=raw[6])
    raw[7] = _ahead(state, setup)
    raw[8], raw[9] = flow.room(state, setup)
    raw /= at.scale
    raw[at.is_root] = np.sqrt(np.maximum(raw[at.is_root], 0.0))
    scaled = raw.astype(np.float32)
    np.maximum(scaled, at.low, out=scaled)
    return np.asarray(np.minimum(scaled, at.high, out=scaled))


def _ahead(state: SessionState, setup: ReviewSetup) -> Float32[np.ndarray, " batch"]:
    """Waiting cases whose best transfer is predicted to gain more; closed ones are at -1."""
    better = state.best > state.best.take(state.cell)[:, None]
    if setup.rules == "worklist":
        better &= state.arrive_h <= state.hour.astype(np.int16)[:, None]
    return np.asarray(better.astype(np.float32) @ np.ones(better.shape[1], dtype=np.float32))


def _write_steps(
    out: Float32[np.ndarray, "batch fields"], state: SessionState, setup: ReviewSetup, at: Columns
) -> None:
    """Gains, energies, emissions and runs to start."""
    field = setup.layout.fields[at.g_co2e.start]
    out[:, at.steps] = setup.sight.steps(state.seen_at)
    if setup.has_setup:
        due_kwh = worklist.due_setup_kwh(state, setup)
        kwh = setup.tables.step_kwh.take(state.current_set, axis=0) + due_kwh
        out[:, at.energy] = np.sqrt(kwh)
        out[:, at.setup] = np.sqrt(due_kwh)
    else:
        out[:, at.setup] = 0.0
    root_g = np.sqrt(state.g_now(np.arange(len(out))) / field.scale).astype(np.float32)
    root = out[:, at.energy] * root_g[:, None]
    np.minimum(root, np.float32(field.high), out=out[:, at.g_co2e])


def _sharing(
    state: SessionState, setup: ReviewSetup, most: float
) -> Float32[np.ndarray, "batch transfers"]:
    """Other waiting cases whose best transfer needs the pipeline that each transfer would run."""
    outlook = setup.outlook
    own = outlook.needs.take(state.seen_at)[:, None] == outlook.modality
    others = state.needs_now[:, :-1] - own
    # A session that is over has nobody waiting, not even the case that was last under review.
    np.maximum(others, 0.0, out=others)
    others *= outlook.share_scale.take(state.current_set, axis=0)
    np.minimum(others, np.float32(most), out=others)
    return np.asarray(others.take(outlook.source, axis=1))
