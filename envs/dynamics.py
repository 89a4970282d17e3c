"""The rules of a review, for many sessions at once: transfers, credit, budget, masks.

In a visit the agent may run transfers, whose results are seen at once, until it finalises the
case or puts it off. How cases come up is a matter of the rules: ``envs/visits.py`` for one visit
after another, ``envs/worklist.py`` for arrivals, hours and slots. An action that the mask forbids
is a counted no-op; too many of them in one visit finalise the case, so that no session lasts for
ever.

Every function is a batch of independent rows: a row's result never depends on another row, nor on
how many there are. State lives in arrays that the functions update in place, for speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from envs import visits, worklist
from envs.config import LEADS_H
from envs.observation import ObservationLayout
from envs.reward import credit, half_wins
from envs.session import SessionDraw
from envs.setup import ReviewSetup
from envs.state import SessionState, StepOutcome, empty_state

__all__ = [
    "SessionState", "StepOutcome", "advance", "begin", "empty_state", "flow_of", "open_actions",
]  # fmt: skip


def flow_of(setup: ReviewSetup) -> ModuleType:
    """How cases come up under these rules: ``envs.visits`` or ``envs.worklist``."""
    return worklist if setup.rules == "worklist" else visits


def begin(
    state: SessionState, rows: Int64[np.ndarray, " rows"], draw: SessionDraw, setup: ReviewSetup
) -> None:
    """Start drawn sessions in these rows: every case at its first score, nothing spent."""
    tables = setup.tables
    at = draw.patient * tables.n_sets
    score = tables.logit.take(at)
    state.patient[rows] = draw.patient
    state.urgency[rows] = draw.urgency
    # Who arrives during the last hour still comes up in it: every case is reviewed once at least.
    state.arrive_h[rows] = np.minimum(np.ceil(draw.arrival_h), draw.session_h[:, None] - 1)
    state.deadline_h[rows] = draw.deadline_h
    state.closed_h[rows] = np.nan
    state.g_per_kwh[rows] = draw.g_per_kwh
    state.grid_view[rows] = _grid_view(draw, setup.layout)
    state.trace_idx[rows] = draw.trace_idx
    state.session_h[rows] = draw.session_h
    state.budget_g[rows] = _budget_g(draw, setup)
    state.score[rows] = score
    state.best[rows] = setup.outlook.best.take(at)
    state.faced[rows] = _faced(score, setup.n_pos, state.faced.shape[1] // 2)
    state.base_wins[rows] = half_wins(score[:, : setup.n_pos], score[:, setup.n_pos :])
    state.set_idx[rows] = 0
    state.was_deferred[rows] = False
    for zeroed in (state.n_closed, state.n_invalid, state.spent_g, state.wins, state.n_late,
                   state.lateness_h):  # fmt: skip
        zeroed[rows] = 0
    state.over[rows] = False
    flow_of(setup).start(state, rows, draw, setup)


def _grid_view(
    draw: SessionDraw, layout: ObservationLayout
) -> Float32[np.ndarray, "batch hours grid"]:
    first, last = layout.index("intensity_now"), layout.index("intensity_uncertainty")
    at = slice(first, last + 1)
    raw = np.empty((*draw.g_per_kwh.shape, len(LEADS_H) + 2))
    raw[:, :, 0] = draw.g_per_kwh
    raw[:, :, 1:-1] = draw.forecast
    raw[:, :, -1] = draw.uncertainty[:, None]
    raw /= np.array([field.scale for field in layout.fields[at]])
    return np.asarray(np.clip(raw.astype(np.float32), layout.low[at], layout.high[at]))


def _budget_g(draw: SessionDraw, setup: ReviewSetup) -> Float64[np.ndarray, " rows"]:
    """A share of processing everything, in full runs, at the session's mean intensity."""
    config = setup.config
    everything_kwh = setup.tables.everything_kwh[draw.patient].sum(axis=1)
    if setup.has_setup:
        everything_kwh = everything_kwh * (1.0 + config.setup_factor / config.slots_per_hour)
    inside = np.arange(draw.g_per_kwh.shape[1]) < draw.session_h[:, None]
    mean_g = np.where(inside, draw.g_per_kwh, 0.0).sum(axis=1) / draw.session_h
    return np.asarray(config.budget_fraction * everything_kwh * mean_g)


def _faced(
    score: Float32[np.ndarray, "rows cases"], n_pos: int, width: int
) -> Float32[np.ndarray, "rows faced"]:
    """The positives' scores and the negatives', each filled up with NaN."""
    faced = np.full((len(score), 2 * width), np.nan, dtype=np.float32)
    faced[:, :n_pos] = score[:, :n_pos]
    faced[:, width : width + score.shape[1] - n_pos] = score[:, n_pos:]
    return faced


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
    catalogue, flow, n_envs = setup.catalogue, flow_of(setup), len(actions)
    active = ~state.over
    allowed = mask.take(np.arange(n_envs) * catalogue.n + actions)
    allowed &= active
    invalid = active ^ allowed
    runs = np.flatnonzero(allowed & (actions < catalogue.n_transfers))
    auc_gain, earned, grams = np.zeros(n_envs), np.zeros(n_envs), np.zeros(n_envs)
    moved = _run_transfers(state, setup, runs, actions[runs])
    auc_gain[runs], earned[runs], grams[runs] = moved.auc_gain, moved.earned, moved.g_co2e
    closes = allowed & (actions == catalogue.finalise)
    if invalid.any():
        state.n_invalid += invalid
        state.invalid_run += invalid
        closes |= invalid & (state.invalid_run >= setup.max_invalid)
    if setup.rules == "oneshot":
        closes[runs] = True
    closed, put_off = np.flatnonzero(closes), np.flatnonzero(allowed & (actions == catalogue.defer))
    lateness, terminated = np.zeros(n_envs), np.zeros(n_envs, dtype=np.bool_)
    lateness[closed] = _close(state, setup, closed, flow.now_h(state, closed, setup))
    state.was_deferred.reshape(-1)[state.cell[put_off]] = True
    ended = flow.move_on(state, setup, closed, put_off)
    if len(ended):
        lateness[ended] += _end(state, ended)
        terminated[ended] = True
    reward = earned - grams * setup.price_per_g
    if setup.config.auc_per_late_h:
        reward -= lateness * setup.config.auc_per_late_h
    return StepOutcome(
        reward=reward,
        terminated=terminated,
        auc_gain=auc_gain,
        g_co2e=grams,
        lateness_h=lateness,
        invalid=invalid,
    )


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """What the transfers of one step did, in the sessions that ran one."""

    auc_gain: Float64[np.ndarray, " rows"]
    earned: Float64[np.ndarray, " rows"]
    g_co2e: Float64[np.ndarray, " rows"]


def _run_transfers(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    action: Int64[np.ndarray, " rows"],
) -> _Moved:
    """Run these transfers; their credit and emissions."""
    tables, cell = setup.tables, state.cell[rows]
    before, seen = state.current_set[rows], state.seen_at[rows]
    step = before * setup.catalogue.n_transfers + action
    after = tables.next_set.take(step).astype(np.int64)
    kwh = tables.step_kwh.take(step)
    if setup.has_setup:
        starts = state.run_h[rows, setup.outlook.source[action]] != state.hour[rows]
        kwh = kwh + setup.setup_kwh.take(step) * starts
    if setup.rules == "worklist":
        worklist.use_slots(state, setup, rows, before, action)
    emitted = kwh * state.g_now(rows)
    seen_after = seen + (after - before)
    new = tables.logit.take(seen_after)
    wins = _credit(state, setup, rows, new)
    auc_gain = wins / (2.0 * setup.n_pos * setup.n_neg)
    earned = step_reward(state, setup, rows, auc_gain, after)
    _look_again(state, setup, rows, seen, seen_after)
    state.score.reshape(-1)[cell] = new
    state.set_idx.reshape(-1)[cell] = after
    state.current_set[rows] = after
    state.seen_at[rows] = seen_after
    state.spent_g[rows] += emitted
    state.wins[rows] += wins
    return _Moved(auc_gain=auc_gain, earned=earned, g_co2e=emitted)


def step_reward(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    auc_gain: Float64[np.ndarray, " rows"],
    after: Int64[np.ndarray, " rows"],
) -> Float64[np.ndarray, " rows"]:
    """What moving the reviewed cases of these rows to other sets is worth, before any price.

    Args:
        state: as it stands before the move.
        setup: says which kind of reward.
        rows: the sessions in which a transfer is run.
        auc_gain: change of their AUC.
        after: the sets that their cases move to.
    """
    if setup.config.reward == "auc":
        return auc_gain
    return credit(
        setup.credit_basis, score=state.score[rows], patient=state.patient[rows],
        case=state.case[rows], before=state.current_set[rows], after=after,
    )  # fmt: skip


def _credit(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    new: Float32[np.ndarray, " rows"],
) -> Int64[np.ndarray, " rows"]:
    """Change of half wins when the reviewed cases of these rows move to their new scores.

    A win more is a score of the other class that was not below before and is now: comparisons,
    which are cheaper than the signs of differences. NaN, the filling, is never below anything.
    """
    case, n_pos, width = state.case[rows], setup.n_pos, state.faced.shape[1] // 2
    is_pos = case < n_pos
    faced = state.faced.reshape(-1, width).take(2 * rows + is_pos, axis=0)
    old = state.score.take(state.cell[rows])[:, None]
    change = (faced < new[:, None]).view(np.int8)
    change += (faced <= new[:, None]).view(np.int8)
    change -= (faced < old).view(np.int8)
    change -= (faced <= old).view(np.int8)
    place = np.where(is_pos, case, case + (width - n_pos))
    state.faced.reshape(-1)[rows * (2 * width) + place] = new
    # A matrix product of small whole numbers is exact in float32 up to 2**24 cases.
    wins = change.astype(np.float32) @ np.ones(width, dtype=np.float32)
    return np.asarray(np.where(is_pos, wins, -wins).astype(np.int64))


def _look_again(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    before: Int64[np.ndarray, " rows"],
    after: Int64[np.ndarray, " rows"],
) -> None:
    """A transfer shows something: the case's best next step is another one now."""
    outlook, needs = setup.outlook, state.needs_now.reshape(-1)
    session = rows * state.needs_now.shape[1]
    state.best.reshape(-1)[state.cell[rows]] = outlook.best.take(after)
    needs[session + outlook.needs.take(before)] -= 1.0
    needs[session + outlook.needs.take(after)] += 1.0


def _close(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    now_h: Float64[np.ndarray, " rows"],
) -> Float64[np.ndarray, " rows"]:
    """Close the cases under review in these rows; how late each of them is, hours."""
    cell = state.cell[rows]
    state.closed_h.reshape(-1)[cell] = now_h
    state.best.reshape(-1)[cell] = -1.0
    needs = setup.outlook.needs.take(state.seen_at[rows])
    state.needs_now.reshape(-1)[rows * state.needs_now.shape[1] + needs] -= 1.0
    state.n_closed[rows] += 1
    late = np.maximum(now_h - state.deadline_h.take(cell), 0.0)
    if late.any():
        state.lateness_h[rows] += late
        state.n_late[rows] += late > 0.0
    return np.asarray(late)


def _end(state: SessionState, rows: Int64[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
    """End these sessions: what is open is finalised as it stands; how late that is in sum."""
    state.over[rows] = True
    is_open = np.isnan(state.closed_h[rows])
    end_h = state.session_h[rows].astype(np.float64)[:, None]
    late = np.where(is_open, np.maximum(end_h - state.deadline_h[rows], 0.0), 0.0)
    state.closed_h[rows] = np.where(is_open, end_h, state.closed_h[rows])
    state.best[rows] = -1.0
    state.n_closed[rows] = is_open.shape[1]
    state.needs_now[rows] = 0.0
    total = late.sum(axis=1)
    state.lateness_h[rows] += total
    state.n_late[rows] += (late > 0.0).sum(axis=1)
    return np.asarray(total)


def open_actions(state: SessionState, setup: ReviewSetup) -> Bool[np.ndarray, "batch actions"]:
    """The action mask of every session; a session that is over leaves ``finalise`` only."""
    catalogue, n = setup.catalogue, setup.catalogue.n_transfers
    mask = setup.sight.possible(state.seen_at)
    if setup.rules == "worklist":
        mask[:, :n] &= (state.slots > 0)[:, None]
    if setup.config.masks_unaffordable:
        kwh = setup.tables.step_kwh.take(state.current_set, axis=0)
        if setup.has_setup:
            kwh += worklist.due_setup_kwh(state, setup)
        kwh *= state.g_now(np.arange(len(mask)))[:, None]
        kwh += state.spent_g[:, None]
        mask[:, :n] &= kwh <= state.budget_g[:, None]
    mask[:, catalogue.defer] = flow_of(setup).may_defer(state, setup)
    if state.over.any():
        mask[state.over] = False
        mask[:, catalogue.finalise] = True
    return mask
