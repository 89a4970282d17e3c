"""Planners in closed form: clearing prices, a two-step programme, known hours, a shared run."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import planner_search
from agent.calibration import calibrate
from agent.errors import PolicyError
from agent.planner_fit import Opponents, TrainingCases, fit_demand, transition
from agent.policies.case_view import view_cases
from agent.policies.forecast_wait import clean_hour, hourly_forecast
from agent.policies.patient_program import BINS, GRID, solve
from agent.policies.plan_files import write_plan
from agent.policies.plan_settings import PlanSettings, settings_for
from agent.policies.planner import PlannedPolicy
from agent.policies.registry import make_policy, open_policy
from agent.policies.shadow import DemandCurves, lowest_price
from agent.rollout import run_sessions
from distill.transfers import all_transfers
from envs.catalogue import ActionCatalogue
from envs.config import SessionConfig
from envs.observation import ObservationLayout
from envs.setup import ReviewSetup, build_setup
from envs.toy import toy_evidence

MODALITIES = ("clinical", "genomics", "pathology")
LAYOUT = ObservationLayout(MODALITIES, all_transfers(MODALITIES))
CATALOGUE = ActionCatalogue(all_transfers(MODALITIES))
RUN = CATALOGUE.index("genomics->pathology")
OPEN = np.ones((1, CATALOGUE.n), dtype=bool)


@cache
def training(rules: str = "worklist") -> ReviewSetup:
    return build_setup(
        evidence=toy_evidence(120), rules=rules, n_cases=12, session_h_min=12, session_h_max=16
    )


def observe(**fields: object) -> np.ndarray:
    """A fresh case with everything present, one of one waiting, on a grid of 200 g/kWh."""
    ones = {f"present_{m}": 1.0 for m in MODALITIES} | {"processed_clinical": 1.0}
    leads = {f"intensity_lead_{h}h": 200.0 for h in (1, 3, 6, 12, 24)}
    base = dict.fromkeys(LAYOUT.names, 0.0) | ones | leads | {
        "intensity_now": 200.0, "slack_h": 20.0, "time_left": 40.0, "cases_left": 1.0,
        "waiting": 1.0, "slots_left_now": 4.0, "slots_left": 80.0, "budget_left": 1.0,
        "budget_left_g_co2e": 1e5,
    }  # fmt: skip
    assert set(fields) <= set(base), set(fields) - set(base)
    return LAYOUT.encode({k: np.asarray(v, float) for k, v in (base | fields).items()})


def one_choice(gain: float, kwh: float, **fields: object) -> np.ndarray:
    """A case for which one transfer gains something and the others nothing."""
    name = CATALOGUE.names[RUN]
    values = {f"gain_{name}": gain, f"energy_{name}": kwh, f"g_co2e_{name}": 200.0 * kwh}
    return observe(**(values | fields))


def planner(**settings: Any) -> PlannedPolicy:
    base = settings_for("planner", SessionConfig(), g_per_auc=100_000.0)
    changed = base.model_copy(update={"min_gain": 0.0, "wait_gain": 0.0} | settings)
    return PlannedPolicy(layout=LAYOUT, catalogue=CATALOGUE, settings=changed)


# Demand that falls by 1 kWh for each unit of price, and a slot for each kWh.
PRICES, FEES = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 10.0, 20.0])
LINEAR = np.maximum(4.0 - PRICES[:, None] - FEES[None, :] / 10.0, 0.0)
CURVES = DemandCurves(per_kwh=PRICES, per_slot=FEES, kwh=LINEAR, slots=LINEAR)


@pytest.mark.parametrize(
    ("supply", "price"), [(5.0, 0.0), (4.0, 0.0), (3.0, 1.0), (2.5, 1.5), (0.0, 4.0), (-1.0, 4.0)]
)
def test_the_lowest_price_at_which_demand_meets_supply(supply: float, price: float) -> None:
    assert lowest_price(PRICES, LINEAR[:, 0], np.array([supply]))[0] == pytest.approx(price)


def cleared(kwh: float, slots: float, least: float = 0.0) -> tuple[float, float]:
    price, fee = CURVES.clear(np.array([kwh]), np.array([slots]), np.array([least]))
    return float(price[0]), float(fee[0])


def test_energy_and_slots_clear_together() -> None:
    assert cleared(9.0, np.inf) == (0.0, 0.0)
    assert cleared(1.5, np.inf) == pytest.approx((2.5, 0.0))
    assert cleared(9.0, 3.0) == pytest.approx((0.0, 10.0)), "slots alone are short"
    assert cleared(9.0, 2.5) == pytest.approx((0.0, 15.0))
    assert cleared(2.0, 9.0) == pytest.approx((2.0, 0.0)), "energy alone is short"


def test_the_environments_price_is_the_least() -> None:
    assert cleared(9.0, np.inf, least=1.25) == pytest.approx((1.25, 0.0))
    assert cleared(1.5, np.inf, least=1.25) == pytest.approx((2.5, 0.0))


def test_demand_that_noise_lets_rise_is_read_as_flat() -> None:
    demand = np.array([4.0, 2.0, 3.0, 1.0, 0.0])
    assert lowest_price(PRICES, demand, np.array([2.5]))[0] == pytest.approx(0.75)


def test_less_budget_or_more_cases_never_lower_the_price() -> None:
    policy = calibrate("feedback", training(), ())
    seen = observe(cases_left=10.0, budget_left_g_co2e=np.array([2000.0, 400.0, 50.0, 0.0]))
    per_g = policy.appraise(view_cases(LAYOUT, CATALOGUE, seen)).per_g
    assert (np.diff(per_g) >= 0).all()
    assert per_g[-1] > per_g[0] >= 1.0 / 500_000.0


def two_step(first: float, second: float, chance: float) -> tuple[np.ndarray, np.ndarray]:
    """Modality 0 gains ``first`` and may lift the log-odds to 3, where 1 gains ``second``."""
    gain = np.full((4, 2, BINS), -1.0)
    move = np.zeros((4, 2, BINS, BINS))
    gain[0, 0], gain[1, 1] = first, 0.0
    gain[1, 1, GRID >= 3.0] = second
    move[0, 0, :, GRID.tolist().index(3.0)] = chance
    move[0, 0, :, GRID.tolist().index(0.0)] += 1.0 - chance
    move[1, 1] = np.eye(BINS)
    return gain, move


def test_the_programme_knows_what_a_revealing_step_is_worth() -> None:
    """E[V] = chance x max(0, second - price kWh - fee), by hand."""
    gain, move = two_step(first=-0.1, second=1.0, chance=0.25)
    prices, fees = np.array([0.0, 0.1]), np.array([0.0, 0.3])
    program = solve(gain, move, np.array([1.0, 2.0]), prices, fees)

    def follow(price: float, fee: float, present: int = 0b11, done: int = 0) -> np.ndarray:
        state = (np.array([present]), np.array([done]))
        logit, at = np.zeros(1), (np.array([price]), np.array([fee]))
        return program.follow(state, logit, *at)[0]

    assert follow(0.0, 0.0) == pytest.approx([0.25, 0.0])
    assert follow(0.1, 0.0) == pytest.approx([0.25 * (1.0 - 0.2), 0.0])
    assert follow(0.1, 0.3) == pytest.approx([0.25 * (1.0 - 0.2 - 0.3), 0.0], abs=1e-6)
    assert follow(0.05, 0.15) == pytest.approx([0.25 * (1.0 - 0.1 - 0.15), 0.0]), "interpolated"
    assert follow(0.0, 0.0, present=0b01) == pytest.approx([0.0, 0.0]), "nothing can follow"
    assert follow(9.0, 0.0) == pytest.approx(follow(0.1, 0.0)), "clipped to what was solved for"


def test_a_step_that_only_reveals_is_taken_for_what_follows() -> None:
    """Optimal: pay 0.001 to see, then gain 0.04 with a chance of a quarter."""
    gain, move = two_step(first=-0.001, second=0.04, chance=0.25)
    program = solve(gain, move, np.zeros(2), np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    seen = one_choice(gain=-0.001, kwh=0.0)
    blind, ahead = planner(waits=False), replace(planner(waits=False), program=program)
    mask = np.zeros_like(OPEN)
    mask[0, [RUN, CATALOGUE.finalise]] = True
    assert blind.act(seen, mask)[0] == CATALOGUE.finalise
    assert ahead.act(seen, mask)[0] == RUN


def test_transitions_are_those_of_patients_alike() -> None:
    """Positives near 0 move up by 2, negatives down by 2; opponents stand at -1 and 1."""
    old = np.zeros(40)
    positive = np.arange(40) < 20
    others = Opponents(positives=np.array([1.0]), negatives=np.array([-1.0, 1.0]), n_pos=1, n_neg=1)
    gain, move = transition(old, np.where(positive, 2.0, -2.0), positive, others)
    middle = GRID.tolist().index(0.0)
    np.testing.assert_allclose(move.sum(axis=1), 1.0)
    assert move[middle, GRID.tolist().index(2.0)] == pytest.approx(0.5)
    # a positive passes one of two negatives; a negative, below the positive already, wins nothing
    assert gain[middle] == pytest.approx(0.5 * 0.5)


@pytest.mark.parametrize("once", [False, True])
def test_demand_falls_with_its_own_price_and_ends(once: bool) -> None:
    curves = fit_demand(TrainingCases(setup=training()), None, 0.0, once=once)
    # who finds genomics too dear may take pathology instead: a little more, never much
    assert np.diff(curves.kwh, axis=0).max() <= 0.02 * curves.kwh.max()
    assert np.diff(curves.slots, axis=1).max() <= 0.02 * curves.slots.max()
    assert curves.kwh[-1].max() < 1e-4
    assert curves.slots[:, -1].max() == 0.0
    assert curves.slots[0, 0] <= 1.0 if once else curves.slots[0, 0] > 1.0


def test_the_forecast_is_read_hour_by_hour_and_pulled_to_its_mean() -> None:
    sure = hourly_forecast(np.array([[100.0, 200.0, 400.0, 400.0, 400.0, 400.0]]), np.zeros(1))
    np.testing.assert_allclose(sure[0, :7], [100.0, 200.0, 300.0, 400.0, 400.0, 400.0, 400.0])
    unsure = hourly_forecast(sure[:, [0, 1, 3, 6, 12, 24]], np.array([5.0]))
    assert unsure[0, 0] == 100.0, "now is measured"
    np.testing.assert_allclose(unsure[0, 1:], sure.mean())


def test_rivals_take_the_cleanest_hours() -> None:
    path = np.array([[9.0, 5.0, 1.0, 3.0, 2.0]])
    found = [float(clean_hour(path, np.array([w]), np.array([r]))[0])
             for w, r in ((4.0, 0.0), (4.0, 1.9), (4.0, 9.0), (1.0, 0.0), (0.0, 0.0))]  # fmt: skip
    assert found == [1.0, 2.0, 5.0, 5.0, np.inf]


def test_it_waits_for_a_cleaner_hour_that_saves_more_than_it_risks() -> None:
    """1 kWh at 100,000 g per AUC: 200 g cost 0.002 AUC now, 50 g in six hours 0.0005."""
    clean = {"intensity_lead_6h": 50.0}
    policy = planner()
    assert policy.act(one_choice(0.005, 1.0, **clean), OPEN)[0] == CATALOGUE.defer
    assert policy.act(one_choice(0.001, 1.0, **clean), OPEN)[0] == CATALOGUE.defer, "not worth now"
    assert policy.act(one_choice(0.005, 1.0), OPEN)[0] == RUN, "nothing cleaner is foreseen"
    assert policy.act(one_choice(0.005, 1.0, slack_h=3.0, **clean), OPEN)[0] == RUN, "due before"
    assert planner(wait_gain=0.0016).act(one_choice(0.005, 1.0, **clean), OPEN)[0] == RUN
    assert planner(wait_gain=0.0014).act(one_choice(0.005, 1.0, **clean), OPEN)[0] != RUN
    late = one_choice(0.005, 1.0, waiting=81.0, slots_left=80.0, **clean)
    assert planner(queues=False).act(late, OPEN)[0] == RUN, "twenty hours' worth of rivals"


def test_a_slot_goes_to_those_that_the_slots_will_serve() -> None:
    policy = planner()
    crowd = {"waiting": 30.0, "slots_left_now": 1.0, "slots_left": 10.0}
    assert policy.act(one_choice(0.005, 0.1, ahead=25.0, **crowd), OPEN)[0] == CATALOGUE.defer
    assert policy.act(one_choice(0.005, 0.1, ahead=5.0, **crowd), OPEN)[0] == RUN
    alone = crowd | {"waiting": 1.0}
    assert policy.act(one_choice(0.005, 0.1, ahead=0.0, **alone), OPEN)[0] == RUN
    full = crowd | {"slots_left_now": 0.0}
    mask = OPEN.copy()
    mask[0, : CATALOGUE.finalise] = False
    assert policy.act(one_choice(0.005, 0.1, **full), mask)[0] == CATALOGUE.defer, "next hour"


@pytest.mark.parametrize("name", ["feedback", "dp", "mpc", "planner"])
def test_in_a_full_hour_it_puts_off_what_it_would_run(name: str) -> None:
    policy = make_policy(name, LAYOUT, CATALOGUE)
    mask = np.zeros_like(OPEN)
    mask[0, [CATALOGUE.finalise, CATALOGUE.defer]] = True
    assert policy.act(one_choice(0.005, 1.0, slots_left_now=0.0), mask)[0] == CATALOGUE.defer
    worthless = one_choice(0.0, 1.0, slots_left_now=0.0)
    assert policy.act(worthless, mask)[0] == CATALOGUE.finalise
    if name in ("feedback", "dp"):
        closed = one_choice(0.005, 1.0, slots_left_now=1.0)
        assert policy.act(closed, mask)[0] == CATALOGUE.finalise, "closed for another reason"


def test_where_slots_are_short_a_wait_costs_the_slot_it_leaves_unused() -> None:
    """An hour saves 0.0015 AUC of carbon; the slot has a price of 0.002."""
    demand = DemandCurves(
        per_kwh=np.array([0.0, 1.0]), per_slot=np.array([0.0, 0.002, 1.0]),
        kwh=np.zeros((2, 3)), slots=np.array([[2.0, 1.0, 0.0]] * 2),
    )  # fmt: skip
    short = replace(planner(slots_bind=True), demand=demand)
    seen = {"cases_left": 160.0, "intensity_lead_6h": 50.0}
    assert short.act(one_choice(0.02, 1.0, **seen), OPEN)[0] == RUN
    ample = seen | {"cases_left": 1.0}
    assert short.act(one_choice(0.02, 1.0, **ample), OPEN)[0] == CATALOGUE.defer


def test_the_start_of_a_run_is_shared_by_those_who_will_join() -> None:
    """Starting takes 4 kWh, a case 1: alone 5 kWh, in a full run of four 2 kWh each."""
    policy = planner(setup_factor=4.0)
    name = CATALOGUE.names[RUN]
    start = {f"setup_{name}": 4.0}

    def act(sharing: float, slots: float, setup: float = 4.0) -> int:
        fields = start | {f"setup_{name}": setup, f"sharing_{name}": sharing}
        seen = one_choice(0.02, 1.0 + setup, slots_left_now=slots, **fields)
        return int(policy.act(seen, OPEN)[0])

    assert act(sharing=3.0, slots=4.0) == RUN, "a full run"
    assert act(sharing=0.0, slots=4.0) == CATALOGUE.defer, "alone: gather others first"
    assert act(sharing=9.0, slots=1.0) == CATALOGUE.defer, "no room for them in this hour"
    assert act(sharing=0.0, slots=1.0, setup=0.0) == RUN, "joins an open run"
    due = {"slack_h": 0.5, **start}
    assert policy.act(one_choice(0.011, 5.0, **due), OPEN)[0] == RUN, "5 kWh cost 0.01 AUC"
    assert policy.act(one_choice(0.009, 5.0, **due), OPEN)[0] == CATALOGUE.finalise


def stored(path: Path, kind: str = "planner") -> Path:
    policy = calibrate(kind, training(), ())
    return write_plan(path, "planner", policy, provenance={"folds": [1]}, patients=("a" * 64,))


def test_a_stored_planner_does_what_the_calibrated_one_did(tmp_path: Path) -> None:
    policy = calibrate("planner", training(), ())
    write_plan(tmp_path / "p", "planner", policy, provenance={"folds": [1]}, patients=("a" * 64,))
    opened = open_policy(tmp_path / "p", LAYOUT, CATALOGUE)
    one, two = (run_sessions(p, training(), range(20, 22)) for p in (policy, opened))
    np.testing.assert_array_equal(one.final_set, two.final_set)
    facts = json.loads((tmp_path / "p" / "policy.json").read_text())
    assert facts["kind"] == "planner"
    assert facts["provenance"] == {"folds": [1]}
    assert facts["patients"]["n"] == 1
    assert (tmp_path / "p" / "training_ids.json").exists()


def test_the_search_keeps_what_gains_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = training("oneshot")
    policy = calibrate("feedback", setup, ())
    monkeypatch.setattr(planner_search, "CANDIDATES", {"min_gain": (1.0,), "run_size": (2.0,)})
    assert planner_search.search(policy, setup, range(2)) == policy
    nothing = replace(policy, settings=policy.settings.model_copy(update={"min_gain": 1.0}))
    monkeypatch.setattr(planner_search, "CANDIDATES", {"min_gain": (1e-4,)})
    found = planner_search.search(nothing, setup, range(4))
    assert found.settings.min_gain == 1e-4


def test_changed_bytes_and_foreign_tables_are_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "p")
    tables = path / "weights.safetensors"
    content = bytearray(tables.read_bytes())
    content[-1] ^= 1
    tables.write_bytes(bytes(content))
    with pytest.raises(PolicyError, match="bytes have changed"):
        open_policy(path, LAYOUT, CATALOGUE)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("spend", -1.0, "spend"), ("made_up", 1.0, "made_up"), ("waits", "perhaps", "waits")],
)
def test_settings_out_of_range_are_refused(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    path = stored(tmp_path / "p")
    facts = json.loads((path / "policy.json").read_text())
    facts["settings"][key] = value
    (path / "policy.json").write_text(json.dumps(facts))
    with pytest.raises(PolicyError, match=message):
        open_policy(path, LAYOUT, CATALOGUE)


def test_a_planner_without_tables_cannot_be_stored(tmp_path: Path) -> None:
    plain = make_policy("planner", LAYOUT, CATALOGUE)
    assert isinstance(plain, PlannedPolicy)
    with pytest.raises(PolicyError, match="not been calibrated"):
        write_plan(tmp_path / "p", "planner", plain, provenance={}, patients=())


def test_another_bundles_planner_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "p")
    modalities = (*MODALITIES, "radiomics")
    layout = ObservationLayout(modalities, all_transfers(modalities))
    with pytest.raises(PolicyError, match="this bundle has"):
        open_policy(path, layout, ActionCatalogue(all_transfers(modalities)))


def test_settings_follow_the_rules() -> None:
    oneshot, visits, list_ = (
        settings_for("planner", SessionConfig(), rules, g_per_auc=None)
        for rules in ("oneshot", "sequential", "worklist")
    )
    assert (oneshot.waits, visits.waits, list_.waits) == (False, True, True)
    assert (visits.queues, visits.slots_bind, visits.any_hour) == (False, False, False)
    assert (list_.queues, list_.slots_bind, list_.any_hour) == (True, True, True)
    assert oneshot.least_per_g == 0.0
    assert PlanSettings() == PlanSettings.model_validate(PlanSettings().model_dump())
