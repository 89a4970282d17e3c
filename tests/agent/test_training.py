"""PPO: it learns, it exports what it is, it survives being killed, it says when it cannot start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.algorithms import TrainPpoConfig
from agent.checkpoints import checkpoints
from agent.errors import PolicyError, RlTrainingError
from agent.policies.files import (
    PATIENTS_FILE,
    POLICY_FILE,
    WEIGHTS_FILE,
    PatientsEntry,
    read_patients,
)
from agent.policies.learned import LearnedPolicy
from agent.policies.registry import make_policy
from agent.rollout import run_sessions
from agent.sessions import SessionSource
from agent.statistics import FoldedSample, paired_difference
from agent.training import check_out, train_ppo
from agent.training_task import TrainingTask, training_task
from distill.bundle import hash_case_id
from envs.config import SessionConfig
from envs.toy import toy_evidence

SMALL: dict[str, Any] = {
    "num_envs": 16, "n_steps": 64, "batch_size": 256, "rollouts_per_chunk": 2,
    "learning_rate": 1e-3, "reward_scale": 3.0,
}  # fmt: skip
HELD_OUT = 4


def source() -> SessionSource:
    """Genomics costs far more than it brings, pathology next to nothing: easy to learn."""
    evidence = replace(toy_evidence(600, seed=3), pipeline_kwh=np.array([0.0, 8.0, 0.05]))
    config = SessionConfig(n_cases=12, budget_mode="price", g_per_auc=20_000.0)
    return SessionSource.of_evidence(evidence, config=config)


def task(**settings: Any) -> TrainingTask:
    return training_task(source(), HELD_OUT, TrainPpoConfig(**{**SMALL, **settings}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainPpoConfig(steps=30_000, seed=1, **SMALL)
    return train_ppo(task(), config, tmp_path_factory.mktemp("ppo"))


def opened(directory: Path) -> LearnedPolicy:
    setup = source().evaluation(HELD_OUT)
    policy = make_policy(f"{directory}/", setup.layout, setup.catalogue)
    assert isinstance(policy, LearnedPolicy)
    return policy


def test_it_learns_to_beat_chance_and_doing_nothing(trained: Path) -> None:
    """Paired on sessions of patients it was not trained on; the budget is not masked here."""
    setup, rng = source().evaluation(HELD_OUT), np.random.default_rng(0)
    names = ("random", "never", "always:pathology->clinical")
    policies = {name: make_policy(name, setup.layout, setup.catalogue) for name in names}
    rewards = {
        name: FoldedSample(blocks=(run_sessions(policy, setup, range(60)).reward[None],))
        for name, policy in {"ppo": opened(trained), **policies}.items()
    }
    for other in ("random", "never"):
        assert paired_difference(rewards["ppo"], rewards[other], rng).low > 0
    best = rewards["always:pathology->clinical"]
    assert best.mean > 0
    assert rewards["ppo"].mean > 0.8 * best.mean


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    config = TrainPpoConfig(steps=2048, seed=2, **SMALL)
    weights = [
        (train_ppo(task(), config, tmp_path / name) / WEIGHTS_FILE).read_bytes()
        for name in ("a", "b")
    ]
    assert weights[0] == weights[1]


KILLED = """
import sys, time
from pathlib import Path
from typing import Any
sys.path.insert(0, {tests!r})
from test_training import SMALL, task
from agent.algorithms import TrainPpoConfig
from agent.training import train_ppo

config = TrainPpoConfig(steps=8192, seed=2, **SMALL)
train_ppo(task(), config, Path({out!r}), resume={resume})
"""


def run_child(out: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    code = KILLED.format(tests=str(Path(__file__).parent), out=str(out), resume=resume)
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen([sys.executable, "-c", code], cwd=root)


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    whole = train_ppo(task(), TrainPpoConfig(steps=8192, seed=2, **SMALL), tmp_path / "whole")
    out = tmp_path / "killed"
    child = run_child(out, resume=False)
    deadline = time.monotonic() + 60
    while not checkpoints(out / "checkpoints") and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL
    assert checkpoints(out / "checkpoints")
    assert not (out / POLICY_FILE).exists()
    assert run_child(out, resume=True).wait(120) == 0
    assert (out / WEIGHTS_FILE).read_bytes() == (whole / WEIGHTS_FILE).read_bytes()
    assert [p.name for p in checkpoints(out / "checkpoints")][-1] == "step-0000008192"


def test_resuming_refuses_another_run(tmp_path: Path) -> None:
    with pytest.raises(RlTrainingError, match="Nothing to resume"):
        train_ppo(task(), TrainPpoConfig(steps=1024, **SMALL), tmp_path, resume=True)
    train_ppo(task(), TrainPpoConfig(steps=1024, **SMALL), tmp_path)
    with pytest.raises(RlTrainingError, match="seed was 0, now 9"):
        train_ppo(task(), TrainPpoConfig(steps=1024, seed=9, **SMALL), tmp_path, resume=True)
    with pytest.raises(RlTrainingError, match="already holds a policy"):
        train_ppo(task(), TrainPpoConfig(steps=1024, **SMALL), tmp_path)
    (tmp_path / POLICY_FILE).unlink()
    with pytest.raises(RlTrainingError, match="go on with --resume"):
        train_ppo(task(), TrainPpoConfig(steps=1024, **SMALL), tmp_path)
    newest = checkpoints(tmp_path / "checkpoints")[-1] / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    with pytest.raises(RlTrainingError, match="bytes have changed"):
        train_ppo(task(), TrainPpoConfig(steps=1024, **SMALL), tmp_path, resume=True)


def test_resuming_with_fewer_steps_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    train_ppo(task(), TrainPpoConfig(steps=3000, **SMALL), tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(RlTrainingError, match="has been trained for 3072 steps; 100 are fewer"):
        train_ppo(task(), TrainPpoConfig(steps=100, **SMALL), tmp_path, resume=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    train_ppo(task(), TrainPpoConfig(steps=4000, **SMALL), tmp_path, resume=True)
    provenance = json.loads((tmp_path / POLICY_FILE).read_text())["provenance"]
    assert (provenance["steps"], provenance["config"]["steps"]) == (4096, 4000)


def test_foreign_folders_and_files_are_refused_and_own_ones_taken(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for resume in (False, True):
        with pytest.raises(RlTrainingError, match="holds other things than a policy"):
            check_out(tmp_path, resume)
        with pytest.raises(RlTrainingError, match="is a file"):
            check_out(notes, resume)
    (tmp_path / "tensorboard").mkdir()  # what a run that was killed at once leaves
    check_out(tmp_path, False)
    check_out(tmp_path / "new", False)
    (tmp_path / "empty").mkdir()
    check_out(tmp_path / "empty", False)


def test_nothing_that_it_writes_is_a_pickle(trained: Path) -> None:
    for path in trained.rglob("*"):
        if path.is_file():
            head = path.read_bytes()[:4]
            assert not head.startswith((b"\x80", b"PK"))
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))


def test_provenance_names_what_it_was_trained_on(trained: Path) -> None:
    stored = json.loads((trained / POLICY_FILE).read_text())["provenance"]
    assert stored["folds"] == [0, 1, 2, 3]
    assert stored["held_out_fold"] == HELD_OUT
    assert stored["period"] == "train"
    assert stored["config"]["gamma"] == 1.0
    assert stored["config"]["warm_start"] == "none"
    assert stored["bundle"]["synthetic"] is True


def test_it_keeps_hashes_of_its_patients_and_no_case_id(trained: Path) -> None:
    entry = PatientsEntry(**json.loads((trained / POLICY_FILE).read_text())["patients"])
    kept = read_patients(trained, entry)
    table = source().evidence
    inside = table.fold != HELD_OUT
    assert kept == {hash_case_id(c) for c, taken in zip(table.case_id, inside) if taken}
    assert entry.n == len(kept) == inside.sum()
    for name in (POLICY_FILE, PATIENTS_FILE):
        assert not any(f'"{case}"' in (trained / name).read_text() for case in table.case_id)


def test_changed_bytes_are_refused(trained: Path, tmp_path: Path) -> None:
    for name in (POLICY_FILE, WEIGHTS_FILE):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    weights = tmp_path / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(PolicyError, match="bytes have changed"):
        opened(tmp_path)
    weights.unlink()
    with pytest.raises(PolicyError, match="cannot be read"):
        opened(tmp_path)
