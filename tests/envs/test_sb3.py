"""The Stable-Baselines3 adapter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.vec_env import VecMonitor

from envs.errors import SessionError
from envs.sb3 import Sb3VecEnv
from envs.toy import toy_evidence
from envs.vector import CaseReviewVectorEnv

ARGUMENTS: dict[str, Any] = {"evidence": toy_evidence(120, 0), "n_cases": 7}


def test_it_is_the_same_step_vector_environment() -> None:
    adapter = Sb3VecEnv(3, **ARGUMENTS)
    batch = CaseReviewVectorEnv(3, autoreset_mode=AutoresetMode.SAME_STEP, **ARGUMENTS)
    adapter.seed(9)
    seen = adapter.reset()
    expected, infos = batch.reset(seed=9)
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        assert seen.tobytes() == expected.tobytes()
        assert (adapter.action_masks() == infos["action_mask"]).all()
        actions = (rng.random((3, 8)) * infos["action_mask"]).argmax(axis=1)
        seen, rewards, ended, rows = adapter.step(actions)
        expected, reward, terminated, _, infos = batch.step(actions)
        assert rewards.dtype == np.float32
        assert (rewards == reward.astype(np.float32)).all()
        assert (ended == terminated).all()
        assert (adapter.last_infos["g_co2e"] == infos["g_co2e"]).all()
        for row in range(3):
            assert ("terminal_observation" in rows[row]) == ended[row]
            if ended[row]:
                ends += 1
                last = rows[row]["terminal_observation"]
                assert last.tobytes() == infos["final_obs"][row].tobytes()
                gain = rows[row]["session_auc_final"] - rows[row]["session_auc_base"]
                assert abs(gain) <= 1.0
                assert rows[row]["total_g_co2e"] <= rows[row]["budget_g"]
                assert rows[row]["TimeLimit.truncated"] is False
    assert ends >= 6


def test_masks_are_found_the_way_sb3_contrib_looks_for_them() -> None:
    adapter = Sb3VecEnv(3, **ARGUMENTS)
    adapter.reset()
    monitored = VecMonitor(adapter)
    for env in (adapter, monitored):
        assert env.has_attr("action_masks")
        assert is_masking_supported(env)
        assert (get_action_masks(env) == adapter.action_masks()).all()
    assert len(adapter.env_method("action_masks", indices=[2, 0])) == 2
    assert adapter.get_attr("layout", indices=0)[0].size == adapter.observation_space.shape[0]
    assert adapter.env_is_wrapped(VecMonitor) == [False] * 3


def test_episodes_are_monitored() -> None:
    monitored = VecMonitor(Sb3VecEnv(2, **ARGUMENTS))
    monitored.reset()
    finalise = monitored.get_attr("catalogue")[0].finalise
    for _ in range(7):
        _, _, ended, rows = monitored.step(np.full(2, finalise))
    assert ended.all()
    assert [row["episode"]["l"] for row in rows] == [7, 7]
    assert [row["episode"]["r"] for row in rows] == [0.0, 0.0]


def test_what_the_adapter_cannot_do_is_refused() -> None:
    adapter = Sb3VecEnv(2, **ARGUMENTS)
    with pytest.raises(SessionError, match="drop autoreset_mode"):
        Sb3VecEnv(2, autoreset_mode="NextStep", **ARGUMENTS)
    with pytest.raises(SessionError, match="cannot be set"):
        adapter.set_attr("config", None)
    with pytest.raises(SessionError, match="'action_masks', not 'render'"):
        adapter.env_method("render")
