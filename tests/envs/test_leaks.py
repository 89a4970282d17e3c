"""No label reaches an observation or a mask; and the checks that say so would notice one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.config import BUDGET_MODES, REWARDS, RULES, preset_names
from envs.dynamics import SessionState, advance, begin, empty_state, open_actions
from envs.gain import GainModel
from envs.session import SessionDraw, draw_sessions
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence
from envs.view import columns_of, observe

EVIDENCE = toy_evidence(100, 4)
FLIPPED = replace(EVIDENCE, label=(1 - EVIDENCE.label).astype(np.int8))
GAIN = GainModel.fit(EVIDENCE, np.arange(100), 20, 20)
SIZES: dict[str, Any] = {"n_cases": 9, "session_h_min": 4, "session_h_max": 9}
BY_CASE = ("patient", "urgency", "arrival_h", "deadline_h")

Look = Callable[[SessionState, ReviewSetup], tuple[np.ndarray, np.ndarray]]


class LeakError(AssertionError):
    """Two sessions that differ in labels alone do not look the same."""


def honest(state: SessionState, setup: ReviewSetup) -> tuple[np.ndarray, np.ndarray]:
    """What the environments hand to an agent."""
    return observe(state, setup, columns_of(setup.layout)), open_actions(state, setup)


def twins(rules: str, **arguments: Any) -> tuple[ReviewSetup, ReviewSetup]:
    """The same setup twice, the second with every label flipped; one gain model for both."""
    common = SIZES | {"rules": rules, "gain_model": GAIN} | arguments
    setup, other = (build_setup(evidence=e, **common) for e in (EVIDENCE, FLIPPED))
    return setup, replace(other, n_pos=setup.n_neg, n_neg=setup.n_pos)


def drawn(setup: ReviewSetup, seed: int) -> SessionDraw:
    counts, rngs = (setup.n_pos, setup.n_neg), [np.random.default_rng(seed)]
    return draw_sessions(setup.tables, setup.grid, setup.config, counts, rngs, rules=setup.rules)


def swapped(draw: SessionDraw, n_pos: int) -> SessionDraw:
    """The same session; cases are listed positives first, so the other class leads now."""
    n = draw.patient.shape[1]
    old_of_new = np.concatenate([np.arange(n_pos, n), np.arange(n_pos)])
    by_case = {name: getattr(draw, name)[:, old_of_new] for name in BY_CASE}
    return replace(draw, order=np.argsort(old_of_new)[draw.order], **by_case)


def compare(setup: ReviewSetup, other: ReviewSetup, seed: int, look: Look = honest) -> int:
    """Play both sessions with the same random actions; the number of steps.

    Raises:
        LeakError: at the first field, or action, that differs.
    """
    draw, rng = drawn(setup, seed), np.random.default_rng(seed)
    states = [empty_state(1, setup), empty_state(1, other)]
    begin(states[0], np.array([0]), draw, setup)
    begin(states[1], np.array([0]), swapped(draw, setup.n_pos), other)
    steps, gained = 0, 0.0
    while not states[0].over[0]:
        (seen, mask), (seen_other, mask_other) = (
            look(state, s) for state, s in zip(states, (setup, other))
        )
        for index in np.flatnonzero(seen[0] != seen_other[0]):
            raise LeakError(f"field {setup.layout.names[index]} knows the label")
        for index in np.flatnonzero(mask[0] != mask_other[0]):
            raise LeakError(f"mask of {setup.catalogue.names[index]} knows the label")
        action = np.array([rng.choice(np.flatnonzero(mask[0]))])
        outcome, outcome_other = (
            advance(state, s, action, mask) for state, s in zip(states, (setup, other))
        )
        # The twins do differ: what one gains the other loses.
        assert outcome.auc_gain[0] == -outcome_other.auc_gain[0]
        gained += abs(float(outcome.auc_gain[0]))
        steps += 1
    assert states[1].over[0]
    return steps


@given(
    rules=st.sampled_from(RULES),
    preset=st.sampled_from(preset_names()),
    reward=st.sampled_from(REWARDS),
    mode=st.sampled_from(BUDGET_MODES),
    seed=st.integers(0, 1000),
)
@settings(max_examples=24, deadline=None, derandomize=True, database=None)
def test_flipping_every_label_changes_nothing_that_an_agent_sees(
    rules: str, preset: str, reward: str, mode: str, seed: int
) -> None:
    setup, other = twins(rules, preset=preset, reward=reward, budget_mode=mode)
    assert compare(setup, other, seed) > 0


@pytest.mark.parametrize("field", ["logit", "gain_clinical->genomics", "waiting", "ahead"])
@pytest.mark.parametrize("rules", RULES)
def test_a_planted_leak_in_a_field_is_caught(rules: str, field: str) -> None:
    """The label of the case under review, hidden in the last bits of an honest field."""

    def leaky(state: SessionState, setup: ReviewSetup) -> tuple[np.ndarray, np.ndarray]:
        seen, mask = honest(state, setup)
        at, is_positive = setup.layout.index(field), state.case < label_end(setup)
        seen[is_positive, at] = np.nextafter(seen[is_positive, at], np.float32(np.inf))
        return seen, mask

    setup, other = twins(rules)
    with pytest.raises(LeakError, match=field):
        compare(setup, other, 0, leaky)


def label_end(setup: ReviewSetup) -> int:
    """Cases below it are positive."""
    return setup.n_pos


def test_a_planted_leak_in_a_mask_is_caught() -> None:
    def leaky(state: SessionState, setup: ReviewSetup) -> tuple[np.ndarray, np.ndarray]:
        seen, mask = honest(state, setup)
        mask[:, setup.catalogue.defer] &= state.case >= label_end(setup)
        return seen, mask

    setup, other = twins("worklist")
    with pytest.raises(LeakError, match="mask of defer"):
        compare(setup, other, 0, leaky)


def test_a_planted_leak_in_the_order_of_cases_is_caught() -> None:
    """Equal deadlines: whoever sorts them by case number shows the positives first."""
    setup, other = twins("worklist", backlog=1.0)
    draw = drawn(setup, 3)
    tied = replace(draw, deadline_h=np.full_like(draw.deadline_h, 3.0))
    by_number = replace(tied, order=np.arange(9)[None])
    for candidate, leaks in ((tied, False), (by_number, True)):
        first, second = empty_state(1, setup), empty_state(1, other)
        begin(first, np.array([0]), candidate, setup)
        twin = swapped(candidate, setup.n_pos)
        if leaks:
            twin = replace(twin, order=np.arange(9)[None])
        begin(second, np.array([0]), twin, other)
        same = honest(first, setup)[0].tobytes() == honest(second, other)[0].tobytes()
        assert same != leaks


@pytest.mark.parametrize("rules", RULES)
def test_the_kind_of_reward_is_in_no_observation(rules: str) -> None:
    """Expected labels stem from all the evidence, shown or not: they may only pay."""
    seen: dict[str, list[bytes]] = {}
    paid: dict[str, float] = {}
    for reward in REWARDS:
        setup, _ = twins(rules, reward=reward)
        state, rng = empty_state(1, setup), np.random.default_rng(0)
        begin(state, np.array([0]), drawn(setup, 0), setup)
        seen[reward], paid[reward] = [], 0.0
        while not state.over[0]:
            observation, mask = honest(state, setup)
            seen[reward] += [observation.tobytes(), mask.tobytes()]
            action = np.array([rng.choice(np.flatnonzero(mask[0]))])
            paid[reward] += float(advance(state, setup, action, mask).reward[0])
    assert all(steps == seen["auc"] for steps in seen.values())
    assert len(set(paid.values())) == len(REWARDS)


def test_gains_are_fitted_on_other_folds_only() -> None:
    """Which patients under review are positive has no part in the predicted gains.

    How many are has: sessions hold the classes as the pool does, and a gain is a share of pairs.
    """

    def table(shuffled: int | None) -> bytes:
        label = EVIDENCE.label.copy()
        members = np.flatnonzero(EVIDENCE.fold == shuffled)
        label[members] = np.random.default_rng(0).permutation(label[members])
        setup = build_setup(
            evidence=replace(EVIDENCE, label=label),
            folds=[4], fit_folds=[0, 1, 2, 3], n_cases=6, period="eval",
        )  # fmt: skip
        return setup.gain_model.table.tobytes()

    assert table(4) == table(None)
    assert table(3) != table(None)


def test_gains_and_outlook_come_from_the_gain_model_alone() -> None:
    setup, other = twins("worklist")
    for name in ("best", "needs", "source", "is_new", "pipeline_kwh"):
        ours, theirs = getattr(setup.outlook, name), getattr(other.outlook, name)
        assert ours.tobytes() == theirs.tobytes()
