"""What every policy has to keep, whichever it is, under every set of rules."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.calibration import calibrate
from agent.errors import PolicyError
from agent.policies.plan_files import write_plan
from agent.policies.plan_settings import KINDS
from agent.policies.protocol import Policy
from agent.policies.registry import make_policy, policy_names
from agent.rollout import start_sessions
from distill.evidence import EvidenceTable
from envs.catalogue import ActionCatalogue
from envs.config import RULES, preset_names
from envs.dynamics import SessionState, advance, begin, empty_state, open_actions
from envs.observation import ObservationLayout
from envs.session import draw_sessions
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence
from envs.view import columns_of, observe

MODALITIES = ("clinical", "genomics", "pathology", "radiomics")
SIZES: dict[str, Any] = {"n_cases": 6, "session_h_min": 5, "session_h_max": 7}


@cache
def evidence() -> EvidenceTable:
    return toy_evidence(80, seed=2, modalities=MODALITIES)


@cache
def setup(rules: str = "worklist", preset: str = "default") -> ReviewSetup:
    return build_setup(evidence=evidence(), rules=rules, preset=preset, **SIZES)


LAYOUT: ObservationLayout = setup().layout
CATALOGUE: ActionCatalogue = setup().catalogue
STORED = tuple(f"stored {kind}" for kind in KINDS)
ALWAYS = [name for name in policy_names(CATALOGUE) if name.startswith("always:")]
NAMES = (*(name for name in policy_names(CATALOGUE) if name not in ALWAYS[2:]), *STORED)


@cache
def calibrated(kind: str) -> Policy:
    return calibrate(kind, setup(), ())


@pytest.fixture(params=NAMES)
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> Policy:
    name = str(request.param)
    if name in STORED:
        kind = name.removeprefix("stored ")
        write_plan(tmp_path / "p", kind, calibrated(kind), provenance={}, patients=())
        name = str(tmp_path / "p")
    return make_policy(name, LAYOUT, CATALOGUE, seed=3)


def observations(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low, high = np.maximum(LAYOUT.low, -3.0), np.minimum(LAYOUT.high, 3.0)
    return rng.uniform(low, high, (n, LAYOUT.size)).astype(np.float32)


def masks(n: int, seed: int = 0) -> np.ndarray:
    mask = np.random.default_rng(seed).random((n, CATALOGUE.n)) < 0.4
    mask[:, CATALOGUE.finalise] = True
    return mask


def test_it_keeps_the_protocol(policy: Policy) -> None:
    assert isinstance(policy, Policy)
    assert policy.name


def test_it_takes_open_actions_only(policy: Policy) -> None:
    policy.reset(500, seed=1)
    mask = masks(500)
    action = policy.act(observations(500), mask)
    assert action.dtype == np.int64
    assert action.shape == (500,)
    assert mask[np.arange(500), action].all()


def test_with_finalise_alone_open_it_finalises(policy: Policy) -> None:
    policy.reset(20, seed=1)
    mask = np.zeros((20, CATALOGUE.n), dtype=bool)
    mask[:, CATALOGUE.finalise] = True
    assert (policy.act(observations(20), mask) == CATALOGUE.finalise).all()


def test_the_same_seed_gives_the_same_actions(policy: Policy) -> None:
    runs = []
    for _ in range(2):
        policy.reset(64, seed=7)
        runs.append([policy.act(observations(64, s), masks(64, s)) for s in range(3)])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_a_row_does_not_depend_on_the_others(policy: Policy) -> None:
    if policy.name == "random":
        pytest.skip("draws its lots for the whole batch")
    policy.reset(40, seed=0)
    observation, mask = observations(40, 4), masks(40, 4)
    together = policy.act(observation, mask)
    alone = [int(policy.act(observation[i : i + 1], mask[i : i + 1])[0]) for i in range(40)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[::-1], policy.act(observation[::-1], mask[::-1]))


def test_it_does_not_change_what_it_is_given(policy: Policy) -> None:
    policy.reset(8, seed=0)
    observation, mask = observations(8), masks(8)
    before = observation.copy(), mask.copy()
    policy.act(observation, mask)
    np.testing.assert_array_equal(observation, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_its_reason_is_one_deterministic_sentence_with_numbers(policy: Policy) -> None:
    """For any action, taken or not: a reviewer may ask why not."""
    policy.reset(2, seed=0)
    observation = observations(2)
    for row in observation:
        for action in range(CATALOGUE.n):
            sentence = policy.reason(row, action)
            assert sentence == policy.reason(row, action)
            assert sentence.endswith(".")
            assert "\n" not in sentence
            assert "nan" not in sentence
            assert any(c.isdigit() for c in sentence)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_it_refuses_an_observation_that_is_not_finite(policy: Policy, bad: float) -> None:
    observation = observations(3)
    observation[1, LAYOUT.index("urgency")] = bad
    with pytest.raises(PolicyError, match="'urgency' of row 1"):
        policy.act(observation, masks(3))


def test_it_refuses_a_mask_without_an_open_action(policy: Policy) -> None:
    mask = masks(3)
    mask[2] = False
    with pytest.raises(PolicyError, match="Row 2 has no open action"):
        policy.act(observations(3), mask)


def test_it_refuses_another_bundles_observation(policy: Policy) -> None:
    with pytest.raises(PolicyError, match="another bundle"):
        policy.act(observations(3)[:, :-1], masks(3))


def played(policy: Policy, of: ReviewSetup) -> tuple[list[np.ndarray], np.ndarray]:
    """Actions in two sessions until they end, and the invalid ones of each."""
    engine = start_sessions(of, [3, 4])
    policy.reset(2, seed=3)
    actions = []
    while not engine.over.all():
        mask = engine.mask
        action = policy.act(engine.observe(), mask)
        assert mask[np.arange(2), action].all()
        actions.append(np.where(engine.over, -1, action))
        engine.step(action)
        assert len(actions) < 5000, "the sessions do not end"
    return actions, engine.totals()["n_invalid"]


@pytest.mark.parametrize(
    ("rules", "preset"),
    [
        *((rules, "default") for rules in RULES),
        *(("worklist", p) for p in preset_names() if p != "default"),
    ],
)
def test_it_plays_every_environment_to_its_end(policy: Policy, rules: str, preset: str) -> None:
    _, invalid = played(policy, setup(rules, preset))
    assert not invalid.any()


def twins(rules: str, seed: int) -> list[tuple[ReviewSetup, SessionState]]:
    """The same session twice, the second with every label flipped; one gain model for both."""
    flipped = replace(evidence(), label=(1 - evidence().label).astype(np.int8))
    found = []
    for table, swap in ((evidence(), False), (flipped, True)):
        fixed = build_setup(
            evidence=table, rules=rules, gain_model=setup(rules).gain_model, **SIZES
        )
        fixed = replace(fixed, n_pos=setup(rules).n_neg if swap else setup(rules).n_pos,
                        n_neg=setup(rules).n_pos if swap else setup(rules).n_neg)  # fmt: skip
        first, counts = setup(rules), (setup(rules).n_pos, setup(rules).n_neg)
        draw = draw_sessions(first.tables, first.grid, first.config, counts,
                             [np.random.default_rng(seed)], rules=rules)  # fmt: skip
        if swap:
            # cases are listed positives first, so the other class leads now
            old = np.roll(np.arange(6), -first.n_pos)
            by_case = ("patient", "urgency", "arrival_h", "deadline_h")
            draw = replace(draw, order=np.argsort(old)[draw.order],
                           **{name: getattr(draw, name)[:, old] for name in by_case})  # fmt: skip
        state = empty_state(1, fixed)
        begin(state, np.arange(1), draw, fixed)
        found.append((fixed, state))
    return found


@pytest.mark.parametrize("rules", RULES)
def test_labels_have_no_part_in_what_it_does(policy: Policy, rules: str) -> None:
    """The same session with every label flipped: the same actions, all the way."""
    played_out = []
    for fixed, state in twins(rules, seed=5):
        policy.reset(1, seed=5)
        actions = []
        while not state.over.all():
            mask = open_actions(state, fixed)
            action = policy.act(observe(state, fixed, columns_of(fixed.layout)), mask)
            actions.append(int(action[0]))
            advance(state, fixed, action, mask)
        played_out.append(actions)
    assert played_out[0] == played_out[1]
