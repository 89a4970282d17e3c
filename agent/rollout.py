"""Letting a policy review sessions, and what is written down while it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from gymnasium.utils import seeding
from jaxtyping import Bool, Float32, Float64, Int64

from agent.policies.protocol import Policy
from envs.engine import ReviewEngine
from envs.setup import ReviewSetup

BATCH = 64
URGENCY_EDGES = (0.4, 0.8)
URGENCY_BANDS = ("low, to 0.4", "medium, to 0.8", "urgent, above 0.8")
UNCERTAINTY_EDGES = (0.5, 0.8)
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
        final_set: the evidence set that each case ended with.
        by_urgency: decisions by band of urgency and by action, summed over sessions.
        by_uncertainty: decisions by band of entropy and by action, summed over sessions.
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
    final_set: Int64[np.ndarray, "sessions cases"]
    by_urgency: Int64[np.ndarray, "bands actions"]
    by_uncertainty: Int64[np.ndarray, "bands actions"]

    @classmethod
    def join(cls, parts: Sequence[SessionRecords]) -> SessionRecords:
        """Records of several batches as one; decisions are added up."""
        joined = {}
        for field in fields(cls):
            arrays = [getattr(part, field.name) for part in parts]
            counts = field.name.startswith("by_")
            joined[field.name] = np.sum(arrays, axis=0) if counts else np.concatenate(arrays)
        return cls(**joined)


@dataclass(kw_only=True)
class _Tally:
    """Running totals of one batch of sessions."""

    reward: Float64[np.ndarray, " batch"]
    lateness_h: Float64[np.ndarray, " batch"]
    transfers: Int64[np.ndarray, " batch"]
    deferrals: Int64[np.ndarray, " batch"]
    at_once: Int64[np.ndarray, " batch"]
    by_urgency: Int64[np.ndarray, "bands actions"]
    by_uncertainty: Int64[np.ndarray, "bands actions"]

    @classmethod
    def zero(cls, batch: int, actions: int) -> _Tally:
        bands = len(URGENCY_BANDS)
        return cls(
            reward=np.zeros(batch),
            lateness_h=np.zeros(batch),
            transfers=np.zeros(batch, dtype=np.int64),
            deferrals=np.zeros(batch, dtype=np.int64),
            at_once=np.zeros(batch, dtype=np.int64),
            by_urgency=np.zeros((bands, actions), dtype=np.int64),
            by_uncertainty=np.zeros((bands, actions), dtype=np.int64),
        )

    def count(
        self,
        setup: ReviewSetup,
        observation: Float32[np.ndarray, "batch fields"],
        action: Int64[np.ndarray, " batch"],
        active: Bool[np.ndarray, " batch"],
    ) -> None:
        """Count the decisions of the sessions that are not over."""
        layout, catalogue = setup.layout, setup.catalogue
        untouched = layout.physical(observation, "run").sum(axis=1) == 0
        first = untouched & (layout.physical(observation, "deferred") == 0)
        self.transfers += active & (action < catalogue.n_transfers)
        self.deferrals += active & (action == catalogue.defer)
        self.at_once += active & (action == catalogue.finalise) & first
        urgency = observation[:, layout.index("urgency")].astype(np.float64)
        entropy = layout.physical(observation, "entropy")
        in_urgency = np.digitize(urgency, URGENCY_EDGES, right=True)
        in_uncertainty = np.digitize(entropy, UNCERTAINTY_EDGES, right=True)
        np.add.at(self.by_urgency, (in_urgency[active], action[active]), 1)
        np.add.at(self.by_uncertainty, (in_uncertainty[active], action[active]), 1)


def start_sessions(setup: ReviewSetup, seeds: Sequence[int]) -> ReviewEngine:
    """One session a seed, begun; the same as resetting the environment with that seed."""
    engine = ReviewEngine(setup, len(seeds))
    engine.begin(np.arange(len(seeds)), [seeding.np_random(seed)[0] for seed in seeds])
    return engine


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
    tally = _Tally.zero(len(seeds), setup.catalogue.n)
    policy.reset(len(seeds), seed=int(seeds[0]))
    while not engine.over.all():
        active, mask, observation = ~engine.over, engine.mask, engine.observe()
        action = policy.act(observation, mask)
        tally.count(setup, observation, action, active)
        outcome = engine.step(action)
        tally.reward += outcome.reward
        tally.lateness_h += outcome.lateness_h
    totals, n = engine.totals(), setup.config.n_cases
    return SessionRecords(
        auc_base=totals["session_auc_base"],
        auc_gain=totals["session_auc_final"] - totals["session_auc_base"],
        g_co2e=totals["total_g_co2e"],
        reward=tally.reward,
        budget_g_co2e=state.budget_g.copy(),
        transfers_per_case=tally.transfers / n,
        deferrals_per_case=tally.deferrals / n,
        finalised_at_once=tally.at_once / n,
        lateness_h=tally.lateness_h,
        invalid=totals["n_invalid"].astype(np.float64),
        final_set=state.set_idx.copy(),
        by_urgency=tally.by_urgency,
        by_uncertainty=tally.by_uncertainty,
    )
