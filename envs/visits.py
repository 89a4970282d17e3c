"""One visit after another: how cases come up under the one-shot and the sequential rules.

A session is a queue of visits. ``finalise`` closes the case and ``defer`` moves it, once, to the
end of the queue; either ends the visit and moves the clock by one slot. Under the one-shot rules
there is no ``defer``, and a transfer closes the case as well.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from envs.session import SessionDraw
from envs.setup import ReviewSetup
from envs.state import SessionState


def start(
    state: SessionState, rows: Int64[np.ndarray, " rows"], draw: SessionDraw, setup: ReviewSetup
) -> None:
    """Queue the cases of drawn sessions up and open the first visit."""
    n = setup.config.n_cases
    state.queue[rows, :n] = draw.order
    state.head[rows] = 0
    state.tail[rows] = n
    # All cases wait from the start.
    kinds = state.needs_now.shape[1]
    needs = setup.outlook.needs.take(draw.patient * setup.tables.n_sets)
    cell = np.arange(len(rows))[:, None] * kinds + needs
    counts = np.bincount(cell.ravel(), minlength=len(rows) * kinds)
    state.needs_now[rows] = counts.reshape(len(rows), kinds)
    open_visit(state, rows, setup)


def open_visit(state: SessionState, rows: Int64[np.ndarray, " rows"], setup: ReviewSetup) -> None:
    """Bring the next case of the queue under review."""
    head = state.head[rows]
    case = state.queue.take(rows * state.queue.shape[1] + head)
    state.hour[rows] = head // setup.config.slots_per_hour
    state.review(rows, case, setup.tables.n_sets)


def now_h(
    state: SessionState, rows: Int64[np.ndarray, " rows"], setup: ReviewSetup
) -> Float64[np.ndarray, " rows"]:
    """Hours since the session began: each visit takes one slot."""
    return np.asarray(state.head[rows] / setup.config.slots_per_hour)


def move_on(
    state: SessionState,
    setup: ReviewSetup,
    closed: Int64[np.ndarray, " closed"],
    put_off: Int64[np.ndarray, " put_off"],
) -> Int64[np.ndarray, " ended"]:
    """End the visits of these rows; the rows whose sessions have no visit left."""
    state.queue[put_off, state.tail[put_off]] = state.case[put_off]
    state.tail[put_off] += 1
    rows = np.concatenate([closed, put_off]) if len(put_off) else closed
    state.head[rows] += 1
    ended = state.head[rows] == state.tail[rows]
    open_visit(state, rows[~ended], setup)
    return np.asarray(rows[ended])


def may_defer(state: SessionState, setup: ReviewSetup) -> Bool[np.ndarray, " batch"]:
    """Once a case, and only where the visit at the end of the queue is not past the deadline."""
    if setup.rules == "oneshot":
        return np.zeros(len(state.over), dtype=np.bool_)
    revisit_h = state.tail / setup.config.slots_per_hour
    on_time = revisit_h <= state.deadline_h.take(state.cell)
    return np.asarray(on_time & ~state.was_deferred.take(state.cell))


def room(
    state: SessionState, setup: ReviewSetup
) -> tuple[Int64[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]:
    """Visits left in this hour, and until the deadline of the case under review, this one too."""
    per_hour = setup.config.slots_per_hour
    due = state.deadline_h.take(state.cell)
    until = np.floor(due * per_hour).astype(np.int64) - state.head
    return per_hour - state.head % per_hour, np.maximum(until, 0) + 1


def time_left_h(state: SessionState, setup: ReviewSetup) -> Float64[np.ndarray, " batch"]:
    """Hours that the visits left take."""
    return np.asarray((state.tail - state.head) / setup.config.slots_per_hour)
