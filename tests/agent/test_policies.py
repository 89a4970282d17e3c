"""The rule's table, the price policy against brute force, and names that do not exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import PolicyError
from agent.policies.price import PricePolicy
from agent.policies.registry import default_names, make_policy
from agent.policies.rule import RulePolicy
from agent.policies.simple import EverythingPolicy
from distill.transfers import all_transfers
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout

MODALITIES = ("clinical", "genomics", "pathology")
TRANSFERS = all_transfers(MODALITIES)
LAYOUT = ObservationLayout(MODALITIES, TRANSFERS)
CATALOGUE = ActionCatalogue(TRANSFERS)
OPEN = np.ones((1, CATALOGUE.n), dtype=bool)


def observe(**fields: object) -> np.ndarray:
    values: dict[str, object] = dict.fromkeys(LAYOUT.names, 0.0)
    for group in ("gain", "g_co2e", "processed"):
        if group in fields:
            for name in LAYOUT.names[LAYOUT.group(group)]:
                values.pop(name)
    return LAYOUT.encode({name: np.asarray(v, float) for name, v in (values | fields).items()})


@pytest.mark.parametrize(
    ("budget_left", "urgency", "entropy", "action"),
    [
        (0.09, 0.9, 0.9, "finalise"),
        (0.10, 0.9, 0.9, "clinical->genomics"),
        (0.50, 0.81, 0.2, "clinical->genomics"),
        (0.50, 0.80, 0.9, "genomics->pathology"),
        (0.50, 0.10, 0.51, "genomics->pathology"),
        (0.50, 0.10, 0.50, "finalise"),
        (1.00, 0.00, 0.00, "finalise"),
    ],
)
def test_the_rule_by_hand(budget_left: float, urgency: float, entropy: float, action: str) -> None:
    rule = RulePolicy(layout=LAYOUT, catalogue=CATALOGUE)
    seen = observe(budget_left=budget_left, urgency=urgency, entropy=entropy)
    assert CATALOGUE.names[int(rule.act(seen, OPEN)[0])] == action


def test_the_rule_finalises_where_its_transfer_is_closed() -> None:
    rule = RulePolicy(layout=LAYOUT, catalogue=CATALOGUE)
    mask = OPEN.copy()
    mask[0, CATALOGUE.index("genomics->pathology")] = False
    seen = observe(budget_left=1.0, urgency=0.0, entropy=0.9)
    assert rule.act(seen, mask)[0] == CATALOGUE.finalise
    assert "was run or is not open" in rule.reason(seen[0], CATALOGUE.finalise)


def test_the_rule_says_which_threshold_was_crossed() -> None:
    rule = RulePolicy(layout=LAYOUT, catalogue=CATALOGUE)
    seen = observe(budget_left=0.6, urgency=0.2, entropy=0.9)
    sentence = rule.reason(seen[0], CATALOGUE.index("genomics->pathology"))
    assert "uncertainty 0.90 bit is above 0.5" in sentence


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), price=st.floats(100, 1e6))
def test_price_takes_what_brute_force_finds_best(seed: int, price: float) -> None:
    rng = np.random.default_rng(seed)
    gain, g_co2e = rng.normal(0.002, 0.005, 6), rng.uniform(0, 400, 6)
    mask = OPEN.copy()
    mask[0, :6] = rng.random(6) < 0.6
    policy = PricePolicy(layout=LAYOUT, catalogue=CATALOGUE, g_per_auc=price)
    options = {t: gain[t] - g_co2e[t] / price for t in range(6) if mask[0, t]}
    best = max(options, key=lambda t: options[t]) if options else CATALOGUE.finalise
    expected = best if options and options[best] > 0 else CATALOGUE.finalise
    assert policy.act(observe(gain=gain, g_co2e=g_co2e), mask)[0] == expected


def test_a_lower_price_never_runs_more() -> None:
    rng = np.random.default_rng(5)
    seen = observe(gain=rng.normal(0.002, 0.003, (200, 6)), g_co2e=rng.uniform(1, 300, (200, 6)))
    mask = np.ones((200, CATALOGUE.n), dtype=bool)
    runs = [
        int(
            (PricePolicy(layout=LAYOUT, catalogue=CATALOGUE, g_per_auc=p).act(seen, mask) < 6).sum()
        )
        for p in (1e3, 1e4, 1e5, 1e6)
    ]
    assert runs == sorted(runs)
    assert runs[0] < runs[-1]


def test_everything_processes_new_modalities_first() -> None:
    policy = EverythingPolicy(layout=LAYOUT, catalogue=CATALOGUE)
    fresh = policy.act(observe(processed=[1.0, 0.0, 0.0]), OPEN)[0]
    assert CATALOGUE.names[int(fresh)] == "genomics->pathology"
    second = policy.act(observe(processed=[1.0, 1.0, 0.0]), OPEN)[0]
    assert CATALOGUE.names[int(second)] == "pathology->clinical"
    rest = policy.act(observe(processed=[1.0, 1.0, 1.0]), OPEN)[0]
    assert rest < CATALOGUE.finalise


@pytest.mark.parametrize("name", ["price", "myopic", "always-everything"])
def test_in_a_full_hour_it_puts_off_what_it_would_run(name: str) -> None:
    policy = make_policy(name, LAYOUT, CATALOGUE)
    mask = np.zeros_like(OPEN)
    mask[0, [CATALOGUE.finalise, CATALOGUE.defer]] = True
    there = {f"present_{m}": 1.0 for m in MODALITIES}
    full = observe(gain=np.full(6, 0.01), g_co2e=np.full(6, 10.0), **there)
    assert policy.act(full, mask)[0] == CATALOGUE.defer
    assert "0 slots left" in policy.reason(full[0], CATALOGUE.defer)
    room = observe(gain=np.full(6, 0.01), g_co2e=np.full(6, 10.0), slots_left_now=1.0, **there)
    assert policy.act(room, mask)[0] == CATALOGUE.finalise, "closed for another reason"
    mask[0, CATALOGUE.defer] = False
    assert policy.act(full, mask)[0] == CATALOGUE.finalise, "due in this hour"


def test_random_draws_every_open_action_about_equally_often() -> None:
    policy = make_policy("random", LAYOUT, CATALOGUE, seed=1)
    policy.reset(4000, seed=2)
    mask = np.repeat(OPEN, 4000, axis=0)
    mask[:, 1] = False
    counts = np.bincount(policy.act(np.repeat(observe(), 4000, axis=0), mask), minlength=8)
    assert counts[1] == 0
    # 7 open actions: mean 571, standard deviation 22
    assert abs(np.delete(counts, 1) - 4000 / 7).max() < 100


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rules", "Did you mean 'rule'"),
        ("always:genomics->patology", "Did you mean 'always:genomics->pathology'"),
        ("ppo", "trained first"),
        ("no/such/dir", "No policy at no/such/dir"),
    ],
)
def test_unknown_names_are_answered_with_what_to_do(name: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        make_policy(name, LAYOUT, CATALOGUE)


def test_default_names_leave_out_transfers_that_the_bundle_lacks() -> None:
    small = ActionCatalogue(all_transfers(("clinical", "genomics")))
    assert default_names(small) == (
        "never", "always:clinical->genomics", "always-everything", "random", "rule", "myopic",
        "price", "feedback", "dp", "mpc", "planner", "ppo",
    )  # fmt: skip


@pytest.mark.parametrize("module", ["agent.policies.learned", "agent.policies.registry"])
def test_serving_a_learned_policy_needs_neither_torch_nor_sb3(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "heavy = {'torch', 'stable_baselines3', 'sb3_contrib'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
