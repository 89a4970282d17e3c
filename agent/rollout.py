"""Letting a policy review sessions, and what is written down while it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from gymnasium.utils import seeding
from jaxtyping import Bool, Float32, Float64, Int8, Int64

from agent.policies.protocol import Policy
from envs.engine import ReviewEngine
from envs.setup import ReviewSetup
from envs.state import StepOutcome

BATCH = 64
MOST_SLOTS = 3600
URGENCY_EDGES = (0.4, 0.8)
URGENCY_BANDS = ("low, to 0.4", "medium, to 0.8", "urgent, above 0.8")
UNCERTAINTY_EDGES = (0.5, 0.8)
HOUR_EDGES = (8, 16, 24, 32, 40, 48)
HOUR_BANDS = (
    "hours 0 to 7", "8 to 15", "16 to 23", "24 to 31", "32 to 39", "40 to 47", "48 and later",
)  # fmt: skip
UNCERTAINTY_BANDS = ("low, to 0.5 bit", "medium, to 0.8 bit", "high, above 0.8 bit")

Progress = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class SessionRecords:
    """What one policy did in each session.

    Attributes:
        auc_base: the session's AUC before anything was run.
        auc_gain: final AUC minus that.
        g_co2e: emissions, g.
        reward: sum of the environment's rewards.
        budget_g_co2e: the session's carbon budget, g.
        transfers_per_case: transfers run, per case.
        deferrals_per_case: deferrals, per case.
        finalised_at_once: share of cases finalised without any transfer.
        lateness_h: hours past the deadlines, summed over cases.
        invalid: actions that the mask forbade.
        trace_idx: which of the traces the session ran on.
        session_h: its length, hours.
        patient: pool index of each case, positives first; see ``SessionSource.rows``.
        label: 1 for the positive class.
        first_score: log-odds of each case on clinical data alone.
        final_score: log-odds that it was finalised with.
        final_set: the evidence set that each case ended with.
        case_g_co2e: emissions of each case, g.
        case_lateness_h: hours past each case's deadline.
        case_transfers: transfers run for each case.
        case_deferrals: how often each case was put off.
        by_urgency: decisions by band of urgency and by action, summed over sessions.
        by_uncertainty: decisions by band of entropy and by action, summed over sessions.
        by_hour: decisions by hour of the session and by action, summed over sessions.
    """

    auc_base: Float64[np.ndarray, " sessions"]
    auc_gain: Float64[np.ndarray, " sessions"]
    g_co2e: Float64[np.ndarray, " sessions"]
    reward: Float64[np.ndarray, " sessions"]
    budget_g_co2e: Float64[np.ndarray, " sessions"]
    transfers_per_case: Float64[np.ndarray, " sessions"]
    deferrals_per_case: Float64[np.ndarray, " sessions"]
    finalised_at_once: Float64[np.ndarray, " sessions"]
    lateness_h: Float64[np.ndarray, " sessions"]
    invalid: Float64[np.ndarray, " sessions"]
    trace_idx: Int64[np.ndarray, " sessions"]
    session_h: Float64[np.ndarray, " sessions"]
    patient: Int64[np.ndarray, "sessions cases"]
    label: Int8[np.ndarray, "sessions cases"]
    first_score: Float32[np.ndarray, "sessions cases"]
    final_score: Float32[np.ndarray, "sessions cases"]
    final_set: Int64[np.ndarray, "sessions cases"]
    case_g_co2e: Float64[np.ndarray, "sessions cases"]
    case_lateness_h: Float64[np.ndarray, "sessions cases"]
    case_transfers: Int64[np.ndarray, "sessions cases"]
    case_deferrals: Int64[np.ndarray, "sessions cases"]
    by_urgency: Int64[np.ndarray, "bands actions"]
    by_uncertainty: Int64[np.ndarray, "bands actions"]
    by_hour: Int64[np.ndarray, "hours actions"]

    @classmethod
    def join(cls, parts: Sequence[SessionRecords]) -> SessionRecords:
        """Records of several batches as one; decisions are added up."""
        joined = {}
        for field in fields(cls):
            arrays = [getattr(part, field.name) for part in parts]
            counts = field.name.startswith("by_")
            joined[field.name] = np.sum(arrays, axis=0) if counts else np.concatenate(arrays)
        return cls(**joined)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What stood before the policy: observations, whose cases, at which hours."""

    observation: Float32[np.ndarray, "batch fields"]
    case: Int64[np.ndarray, " batch"]
    hour: Int64[np.ndarray, " batch"]


@dataclass(kw_only=True)
class _Tally:
    """Running totals of one batch of sessions, and of each of its cases."""

    reward: Float64[np.ndarray, " batch"]
    lateness_h: Float64[np.ndarray, " batch"]
    at_once: Int64[np.ndarray, " batch"]
    case_g_co2e: Float64[np.ndarray, "batch cases"]
    case_transfers: Int64[np.ndarray, "batch cases"]
    case_deferrals: Int64[np.ndarray, "batch cases"]
    by_urgency: Int64[np.ndarray, "bands actions"]
    by_uncertainty: Int64[np.ndarray, "bands actions"]
    by_hour: Int64[np.ndarray, "hours actions"]

    @classmethod
    def zero(cls, batch: int, cases: int, actions: int) -> _Tally:
        bands = len(URGENCY_BANDS)
        return cls(
            reward=np.zeros(batch),
            lateness_h=np.zeros(batch),
            at_once=np.zeros(batch, dtype=np.int64),
            case_g_co2e=np.zeros((batch, cases)),
            case_transfers=np.zeros((batch, cases), dtype=np.int64),
            case_deferrals=np.zeros((batch, cases), dtype=np.int64),
            by_urgency=np.zeros((bands, actions), dtype=np.int64),
            by_uncertainty=np.zeros((bands, actions), dtype=np.int64),
            by_hour=np.zeros((len(HOUR_BANDS), actions), dtype=np.int64),
        )

    def count(
        self,
        setup: ReviewSetup,
        seen: _Seen,
        action: Int64[np.ndarray, " batch"],
        active: Bool[np.ndarray, " batch"],
    ) -> None:
        """Count the decisions, on what was seen, of the sessions that are not over."""
        observation, case = seen.observation, seen.case
        layout, catalogue = setup.layout, setup.catalogue
        untouched = layout.physical(observation, "run").sum(axis=1) == 0
        first = untouched & (layout.physical(observation, "deferred") == 0)
        rows = np.arange(len(action))
        self.case_transfers[rows, case] += active & (action < catalogue.n_transfers)
        self.case_deferrals[rows, case] += active & (action == catalogue.defer)
        self.at_once += active & (action == catalogue.finalise) & first
        urgency = observation[:, layout.index("urgency")].astype(np.float64)
        entropy = layout.physical(observation, "entropy")
        in_urgency = np.digitize(urgency, URGENCY_EDGES, right=True)
        in_uncertainty = np.digitize(entropy, UNCERTAINTY_EDGES, right=True)
        np.add.at(self.by_urgency, (in_urgency[active], action[active]), 1)
        np.add.at(self.by_uncertainty, (in_uncertainty[active], action[active]), 1)
        np.add.at(self.by_hour, (np.digitize(seen.hour, HOUR_EDGES)[active], action[active]), 1)

    def add(self, outcome: StepOutcome, case: Int64[np.ndarray, " batch"]) -> None:
        """Add what a step earned, emitted and delayed."""
        self.reward += outcome.reward
        self.lateness_h += outcome.lateness_h
        self.case_g_co2e[np.arange(len(case)), case] += outcome.g_co2e


def start_sessions(setup: ReviewSetup, seeds: Sequence[int]) -> ReviewEngine:
    """One session a seed, begun; the same as resetting the environment with that seed."""
    engine = ReviewEngine(setup, len(seeds))
    engine.begin(np.arange(len(seeds)), [seeding.np_random(seed)[0] for seed in seeds])
    return engine


def without_limits(setup: ReviewSetup) -> ReviewSetup:
    """The same sessions with no budget, room for every transfer, and as many as a case can take.

    What processing everything for everybody would gain and emit, to be set beside policies.
    """
    config = replace(setup.config, budget_mode="price")
    if setup.rules == "worklist":
        room = max(config.slots_per_hour, config.n_cases * setup.catalogue.depth)
        config = replace(config, slots_per_hour=min(room, MOST_SLOTS))
    rules = "sequential" if setup.rules == "oneshot" else setup.rules
    return replace(setup, config=config, rules=rules)


def run_sessions(
    policy: Policy,
    setup: ReviewSetup,
    seeds: Sequence[int],
    *,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> SessionRecords:
    """Let a policy review one session for each seed.

    The seed alone determines the session, so different policies given the same seeds review the
    same patients in the same order over the same hours.

    Args:
        policy: sees observations and masks only.
        setup: the environment's fixed numbers.
        seeds: one a session.
        batch: sessions stepped together.
        progress: called with the number of sessions finished since the last call.
    """
    parts = []
    for first in range(0, len(seeds), batch):
        chosen = seeds[first : first + batch]
        parts.append(_run_batch(policy, setup, chosen))
        if progress is not None:
            progress(len(chosen))
    return SessionRecords.join(parts)


def _run_batch(policy: Policy, setup: ReviewSetup, seeds: Sequence[int]) -> SessionRecords:
    engine = start_sessions(setup, seeds)
    state = engine.state
    tally = _Tally.zero(len(seeds), setup.config.n_cases, setup.catalogue.n)
    policy.reset(len(seeds), seed=int(seeds[0]))
    while not engine.over.all():
        active, mask = ~engine.over, engine.mask
        seen = _Seen(observation=engine.observe(), case=state.case.copy(), hour=state.hour.copy())
        action = policy.act(seen.observation, mask)
        tally.count(setup, seen, action, active)
        tally.add(engine.step(action), seen.case)
    return _records(engine, tally)


def _records(engine: ReviewEngine, tally: _Tally) -> SessionRecords:
    setup, state, totals = engine.setup, engine.state, engine.totals()
    tables, n = setup.tables, setup.config.n_cases
    label = np.broadcast_to(np.arange(n) < setup.n_pos, state.patient.shape)
    return SessionRecords(
        auc_base=totals["session_auc_base"],
        auc_gain=totals["session_auc_final"] - totals["session_auc_base"],
        g_co2e=totals["total_g_co2e"],
        reward=tally.reward,
        budget_g_co2e=state.budget_g.copy(),
        transfers_per_case=tally.case_transfers.sum(axis=1) / n,
        deferrals_per_case=tally.case_deferrals.sum(axis=1) / n,
        finalised_at_once=tally.at_once / n,
        lateness_h=tally.lateness_h,
        invalid=totals["n_invalid"].astype(np.float64),
        trace_idx=state.trace_idx.copy(),
        session_h=state.session_h.astype(np.float64),
        patient=state.patient.copy(),
        label=label.astype(np.int8),
        first_score=tables.logit[state.patient * tables.n_sets],
        final_score=state.score.copy(),
        final_set=state.set_idx.copy(),
        case_g_co2e=tally.case_g_co2e,
        case_lateness_h=state.case_lateness_h,
        case_transfers=tally.case_transfers,
        case_deferrals=tally.case_deferrals,
        by_urgency=tally.by_urgency,
        by_uncertainty=tally.by_uncertainty,
        by_hour=tally.by_hour,
    )
