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

from types import ModuleType

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from envs import visits, worklist
from envs.config import LEADS_H
from envs.observation import ObservationLayout
from envs.reward import credit, half_win_change, half_wins
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
    score = tables.logit[draw.patient * tables.n_sets]
    state.patient[rows] = draw.patient
    state.urgency[rows] = draw.urgency
    state.arrive_h[rows] = np.ceil(draw.arrival_h)
    state.deadline_h[rows] = draw.deadline_h
    state.closed_h[rows] = np.nan
    state.g_per_kwh[rows] = draw.g_per_kwh
    state.grid_view[rows] = _grid_view(draw, setup.layout)
    state.trace_idx[rows] = draw.trace_idx
    state.session_h[rows] = draw.session_h
    state.budget_g[rows] = _budget_g(draw, setup)
    state.score[rows] = score
    state.base_wins[rows] = half_wins(score[:, : setup.n_pos], score[:, setup.n_pos :])
    state.set_idx[rows] = 0
    state.was_deferred[rows] = False
    for zeroed in (state.n_closed, state.n_invalid, state.spent_g, state.wins, state.n_late,
                   state.lateness_h, state.needs_since):  # fmt: skip
        zeroed[rows] = 0
    state.over[rows] = False
    _count_needs(state, rows, setup)
    flow_of(setup).start(state, rows, draw, setup)


def _grid_view(
    draw: SessionDraw, layout: ObservationLayout
) -> Float32[np.ndarray, "batch hours grid"]:
    uncertainty = np.broadcast_to(draw.uncertainty[:, None], draw.g_per_kwh.shape)
    raw = [draw.g_per_kwh, *np.moveaxis(draw.forecast, 2, 0), uncertainty]
    leads = [f"intensity_lead_{h}h" for h in LEADS_H]
    names = ["intensity_now", *leads, "intensity_uncertainty"]
    scaled = [layout.scale_field(name, column) for name, column in zip(names, raw)]
    return np.stack(scaled, axis=2)


def _budget_g(draw: SessionDraw, setup: ReviewSetup) -> Float64[np.ndarray, " rows"]:
    """A share of processing everything, in full runs, at the session's mean intensity."""
    config = setup.config
    everything_kwh = setup.tables.everything_kwh[draw.patient].sum(axis=1)
    if setup.has_setup:
        everything_kwh = everything_kwh * (1.0 + config.setup_factor / config.slots_per_hour)
    inside = np.arange(draw.g_per_kwh.shape[1]) < draw.session_h[:, None]
    mean_g = np.where(inside, draw.g_per_kwh, 0.0).sum(axis=1) / draw.session_h
    return np.asarray(config.budget_fraction * everything_kwh * mean_g)


def _count_needs(state: SessionState, rows: Int64[np.ndarray, " rows"], setup: ReviewSetup) -> None:
    """Count, hour by hour of arrival, which pipelines the cases' best transfers need."""
    at = state.patient[rows] * setup.tables.n_sets
    state.best[rows] = setup.outlook.best[at]
    _, moments, kinds = state.needs_first.shape
    session = np.arange(len(rows))[:, None] * moments
    cell = (session + state.arrive_h[rows]) * kinds + setup.outlook.needs[at]
    counts = np.bincount(cell.ravel(), minlength=len(rows) * moments * kinds)
    state.needs_first[rows] = counts.reshape(len(rows), moments, kinds).cumsum(axis=1)


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
    catalogue, flow = setup.catalogue, flow_of(setup)
    active = ~state.over
    allowed = np.take_along_axis(mask, actions[:, None], axis=1)[:, 0] & active
    invalid = active & ~allowed
    runs = allowed & (actions < catalogue.n_transfers)
    wins, earned, grams = _run_transfers(state, setup, np.flatnonzero(runs), actions)
    state.n_invalid += invalid
    state.invalid_run += invalid
    closes = allowed & (actions == catalogue.finalise)
    closes |= invalid & (state.invalid_run >= setup.max_invalid)
    if setup.rules == "oneshot":
        closes |= runs
    closed = np.flatnonzero(closes)
    put_off = np.flatnonzero(allowed & (actions == catalogue.defer))
    lateness = np.zeros(len(actions))
    lateness[closed] = _close(state, setup, closed, flow.now_h(state, closed, setup))
    state.was_deferred[put_off, state.case[put_off]] = True
    ended = flow.move_on(state, setup, closed, put_off)
    lateness[ended] += _end(state, ended)
    terminated = np.zeros(len(actions), dtype=np.bool_)
    terminated[ended] = True
    price_h = setup.config.auc_per_late_h
    return StepOutcome(
        reward=earned - grams * setup.price_per_g - lateness * price_h,
        terminated=terminated,
        auc_gain=wins / (2.0 * setup.n_pos * setup.n_neg),
        g_co2e=grams,
        lateness_h=lateness,
        invalid=invalid,
    )


def _run_transfers(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    actions: Int64[np.ndarray, " batch"],
) -> tuple[
    Int64[np.ndarray, " batch"], Float64[np.ndarray, " batch"], Float64[np.ndarray, " batch"]
]:
    """Run the chosen transfers; change of half wins, credit and emissions of each session."""
    tables = setup.tables
    wins, earned, grams = (np.zeros(len(actions), kind) for kind in (np.int64, float, float))
    before, action, case = state.current_set[rows], actions[rows], state.case[rows]
    after = tables.next_set[before, action].astype(np.int64)
    kwh = tables.step_kwh[before, action]
    if setup.has_setup:
        source = setup.outlook.source[action]
        starts = state.run_h[rows, source] != state.hour[rows]
        kwh = kwh + np.where(starts, setup.setup_kwh[before, action], 0.0)
    if setup.rules == "worklist":
        worklist.use_slots(state, setup, rows, before, action)
    emitted = kwh * state.g_per_kwh[rows, state.hour[rows]]
    at = state.pool[rows] * tables.n_sets
    new = tables.logit[at + after]
    wins[rows] = _credit(state, setup, rows, new)
    earned[rows] = step_reward(state, setup, rows, wins[rows], after)
    grams[rows] = emitted
    _look_again(state, setup, rows, at + before, at + after)
    state.score[rows, case] = new
    state.set_idx[rows, case] = after
    state.current_set[rows] = after
    state.spent_g[rows] += emitted
    state.wins[rows] += wins[rows]
    return wins, earned, grams


def step_reward(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    wins: Int64[np.ndarray, " rows"],
    after: Int64[np.ndarray, " rows"],
) -> Float64[np.ndarray, " rows"]:
    """What moving the reviewed cases of these rows to other sets is worth, before any price.

    Args:
        state: as it stands before the move.
        setup: says which kind of reward.
        rows: the sessions in which a transfer is run.
        wins: change of their half wins.
        after: the sets that their cases move to.
    """
    if setup.config.reward == "auc":
        return np.asarray(wins / (2.0 * setup.n_pos * setup.n_neg))
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
    """Change of half wins when the reviewed cases of these rows move to their new scores."""
    case, n_pos = state.case[rows], setup.n_pos
    old = state.score[rows, case]
    wins = np.empty(len(rows), dtype=np.int64)
    pos = case < n_pos
    neg = ~pos
    wins[pos] = half_win_change(old[pos], new[pos], state.score[rows[pos], n_pos:])
    wins[neg] = -half_win_change(old[neg], new[neg], state.score[rows[neg], :n_pos])
    return wins


def _look_again(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    before: Int64[np.ndarray, " rows"],
    after: Int64[np.ndarray, " rows"],
) -> None:
    """A transfer shows something: the case's best next step is another one now."""
    outlook = setup.outlook
    state.best[rows, state.case[rows]] = outlook.best[after]
    state.needs_since[rows, outlook.needs[before]] -= 1
    state.needs_since[rows, outlook.needs[after]] += 1


def _close(
    state: SessionState,
    setup: ReviewSetup,
    rows: Int64[np.ndarray, " rows"],
    now_h: Float64[np.ndarray, " rows"],
) -> Float64[np.ndarray, " rows"]:
    """Close the cases under review in these rows; how late each of them is, hours."""
    case = state.case[rows]
    state.closed_h[rows, case] = now_h
    state.best[rows, case] = -1.0
    at = state.pool[rows] * setup.tables.n_sets + state.current_set[rows]
    state.needs_since[rows, setup.outlook.needs[at]] -= 1
    state.n_closed[rows] += 1
    late = np.maximum(now_h - state.deadline_h[rows, case], 0.0)
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
    state.needs_since[rows] = -state.needs_first[rows, state.moment(rows)]
    total = late.sum(axis=1)
    state.lateness_h[rows] += total
    state.n_late[rows] += (late > 0.0).sum(axis=1)
    return np.asarray(total)


def open_actions(state: SessionState, setup: ReviewSetup) -> Bool[np.ndarray, "batch actions"]:
    """The action mask of every session; a session that is over leaves ``finalise`` only."""
    tables, catalogue, n = setup.tables, setup.catalogue, setup.catalogue.n_transfers
    rows = np.arange(len(state.over))
    mask = np.empty((len(rows), catalogue.n), dtype=np.bool_)
    transfers = tables.is_open[state.current_set] & tables.has_source[state.pool]
    if setup.rules == "worklist":
        transfers &= (state.slots > 0)[:, None]
    if setup.config.masks_unaffordable:
        kwh = tables.step_kwh[state.current_set]
        if setup.has_setup:
            kwh = kwh + worklist.due_setup_kwh(state, setup)
        grams = kwh * state.g_per_kwh[rows, state.hour][:, None]
        transfers &= state.spent_g[:, None] + grams <= state.budget_g[:, None]
    mask[:, :n] = transfers
    mask[:, catalogue.defer] = flow_of(setup).may_defer(state, setup)
    mask[state.over] = False
    mask[:, catalogue.finalise] = True
    return mask
