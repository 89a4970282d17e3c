"""What every registered environment has to keep, found under its public id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import envs  # noqa: F401  (registers the ids)
from envs.errors import EnvsError
from envs.toy import toy_evidence

IDS = ["greenboard/CaseReviewSequential-v1"]


@pytest.fixture(scope="module")
def evidence_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("bundle") / "evidence.npz"
    toy_evidence(200, 0).save(path)
    return str(path)


@pytest.fixture(params=IDS)
def env_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(env_id: str, evidence_path: str, **arguments: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(env_id, evidence=evidence_path, n_cases=16, **arguments)


def episode(env: gymnasium.Env[Any, Any], seed: int) -> list[tuple[bytes, float, bytes]]:
    observation, info = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    steps = [(observation.tobytes(), 0.0, info["action_mask"].tobytes())]
    ended = False
    while not ended:
        action = rng.choice(np.flatnonzero(info["action_mask"]))
        observation, reward, ended, truncated, info = env.step(action)
        assert not truncated
        assert observation in env.observation_space
        steps.append((observation.tobytes(), float(reward), info["action_mask"].tobytes()))
    return steps


def test_gymnasium_and_sb3_accept_it(env_id: str, evidence_path: str) -> None:
    env = make(env_id, evidence_path)
    check_env(env.unwrapped, skip_render_check=True)
    sb3_check_env(env.unwrapped, warn=True)


def test_it_is_made_by_id_single_and_batched(env_id: str, evidence_path: str) -> None:
    single = make(env_id, evidence_path)
    batch = gymnasium.make_vec(
        env_id, num_envs=3, vectorization_mode="vector_entry_point",
        evidence=evidence_path, n_cases=16,
    )  # fmt: skip
    assert batch.single_observation_space == single.observation_space
    assert batch.single_action_space == single.action_space
    assert batch.metadata["autoreset_mode"].value == "NextStep"
    seen, infos = batch.reset(seed=5)
    expected, _ = single.reset(seed=5)
    assert seen[0].tobytes() == expected.tobytes()
    assert infos["action_mask"].shape == (3, single.action_space.n)
    assert np.isfinite(single.observation_space.low).all()
    assert np.isfinite(single.observation_space.high).all()


def test_a_seed_is_an_episode(env_id: str, evidence_path: str) -> None:
    first, second = make(env_id, evidence_path), make(env_id, evidence_path)
    assert episode(first, 3) == episode(second, 3) == episode(first, 3)
    assert episode(first, 3) != episode(first, 4)


def test_infos_say_what_happened(env_id: str, evidence_path: str) -> None:
    env = make(env_id, evidence_path)
    _, info = env.reset(seed=0)
    assert set(info) == {"action_mask", "budget_g"}
    catalogue = env.unwrapped.catalogue
    every_step = {"action_mask", "auc_gain", "g_co2e", "lateness_h", "invalid", "cost"}
    at_the_end = {
        "session_auc_base", "session_auc_final", "total_g_co2e", "budget_g", "n_invalid",
    }  # fmt: skip
    ended = False
    while not ended:
        _, _, ended, _, info = env.step(catalogue.finalise)
        assert set(info) == every_step | (at_the_end if ended else set())
    assert info["session_auc_base"] == info["session_auc_final"]
    assert info["total_g_co2e"] == 0.0


def test_only_the_named_budget_and_price_act(env_id: str, evidence_path: str) -> None:
    """mask: no price in the reward; price: no mask; cmdp: neither, the cost is in the info."""
    results = {}
    for mode in ("mask", "price", "mask+price", "cmdp"):
        env = make(env_id, evidence_path, budget_mode=mode, budget_fraction=0.0)
        _, info = env.reset(seed=1)
        transfer = env.unwrapped.catalogue.index("genomics->pathology")
        while not env.unwrapped.setup.tables.has_source[
            env.unwrapped._engine.state.pool[0], transfer
        ]:
            _, _, _, _, info = env.step(env.unwrapped.catalogue.finalise)
        open_ = bool(info["action_mask"][transfer])
        _, reward, _, _, info = env.step(transfer)
        results[mode] = open_, reward - info["auc_gain"], info["g_co2e"], info["cost"]
    assert results["mask"] == (False, 0.0, 0.0, 0.0)
    assert results["mask+price"] == (False, 0.0, 0.0, 0.0)
    open_, priced, grams, cost = results["price"]
    assert open_
    assert priced == pytest.approx(-grams / 20_000.0)
    assert grams == cost > 0.0
    assert results["cmdp"] == (True, 0.0, grams, grams)


def test_ansi_and_explain_speak_to_people(env_id: str, evidence_path: str) -> None:
    env = make(env_id, evidence_path, render_mode="ansi").unwrapped
    with pytest.raises(EnvsError, match="call reset"):
        env.render()
    observation, _ = env.reset(seed=0)
    text = env.render()
    assert "synthetic patients" in text
    assert "gCO2e/kWh" in text
    assert len(text.splitlines()) == 4
    value, unit = env.explain(observation)["intensity_now"]
    assert unit == "gCO2e/kWh"
    assert f"{value:.0f} gCO2e/kWh now" in text
    assert make(env_id, evidence_path).unwrapped.render() is None


def test_stepping_before_a_reset_or_after_the_end_is_refused(
    env_id: str, evidence_path: str
) -> None:
    env = make(env_id, evidence_path).unwrapped
    with pytest.raises(EnvsError, match="call reset"):
        env.step(0)
    env.reset(seed=0)
    while not env.step(env.catalogue.finalise)[2]:
        pass
    with pytest.raises(EnvsError, match="call reset"):
        env.step(0)


@pytest.mark.parametrize(
    "arguments",
    [{"budget_mod": "mask"}, {"render_mode": "human"}, {"budget_mode": "price", "g_per_auc": 0.0}],
)
def test_bad_arguments_get_the_packages_error(
    env_id: str, evidence_path: str, arguments: dict[str, Any]
) -> None:
    spec = gymnasium.spec(env_id)
    module, name = str(spec.entry_point).split(":")
    constructor = getattr(__import__(module, fromlist=[name]), name)
    with pytest.raises(EnvsError):
        constructor(evidence=Path(evidence_path), n_cases=16, **arguments)
