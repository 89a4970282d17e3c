"""The arrays of many review sessions under way, and what one step of them says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int64

from envs.config import LEADS_H
from envs.setup import ReviewSetup

NEVER_H = 32_767
"""An hour that no session reaches."""


@dataclass(kw_only=True)
class SessionState:
    """Sessions under way: B environments, N cases, H hours, M modalities; changed in place.

    Cases are listed positives first. Arrays that only one set of rules uses are empty under the
    others (``visits`` or ``places`` is 0).

    Attributes:
        patient: pool index of each case; positives first.
        urgency: simulated urgency of each case.
        arrive_h: first hour in which each case can come up.
        deadline_h: hours from the session's start to each case's deadline.
        closed_h: time at which each case was closed, hours; NaN while it is open.
        g_per_kwh: true intensity at each hour.
        grid_view: scaled ``intensity_*`` fields at each hour.
        trace_idx: which of the grid's traces the session runs over.
        session_h: the session's length, hours; sequential rules: of its planned visits.
        budget_g: the session's carbon budget, gCO2e.
        base_wins: half wins when every case has its first score.
        score: current log-odds of each case.
        set_idx: current evidence set of each case.
        best: predicted gain of each case's best transfer, AUC; -1 once it is closed.
        needs_now: how many of the waiting cases would need each modality's pipeline for their best
            transfer; the last entry counts those that would need none.
        faced: the scores again, as what the other class has to beat: first the positives', then
            the negatives', each padded with NaN to the longer of the two.
        was_deferred: whether the case has been put off.
        n_closed: cases closed so far.
        invalid_run: invalid actions in the current visit.
        n_invalid: invalid actions in the session.
        spent_g: emitted so far, gCO2e.
        wins: change of half wins so far.
        lateness_h: hours past deadlines so far, summed over closed cases.
        n_late: cases closed late.
        over: whether the session has ended.
        case: the case under review.
        cell: where it is found in the arrays of all cases, laid flat.
        pool: its patient.
        current_set: its evidence set.
        seen_at: the two together, ``patient * n_sets + set``.
        hour: the current hour.
        queue: visits: cases in visiting order; deferred ones are appended.
        head: visits: index of the current visit.
        tail: visits: number of visits in the queue.
        by_deadline: worklist: the cases, earliest deadline first.
        ready_h: worklist: the hour from which each of them, in that order, may come up (again).
        place: worklist: where the case under review stands in that order.
        last_h: worklist: last hour of each case before its deadline and the session's end.
        slots: worklist: slots left in the current hour.
        needs_first: worklist: ``needs_now`` as it would be before the session and at each of its
            hours, if every case were open and at its first score.
        run_h: worklist: hour of the latest pipeline run of each modality; -1 before the first.
    """

    patient: Int64[np.ndarray, "batch cases"]
    urgency: Float32[np.ndarray, "batch cases"]
    arrive_h: Int16[np.ndarray, "batch cases"]
    deadline_h: Float64[np.ndarray, "batch cases"]
    closed_h: Float64[np.ndarray, "batch cases"]
    g_per_kwh: Float64[np.ndarray, "batch hours"]
    grid_view: Float32[np.ndarray, "batch hours grid"]
    trace_idx: Int64[np.ndarray, " batch"]
    session_h: Int64[np.ndarray, " batch"]
    budget_g: Float64[np.ndarray, " batch"]
    base_wins: Int64[np.ndarray, " batch"]
    score: Float32[np.ndarray, "batch cases"]
    set_idx: Int64[np.ndarray, "batch cases"]
    best: Float32[np.ndarray, "batch cases"]
    needs_now: Float32[np.ndarray, "batch needs"]
    faced: Float32[np.ndarray, "batch faced"]
    was_deferred: Bool[np.ndarray, "batch cases"]
    n_closed: Int64[np.ndarray, " batch"]
    invalid_run: Int64[np.ndarray, " batch"]
    n_invalid: Int64[np.ndarray, " batch"]
    spent_g: Float64[np.ndarray, " batch"]
    wins: Int64[np.ndarray, " batch"]
    lateness_h: Float64[np.ndarray, " batch"]
    n_late: Int64[np.ndarray, " batch"]
    over: Bool[np.ndarray, " batch"]
    case: Int64[np.ndarray, " batch"]
    cell: Int64[np.ndarray, " batch"]
    pool: Int64[np.ndarray, " batch"]
    current_set: Int64[np.ndarray, " batch"]
    seen_at: Int64[np.ndarray, " batch"]
    hour: Int64[np.ndarray, " batch"]
    queue: Int64[np.ndarray, "batch visits"]
    head: Int64[np.ndarray, " batch"]
    tail: Int64[np.ndarray, " batch"]
    by_deadline: Int64[np.ndarray, "batch places"]
    ready_h: Int16[np.ndarray, "batch places"]
    place: Int64[np.ndarray, " batch"]
    last_h: Int64[np.ndarray, "batch places"]
    slots: Int64[np.ndarray, " batch"]
    needs_first: Float32[np.ndarray, "batch moments needs"]
    run_h: Int64[np.ndarray, "batch modalities"]

    def review(
        self,
        rows: Int64[np.ndarray, " rows"],
        case: Int64[np.ndarray, " rows"],
        n_sets: int,
    ) -> None:
        """Bring these cases of these rows under review."""
        cell = rows * self.patient.shape[1] + case
        pool, current = self.patient.take(cell), self.set_idx.take(cell)
        self.case[rows] = case
        self.cell[rows] = cell
        self.pool[rows] = pool
        self.current_set[rows] = current
        self.seen_at[rows] = pool * n_sets + current
        self.invalid_run[rows] = 0

    def g_now(self, rows: Int64[np.ndarray, " rows"]) -> Float64[np.ndarray, " rows"]:
        """Intensity of the current hour, gCO2e/kWh."""
        return np.asarray(self.g_per_kwh.take(rows * self.g_per_kwh.shape[1] + self.hour[rows]))

    @property
    def case_lateness_h(self) -> Float64[np.ndarray, "batch cases"]:
        """Hours past its deadline at which each case was closed; 0 while it is open."""
        closed_h = np.nan_to_num(self.closed_h, nan=-np.inf)
        return np.asarray(np.maximum(closed_h - self.deadline_h, 0.0))


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What one step did in each session.

    Attributes:
        reward: the credit minus the priced carbon (and lateness, where it has a price).
        terminated: whether the session ended with this step.
        auc_gain: change of the session's AUC.
        g_co2e: emitted in this step.
        lateness_h: hours past their deadlines of the cases closed in this step, else 0.
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
    n, hours = setup.config.n_cases, setup.config.hours(setup.rules)
    worklist = setup.rules == "worklist"
    visits, places = (0, n) if worklist else (setup.config.max_visits, 0)
    modalities = len(setup.layout.modalities)
    case, hour, place = (n,), (hours,), (places,)
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "patient": (case, np.int64), "urgency": (case, np.float32), "arrive_h": (case, np.int16),
        "deadline_h": (case, np.float64), "closed_h": (case, np.float64),
        "g_per_kwh": (hour, np.float64), "grid_view": ((hours, len(LEADS_H) + 2), np.float32),
        "trace_idx": ((), np.int64), "session_h": ((), np.int64), "budget_g": ((), np.float64),
        "base_wins": ((), np.int64), "score": (case, np.float32), "set_idx": (case, np.int64),
        "best": (case, np.float32), "needs_now": ((modalities + 1,), np.float32),
        "faced": ((2 * max(setup.n_pos, setup.n_neg),), np.float32),
        "was_deferred": (case, np.bool_),
        "n_closed": ((), np.int64), "invalid_run": ((), np.int64), "n_invalid": ((), np.int64),
        "spent_g": ((), np.float64), "wins": ((), np.int64), "lateness_h": ((), np.float64),
        "n_late": ((), np.int64), "over": ((), np.bool_), "case": ((), np.int64),
        "cell": ((), np.int64), "pool": ((), np.int64), "current_set": ((), np.int64),
        "seen_at": ((), np.int64), "hour": ((), np.int64),
        "needs_first": ((hours + 1 if worklist else 0, modalities + 1), np.float32),
        "queue": ((visits,), np.int64), "head": ((), np.int64), "tail": ((), np.int64),
        "by_deadline": (place, np.int64), "ready_h": (place, np.int16), "place": ((), np.int64),
        "last_h": (place, np.int64), "slots": ((), np.int64),
        "run_h": ((modalities,), np.int64),
    }  # fmt: skip
    arrays: dict[str, Any] = {
        name: np.zeros((n_envs, *tail), kind) for name, (tail, kind) in shapes.items()
    }
    arrays["over"][:] = True
    return SessionState(**arrays)
