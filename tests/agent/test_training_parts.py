"""The parts of training: presets, the multiplier, imitation, validation, and who is never read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.algorithms import (
    TrainPpoConfig,
    preset_names,
    read_settings,
    to_toml,
    training_preset,
    with_teacher,
)
from agent.checkpoints import checkpoints
from agent.cloning import CloneSettings, clone, demonstrate, teacher_policy
from agent.errors import PolicyError, RlTrainingError
from agent.lagrangian import Multiplier
from agent.policies.files import LEARNED_KINDS, POLICY_FILE, WEIGHTS_FILE
from agent.policies.guide import GUIDE
from agent.policies.registry import open_policy
from agent.rollout import run_sessions, start_sessions
from agent.sessions import ENV_IDS, ONESHOT, WORKLIST, SessionSource
from agent.studies import train_policies
from agent.training import Run, new_run, train_ppo
from agent.training_task import training_task
from agent.validation import Look, best_look, keeps_failing, split_hours
from carbon.intensity.synthetic import synthetic_trace
from distill.evidence import EvidenceTable
from envs.config import SessionConfig
from envs.setup import build_setup
from envs.toy import toy_evidence

TINY: dict[str, Any] = {
    "num_envs": 8, "n_steps": 32, "batch_size": 128, "rollouts_per_chunk": 2, "steps": 1024,
    "eval_sessions": 4, "clone_sessions": 12, "clone_epochs": 2, "calibration_sessions": 4,
    "burn_in": 2,
}  # fmt: skip
HELD_OUT = 4


def evidence() -> EvidenceTable:
    return replace(toy_evidence(400, seed=3), pipeline_kwh=np.array([0.0, 4.0, 0.5]))


def source(env_id: str = WORKLIST, table: EvidenceTable | None = None) -> SessionSource:
    config = SessionConfig(n_cases=12, session_h_min=8, session_h_max=12)
    return SessionSource.of_evidence(table or evidence(), config=config, env_id=env_id)


def run(algorithm: str, **settings: Any) -> Run:
    config = training_preset(algorithm, **{**TINY, **settings})
    return new_run(training_task(source(), HELD_OUT, config), config)


def test_every_algorithm_has_a_preset_and_round_trips_through_toml() -> None:
    assert set(LEARNED_KINDS) <= set(preset_names())
    for name in preset_names():
        config = training_preset(name, seed=3)
        assert config.gamma == 1.0
        assert read_settings(to_toml(config, "a comment"), "text") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat = 1", "Did you mean 'learning_rate'"),
        ("learning_rate = ", "not TOML"),
        ("learning_rate = 2.0", "learning_rate is 2.0"),
        ("steps = 1.5", "steps is 1.5"),
        ("gamma = nan", "gamma is nan"),
        ('algorithm = "a2c"', "Unknown algorithm 'a2c'"),
        ('algorithm = "cloned-ppo"', "imitates a policy first"),
        ("hidden = [64]", "two widths"),
    ],
)
def test_settings_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(RlTrainingError, match=message):
        read_settings(text, "text")


def test_a_teacher_turns_masked_ppo_into_cloned_ppo() -> None:
    config = with_teacher(training_preset("maskable-ppo"), "dp")
    assert (config.algorithm, config.warm_start) == ("cloned-ppo", "dp")
    assert with_teacher(config, "none") == config
    with pytest.raises(RlTrainingError, match="takes no warm start"):
        with_teacher(training_preset("ppo"), "price")
    with pytest.raises(RlTrainingError, match="choose one of none, price"):
        with_teacher(config, "rule")
    with pytest.raises(RlTrainingError, match="Did you mean 'maskable-ppo'"):
        training_preset("maskable-pp")


def test_the_multiplier_finds_the_price_of_a_closed_form() -> None:
    """Gain 2 sqrt(x) at cost x: x = 1 / price^2, so a budget of 1/4 is spent at a price of 2.

    With budget 1/4 the reward charges ``multiplier * x / budget``: the multiplier is 2 / 4.
    """
    multiplier, budget = Multiplier(value=0.05, rate=0.02), 0.25
    for _ in range(2000):
        price = multiplier.value / budget
        multiplier = multiplier.updated(cost=min(1.0, price**-2), budget=budget)
    assert multiplier.value == pytest.approx(0.5, abs=1e-3)


def test_the_multiplier_is_projected_and_stays_at_zero_when_the_budget_does_not_bind() -> None:
    multiplier = Multiplier(value=0.01, rate=0.5)
    for _ in range(5):
        multiplier = multiplier.updated(cost=0.3, budget=1.0)
        assert multiplier.value == 0.0
    # one step above the budget moves it by rate * relative excess, with no memory of the slack
    assert multiplier.updated(cost=1.5, budget=1.0).value == pytest.approx(0.25)
    for cost, budget in ((1.0, 0.0), (np.nan, 1.0)):
        with pytest.raises(RlTrainingError, match="no direction"):
            multiplier.updated(cost=cost, budget=budget)
    with pytest.raises(RlTrainingError, match="neither may be below 0"):
        Multiplier(value=-1.0, rate=0.1)


def test_lagrangian_training_prices_cost_and_moves_the_multiplier(tmp_path: Path) -> None:
    lagrangian = run("ppo-lagrangian", multiplier_start=0.1, reward="auc")
    assert lagrangian.priced is not None
    assert lagrangian.task.setup.config.budget_mode == "cmdp"
    lagrangian.model.env.reset()
    priced, cost, pure = 0.0, 0.0, 0.0
    env = lagrangian.priced
    for _ in range(100):
        mask = env.env_method("action_masks")
        actions = np.array([row.argmax() for row in mask])
        _, rewards, terminated, _ = env.step(actions)
        going = ~terminated
        paid = np.array(env.venv.last_infos.get("cost", np.zeros(8)))
        priced += float(rewards[going].sum())
        cost += float(paid[going].sum())
        pure += float(env.venv.last_infos["auc_gain"][going].sum())
    assert cost > 0.0
    assert priced == pytest.approx(pure - 0.1 * cost / env._mean_budget, abs=1e-4)
    before = env.multiplier.value
    assert env.update().value != before


def test_a_clone_does_what_its_teacher_does() -> None:
    """Without advice: agreement with the price policy on sessions that it was not shown."""
    table = toy_evidence(400, seed=3, modalities=("clinical", "pathology"))
    config = training_preset("maskable-ppo", **TINY)
    cloned = new_run(training_task(source(table=table), HELD_OUT, config), config)
    setup = cloned.task.setup
    teacher = teacher_policy("price", setup, 0)
    how = CloneSettings(
        seed=0, sessions=384, epochs=15, batch=256, learning_rate=5e-3, reward_scale=3.0
    )
    clone(cloned.model.policy, demonstrate(teacher, setup, 0, how.sessions), how)
    fresh = demonstrate(teacher, setup, 9000, 64)
    logits = cloned.weights().logits(
        cloned.model.policy.features_extractor_kwargs["index"], fresh.observation
    )
    taken = np.where(fresh.mask, logits, -np.inf).argmax(axis=1)
    assert (taken == fresh.action).mean() >= 0.98


def test_a_guided_network_starts_as_its_planner_and_is_served_as_it_was_trained(
    tmp_path: Path,
) -> None:
    config = training_preset(
        "cloned-ppo", **{**TINY, "steps": 256, "learning_rate": 0.0, "warm_start": "feedback"}
    )
    folder = train_ppo(training_task(source(), HELD_OUT, config), config, tmp_path / "p")
    setup = source().evaluation(HELD_OUT)
    learned = open_policy(folder, setup.layout, setup.catalogue)
    planner = open_policy(folder / GUIDE, setup.layout, setup.catalogue)
    assert planner.name == "feedback"
    for field in ("auc_gain", "g_co2e", "reward"):
        ours, theirs = (
            getattr(run_sessions(policy, setup, range(8)), field) for policy in (learned, planner)
        )
        np.testing.assert_array_equal(ours, theirs)
    mask = np.ones((1, setup.catalogue.n), dtype=bool)
    seen = start_sessions(setup, [0]).observe()
    assert "guided by feedback" in learned.reason(seen[0], int(learned.act(seen, mask)[0]))
    there = build_setup(evidence=toy_evidence(200, modalities=("clinical", "genomics")), n_cases=8)
    away = open_policy(folder, there.layout, there.catalogue)
    seen = start_sessions(there, [0]).observe()
    away.act(seen, np.ones((1, there.catalogue.n), dtype=bool))
    (folder / GUIDE / WEIGHTS_FILE).write_bytes(b"changed")
    with pytest.raises(PolicyError, match="bytes have changed"):
        open_policy(folder, setup.layout, setup.catalogue)


def test_seeds_share_one_guide(tmp_path: Path) -> None:
    settings = {**TINY, "steps": 256, "warm_start": "price"}
    folders = train_policies(source(), HELD_OUT, "cloned-ppo", (0, 1), tmp_path, **settings)
    shared = tmp_path / f"guide-price-fold{HELD_OUT}" / POLICY_FILE
    before = shared.stat().st_mtime_ns
    assert all((f / GUIDE / POLICY_FILE).read_bytes() == shared.read_bytes() for f in folders)
    train_policies(source(), HELD_OUT, "cloned-ppo", (2,), tmp_path, **settings)
    assert shared.stat().st_mtime_ns == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("env_id", ENV_IDS)
def test_every_environment_can_be_trained_on(env_id: str, tmp_path: Path) -> None:
    config = training_preset("maskable-ppo", **{**TINY, "steps": 256, "eval_every": 1})
    train_ppo(training_task(source(env_id), HELD_OUT, config), config, tmp_path)


@pytest.mark.parametrize("algorithm", LEARNED_KINDS)
def test_the_held_out_patients_are_never_read(algorithm: str, tmp_path: Path) -> None:
    """Other labels, scores, qualities of theirs: the same policy, byte for byte."""
    table, rng = evidence(), np.random.default_rng(0)
    rows = np.flatnonzero(table.fold == HELD_OUT)
    label, logit = table.label.copy(), table.logit.copy()
    quality, disagreement = table.quality.copy(), table.disagreement.copy()
    label[rows] = 1 - label[rows]
    noise = rng.normal(0.0, 5.0, logit[rows].shape).astype(np.float32)
    logit[rows] = np.where(np.isfinite(logit[rows]), noise, np.nan)
    quality[rows] = rng.random(quality[rows].shape)
    disagreement[rows] = 9.0
    planted = replace(
        table, label=label, logit=logit, quality=quality, disagreement=disagreement,
    )  # fmt: skip
    teacher = {"warm_start": "price"} if algorithm == "cloned-ppo" else {}
    found = []
    for name, which in (("clean", table), ("planted", planted)):
        (folder,) = train_policies(
            source(table=which), HELD_OUT, algorithm, (1,), tmp_path / name,
            **{**TINY, "eval_every": 1, "steps": 512, **teacher},
        )  # fmt: skip
        found.append((folder / WEIGHTS_FILE).read_bytes())
    assert found[0] == found[1]


def test_validation_takes_turns_and_never_the_held_out_fold() -> None:
    folds = []
    for seed in range(4):
        config = training_preset("maskable-ppo", **{**TINY, "eval_every": 1, "seed": seed})
        made = training_task(source(ONESHOT), HELD_OUT, config)
        assert made.validation is not None
        folds.append(made.validation.fold)
        n_looked_at = len(made.validation.setup.tables.has_source)
        assert len(made.setup.tables.has_source) + n_looked_at == (evidence().fold != 4).sum()
        assert made.validation.setup.config.reward == "auc"
        assert made.setup.config.reward == "expected_auc"
    assert sorted(folds) == [0, 1, 2, 3]


def test_hours_to_learn_from_and_to_look_at_are_apart() -> None:
    trace = synthetic_trace(1000, 0)
    learn, look = split_hours(trace)
    assert learn.time_utc[-1] < look.time_utc[0]
    assert look.time_utc[-1] <= trace.time_utc[699]
    assert (len(learn), len(look)) == (525, 175)


def test_looks_choose_the_earliest_best_and_count_failures_since() -> None:
    looks = [Look(steps=i, reward=r) for i, r in enumerate((0.1, 0.3, 0.3, 0.2))]
    assert best_look(looks) == 1
    assert keeps_failing(looks, 2)
    assert not keeps_failing(looks, 3)
    assert not keeps_failing([], 1)


def test_early_stop_keeps_the_best_network_and_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    """Learning far too fast: the first network stays the best, and training gives up early."""
    wild = {
        **TINY, "learning_rate": 1.0, "target_kl": 100.0, "steps": 20_000, "eval_every": 1,
        "guided": False,
    }  # fmt: skip
    config = training_preset("cloned-ppo", **{**wild, "warm_start": "price", "patience": 3})

    def made() -> Any:
        return training_task(source(), HELD_OUT, config)

    whole = train_ppo(made(), config, tmp_path / "whole")
    newest = checkpoints(whole / "checkpoints")[-1]
    assert int(newest.name.split("-")[1]) < 20_000
    short = replace(config, steps=600)
    train_ppo(made(), short, tmp_path / "cut")
    resumed = train_ppo(made(), config, tmp_path / "cut", resume=True)
    assert (resumed / WEIGHTS_FILE).read_bytes() == (whole / WEIGHTS_FILE).read_bytes()


def test_what_is_trained_is_not_trained_again_and_what_was_changed_is(tmp_path: Path) -> None:
    def weights(**settings: Any) -> tuple[float, bytes]:
        (folder,) = train_policies(
            source(), HELD_OUT, "maskable-ppo", (0,), tmp_path, **{**TINY, **settings}
        )
        path = folder / WEIGHTS_FILE
        return path.stat().st_mtime_ns, path.read_bytes()

    first = weights()
    assert weights() == first
    assert weights(learning_rate=2e-3)[1] != first[1]


def test_a_config_given_directly_is_checked() -> None:
    with pytest.raises(RlTrainingError, match="steps is 0"):
        TrainPpoConfig(steps=0)
