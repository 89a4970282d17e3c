from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.errors import OffPolicyError
from agent.ope import OffPolicyConfig, evaluate_offline
from agent.ope_log import DecisionLog, header_of, read_log, write_log
from agent.ope_replay import Exploring, action_probabilities, log_sessions
from agent.policies.protocol import Policy
from agent.policies.registry import make_policy
from agent.rollout import run_sessions
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence

CASES = 16
FIELDS = ("step", "observation", "mask", "action", "propensity", "reward", "propensities",
          "score", "label")  # fmt: skip


def toy_setup(rules: str = "sequential", reward: str = "brier") -> ReviewSetup:
    # Priced, not masked: what a case may do and earns does not hang on the other cases.
    return build_setup(
        evidence=toy_evidence(200, seed=1), rules=rules, n_cases=CASES, budget_mode="price",
        g_per_auc=1e6, reward=reward,
    )  # fmt: skip


def toy_log(
    setup: ReviewSetup,
    *,
    policy: str = "price",
    share: float = 0.4,
    sessions: int = 12,
    seed: int = 0,
) -> DecisionLog:
    followed = make_policy(policy, setup.layout, setup.catalogue)
    behaviour = Exploring(policy=followed, catalogue=setup.catalogue, share=share)
    first = seed * sessions
    return log_sessions(
        behaviour, setup, range(first, first + sessions), np.random.default_rng(seed)
    )


def same(a: DecisionLog, b: DecisionLog) -> bool:
    return a.case == b.case and all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in FIELDS
    )


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_log_reads_back_as_it_was_written(tmp_path: Path, ending: str) -> None:
    log = toy_log(toy_setup(), sessions=3)
    path = tmp_path / f"decisions.{ending}"
    write_log(log, path)
    assert same(read_log(path), log)
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_of_replay_is_whole_and_its_rewards_add_up() -> None:
    setup = toy_setup()
    log = toy_log(setup, sessions=4)
    assert len(log.place) == 4 * CASES
    assert np.allclose(log.propensities.sum(axis=1), 1.0)
    assert (log.propensities[~log.mask] == 0.0).all()
    assert np.isfinite(log.score).sum() == len(log.place) == np.isfinite(log.label).sum()
    assert same(log, toy_log(setup, sessions=4))


def test_evaluating_the_policy_that_wrote_the_log_is_its_mean() -> None:
    setup = toy_setup()
    log = toy_log(setup, share=0.4)
    behaviour = Exploring(
        policy=make_policy("price", setup.layout, setup.catalogue),
        catalogue=setup.catalogue,
        share=0.4,
    )
    report = evaluate_offline(log, behaviour, OffPolicyConfig(redraws=50))
    logged = report.estimates["logged"].value
    assert report.estimates["snips"].value == pytest.approx(logged)
    assert report.estimates["snips_per_decision"].value == pytest.approx(logged)
    assert report.effective_cases == pytest.approx(report.n_cases)
    assert report.weight.value == pytest.approx(1.0)


@pytest.fixture(scope="module")
def template() -> DecisionLog:
    return toy_log(toy_setup("oneshot"), sessions=4)


def two_armed(
    template: DecisionLog, n: int, seed: int, *, stated: float | None = None
) -> DecisionLog:
    """One decision a case between a transfer, done with probability 0.3, and finalising."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(template.action), n)
    does = rng.random(n) < 0.3
    last = template.catalogue.finalise
    mask = np.zeros((n, template.catalogue.n), dtype=np.bool_)
    mask[:, [0, last]] = True
    chance = np.where(does, 0.3, 0.7) if stated is None else np.where(does, stated, 1 - stated)
    context = template.observation[rows, 0].astype(np.float64)
    return replace(
        template,
        case=tuple(f"{i:06d}" for i in range(n)),
        step=np.zeros(n, dtype=np.int64),
        observation=template.observation[rows],
        mask=mask,
        action=np.where(does, 0, last),
        propensity=chance,
        reward=does * (1.0 + context) + rng.normal(0.0, 0.5, n),
        propensities=np.full(mask.shape, np.nan),
        score=np.full(n, np.nan),
        label=np.full(n, np.nan),
    )


def runs_first(log: DecisionLog) -> Policy:
    return make_policy(f"always:{log.transfers[0]}", log.layout, log.catalogue)


def test_snips_by_hand(template: DecisionLog) -> None:
    log = two_armed(template, 400, 0)
    report = evaluate_offline(log, runs_first(log))
    done = log.action == 0
    assert report.estimates["snips"].value == pytest.approx(log.reward[done].mean())
    assert report.effective_cases == pytest.approx(done.sum())
    assert report.weight.value == pytest.approx(done.mean() / 0.3)


def test_intervals_cover_about_as_often_as_they_say(template: DecisionLog) -> None:
    """150 small logs of a known bandit: 95 % intervals of every estimator."""
    truth = 1.0 + float(two_armed(template, 4000, 10_000).observation[:, 0].mean())
    names = ("snips", "snips_per_decision", "doubly_robust")
    hits = dict.fromkeys(names, 0)
    values: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(150):
        log = two_armed(template, 250, seed)
        report = evaluate_offline(log, runs_first(log), OffPolicyConfig(redraws=150, seed=seed))
        for name in names:
            estimate = report.estimates[name]
            hits[name] += estimate.low <= truth <= estimate.high
            values[name].append(estimate.value)
    for name in names:
        assert 0.90 <= hits[name] / 150 <= 0.985, (name, hits[name])
        assert abs(np.mean(values[name]) - truth) < 0.02
    assert np.std(values["doubly_robust"]) < 1.1 * np.std(values["snips"])


@pytest.mark.parametrize("rules", ["oneshot", "sequential"])
def test_estimates_agree_with_exact_replay(rules: str) -> None:
    setup = toy_setup(rules)
    log = toy_log(setup, policy="price", share=0.5, sessions=60)
    for name in ("price", "never"):
        policy = make_policy(name, setup.layout, setup.catalogue)
        exact = run_sessions(policy, setup, range(50_000, 50_200))
        report = evaluate_offline(log, policy)
        truth, noise = exact.reward.mean() / CASES, exact.reward.std() / CASES / 200**0.5
        for key in ("snips", "snips_per_decision", "doubly_robust"):
            found = report.estimates[key]
            error = (found.high - found.low) / 3.92
            assert abs(found.value - truth) <= 4 * error + 2 * noise, (name, key)
        gain = report.estimates["auc_gain"]
        slack = 2 * exact.auc_gain.std() / 200**0.5
        assert gain.low - slack <= exact.auc_gain.mean() <= gain.high + slack


def test_wrong_propensities_are_found_out(template: DecisionLog) -> None:
    log = two_armed(template, 2000, 1, stated=0.45)
    with pytest.raises(OffPolicyError, match="must average 1"):
        evaluate_offline(log, runs_first(log))


def test_a_policy_that_does_what_was_never_done_is_refused() -> None:
    setup = toy_setup()
    log = toy_log(setup, policy="never", share=0.0)
    policy = make_policy("always:pathology->clinical", setup.layout, setup.catalogue)
    with pytest.raises(OffPolicyError, match=r"No overlap: .* would take pathology->clinical"):
        evaluate_offline(log, policy)
    silent = replace(log, propensities=np.full_like(log.propensities, np.nan))
    with pytest.raises(OffPolicyError, match="takes actions that the log never does"):
        evaluate_offline(silent, policy)


def lines_of(log: DecisionLog, tmp_path: Path) -> list[dict[str, object]]:
    path = tmp_path / "good.jsonl"
    write_log(log, path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"propensity": None}, "cannot be made up later"),
        ({"propensity": 0.0, "propensities": None}, "not above 0"),
        ({"propensity": 0.123}, "other than propensities say"),
        ({"action": 99, "propensities": None}, "not in the catalogue"),
        ({"step": 7}, "do not count 0, 1, 2"),
        ({"observation": [1.0, 2.0]}, "do not fit together"),
        ({"case": None}, "lacks case"),
    ],
    ids=["none", "zero", "contradicted", "unknown-action", "steps", "width", "no-case"],
)
def test_bad_lines_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    rows = lines_of(toy_log(toy_setup("oneshot"), sessions=1), tmp_path)
    rows[3] |= change
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    with pytest.raises(OffPolicyError, match=words):
        read_log(path)


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    for text in ("", "hello", '{"a": 1}', "[1, 2]"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(OffPolicyError):
            read_log(path)


def test_an_unknown_reward_leaves_the_case_out(template: DecisionLog) -> None:
    log = two_armed(template, 400, 3)
    reward = log.reward.copy()
    reward[:50] = np.nan
    report = evaluate_offline(replace(log, reward=reward), runs_first(log))
    assert report.n_unknown == 50
    known = (log.action == 0)[50:]
    assert report.estimates["snips"].value == pytest.approx(log.reward[50:][known].mean())
    assert report.to_json()["n_cases_reward_unknown"] == 50
    assert header_of(log)["log"] == "greenboard-decisions"


def test_a_deterministic_policy_is_sure_of_one_open_action() -> None:
    log = toy_log(toy_setup(), sessions=2)
    policy = make_policy("price", log.layout, log.catalogue)
    chances = action_probabilities(policy, log.observation, log.mask)
    assert (chances.max(axis=1) == 1.0).all()
    assert (chances[~log.mask] == 0.0).all()
