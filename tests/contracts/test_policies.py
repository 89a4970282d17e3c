"""What every policy has to keep, whichever it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import PolicyError
from agent.policies.features import feature_names
from agent.policies.files import PolicyFile, pack_weights, write_policy
from agent.policies.protocol import Policy
from agent.policies.registry import make_policy, policy_names
from agent.policies.scoring import tensor_shapes
from distill.transfers import all_transfers
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout

MODALITIES = ("clinical", "genomics", "pathology", "radiomics")
TRANSFERS = all_transfers(MODALITIES)
LAYOUT = ObservationLayout(MODALITIES, TRANSFERS)
CATALOGUE = ActionCatalogue(TRANSFERS)
NAMES = (*policy_names(CATALOGUE), "ppo")


def learned_directory(path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in tensor_shapes(16, 16).items()
    }
    content, entry = pack_weights(tensors)
    stored = PolicyFile.for_layout(
        LAYOUT, CATALOGUE, kind="maskable-ppo", name="ppo", features=feature_names(),
        weights=entry, provenance={"steps": 1, "seed": 0},
    )  # fmt: skip
    return write_policy(path, stored, content, patients=())


@pytest.fixture(params=NAMES)
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> Policy:
    name = str(learned_directory(tmp_path / "p")) if request.param == "ppo" else request.param
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


def test_it_does_not_change_what_it_is_given(policy: Policy) -> None:
    policy.reset(8, seed=0)
    observation, mask = observations(8), masks(8)
    before = observation.copy(), mask.copy()
    policy.act(observation, mask)
    np.testing.assert_array_equal(observation, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_its_reason_is_one_deterministic_sentence_with_numbers(policy: Policy) -> None:
    policy.reset(30, seed=0)
    observation, mask = observations(30), masks(30)
    for row, action in enumerate(policy.act(observation, mask)):
        sentence = policy.reason(observation[row], int(action))
        assert sentence == policy.reason(observation[row], int(action))
        assert sentence.endswith(".")
        assert "\n" not in sentence
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
