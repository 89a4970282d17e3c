"""The batch and the single environment are the same, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.case_review import CaseReviewEnv
from envs.config import RULES
from envs.errors import SessionError
from envs.toy import toy_evidence
from envs.vector import CaseReviewVectorEnv

EVIDENCE = toy_evidence(120, 0)
MODES = ["mask", "price", "mask+price", "cmdp"]


def arguments(mode: str = "mask+price", rules: str = "sequential") -> dict[str, Any]:
    return {
        "evidence": EVIDENCE, "n_cases": 7, "budget_mode": mode, "slots_per_hour": 2,
        "rules": rules, "session_h_min": 4, "session_h_max": 9,
    }  # fmt: skip


def vector(
    n: int, autoreset: AutoresetMode, mode: str = "mask+price", rules: str = "sequential"
) -> Any:
    return CaseReviewVectorEnv(n, autoreset_mode=autoreset, **arguments(mode, rules))


def assert_rows_equal(infos: dict[str, Any], row: int, info: dict[str, Any]) -> None:
    """Row ``row`` of batched infos holds exactly this info: keys, values, nothing more."""
    held = {key for key in infos if not key.startswith("_") and infos[f"_{key}"][row]}
    assert held - {"final_obs", "final_info"} == set(info)
    for key, value in info.items():
        assert np.array_equal(infos[key][row], value)
        if not isinstance(value, np.ndarray):
            # Gymnasium keeps names in arrays of objects
            kind = np.dtype(object) if isinstance(value, str) else np.asarray(value).dtype
            assert infos[key].dtype == kind


@pytest.mark.parametrize("mode", MODES)
def test_next_step_batches_are_the_single_environments(mode: str) -> None:
    seeds = [11, 3, 501, 7, 12]
    batch = vector(5, AutoresetMode.NEXT_STEP, mode)
    singles = [CaseReviewEnv(**arguments(mode)) for _ in seeds]
    observations, infos = batch.reset(seed=seeds)
    for row, (env, seed) in enumerate(zip(singles, seeds)):
        observation, info = env.reset(seed=seed)
        assert observations[row].tobytes() == observation.tobytes()
        assert_rows_equal(infos, row, info)
    rng, waiting, episodes = np.random.default_rng(0), [False] * 5, 0
    while episodes < 12:
        # A third of the actions ignore the mask: no-ops must agree too.
        lawful = (rng.random((5, 8)) * infos["action_mask"]).argmax(axis=1)
        actions = np.where(rng.random(5) < 0.3, rng.integers(0, 8, 5), lawful)
        observations, rewards, terminated, truncated, infos = batch.step(actions)
        assert rewards.dtype == np.float64
        assert not truncated.any()
        for row, env in enumerate(singles):
            if waiting[row]:
                observation, info = env.reset()
                reward, ended = 0.0, False
            else:
                observation, reward, ended, _, info = env.step(int(actions[row]))
                assert isinstance(reward, float)
            waiting[row] = ended
            episodes += ended
            assert observations[row].tobytes() == observation.tobytes()
            assert rewards[row] == reward
            assert terminated[row] == ended
            assert_rows_equal(infos, row, info)


@pytest.mark.parametrize("rules", RULES)
def test_same_step_batches_hand_over_the_last_observation_and_info(rules: str) -> None:
    seeds = [5, 6, 7]
    batch = vector(3, AutoresetMode.SAME_STEP, rules=rules)
    singles = [CaseReviewEnv(**arguments(rules=rules)) for _ in seeds]
    _, infos = batch.reset(seed=5)
    for env, seed in zip(singles, seeds):
        env.reset(seed=seed)
    rng, episodes = np.random.default_rng(1), 0
    while episodes < 9:
        actions = (rng.random((3, 8)) * infos["action_mask"]).argmax(axis=1)
        observations, rewards, terminated, _, infos = batch.step(actions)
        for row, env in enumerate(singles):
            observation, reward, ended, _, info = env.step(int(actions[row]))
            assert rewards[row] == reward
            assert terminated[row] == ended
            if ended:
                episodes += 1
                assert infos["_final_obs"][row]
                assert infos["final_obs"][row].tobytes() == observation.tobytes()
                assert infos["_final_info"][row]
                assert_rows_equal(infos["final_info"], row, info)
                observation, info = env.reset()
            assert observations[row].tobytes() == observation.tobytes()
            assert_rows_equal(infos, row, info)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("autoreset", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_gymnasiums_own_batch_of_singles_agrees(autoreset: AutoresetMode, rules: str) -> None:
    """Same arrays, and the same infos key by key, as SyncVectorEnv makes of the single one."""
    native = vector(4, autoreset, rules=rules)
    sync = SyncVectorEnv(
        [lambda: CaseReviewEnv(**arguments(rules=rules)) for _ in range(4)],
        autoreset_mode=autoreset,
    )
    (seen, infos), (seen_sync, infos_sync) = native.reset(seed=20), sync.reset(seed=20)
    rng = np.random.default_rng(2)
    for _ in range(80):
        assert seen.tobytes() == seen_sync.tobytes()
        compare_infos(infos, infos_sync)
        actions = (rng.random((4, 8)) * infos["action_mask"]).argmax(axis=1)
        seen, *results, infos = native.step(actions)
        seen_sync, *results_sync, infos_sync = sync.step(actions)
        for ours, theirs in zip(results, results_sync):
            assert ours.dtype == theirs.dtype
            assert ours.tobytes() == theirs.tobytes()
    sync.close()


def compare_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        if isinstance(value, dict):
            compare_infos(value, theirs[key])
        elif value.dtype == object:
            for a, b in zip(value, theirs[key]):
                assert np.array_equal(a, b)
        else:
            assert value.dtype == theirs[key].dtype
            if value.dtype == object:
                assert value.tolist() == theirs[key].tolist(), key
                continue
            assert value.tobytes() == theirs[key].tobytes(), key


def test_seeds_one_a_row() -> None:
    batch = vector(3, AutoresetMode.NEXT_STEP)
    one, _ = batch.reset(seed=40)
    listed, _ = batch.reset(seed=[40, 41, 42])
    assert one.tobytes() == listed.tobytes()
    assert len({row.tobytes() for row in one}) == 3
    onwards, _ = batch.reset()
    assert onwards.tobytes() != one.tobytes()
    some, _ = batch.reset(seed=[None, 41, None])
    assert some[1].tobytes() == one[1].tobytes()
    for seed in ([1, 2], [1, 2, 3, 4]):
        with pytest.raises(SessionError, match="for 3 sessions"):
            batch.reset(seed=seed)


def test_without_autoreset_the_caller_resets_chosen_rows() -> None:
    batch = vector(3, AutoresetMode.DISABLED)
    batch.reset(seed=0)
    finalise = batch.catalogue.finalise
    defer_first = np.array([finalise, finalise, batch.catalogue.defer])
    batch.step(defer_first)
    for _ in range(6):
        *_, terminated, _, _ = batch.step(np.full(3, finalise))
    assert terminated.tolist() == [True, True, False]
    with pytest.raises(SessionError, match="2 sessions are over"):
        batch.step(np.full(3, finalise))
    before = batch.action_masks()[2]
    _, infos = batch.reset(options={"reset_mask": terminated})
    assert infos["_budget_g"].tolist() == [True, True, False]
    assert (batch.action_masks()[2] == before).all()
    *_, terminated, _, _ = batch.step(np.full(3, finalise))
    assert terminated.tolist() == [False, False, True]


def test_returned_arrays_are_the_callers() -> None:
    """What a step returned stays as it was when the environment goes on."""
    batch = vector(3, AutoresetMode.NEXT_STEP)
    first, infos = batch.reset(seed=0)
    kept = first.copy(), infos["action_mask"].copy()
    seen, *_, step_infos = batch.step(np.zeros(3, dtype=np.int64))
    step_kept = seen.copy(), step_infos["action_mask"].copy()
    first[:] = 0.0
    step_infos["action_mask"][:] = False
    again, *_, _ = batch.step(np.full(3, batch.catalogue.finalise))
    assert (seen == step_kept[0]).all()
    assert kept[1].any()
    assert batch.action_masks().any()
    assert again.any()


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 8]), "0 to 7"),
        (np.array([0, -1]), "0 to 7"),
        (np.array([0]), "expected"),
        (np.array([0.0, 1.0]), "whole numbers"),
    ],
)
def test_actions_outside_the_catalogue_are_refused(actions: np.ndarray, message: str) -> None:
    batch = vector(2, AutoresetMode.NEXT_STEP)
    batch.reset(seed=0)
    with pytest.raises(SessionError, match=message):
        batch.step(actions)


def test_what_cannot_be_batched_is_refused() -> None:
    batch = vector(2, AutoresetMode.NEXT_STEP)
    with pytest.raises(SessionError, match="call reset"):
        batch.step(np.zeros(2, dtype=np.int64))
    with pytest.raises(SessionError, match="2 booleans"):
        batch.reset(options={"reset_mask": np.ones(3, dtype=bool)})
    with pytest.raises(SessionError, match="Unknown autoreset_mode"):
        CaseReviewVectorEnv(2, evidence=EVIDENCE, n_cases=7, autoreset_mode="never")
    with pytest.raises(SessionError, match="does not render"):
        CaseReviewVectorEnv(2, evidence=EVIDENCE, n_cases=7, render_mode="ansi")
    with pytest.raises(SessionError, match="num_envs is 0"):
        CaseReviewVectorEnv(0, evidence=EVIDENCE, n_cases=7)
