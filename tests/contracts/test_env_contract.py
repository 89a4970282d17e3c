"""What every registered environment has to keep, found under its public id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import envs  # noqa: F401  (registers the ids)
from carbon.intensity.synthetic import synthetic_trace
from envs.config import SessionConfig
from envs.errors import EnvsError
from envs.sb3 import Sb3VecEnv
from envs.toy import toy_evidence

IDS = [
    "greenboard/CaseReviewOneShot-v1",
    "greenboard/CaseReviewSequential-v1",
    "greenboard/CaseReview-v1",
]
PRESETS = ["default", "hard", "batched", "swing"]
EVERY_STEP = {"action_mask", "auc_gain", "g_co2e", "lateness_h", "invalid", "cost"}
AT_THE_END = {
    "session_auc_base", "session_auc_final", "total_g_co2e", "budget_g", "n_invalid",
    "total_lateness_h", "n_late", "midpoint", "trace_idx",
}  # fmt: skip


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
    assert set(info) == {"action_mask", "budget_g", "budget_mode", "reward_kind"}
    assert (info["budget_mode"], info["reward_kind"]) == ("mask+price", "auc")
    catalogue = env.unwrapped.catalogue
    ended = False
    while not ended:
        _, _, ended, _, info = env.step(catalogue.finalise)
        assert set(info) == EVERY_STEP | (AT_THE_END if ended else set())
    assert info["session_auc_base"] == info["session_auc_final"]
    assert info["total_g_co2e"] == 0.0
    assert info["midpoint"].shape == (16,)
    assert not info["midpoint"].any()


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
    assert priced == pytest.approx(-grams / 500_000.0)
    assert grams == cost > 0.0
    assert results["cmdp"] == (True, 0.0, grams, grams)


@pytest.mark.parametrize("preset", PRESETS)
def test_batches_of_every_preset_are_the_singles_bit_for_bit(
    env_id: str, evidence_path: str, preset: str
) -> None:
    """Observations, rewards, ends and every info, through several sessions."""
    seeds = [4, 19, 8]
    arguments = {"preset": preset, "n_cases": 9, "session_h_min": 5, "session_h_max": 9}
    batch: Any = gymnasium.make_vec(
        env_id, num_envs=3, vectorization_mode="vector_entry_point",
        evidence=evidence_path, **arguments,
    )  # fmt: skip
    singles = [gymnasium.make(env_id, evidence=evidence_path, **arguments) for _ in seeds]
    seen, infos = batch.reset(seed=seeds)
    for env, seed in zip(singles, seeds):
        env.reset(seed=seed)
    rng, waiting, episodes = np.random.default_rng(1), [False] * 3, 0
    while episodes < 5:
        lawful = (rng.random((3, 8)) * infos["action_mask"]).argmax(axis=1)
        actions = np.where(rng.random(3) < 0.2, rng.integers(0, 8, 3), lawful)
        seen, rewards, ends, _, infos = batch.step(actions)
        for row, env in enumerate(singles):
            observation, reward, ended, info = one_step(env, int(actions[row]), waiting[row])
            assert seen[row].tobytes() == observation.tobytes()
            assert (rewards[row], ends[row]) == (reward, ended)
            held = {k for k in infos if not k.startswith("_") and infos[f"_{k}"][row]}
            assert held == set(info)
            assert all(np.array_equal(infos[k][row], info[k]) for k in held)
            waiting[row] = ended
            episodes += ended


def one_step(
    env: gymnasium.Env[Any, Any], action: int, reset: bool
) -> tuple[np.ndarray, float, bool, dict[str, Any]]:
    """A step, or the reset that follows an end."""
    if reset:
        observation, info = env.reset()
        return observation, 0.0, False, info
    observation, reward, ended, _, info = env.step(action)
    return observation, float(reward), ended, info


@pytest.mark.parametrize("mode", ["mask", "price", "mask+price", "cmdp"])
def test_rewards_sum_to_the_gain_less_its_price_and_budgets_hold(
    env_id: str, evidence_path: str, mode: str
) -> None:
    env = make(env_id, evidence_path, budget_mode=mode, g_per_auc=5_000.0, setup_factor=2.0)
    price = 1 / 5_000.0 if "price" in mode else 0.0
    for seed in range(3):
        _, info = env.reset(seed=seed)
        rng, total, gain, grams, ended = np.random.default_rng(seed), 0.0, 0.0, 0.0, False
        while not ended:
            action = rng.choice(np.flatnonzero(info["action_mask"]))
            _, reward, ended, _, info = env.step(action)
            total, gain, grams = total + reward, gain + info["auc_gain"], grams + info["g_co2e"]
            assert not info["invalid"]
        change = info["session_auc_final"] - info["session_auc_base"]
        assert gain == pytest.approx(change, abs=1e-12)
        assert total == pytest.approx(change - price * info["total_g_co2e"], abs=1e-9)
        assert grams == pytest.approx(info["total_g_co2e"], rel=1e-9)
        assert info["midpoint"].sum() == pytest.approx(change, abs=1e-12)
        assert info["n_invalid"] == 0
        if "mask" in mode:
            assert info["total_g_co2e"] <= info["budget_g"]


def test_each_session_draws_one_of_several_traces(env_id: str, evidence_path: str) -> None:
    flat = [
        replace(synthetic_trace(200, 0), g_per_kwh=np.full(200, level), name=name)
        for name, level in (("low", 100.0), ("high", 300.0))
    ]
    env = make(env_id, evidence_path, trace=flat).unwrapped
    assert env.setup.grid.names == ("low", "high")
    drawn = []
    for seed in range(12):
        observation, _ = env.reset(seed=seed)
        now, _ = env.explain(observation)["intensity_now"]
        ended = False
        while not ended:
            *_, ended, _, info = env.step(env.catalogue.finalise)
        assert now == pytest.approx((100.0, 300.0)[info["trace_idx"]])
        drawn.append(info["trace_idx"])
    assert set(drawn) == {0, 1}


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO])
def test_ppo_takes_it(env_id: str, evidence_path: str, algorithm: Any) -> None:
    rules = gymnasium.spec(env_id).kwargs["rules"]
    env = Sb3VecEnv(4, evidence=evidence_path, n_cases=8, rules=rules)
    model = algorithm("MlpPolicy", env, n_steps=8, batch_size=16, n_epochs=1, seed=0, device="cpu")
    model.learn(32)
    assert model.num_timesteps == 32


def test_ansi_and_explain_speak_to_people(env_id: str, evidence_path: str) -> None:
    env = make(env_id, evidence_path, render_mode="ansi").unwrapped
    with pytest.raises(EnvsError, match="call reset"):
        env.render()
    observation, _ = env.reset(seed=0)
    text = env.render()
    assert "synthetic patients" in text
    assert "gCO2e/kWh" in text
    assert text.splitlines()[1].startswith("hour ")
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
    [
        {"budget_mod": "mask"},
        {"render_mode": "human"},
        {"budget_mode": "price", "g_per_auc": 0.0},
        {"preset": "harsh"},
        {"preset": "hard", "config": SessionConfig()},
        {"budget_fraction": -0.1},
        {"session_h_min": 30, "session_h_max": 20},
        {"session_h_max": 0},
        {"rules": "twice"},
        {"trace": []},
        {"trace": synthetic_trace(40, 0)},
        {"setup_factor": 1e5, "rules": "worklist"},
    ],
)
def test_bad_arguments_get_the_packages_error(
    env_id: str, evidence_path: str, arguments: dict[str, Any]
) -> None:
    spec = gymnasium.spec(env_id)
    module, name = str(spec.entry_point).split(":")
    constructor = getattr(__import__(module, fromlist=[name]), name)
    with pytest.raises(EnvsError) as raised:
        constructor(**{"evidence": Path(evidence_path), "n_cases": 16, **spec.kwargs, **arguments})
    assert "\n" not in str(raised.value)
