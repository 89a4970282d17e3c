from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distill.carbon_aware import CarbonRun, annealed
from distill.carbon_book import CarbonBook, CarbonSettings
from distill.checkpoint import read_checkpoint
from distill.errors import BudgetSpentError, TrainingError

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("toy_student", HERE / "toy_student.py")
toy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(toy)

ALL_STEPS = 12


@pytest.fixture(scope="module")
def plain():
    return toy.train(None)


def test_settings_that_ask_for_nothing_change_nothing_bit_for_bit(plain):
    run = toy.make_run()
    assert toy.same_weights(toy.train(run.attend(toy.SEED)), plain)
    assert run.record()["stopped"] == "every epoch done"
    assert run.record()["epochs"] == run.record()["planned_epochs"] == [4]


def test_every_step_is_charged_at_the_intensity_of_its_moment():
    run = toy.make_run(grid=(100.0, 300.0))
    toy.train(run.attend(toy.SEED))
    assert run.book.steps == ALL_STEPS
    assert run.book.kwh == pytest.approx(ALL_STEPS * toy.STEP_KWH)
    assert run.book.g_co2e == pytest.approx(ALL_STEPS * toy.STEP_KWH * 200.0)
    assert run.book.highest_g_per_kwh == 300.0
    assert run.book.assumed_kwh == 0.0


def test_a_budget_spent_in_the_middle_of_an_epoch_leaves_the_best_whole_epoch(tmp_path: Path):
    # Planned for at 100 g/kWh, it turns out to be 300 from the second step on.
    grid = (100.0, *(300.0,) * 20)
    run = toy.make_run(tmp_path / "c", grid=grid, budget_g_co2e=ALL_STEPS * toy.STEP_KWH * 150.0)
    stopped = toy.train(run.attend(toy.SEED))
    # 0.1 + 0.3 k reaches 1.8 at the seventh step: one step into the third epoch.
    assert run.book.steps == 7
    assert run.spent
    record = run.record()
    assert record["stopped"] == "carbon budget spent"
    assert record["epochs"] == [2]
    assert record["planned_epochs"] == [4]
    kept = read_checkpoint(tmp_path / "c" / f"student-{toy.SEED}.safetensors")
    best = {k.removeprefix("best."): v for k, v in kept.tensors.items() if k.startswith("best.")}
    assert all((best[k] == v).all() for k, v in stopped.state_dict().items())
    assert kept.facts["epoch"] == 2
    assert not kept.extra["finished"]


def test_the_run_that_its_budget_stopped_goes_on_with_a_larger_one_bit_for_bit(tmp_path: Path):
    grid = (100.0, *(300.0,) * 20)
    small = ALL_STEPS * toy.STEP_KWH * 150.0
    toy.train(toy.make_run(tmp_path / "c", grid=grid, budget_g_co2e=small).attend(toy.SEED))
    again = toy.make_run(tmp_path / "c", grid=grid, resume=True, budget_g_co2e=10 * small)
    whole = toy.make_run(grid=grid)
    assert toy.same_weights(toy.train(again.attend(toy.SEED)), toy.train(whole.attend(toy.SEED)))
    assert again.book.resumed == 1
    assert again.book.kwh == pytest.approx((ALL_STEPS + 1) * toy.STEP_KWH)  # one step is lost


def test_a_budget_allots_even_shares_of_what_is_left_and_is_not_passed():
    epoch_g = toy.STEPS_PER_EPOCH * toy.STEP_KWH * 100.0
    run = toy.make_run(grid=(100.0,), students=2, budget_g_co2e=6 * epoch_g / 0.98 * 1.001)
    config = replace(toy.CONFIG, epochs=10)
    toy.train(run.attend(1), config)
    toy.train(run.attend(2), config)
    assert run.record()["epochs"] == [3, 3]
    assert run.book.g_co2e <= run.settings.budget_g_co2e
    assert run.record()["stopped"] == "every epoch done"


def test_a_budget_that_allows_too_few_epochs_stops_before_the_student_and_says_what_it_takes():
    epoch_g = toy.STEPS_PER_EPOCH * toy.STEP_KWH * 100.0
    run = toy.make_run(grid=(100.0,), students=2, budget_g_co2e=5 * epoch_g, least_epochs=3)
    with pytest.raises(BudgetSpentError, match=r"2 of 2 students .* 3 epochs each .* 1\.837 gCO2e"):
        toy.train(run.attend(1))
    assert run.book.steps == 0


def test_an_unknown_grid_is_charged_at_the_highest_seen_or_as_coal_and_counted_apart():
    run = toy.make_run(grid=(None,))
    toy.train(run.attend(toy.SEED))
    assert run.book.g_co2e == pytest.approx(ALL_STEPS * toy.STEP_KWH * 800.0)
    assert run.book.assumed_kwh == pytest.approx(run.book.kwh)
    run = toy.make_run(grid=(120.0, None, 90.0))
    toy.train(run.attend(toy.SEED))
    assert run.book.g_co2e == pytest.approx(4 * toy.STEP_KWH * (120.0 + 120.0 + 90.0))
    assert run.book.assumed_kwh == pytest.approx(4 * toy.STEP_KWH)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_an_intensity_that_is_no_number_is_refused(bad: float):
    with pytest.raises(TrainingError, match="carbon intensity is"):
        toy.train(toy.make_run(grid=(bad,)).attend(toy.SEED))


@pytest.mark.parametrize("bad", [math.nan, -1.0])
def test_an_energy_that_is_no_number_is_refused(bad: float):
    with pytest.raises(TrainingError, match="energy used so far"):
        CarbonRun(CarbonSettings(), intensity=lambda: 100.0, energy_kwh=lambda: bad)


def test_without_a_meter_steps_are_assumed_and_a_budget_is_refused():
    run = toy.make_run(metered=False)
    toy.train(run.attend(toy.SEED))
    assert run.book.assumed_steps == ALL_STEPS
    assert run.book.kwh == pytest.approx(ALL_STEPS * toy.STEP_KWH)
    with pytest.raises(TrainingError, match="budget needs to know the energy"):
        toy.make_run(metered=False, budget_g_co2e=1.0)


def test_epochs_are_put_off_by_the_callable_and_that_changes_no_weight(plain):
    asked = []

    def defer(share_left: float) -> float:
        asked.append(share_left)
        return 1.5 if share_left == 0.5 else 0.0

    run = toy.make_run(defer=defer)
    assert toy.same_weights(toy.train(run.attend(toy.SEED)), plain)
    assert asked == [1.0, 0.75, 0.5, 0.25]
    assert (run.book.waits, run.book.waited_h) == (1, 1.5)


def test_temperature_falls_in_a_line_over_the_used_share():
    assert [annealed(4.0, used) for used in (0.0, 0.5, 1.0, 2.0)] == [4.0, 2.5, 1.0, 1.0]
    run = toy.make_run(temperature=4.0)
    control, seen = run.attend(toy.SEED), []
    plain_temperature = control.temperature
    control.temperature = lambda: seen.append(plain_temperature()) or seen[-1]
    toy.train(control)
    assert seen == pytest.approx([4.0 - 3.0 * k / 12 for k in range(12)])


def test_temperature_over_carbon_follows_the_grid_and_over_steps_does_not(plain):
    def trained(grid, **settings):
        return toy.train(toy.make_run(grid=grid, **settings).attend(toy.SEED))

    one, other = (100.0, 300.0), (300.0, 100.0)
    steps = {"temperature": 4.0, "anneal": "steps"}
    assert toy.same_weights(trained(one, **steps), trained(other, **steps))
    assert not toy.same_weights(trained(one, **steps), plain)
    carbon = {"temperature": 4.0, "anneal": "carbon", "reference_g_per_kwh": 200.0}
    assert not toy.same_weights(trained(one, **carbon), trained(other, **carbon))
    # A grid that never changes: the carbon's share used is the steps' share.
    still = trained((200.0,), **carbon)
    close = zip(still.state_dict().values(), trained((5.0,), **steps).state_dict().values())
    assert all((a - b).abs().max() < 1e-4 for a, b in close)


def test_learning_rate_by_intensity_follows_the_grid_and_rests_where_it_is_unknown(plain):
    scaled = toy.make_run(grid=(100.0, 300.0), rate_by_intensity=1.0)
    assert not toy.same_weights(toy.train(scaled.attend(toy.SEED)), plain)
    unknown = toy.make_run(grid=(None,), rate_by_intensity=1.0)
    assert toy.same_weights(toy.train(unknown.attend(toy.SEED)), plain)


def test_a_run_killed_with_signal_9_goes_on_bit_for_bit(tmp_path: Path):
    folder, step = tmp_path / "c", 8
    child = subprocess.Popen(
        [sys.executable, str(HERE / "carbon_child.py"), str(folder), str(step)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    with child:
        assert child.stdout.readline() == "hanging\n"
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    again = toy.make_run(folder, resume=True, **toy.EVENTFUL)
    resumed = toy.train(again.attend(toy.SEED))
    whole = toy.make_run(**toy.EVENTFUL)
    assert toy.same_weights(resumed, toy.train(whole.attend(toy.SEED)))
    assert again.book.steps == ALL_STEPS  # what was lost since the last checkpoint was not booked


def test_a_finished_student_is_taken_from_its_checkpoint_without_a_step(tmp_path: Path, plain):
    toy.train(toy.make_run(tmp_path / "c").attend(toy.SEED))
    again = toy.make_run(tmp_path / "c", resume=True)
    assert toy.same_weights(toy.train(again.attend(toy.SEED)), plain)
    assert again.book.steps == ALL_STEPS


def test_a_checkpoint_that_was_cut_short_is_refused_in_one_line(tmp_path: Path):
    toy.train(toy.make_run(tmp_path / "c").attend(toy.SEED))
    path = tmp_path / "c" / f"student-{toy.SEED}.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainingError, match="is no checkpoint of a training run") as error:
        toy.make_run(tmp_path / "c", resume=True)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_student_or_run_is_refused(tmp_path: Path):
    toy.train(toy.make_run(tmp_path / "c").attend(toy.SEED))
    wider = replace(toy.SHAPE, width=16)
    control = toy.make_run(tmp_path / "c", resume=True).attend(toy.SEED)
    with pytest.raises(TrainingError, match="of another student"):
        toy.train_student(toy.make_batches(), wider, toy.CONFIG, toy.SEED,
                          loss=toy.student_loss, control=control)  # fmt: skip
    (tmp_path / "c" / "run.json").write_text(json.dumps({"format": 1, "fingerprint": "other"}))
    with pytest.raises(TrainingError, match="other patients or settings"):
        toy.make_run(tmp_path / "c", resume=True)


def test_folders_hold_one_run_each(tmp_path: Path):
    toy.make_run(tmp_path / "c")
    with pytest.raises(TrainingError, match="already holds something"):
        toy.make_run(tmp_path / "c")
    with pytest.raises(TrainingError, match="no run to resume"):
        toy.make_run(tmp_path / "d", resume=True)
    with pytest.raises(TrainingError, match="no checkpoint folder"):
        toy.make_run(resume=True)


@pytest.mark.parametrize("bad", [
    {"budget_g_co2e": 0.0}, {"budget_g_co2e": math.nan}, {"temperature": 0.0},
    {"temperature": math.inf}, {"rate_by_intensity": -1.0},
    {"least_epochs": 0}, {"step_kwh": 0.0}, {"unknown_g_per_kwh": math.nan},
])  # fmt: skip
def test_settings_that_make_no_sense_are_refused(bad: dict):
    with pytest.raises(TrainingError, match=next(iter(bad))):
        CarbonSettings(**bad)


def test_the_book_goes_to_json_and_back():
    book = CarbonBook(kwh=0.1 + 0.2, g_co2e=3.0, steps=7, highest_g_per_kwh=None)
    assert CarbonBook.of(json.loads(json.dumps(book.as_dict()))) == book
