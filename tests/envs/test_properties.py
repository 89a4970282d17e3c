"""What holds in every session, whatever the rules, the settings and the actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.config import BUDGET_MODES, REWARDS, RULES, preset_names
from envs.dynamics import StepOutcome
from envs.engine import ReviewEngine
from envs.gain import GainModel
from envs.reward import midpoint_credit, pooled_auc, weighted_auc
from envs.setup import ReviewSetup, build_setup
from envs.sight import BATCH
from envs.toy import toy_evidence

EVIDENCE = {
    3: toy_evidence(80, 0),
    4: toy_evidence(80, 1, ("clinical", "genomics", "pathology", "radiomics")),
}
GAIN = {m: GainModel.fit(e, np.arange(80), 20, 20) for m, e in EVIDENCE.items()}
PRESETS = preset_names()
STEP_LIMIT = 4000
"""No session of these sizes lasts as long: closed cases and the clock see to that."""

PLAYS = settings(
    max_examples=26,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True, kw_only=True)
class Play:
    """One random setup, and how its sessions are to be played.

    Attributes:
        modalities: 3 or 4: 6 or 12 transfers.
        arguments: of :func:`build_setup`.
        seed: of the sessions and of the actions.
        lawful: share of the actions that keep to the mask.
        taste: weights of a transfer, of ``finalise`` and of ``defer``; with little taste for
            closing, cases are late and open when the session ends.
    """

    modalities: int
    arguments: dict[str, Any]
    seed: int
    lawful: float
    taste: tuple[float, ...]

    def setup(self) -> ReviewSetup:
        return build_setup(
            evidence=EVIDENCE[self.modalities],
            gain_model=GAIN[self.modalities],
            **self.arguments,
        )


@st.composite
def plays(draw: st.DrawFn) -> Play:
    shortest = draw(st.integers(1, 6))
    arguments = {
        "rules": draw(st.sampled_from(RULES)),
        "preset": draw(st.sampled_from([None, *PRESETS])),
        "n_cases": draw(st.integers(2, 10)),
        "budget_mode": draw(st.sampled_from(BUDGET_MODES)),
        "reward": draw(st.sampled_from(REWARDS)),
        "session_h_min": shortest,
        "session_h_max": shortest + draw(st.integers(0, 8)),
    }
    chosen = {
        "slots_per_hour": st.integers(1, 5),
        "budget_fraction": st.sampled_from([0.0, 0.05, 0.3, 1.5]),
        "setup_factor": st.sampled_from([0.0, 1.0, 4.0]),
        "swing": st.sampled_from([0.5, 1.0, 3.0]),
        "backlog": st.floats(0.0, 1.0),
        "arrival_share": st.floats(0.0, 1.0),
        "auc_per_late_h": st.sampled_from([0.0, 0.01]),
        "urgent_fraction": st.floats(0.0, 1.0),
        "slack_min_h": st.floats(0.0, 4.0),
        "slack_max_h": st.floats(4.0, 24.0),
    }
    for name, strategy in chosen.items():
        # Left out, a field has the preset's value.
        if draw(st.booleans()):
            arguments[name] = draw(strategy)
    arguments.setdefault("slack_min_h", 2.0)
    arguments.setdefault("slack_max_h", 12.0)
    return Play(
        modalities=draw(st.sampled_from([3, 3, 4])),
        arguments=arguments,
        seed=draw(st.integers(0, 10_000)),
        lawful=draw(st.sampled_from([0.5, 1.0])),
        taste=draw(st.sampled_from([(1, 1, 1), (0.3, 1, 0.5), (1, 0.02, 0.3), (0.2, 0.02, 1)])),
    )


def actions_of(play: Play, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One random action a session."""
    n = mask.shape[1]
    weight = np.array([play.taste[0]] * (n - 2) + list(play.taste[1:]))
    lawful = (rng.random(mask.shape) ** (1.0 / weight) * mask).argmax(axis=1)
    return np.where(rng.random(len(mask)) < play.lawful, lawful, rng.integers(0, n, len(mask)))


def begun(setup: ReviewSetup, seeds: list[int]) -> ReviewEngine:
    engine = ReviewEngine(setup, len(seeds))
    engine.begin(np.arange(len(seeds)), [np.random.default_rng(seed) for seed in seeds])
    return engine


def used(play: Play, setup: ReviewSetup, seed: int, rng: np.random.Generator) -> ReviewEngine:
    """One session, begun where another was broken off: nothing of that may be left."""
    engine = begun(setup, [seed + 1000])
    for _ in range(15):
        engine.step(actions_of(play, engine.mask, rng))
    engine.begin(np.arange(1), [np.random.default_rng(seed)])
    return engine


@dataclass(frozen=True)
class Before:
    """What a step may change, as it was."""

    over: np.ndarray
    mask: np.ndarray
    case: np.ndarray
    hour: np.ndarray
    slots: np.ndarray
    spent_g: np.ndarray
    set_idx: np.ndarray
    score: np.ndarray
    closed_h: np.ndarray
    was_deferred: np.ndarray
    promised_g: np.ndarray


def before(engine: ReviewEngine) -> Before:
    state, layout = engine.state, engine.setup.layout
    return Before(
        state.over.copy(), engine.mask.copy(), state.case.copy(), state.hour.copy(),
        state.slots.copy(), state.spent_g.copy(), state.set_idx.copy(), state.score.copy(),
        state.closed_h.copy(), state.was_deferred.copy(),
        layout.physical(engine.observe(), "g_co2e"),
    )  # fmt: skip


def check_mask(engine: ReviewEngine) -> None:
    """Masks leave an action, never one that cannot be had, none that bursts an enforced budget."""
    setup, state, mask = engine.setup, engine.state, engine.mask
    n, finalise, defer = (
        setup.catalogue.n_transfers,
        setup.catalogue.finalise,
        setup.catalogue.defer,
    )
    assert mask[:, finalise].all()
    assert not mask[state.over][:, [i for i in range(n + 2) if i != finalise]].any()
    open_, tables = mask[:, :n], setup.tables
    assert not (open_ & ~tables.has_source[state.pool]).any()
    assert not (open_ & (tables.next_set[state.current_set] < 0)).any()
    if setup.rules == "oneshot":
        assert not mask[:, defer].any()
        assert not open_[state.current_set > 0].any()
    if setup.rules == "worklist":
        assert not open_[state.slots == 0].any()
        assert ((state.slots >= 0) & (state.slots <= setup.config.slots_per_hour))[
            ~state.over
        ].all()
    # What the observation says a transfer would emit is what the budget has to hold.
    if setup.config.masks_unaffordable and open_.any():
        seen = engine.observe()
        grams = setup.layout.physical(seen, "g_co2e")
        left = setup.layout.physical(seen, "budget_left_g_co2e")
        assert (grams <= left[:, None] * (1 + 1e-5) + 1e-9)[open_].all()


def check_observation(engine: ReviewEngine) -> None:
    seen, layout = engine.observe(), engine.setup.layout
    assert np.isfinite(seen).all()
    assert ((seen >= layout.low) & (seen <= layout.high)).all()


def check_cases(engine: ReviewEngine) -> None:
    """Every case is closed, waiting or still to come; the one under review is there and open."""
    setup, state = engine.setup, engine.state
    live = np.flatnonzero(~state.over)
    closed = ~np.isnan(state.closed_h)
    assert (closed.sum(axis=1) == state.n_closed).all()
    assert closed[state.over].all()
    assert not closed[live, state.case[live]].any()
    seen = engine.observe()[live]
    counts = {k: setup.layout.physical(seen, k) for k in ("waiting", "to_come", "cases_left")}
    left = setup.config.n_cases - state.n_closed[live]
    np.testing.assert_allclose(counts["waiting"] + counts["to_come"], left, atol=1e-3)
    assert (counts["waiting"] > 0.5).all()
    if setup.rules == "worklist":
        assert (state.arrive_h[live, state.case[live]] <= state.hour[live]).all()
        np.testing.assert_allclose(counts["cases_left"], left, atol=1e-3)


def check_step(
    engine: ReviewEngine, then: Before, actions: np.ndarray, outcome: StepOutcome
) -> None:
    """The clock never goes back, no-ops do nothing, one case moves at a time, budgets hold."""
    setup, state = engine.setup, engine.state
    n, rows = setup.catalogue.n_transfers, np.arange(len(actions))
    allowed = then.mask[rows, actions] & ~then.over
    ran, idle = allowed & (actions < n), ~allowed
    assert (outcome.invalid == (idle & ~then.over)).all()
    assert (outcome.terminated == (state.over & ~then.over)).all()
    live = ~state.over
    assert (state.hour >= then.hour)[live].all()
    assert state.spent_g - then.spent_g == pytest.approx(outcome.g_co2e, rel=1e-9, abs=1e-9)
    assert (outcome.g_co2e[~ran] == 0.0).all()
    # What the observation said a transfer would emit, the start of a run included, it does emit.
    promised = then.promised_g[rows[ran], actions[ran]]
    assert outcome.g_co2e[ran] == pytest.approx(promised, rel=1e-5, abs=1e-9)
    assert (outcome.auc_gain[~ran] == 0.0).all()
    moved = state.set_idx != then.set_idx
    assert (moved.sum(axis=1) == ran).all()
    assert moved[rows[ran], then.case[ran]].all()
    assert np.isfinite(state.score).all()
    was_closed = ~np.isnan(then.closed_h)
    assert (state.closed_h[was_closed] == then.closed_h[was_closed]).all()
    if setup.rules == "worklist":
        same_hour = live & (state.hour == then.hour)
        assert (state.slots == then.slots - ran)[same_hour].all()
        put_off = allowed & (actions == setup.catalogue.defer) & same_hour
        assert (state.case != then.case)[put_off].all()
    else:
        assert not (was_deferred_twice(then, allowed, actions, setup)).any()
    if setup.config.masks_unaffordable:
        assert (state.spent_g <= state.budget_g).all()


def was_deferred_twice(
    then: Before, allowed: np.ndarray, actions: np.ndarray, setup: ReviewSetup
) -> np.ndarray:
    rows = np.arange(len(actions))
    put_off = allowed & (actions == setup.catalogue.defer)
    return np.asarray(put_off & then.was_deferred[rows, then.case])


def value_of(setup: ReviewSetup, patient: np.ndarray, score: np.ndarray) -> np.ndarray:
    """What the chosen reward adds up to, from all scores anew."""
    kind, n_pos = setup.config.reward, setup.n_pos
    is_positive = np.arange(score.shape[1]) < n_pos
    if kind == "auc":
        return np.array([pooled_auc(row[None], is_positive) for row in score])
    if kind == "expected_auc":
        return weighted_auc(score, setup.credit_basis.weight[patient])
    p = 1.0 / (1.0 + np.exp(-score.astype(np.float64)))
    if kind == "brier":
        return -((p - is_positive) ** 2).mean(axis=1)
    return np.log(np.where(is_positive, p, 1.0 - p)).mean(axis=1)


@given(plays())
@PLAYS
def test_every_session_keeps_to_its_rules(play: Play) -> None:
    setup = play.setup()
    engine = begun(setup, [play.seed, play.seed + 1])
    state, rng = engine.state, np.random.default_rng(play.seed)
    patient, first = state.patient.copy(), state.score.copy()
    sums = {key: np.zeros(2) for key in ("reward", "auc_gain", "g_co2e", "lateness_h")}
    for _ in range(STEP_LIMIT):
        check_mask(engine)
        check_observation(engine)
        check_cases(engine)
        if engine.over.all():
            break
        then, actions = before(engine), actions_of(play, engine.mask, rng)
        outcome = engine.step(actions)
        check_step(engine, then, actions, outcome)
        for key in sums:
            sums[key] += getattr(outcome, key)
    assert engine.over.all()
    assert (state.patient == patient).all()
    assert all(len(set(row)) == setup.config.n_cases for row in patient.tolist())
    check_totals(engine, first, sums)


def check_totals(engine: ReviewEngine, first: np.ndarray, sums: dict[str, np.ndarray]) -> None:
    """An episode's rewards sum to what was gained, less its carbon and lateness at their prices."""
    setup, state, totals = engine.setup, engine.state, engine.totals()
    gain = totals["session_auc_final"] - totals["session_auc_base"]
    assert sums["auc_gain"] == pytest.approx(gain, abs=1e-12)
    assert sums["g_co2e"] == pytest.approx(totals["total_g_co2e"], rel=1e-9)
    assert sums["lateness_h"] == pytest.approx(totals["total_lateness_h"], abs=1e-9)
    value = value_of(setup, state.patient, state.score) - value_of(setup, state.patient, first)
    charged = sums["g_co2e"] * setup.price_per_g
    charged = charged + sums["lateness_h"] * setup.config.auc_per_late_h
    assert sums["reward"] == pytest.approx(value - charged, abs=2e-6)
    parts = totals["midpoint"]
    is_positive = np.arange(parts.shape[1]) < setup.n_pos
    assert parts.sum(axis=1) == pytest.approx(gain, abs=1e-12)
    assert parts.tobytes() == midpoint_credit(first, state.score, is_positive).tobytes()
    assert (parts[state.set_idx == 0] == 0.0).all()
    late = np.maximum(state.closed_h - state.deadline_h, 0.0)
    assert totals["total_lateness_h"] == pytest.approx(late.sum(axis=1), abs=1e-9)
    assert (totals["n_late"] == (late > 0.0).sum(axis=1)).all()


@given(plays())
@settings(PLAYS, max_examples=6)
def test_sessions_alone_are_the_batch_bit_for_bit(play: Play) -> None:
    """Also where the batch is large enough to look things up that singles work out."""
    setup = play.setup()
    seeds = [play.seed + row for row in range(BATCH + 1)]
    rng = np.random.default_rng(play.seed)
    batch = begun(setup, seeds)
    singles = {row: used(play, setup, seeds[row], rng) for row in (0, 5, BATCH)}
    for _ in range(STEP_LIMIT):
        seen = batch.observe()
        for row, single in singles.items():
            assert seen[row].tobytes() == single.observe()[0].tobytes()
            assert batch.mask[row].tobytes() == single.mask[0].tobytes()
        if batch.over.all():
            break
        actions = actions_of(play, batch.mask, rng)
        outcome = batch.step(actions)
        for row, single in singles.items():
            alone = single.step(actions[row : row + 1])
            for key in ("reward", "terminated", "auc_gain", "g_co2e", "lateness_h", "invalid"):
                assert getattr(outcome, key)[row] == getattr(alone, key)[0]
    totals = batch.totals()
    for row, single in singles.items():
        for key, value in single.totals().items():
            assert np.asarray(totals[key][row]).tobytes() == np.asarray(value[0]).tobytes()


def test_whoever_arrives_in_the_last_hour_comes_up_in_it() -> None:
    """Otherwise a short session could end before anybody came up."""
    setup = build_setup(
        evidence=EVIDENCE[3], rules="worklist", n_cases=4, backlog=0.0, arrival_share=1.0,
        session_h_min=1, session_h_max=1,
    )  # fmt: skip
    engine = begun(setup, list(range(BATCH + 1)))
    assert (engine.state.hour == 0).all()
    assert (engine.state.arrive_h == 0).all()
    finalise = np.full(BATCH + 1, setup.catalogue.finalise)
    for _ in range(4):
        assert not engine.over.any()
        engine.step(finalise)
    assert engine.over.all()


def test_what_is_open_at_the_end_is_late_by_its_own_deadline() -> None:
    """One slot an hour, ten waiting cases, each taking it: most are never closed by anybody."""
    setup = build_setup(
        evidence=EVIDENCE[3], rules="worklist", n_cases=10, backlog=1.0, slots_per_hour=1,
        session_h_min=4, session_h_max=4, slack_min_h=1.5, slack_max_h=1.5, urgent_fraction=0.0,
        budget_mode="price", auc_per_late_h=0.01,
    )  # fmt: skip
    engine, catalogue = begun(setup, [0, 1, 2]), setup.catalogue
    late, paid = np.zeros(3), np.zeros(3)
    while not engine.over.all():
        wants = np.where(engine.state.slots > 0, 0, catalogue.finalise)
        lawful = engine.mask[np.arange(3), wants]
        outcome = engine.step(np.where(lawful, wants, engine.mask.argmax(axis=1)))
        late += outcome.lateness_h
        paid += outcome.auc_gain - outcome.g_co2e * setup.price_per_g - outcome.reward
    totals = engine.totals()
    # Four are closed in hours 0 to 3, those of hours 2 and 3 late by .5 and 1.5 h; six at hour 4.
    assert totals["n_late"].tolist() == [8, 8, 8]
    assert late == pytest.approx([0.5 + 1.5 + 6 * 2.5] * 3)
    assert totals["total_lateness_h"] == pytest.approx(late)
    assert paid == pytest.approx(late * 0.01)
