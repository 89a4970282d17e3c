"""A worklist with hours and slots: how cases come up under the rules of ``CaseReview-v1``.

Cases arrive. In an hour each waiting case comes up at most once, earliest deadline first, and
``slots_per_hour`` transfers can be run. A case that is put off may come up again in the next hour.
Where the hour has no slot left or nobody else waits in it, the clock moves to the next hour in
which somebody waits; at the session's end what is open is finalised as it stands.

One number a case says it all: ``ready_h``, the hour from which it may come up (again), and "never"
once it is closed. The case that comes up is the first in order of deadlines that is ready; the
next hour is the least of them, if that is later.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from envs.session import SessionDraw
from envs.setup import ReviewSetup
from envs.state import NEVER_H, SessionState


def start(
    state: SessionState, rows: Int64[np.ndarray, " rows"], draw: SessionDraw, setup: ReviewSetup
) -> None:
    """Put the cases of drawn sessions in order of deadlines and bring the first one up."""
    due = np.take_along_axis(draw.deadline_h, draw.order, axis=1)
    # Equal deadlines fall to the earlier in the random order: case numbers would tell the class.
    order = np.take_along_axis(draw.order, np.argsort(due, axis=1, kind="stable"), axis=1)
    state.by_deadline[rows] = order
    state.ready_h[rows] = np.take_along_axis(state.arrive_h[rows], order, axis=1)
    latest = np.minimum(np.floor(draw.deadline_h), draw.session_h[:, None] - 1)
    state.last_h[rows] = latest.astype(np.int64)
    state.run_h[rows] = -1
    state.slots[rows] = 0
    state.hour[rows] = -1
    _count_needs(state, rows, draw, setup)
    bring_up(state, rows, setup)


def _count_needs(
    state: SessionState, rows: Int64[np.ndarray, " rows"], draw: SessionDraw, setup: ReviewSetup
) -> None:
    """Count, by hour of arrival, which pipelines the cases' best transfers need at first."""
    _, moments, kinds = state.needs_first.shape
    needs = setup.outlook.needs.take(draw.patient * setup.tables.n_sets)
    session = np.arange(len(rows))[:, None] * moments
    cell = (session + state.arrive_h[rows] + 1) * kinds + needs
    counts = np.bincount(cell.ravel(), minlength=len(rows) * moments * kinds)
    state.needs_first[rows] = counts.reshape(len(rows), moments, kinds).cumsum(axis=1)
    state.needs_now[rows] = 0.0


def bring_up(
    state: SessionState, rows: Int64[np.ndarray, " rows"], setup: ReviewSetup
) -> Int64[np.ndarray, " ended"]:
    """Bring the next case of these rows under review; the rows whose sessions are at their end."""
    ready = state.ready_h.take(rows, axis=0)
    hour = state.hour[rows]
    place = (ready <= hour.astype(np.int16)[:, None]).argmax(axis=1)
    someone = ready.take(np.arange(len(rows)) * ready.shape[1] + place) <= hour
    moves = np.flatnonzero(~someone | (state.slots[rows] == 0))
    if not len(moves):
        _open(state, rows, place, setup)
        return rows[:0]
    ready, moving = ready[moves], rows[moves]
    then = np.maximum(hour[moves] + 1, ready.min(axis=1))
    place[moves] = (ready <= then.astype(np.int16)[:, None]).argmax(axis=1)
    ends = then >= state.session_h[moving]
    _set_clock(state, moving[~ends], then[~ends], setup)
    if not ends.any():
        _open(state, rows, place, setup)
        return rows[:0]
    stays = np.ones(len(rows), dtype=np.bool_)
    stays[moves[ends]] = False
    _open(state, rows[stays], place[stays], setup)
    return np.asarray(moving[ends])


def _set_clock(
    state: SessionState,
    rows: Int64[np.ndarray, " rows"],
    hour: Int64[np.ndarray, " rows"],
    setup: ReviewSetup,
) -> None:
    """Move to a later hour: new slots, and those that have arrived since."""
    first = state.needs_first
    state.needs_now[rows] += first[rows, hour + 1] - first[rows, state.hour[rows] + 1]
    state.hour[rows] = hour
    state.slots[rows] = setup.config.slots_per_hour


def _open(
    state: SessionState,
    rows: Int64[np.ndarray, " rows"],
    place: Int64[np.ndarray, " rows"],
    setup: ReviewSetup,
) -> None:
    state.place[rows] = place
    case = state.by_deadline.take(rows * state.by_deadline.shape[1] + place)
    state.review(rows, case, setup.tables.n_sets)


def now_h(
    state: SessionState, rows: Int64[np.ndarray, " rows"], setup: ReviewSetup
) -> Float64[np.ndarray, " rows"]:
    """Hours since the session began; within an hour time stands still."""
    return np.asarray(state.hour[rows].astype(np.float64))


def move_on(
    state: SessionState,
    setup: ReviewSetup,
    closed: Int64[np.ndarray, " closed"],
    put_off: Int64[np.ndarray, " put_off"],
) -> Int64[np.ndarray, " ended"]:
    """End the visits of these rows; the rows whose sessions are at their end."""
    state.ready_h[closed, state.place[closed]] = NEVER_H
    state.ready_h[put_off, state.place[put_off]] = state.hour[put_off] + 1
    rows = np.concatenate([closed, put_off]) if len(put_off) else closed
    return bring_up(state, rows, setup)


def use_slots(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    before: Int64[np.ndarray, " rows"],
    action: Int64[np.ndarray, " rows"],
) -> None:
    """Take a slot for each of these transfers, and note which pipelines run in this hour."""
    state.slots[rows] -= 1
    new = setup.outlook.is_new[before, action]
    state.run_h[rows[new], setup.outlook.source[action[new]]] = state.hour[rows[new]]


def due_setup_kwh(
    state: SessionState, setup: ReviewSetup
) -> Float64[np.ndarray, "batch transfers"]:
    """What each transfer would pay now for starting a run that is not open in this hour."""
    is_shut = (state.run_h != state.hour[:, None]).take(setup.outlook.source, axis=1)
    return np.asarray(setup.setup_kwh.take(state.current_set, axis=0) * is_shut)


def may_defer(state: SessionState, setup: ReviewSetup) -> Bool[np.ndarray, " batch"]:
    """As long as the next hour is before the session's end and not past the deadline."""
    return np.asarray(state.hour < state.last_h.take(state.cell))


def room(
    state: SessionState, setup: ReviewSetup
) -> tuple[Int64[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]:
    """Slots left in this hour, and until the case under review is due or the session ends."""
    later = state.last_h.take(state.cell) - state.hour
    return state.slots, state.slots + np.maximum(later, 0) * setup.config.slots_per_hour


def time_left_h(state: SessionState, setup: ReviewSetup) -> Float64[np.ndarray, " batch"]:
    """Hours until the session's end."""
    return np.asarray((state.session_h - state.hour).astype(np.float64))
