"""The rules of a sequential review, for many sessions at once.

A session is a queue of visits. In a visit the agent may run transfers, whose results are seen at
once; ``finalise`` closes the case and ``defer`` moves it, once, to the end of the queue; either
ends the visit and moves the clock by one slot. An action that the mask forbids is a counted no-op;
too many of them in one visit finalise the case, so that no session lasts for ever.

Every function is a batch of independent rows: a row's result never depends on another row, nor on
how many there are. State lives in arrays that the functions update in place, for speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from envs.observation import ObservationLayout
from envs.reward import half_win_change, half_wins
from envs.session import SessionDraw
from envs.setup import ReviewSetup
from envs.tables import PatientTables


@dataclass(kw_only=True)
class SessionState:
    """Sessions under way: B environments, N cases, H visiting hours.

    Attributes:
        patient: pool index of each case; positives first.
        queue: cases in visiting order; deferred ones are appended.
        urgency: simulated urgency of each case.
        deadline_h: hours from the session's start to each case's deadline.
        g_per_kwh: true intensity at each visiting hour.
        grid_view: scaled ``intensity_*`` fields at each visiting hour.
        budget_g: the session's carbon budget, gCO2e.
        base_wins: half wins when every case has its first score.
        score: current log-odds of each case.
        set_idx: current evidence set of each case.
        was_deferred: whether the case has been put off.
        head: index of the current visit.
        tail: number of visits in the queue.
        invalid_run: invalid actions in the current visit.
        n_invalid: invalid actions in the session.
        spent_g: emitted so far, gCO2e.
        wins: change of half wins so far.
        over: whether the session has ended.
        case: the case under review.
        pool: its patient.
        current_set: its evidence set.
        hour: the current visiting hour.
    """

    patient: Int64[np.ndarray, "batch cases"]
    queue: Int64[np.ndarray, "batch visits"]
    urgency: Float32[np.ndarray, "batch cases"]
    deadline_h: Float64[np.ndarray, "batch cases"]
    g_per_kwh: Float64[np.ndarray, "batch hours"]
    grid_view: Float32[np.ndarray, "batch hours grid"]
    budget_g: Float64[np.ndarray, " batch"]
    base_wins: Int64[np.ndarray, " batch"]
    score: Float32[np.ndarray, "batch cases"]
    set_idx: Int64[np.ndarray, "batch cases"]
    was_deferred: Bool[np.ndarray, "batch cases"]
    head: Int64[np.ndarray, " batch"]
    tail: Int64[np.ndarray, " batch"]
    invalid_run: Int64[np.ndarray, " batch"]
    n_invalid: Int64[np.ndarray, " batch"]
    spent_g: Float64[np.ndarray, " batch"]
    wins: Int64[np.ndarray, " batch"]
    over: Bool[np.ndarray, " batch"]
    case: Int64[np.ndarray, " batch"]
    pool: Int64[np.ndarray, " batch"]
    current_set: Int64[np.ndarray, " batch"]
    hour: Int64[np.ndarray, " batch"]


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What one step did in each session.

    Attributes:
        reward: AUC credit minus the priced carbon.
        terminated: whether the session ended with this step.
        auc_gain: change of the session's AUC.
        g_co2e: emitted in this step.
        lateness_h: hours past the deadline of a case closed in this step, else 0.
        invalid: whether the action was a no-op because the mask forbade it.
    """

    reward: Float64[np.ndarray, " batch"]
    terminated: Bool[np.ndarray, " batch"]
    auc_gain: Float64[np.ndarray, " batch"]
    g_co2e: Float64[np.ndarray, " batch"]
    lateness_h: Float64[np.ndarray, " batch"]
    invalid: Bool[np.ndarray, " batch"]


def empty_state(n_envs: int, setup: ReviewSetup) -> SessionState:
    """Arrays for so many sessions, none of them begun."""
    n, visits = setup.config.n_cases, setup.config.max_visits
    hours = (visits - 1) // setup.config.slots_per_hour + 1
    grid = len([name for name in setup.layout.names if name.startswith("intensity_")])
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "patient": ((n,), np.int64), "queue": ((visits,), np.int64),
        "urgency": ((n,), np.float32), "deadline_h": ((n,), np.float64),
        "g_per_kwh": ((hours,), np.float64), "grid_view": ((hours, grid), np.float32),
        "budget_g": ((), np.float64), "base_wins": ((), np.int64), "score": ((n,), np.float32),
        "set_idx": ((n,), np.int64), "was_deferred": ((n,), np.bool_), "head": ((), np.int64),
        "tail": ((), np.int64), "invalid_run": ((), np.int64), "n_invalid": ((), np.int64),
        "spent_g": ((), np.float64), "wins": ((), np.int64), "over": ((), np.bool_),
        "case": ((), np.int64), "pool": ((), np.int64), "current_set": ((), np.int64),
        "hour": ((), np.int64),
    }  # fmt: skip
    arrays: dict[str, Any] = {
        name: np.zeros((n_envs, *tail), kind) for name, (tail, kind) in shapes.items()
    }
    arrays["over"][:] = True
    return SessionState(**arrays)


def begin(
    state: SessionState, rows: Int64[np.ndarray, " rows"], draw: SessionDraw, setup: ReviewSetup
) -> None:
    """Start drawn sessions in these rows: every case at its first score, nothing spent."""
    tables, config, n = setup.tables, setup.config, setup.config.n_cases
    score = tables.logit[draw.patient * tables.n_sets]
    state.patient[rows] = draw.patient
    state.queue[rows, :n] = draw.order
    state.urgency[rows] = draw.urgency
    state.deadline_h[rows] = draw.deadline_h
    state.g_per_kwh[rows] = draw.g_per_kwh
    state.grid_view[rows] = _grid_view(draw, setup.layout)
    planned = (n - 1) // config.slots_per_hour + 1
    mean_g = draw.g_per_kwh[:, :planned].sum(axis=1) / planned
    everything_kwh = tables.everything_kwh[draw.patient].sum(axis=1)
    state.budget_g[rows] = config.budget_fraction * everything_kwh * mean_g
    state.score[rows] = score
    state.base_wins[rows] = half_wins(score[:, : setup.n_pos], score[:, setup.n_pos :])
    state.set_idx[rows] = 0
    state.was_deferred[rows] = False
    state.tail[rows] = n
    for zeroed in (state.head, state.n_invalid, state.spent_g, state.wins):
        zeroed[rows] = 0
    state.over[rows] = False
    _open_visit(state, rows, config.slots_per_hour)


def _grid_view(
    draw: SessionDraw, layout: ObservationLayout
) -> Float32[np.ndarray, "batch hours grid"]:
    uncertainty = np.broadcast_to(draw.uncertainty[:, None], draw.g_per_kwh.shape)
    raw = [draw.g_per_kwh, *np.moveaxis(draw.forecast, 2, 0), uncertainty]
    names = [name for name in layout.names if name.startswith("intensity_")]
    scaled = [layout.scale_field(name, column) for name, column in zip(names, raw)]
    return np.stack(scaled, axis=2)


def _open_visit(state: SessionState, rows: Int64[np.ndarray, " rows"], slots_per_hour: int) -> None:
    """Bring the next case of the queue under review."""
    head = state.head[rows]
    case = state.queue[rows, head]
    state.case[rows] = case
    state.pool[rows] = state.patient[rows, case]
    state.current_set[rows] = state.set_idx[rows, case]
    state.hour[rows] = head // slots_per_hour
    state.invalid_run[rows] = 0


def advance(
    state: SessionState,
    setup: ReviewSetup,
    actions: Int64[np.ndarray, " batch"],
    mask: Bool[np.ndarray, "batch actions"],
) -> StepOutcome:
    """Take one action in every session that is not over; the others stay as they are.

    Args:
        state: updated in place.
        setup: the fixed numbers.
        actions: one action a session, each within the catalogue.
        mask: the actions that are open; others are counted no-ops.
    """
    catalogue = setup.catalogue
    active = ~state.over
    allowed = np.take_along_axis(mask, actions[:, None], axis=1)[:, 0] & active
    invalid = active & ~allowed
    wins, grams = _run_transfers(state, setup, allowed & (actions < catalogue.n_transfers), actions)
    state.n_invalid += invalid
    state.invalid_run += invalid
    stuck = active & (state.invalid_run >= setup.max_invalid)
    closes = (allowed & (actions == catalogue.finalise)) | stuck
    lateness = _lateness(state, closes, setup.config.slots_per_hour)
    puts_off = np.flatnonzero(allowed & (actions == catalogue.defer))
    state.queue[puts_off, state.tail[puts_off]] = state.case[puts_off]
    state.was_deferred[puts_off, state.case[puts_off]] = True
    state.tail[puts_off] += 1
    closes[puts_off] = True
    terminated = _next_visit(state, np.flatnonzero(closes), setup.config.slots_per_hour)
    auc_gain = wins / (2.0 * setup.n_pos * setup.n_neg)
    return StepOutcome(
        reward=auc_gain - grams * setup.price_per_g,
        terminated=terminated,
        auc_gain=auc_gain,
        g_co2e=grams,
        lateness_h=lateness,
        invalid=invalid,
    )


def _run_transfers(
    state: SessionState,
    setup: ReviewSetup,
    runs: Bool[np.ndarray, " batch"],
    actions: Int64[np.ndarray, " batch"],
) -> tuple[Int64[np.ndarray, " batch"], Float64[np.ndarray, " batch"]]:
    """Run the chosen transfers; the change of half wins and the emissions of each session."""
    tables = setup.tables
    wins, grams = np.zeros(len(runs), dtype=np.int64), np.zeros(len(runs))
    rows = np.flatnonzero(runs)
    before, action, case = state.current_set[rows], actions[rows], state.case[rows]
    after = tables.next_set[before, action].astype(np.int64)
    emitted = tables.step_kwh[before, action] * state.g_per_kwh[rows, state.hour[rows]]
    new = tables.logit[state.pool[rows] * tables.n_sets + after]
    wins[rows] = _credit(state, setup, rows, new)
    grams[rows] = emitted
    state.score[rows, case] = new
    state.set_idx[rows, case] = after
    state.current_set[rows] = after
    state.spent_g[rows] += emitted
    state.wins[rows] += wins[rows]
    return wins, grams


def _credit(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    new: Float32[np.ndarray, " rows"],
) -> Int64[np.ndarray, " rows"]:
    """Change of half wins when the reviewed cases of these rows move to their new scores."""
    case, n_pos = state.case[rows], setup.n_pos
    old = state.score[rows, case]
    wins = np.empty(len(rows), dtype=np.int64)
    pos = case < n_pos
    neg = ~pos
    wins[pos] = half_win_change(old[pos], new[pos], state.score[rows[pos], n_pos:])
    wins[neg] = -half_win_change(old[neg], new[neg], state.score[rows[neg], :n_pos])
    return wins


def _lateness(
    state: SessionState, closes: Bool[np.ndarray, " batch"], slots_per_hour: int
) -> Float64[np.ndarray, " batch"]:
    late = np.zeros(len(closes))
    rows = np.flatnonzero(closes)
    now = state.head[rows] / slots_per_hour
    late[rows] = np.maximum(now - state.deadline_h[rows, state.case[rows]], 0.0)
    return late


def _next_visit(
    state: SessionState, rows: Int64[np.ndarray, " rows"], slots_per_hour: int
) -> Bool[np.ndarray, " batch"]:
    """End the current visits of these rows; which sessions have no visit left."""
    state.head[rows] += 1
    ended = np.zeros(len(state.over), dtype=np.bool_)
    ended[rows] = state.head[rows] == state.tail[rows]
    state.over |= ended
    _open_visit(state, rows[~ended[rows]], slots_per_hour)
    return ended


def open_actions(state: SessionState, setup: ReviewSetup) -> Bool[np.ndarray, "batch actions"]:
    """The action mask of every session; a session that is over leaves ``finalise`` only."""
    tables: PatientTables = setup.tables
    catalogue, n = setup.catalogue, setup.catalogue.n_transfers
    rows = np.arange(len(state.over))
    mask = np.empty((len(rows), catalogue.n), dtype=np.bool_)
    transfers = tables.is_open[state.current_set] & tables.has_source[state.pool]
    if setup.config.masks_unaffordable:
        g_now = state.g_per_kwh[rows, state.hour]
        grams = tables.step_kwh[state.current_set] * g_now[:, None]
        transfers &= state.spent_g[:, None] + grams <= state.budget_g[:, None]
    mask[:, :n] = transfers
    revisit_h = state.tail / setup.config.slots_per_hour
    on_time = revisit_h <= state.deadline_h[rows, state.case]
    mask[:, catalogue.defer] = on_time & ~state.was_deferred[rows, state.case]
    mask[state.over] = False
    mask[:, catalogue.finalise] = True
    return mask
