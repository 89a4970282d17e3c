"""The one object under every environment: sessions that begin, step and are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float32, Int64, Shaped

from envs.dynamics import advance, begin, open_actions
from envs.errors import SessionError
from envs.reward import auc, midpoint_credit
from envs.session import draw_sessions
from envs.setup import ReviewSetup
from envs.state import StepOutcome, empty_state
from envs.view import columns_of, observe

NAMED_KEYS = ("budget_mode", "reward_kind")
STEP_KEYS = ("auc_gain", "g_co2e", "lateness_h", "invalid", "cost")
END_KEYS = (
    "session_auc_base", "session_auc_final", "total_g_co2e", "budget_g", "n_invalid",
    "total_lateness_h", "n_late", "midpoint", "trace_idx",
)  # fmt: skip


@final
class ReviewEngine:
    """A batch of review sessions over one setup.

    The single environment runs it with one session, the vector environments with many: whatever
    they return is the same, bit for bit.
    """

    def __init__(self, setup: ReviewSetup, num_envs: int) -> None:
        if num_envs < 1:
            raise SessionError(f"num_envs is {num_envs}; give 1 or more.")
        self.setup = setup
        self.num_envs = num_envs
        self.state = empty_state(num_envs, setup)
        self._columns = columns_of(setup.layout)
        self._mask: Bool[np.ndarray, "batch actions"] | None = None

    @property
    def mask(self) -> Bool[np.ndarray, "batch actions"]:
        """Which actions are open; worked out once after each change, and not to be written to."""
        if self._mask is None:
            self._mask = open_actions(self.state, self.setup)
        return self._mask

    @property
    def over(self) -> Bool[np.ndarray, " batch"]:
        """Which sessions have ended (or never begun)."""
        return self.state.over

    def begin(self, rows: Int64[np.ndarray, " rows"], rngs: Sequence[np.random.Generator]) -> None:
        """Draw and start a session in each of these rows, from its own generator."""
        counts = (self.setup.n_pos, self.setup.n_neg)
        setup = self.setup
        draw = draw_sessions(
            setup.tables, setup.grid, setup.config, counts, rngs, rules=setup.rules
        )
        begin(self.state, rows, draw, self.setup)
        self._mask = None

    def step(self, actions: Shaped[np.ndarray, "..."]) -> StepOutcome:
        """Take one action (a whole number a session) in every session that is not over.

        Raises:
            SessionError: if an action is not in the catalogue.
        """
        if actions.shape != (self.num_envs,) or not np.issubdtype(actions.dtype, np.integer):
            raise SessionError(
                f"Actions have shape {actions.shape} and type {actions.dtype}; expected "
                f"({self.num_envs},) whole numbers."
            )
        if actions.min() < 0 or actions.max() >= self.setup.catalogue.n:
            raise SessionError(
                f"Actions span {actions.min()} to {actions.max()}; the catalogue has "
                f"0 to {self.setup.catalogue.n - 1}."
            )
        outcome = advance(self.state, self.setup, actions.astype(np.int64), self.mask)
        self._mask = None
        return outcome

    def observe(self) -> Float32[np.ndarray, "batch fields"]:
        """Observations of all sessions, as a new array."""
        return observe(self.state, self.setup, self._columns)

    def totals(self, rows: Int64[np.ndarray, " rows"] | None = None) -> dict[str, np.ndarray]:
        """What is said at the end of a session: :data:`END_KEYS`.

        Args:
            rows: which sessions; None for all.
        """
        state, tables = self.state, self.setup.tables
        n_pos, n_neg = self.setup.n_pos, self.setup.n_neg
        at = np.arange(self.num_envs) if rows is None else rows
        base = state.base_wins[at]
        first = tables.logit[state.patient[at] * tables.n_sets]
        return {
            "session_auc_base": auc(base, n_pos, n_neg),
            "session_auc_final": auc(base + state.wins[at], n_pos, n_neg),
            "total_g_co2e": state.spent_g[at],
            "budget_g": state.budget_g[at],
            "n_invalid": state.n_invalid[at],
            "total_lateness_h": state.lateness_h[at],
            "n_late": state.n_late[at],
            "midpoint": midpoint_credit(first, state.score[at], np.arange(n_pos + n_neg) < n_pos),
            "trace_idx": state.trace_idx[at],
        }

    def named(self) -> dict[str, str]:
        """What budget and reward mean in these sessions: :data:`NAMED_KEYS`, said at each reset."""
        config = self.setup.config
        return dict(zip(NAMED_KEYS, (config.budget_mode, config.reward)))

    def step_info(self, outcome: StepOutcome) -> dict[str, np.ndarray]:
        """What is said after each step: :data:`STEP_KEYS`, one value a row."""
        return {
            "auc_gain": outcome.auc_gain,
            "g_co2e": outcome.g_co2e,
            "lateness_h": outcome.lateness_h,
            "invalid": outcome.invalid,
            "cost": outcome.g_co2e,
        }


def observation_space(setup: ReviewSetup) -> spaces.Box:
    """Bounds of one observation."""
    return spaces.Box(setup.layout.low, setup.layout.high, dtype=np.float32)


def action_space(setup: ReviewSetup) -> spaces.Discrete[Any]:
    """The catalogue's actions."""
    return spaces.Discrete(setup.catalogue.n)
