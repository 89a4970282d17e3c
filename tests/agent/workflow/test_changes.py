from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from agent.policies.registry import make_policy
from agent.workflow.changes import (
    BUDGET_SHARES,
    GRID_FACTORS,
    Standing,
    WhatIf,
    change_lines,
)
from agent.workflow.told import AxisTried
from envs.catalogue import ActionCatalogue
from envs.gain import GRID_SIZE, GainModel
from envs.observation import ObservationLayout

MODALITIES = ("clinical", "genomics", "pathology")
TRANSFERS = ("genomics->pathology", "clinical->genomics", "pathology->clinical")
LAYOUT = ObservationLayout(MODALITIES, TRANSFERS)
CATALOGUE = ActionCatalogue(TRANSFERS)
DAY_G = 20_000.0
STANDING = Standing(set_idx=0, day_budget_g_co2e=DAY_G)
# predicted gain of the first transfer: highest at log-odds 0, falling with the distance
GAINS = np.zeros((8, GRID_SIZE, 3), dtype=np.float32)
GAINS[:, :, 0] = 0.004 * (1.0 - np.abs(np.linspace(-8, 8, GRID_SIZE)) / 8.0)
GAIN = GainModel(table=GAINS, transfers=TRANSFERS, n_pos=32, n_neg=32, n_rows=100)
WHAT_IF = WhatIf(layout=LAYOUT, catalogue=CATALOGUE, gain=GAIN)


def observed(**changed: Any) -> np.ndarray:
    values: dict[str, Any] = dict.fromkeys(LAYOUT.names, 0.0)
    values |= {
        "probability": 0.5, "entropy": 1.0, "intensity_now": 200.0, "slack_h": 24.0,
        "budget_left": 0.25, "budget_left_g_co2e": 0.25 * DAY_G, "cases_left": 30.0,
        "time_left": 20.0, "waiting": 1.0, "slots_left": 80.0, "slots_left_now": 4.0,
    }  # fmt: skip
    values |= {f"intensity_lead_{h}h": 200.0 for h in (1, 3, 6, 12, 24)}
    values |= {f"present_{m}": 1.0 for m in MODALITIES} | {"processed_clinical": 1.0}
    values |= {"gain_genomics->pathology": 0.004, "energy_genomics->pathology": 2.0}
    values |= {"g_co2e_genomics->pathology": 400.0} | changed
    return LAYOUT.encode(values)


def mask(*closed: str) -> np.ndarray:
    return np.array([[name not in closed and name != "defer" for name in CATALOGUE.names]])


def axes_of(policy: Any, observation: np.ndarray, open_: np.ndarray, **kw: Any) -> Any:
    tried = WHAT_IF.choose(policy, observation, open_, replace(STANDING, **kw))
    return tried, {axis.axis: axis for axis in tried.axes}


def price(g_per_auc: float) -> Any:
    return make_policy("price", LAYOUT, CATALOGUE, g_per_auc=g_per_auc)


def test_the_price_policy_flips_where_the_closed_form_says() -> None:
    # net gain = .004 - 400 / 160,000 > 0; at k times the carbon it is negative from k = 1.6 on
    tried, axes = axes_of(price(160_000.0), observed(), mask())
    assert CATALOGUE.names[tried.action] == "genomics->pathology"
    grid = axes["grid"]
    assert [(f.at, f.becomes) for f in grid.flips] == [(pytest.approx(400.0), "finalise")]
    assert (grid.now, grid.low, grid.high) == pytest.approx((200.0, 20.0, 800.0))
    priced = axes["price"]
    assert [(f.at, f.becomes) for f in priced.flips] == [(pytest.approx(80_000.0), "finalise")]


def test_the_budget_closes_what_it_cannot_pay() -> None:
    _, axes = axes_of(price(160_000.0), observed(), mask())
    # a day's 5 % is 1,000 g, which pays for 400 g; nothing does not
    assert [(f.at, f.becomes) for f in axes["budget"].flips] == [(0.0, "finalise")]
    free = replace(WHAT_IF, masks_unaffordable=False)
    tried = free.choose(price(160_000.0), observed(), mask(), STANDING)
    (budget,) = [axis for axis in tried.axes if axis.axis == "budget"]
    assert budget.flips == []


def test_an_empty_budget_opens_what_more_of_it_would_pay_for() -> None:
    broke = observed(budget_left=0.0, budget_left_g_co2e=0.0)
    _, axes = axes_of(price(160_000.0), broke, mask("genomics->pathology"))
    (flip,) = axes["budget"].flips
    assert (flip.at, flip.becomes) == (pytest.approx(1_000.0), "genomics->pathology")


def test_what_a_limit_closed_stays_closed() -> None:
    # affordable, and closed all the same: the operator's limit did it
    _, axes = axes_of(price(160_000.0), observed(), mask("genomics->pathology"))
    assert all(not axis.flips for axis in axes.values())


def test_gains_are_read_again_at_other_log_odds() -> None:
    # net > 0 while .004 (1 - |l| / 8) > 400 / 120,000: |l| < 4/3, so 1 holds and 2 does not
    _, axes = axes_of(price(120_000.0), observed(), mask())
    below, above = axes["probability"].flips
    assert below.at == pytest.approx(1 / (1 + np.exp(2.0)))
    assert above.at == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert {below.becomes, above.becomes} == {"finalise"}


def test_the_rule_flips_at_its_thresholds() -> None:
    tried, axes = axes_of(make_policy("rule", LAYOUT, CATALOGUE), observed(), mask())
    assert CATALOGUE.names[tried.action] == "genomics->pathology"
    assert axes["urgency"].flips[0].at == 0.9  # above .8
    assert axes["budget"].flips[0].at == pytest.approx(0.05 * DAY_G)  # below a tenth
    assert not axes["grid"].flips
    assert "price" not in axes


def test_a_wait_is_not_on_offer_once_the_deadline_falls_before_its_end() -> None:
    class Waits:
        name = "waits"

        def reset(self, num_envs: int, seed: int) -> None: ...

        def reason(self, observation: np.ndarray, action: int) -> str:
            return ""

        def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
            defer = action_mask[:, CATALOGUE.defer]
            return np.where(defer, CATALOGUE.defer, CATALOGUE.finalise).astype(np.int64)

    open_ = np.ones((1, CATALOGUE.n), dtype=bool)
    tried, axes = axes_of(Waits(), observed(), open_, wait_h=5.0)
    assert tried.action == CATALOGUE.defer
    assert [(f.at, f.becomes) for f in axes["deadline"].flips] == [(4.0, "finalise")]


def test_chance_is_not_explained_and_draws_as_if_nobody_had_asked() -> None:
    asked, alone = (make_policy("random", LAYOUT, CATALOGUE, 3) for _ in range(2))
    for _ in range(5):
        tried = WHAT_IF.choose(asked, observed(), mask(), STANDING)
        assert tried.axes == ()
        assert tried.action == int(alone.act(observed(), mask())[0])


@pytest.mark.parametrize("name", ["never", "always-everything", "rule", "myopic", "price", "mpc"])
def test_no_question_changes_the_answer_and_none_is_asked_outside_the_bounds(name: str) -> None:
    policy = make_policy(name, LAYOUT, CATALOGUE)
    rng = np.random.default_rng(5)
    for _ in range(20):
        seen = observed(
            logit=float(rng.normal(0, 2)), intensity_now=float(rng.uniform(0, 900)),
            urgency=float(rng.uniform()), slack_h=float(rng.uniform(0, 60)),
        )  # fmt: skip
        tried = WHAT_IF.choose(policy, seen, mask(), STANDING)
        assert tried.action == int(policy.act(seen, mask())[0])
        chosen = CATALOGUE.names[tried.action]
        for axis in tried.axes:
            assert axis.low <= axis.now <= axis.high
            assert all(axis.low <= f.at <= axis.high for f in axis.flips)
            assert all(f.becomes != chosen for f in axis.flips)
            assert len(axis.flips) <= 2


def otherwise(axis: str, value: float) -> dict[str, float]:
    """The fields of a case that stands at this value of the axis."""
    if axis == "grid":
        return {"intensity_now": value, "g_co2e_genomics->pathology": 2.0 * value}
    if axis == "budget":
        return {"budget_left": value / DAY_G, "budget_left_g_co2e": value}
    if axis == "probability":
        moved = float(np.log(value / (1 - value)))
        gain = float(GAIN.predict(np.array([0]), np.array([moved], dtype=np.float32))[0, 0])
        entropy = -(value * np.log2(value) + (1 - value) * np.log2(1 - value))
        return {"logit": moved, "probability": value, "entropy": float(entropy),
                "gain_genomics->pathology": gain}  # fmt: skip
    return {{"deadline": "slack_h"}.get(axis, axis): value}


@pytest.mark.parametrize("name", ["rule", "myopic", "price", "dp", "mpc", "planner"])
def test_each_flip_is_what_the_policy_says_of_such_a_case(name: str) -> None:
    policy = make_policy(name, LAYOUT, CATALOGUE, g_per_auc=250_000.0)
    rng = np.random.default_rng(11)
    flips = 0
    for _ in range(40):
        grid, p = float(rng.uniform(50, 900)), float(1 / (1 + np.exp(-rng.normal(0, 2))))
        case = {
            "urgency": float(rng.uniform()), "slack_h": float(rng.uniform(0.5, 60)),
            "intensity_lead_6h": float(rng.uniform(20, 900)),
        }  # fmt: skip
        case |= otherwise("grid", grid) | otherwise("probability", p)
        tried = WHAT_IF.choose(policy, observed(**case), mask(), STANDING)
        for axis in tried.axes:
            if axis.axis == "price":
                continue
            for flip in axis.flips:
                there = observed(**case | otherwise(axis.axis, flip.at))
                gram = float(LAYOUT.physical(there, "g_co2e")[0, 0])
                left = float(LAYOUT.physical(there, "budget_left_g_co2e")[0])
                asked = mask() if gram <= left else mask("genomics->pathology")
                # the other transfers have nothing to gain and nothing to cost
                assert CATALOGUE.names[int(policy.act(there, asked)[0])] == flip.becomes
                flips += 1
    assert flips > 10


def test_values_that_the_case_has_are_not_tried_again() -> None:
    calls = []

    class Counts:
        name = "counts"

        def reset(self, num_envs: int, seed: int) -> None: ...

        def reason(self, observation: np.ndarray, action: int) -> str:
            return ""

        def act(self, observation: np.ndarray, action_mask: np.ndarray) -> np.ndarray:
            calls.append(observation)
            return np.full(len(observation), CATALOGUE.finalise, dtype=np.int64)

    WHAT_IF.choose(Counts(), observed(), mask(), STANDING)
    (rows,) = calls
    # of the budget's shares one, of the urgencies one and of the deadlines one is the case's own
    assert len(rows) == 1 + len(GRID_FACTORS) + len(BUDGET_SHARES) - 1 + 5 + 6 + 10
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert np.array_equal(rows[0], observed()[0])


def test_sentences_say_what_flips_and_what_does_not() -> None:
    tried, _ = axes_of(price(160_000.0), observed(), mask())
    lines = change_lines(tried.axes)
    assert "It would have been finalise with the grid now at 400 instead of 200 gCO2e/kWh." in lines
    assert lines[-1] == (
        "No tested value of these alone would have changed it: the urgency (0 to 1), the time to "
        "the deadline (1 to 48 h), the probability (0.0474 to 0.953)."
    )
    again = [AxisTried.model_validate(axis.model_dump(mode="json")) for axis in tried.axes]
    assert change_lines(again) == lines
    assert change_lines([]) == []


def test_it_is_quick() -> None:
    policy = make_policy("planner", LAYOUT, CATALOGUE)
    seen, open_ = observed(), mask()
    extra = []
    for _ in range(40):
        start = time.thread_time()
        WHAT_IF.choose(policy, seen, open_, STANDING)
        middle = time.thread_time()
        policy.act(seen, open_)
        extra.append((middle - start) - (time.thread_time() - middle))
    assert np.quantile(extra, 0.25) < 2e-3  # 0.25 ms on a quiet core
