from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from distill.ageing import NEEDED_NATS, Ageing, fit_ageing
from distill.arrays import training_data, usable
from distill.errors import BundleError, FeatureError, TrainingError
from distill.evaluate import evaluate_bundle
from distill.gate import TimeGate
from distill.masks import everything_masks
from distill.runtime import StudentRuntime
from distill.student import Student, StudentShape
from distill.temporal import LONGEST, TimeScaler, fit_times, gaps_of
from distill.train import Trainer
from distill.transfers import all_transfers
from distill.write import train_bundle

MODALITIES = ("clinical", "genomics", "pathology")
TRANSFERS = all_transfers(MODALITIES)
DAYS = "days_to_surgery"
SCALER = TimeScaler(names=(DAYS,), scale=(20.0,), longest=(100.0,))


def with_times(cohort, days):
    raw = cohort.manifest.model_dump(mode="json")
    raw["label"]["temporal"] = [DAYS]
    manifest = type(cohort.manifest).model_validate(raw)
    index = pd.Index(cohort.case_id, name="case_id", dtype=object)
    return replace(cohort, manifest=manifest, temporal=pd.DataFrame({DAYS: days}, index=index))


@pytest.fixture(scope="module")
def small_config(tiny_config):
    return replace(tiny_config, epochs=4, boosting_rounds=5, screen_trees=5, synthetic_rows=60)


@pytest.fixture(scope="module")
def timed_cohort(make_cohort):
    rng = np.random.default_rng(5)
    late = rng.random(200) < 0.5
    days = np.where(late, rng.integers(60, 120, 200), rng.integers(0, 10, 200)).astype(float)
    cohort = make_cohort()
    pathology = cohort.tables["pathology"].copy()
    row = pd.Index(cohort.case_id).get_indexer(pathology.index)
    shown = 5.0 * (cohort.label[row] - 0.5) * np.exp(-days[row] / 15.0)
    pathology["area 0"] = np.exp(shown + 0.5 * rng.standard_normal(len(row)))
    days[rng.random(200) < 0.1] = np.nan
    return with_times(replace(cohort, tables={**cohort.tables, "pathology": pathology}), days)


@pytest.fixture(scope="module")
def bundle(timed_cohort, small_config, tmp_path_factory):
    from datetime import UTC, datetime

    return train_bundle(
        timed_cohort, tmp_path_factory.mktemp("timed") / "bundle", config=small_config,
        pipeline_kwh={"clinical": 0.0, "genomics": 0.6, "pathology": 0.06}, transfer_kwh=1e-7,
        created=datetime(2024, 5, 1, tzinfo=UTC),
    )  # fmt: skip


def random_gate(columns=2):
    torch.manual_seed(3)
    start = torch.full((columns, 4), 0.3)
    start[:, 0] = 0.0
    gate = TimeGate(start, start)
    with torch.no_grad():
        for parameter in gate.parameters():
            parameter.normal_(0.0, 0.1)
    return gate


def test_gate_is_one_at_no_gap_and_never_opens_as_the_gap_grows():
    gate = random_gate()
    gap = torch.linspace(0, LONGEST, 200)
    times = torch.stack([gap, torch.full_like(gap, 1.5), *[torch.ones_like(gap)] * 2], dim=1)
    decay = gate.decay(times).detach()
    assert (decay.diff(dim=0) >= 0).all()
    assert (decay.diff(dim=0)[:, 1:].sum(dim=0) > 0).all()
    assert (decay[:, 0] == 0).all()  # clinical data have no time of their own
    none = gate.decay(torch.tensor([[0.0, 0.0, 1.0, 1.0]])).detach()
    assert (none == 0).all()


def test_log_odds_draw_towards_rest_as_the_gap_grows():
    gate = random_gate(columns=1)
    gap = torch.linspace(0, LONGEST, 50)
    decay = gate.decay(torch.stack([gap, torch.ones_like(gap)], dim=1)).detach()
    settled = gate.settle(torch.full((50, 4), 2.0), decay).detach()
    away = (settled - gate.rest.detach() * gate.aged[0]).abs()
    assert (away.diff(dim=0) <= 1e-6).all()
    assert torch.equal(settled[0], torch.full((4,), 2.0))


def test_a_gap_that_is_not_known_has_a_learned_default_of_its_own():
    gate = random_gate(columns=1)
    features = torch.from_numpy(SCALER.transform(np.array([[np.nan], [0.0], [40.0]])))
    assert features.tolist() == [[0.0, 0.0], [0.0, 1.0], [2.0, 1.0]]
    decay = gate.decay(features).detach()
    assert torch.equal(decay[0], gate.rates()[2][0].detach())
    assert (decay[0, 1:] > 0).all()


def ageing_patients(rate, n=3000):
    """A teacher's log-odds that are right on average, of a state that fades with the gap."""
    rng = np.random.default_rng(11)
    gap = rng.exponential(1.0, n)
    label = (rng.random(n) < 0.4).astype(int)
    away = 1.5 * (2 * label - 1) * np.exp(-rate * gap) + rng.standard_normal(n)
    gap[rng.random(n) < 0.1] = np.nan
    scaler = TimeScaler(names=(DAYS,), scale=(1.0,), longest=(10.0,))
    return label, away - 0.4, scaler.transform(gap[:, None])


def test_ageing_finds_what_fades_and_only_that():
    label, logit, times = ageing_patients(rate=0.6)
    found = fit_ageing(logit, label, times, prior=-0.4)
    assert 0.3 <= found.rates[0] <= 1.0
    aged = found.apply(logit, times)
    old = times[:, 0] > 2
    assert (np.abs(aged[old] + 0.4) <= np.abs(logit[old] + 0.4) / found.temperature).all()
    unknown = found.apply(logit, np.zeros_like(times))
    share = np.exp(-found.unknown[0]) / found.temperature
    assert np.allclose(unknown + 0.4, share * (logit + 0.4))
    rng = np.random.default_rng(0)
    mixed = fit_ageing(logit, label, times[rng.permutation(len(times))], prior=-0.4)
    assert mixed.rates == (0.0,)
    assert mixed.apply(logit, times) is logit


def test_ageing_asks_for_more_evidence_than_a_few_patients_give():
    label, logit, times = ageing_patients(rate=0.6)
    assert NEEDED_NATS > 0
    assert fit_ageing(logit[:40], label[:40], times[:40], prior=-0.4).rates == (0.0,)
    nobody = fit_ageing(np.full(5, np.nan), label[:5], times[:5], prior=0.0)
    assert nobody == Ageing(rates=(0.0,), unknown=(0.0,), temperature=1.0, prior=0.0)


def test_a_gate_starts_where_the_teachers_put_it_and_stays_open_where_nothing_ages():
    open_, fading = (
        Ageing(rates=(rate,), unknown=(rate / 2,), temperature=1.0, prior=0.0)
        for rate in (0.0, 0.5)
    )
    shape = StudentShape(modalities=MODALITIES, transfers=TRANSFERS, features=5, width=8, latent=4,
                         token=8, heads=2, times=(DAYS,),
                         ageing=(open_, open_, fading))  # fmt: skip
    gate = Student(shape).gate
    assert gate is not None
    decay = gate.decay(torch.tensor([[2.0, 1.0], [0.0, 0.0]])).detach()
    assert decay[:, :2].abs().max() == 0
    assert decay[:, 2].tolist() == pytest.approx([1.0, 0.25], abs=0.03)


def test_without_times_there_is_no_gate_and_with_unknown_ones_the_row_may_be_left_out():
    shape = StudentShape(modalities=MODALITIES, transfers=TRANSFERS, features=5, width=8, latent=4,
                         token=8, heads=2)  # fmt: skip
    plain = Student(shape)
    assert not [name for name in plain.state_dict() if name.startswith("gate")]
    timed = Student(replace(shape, times=(DAYS,))).eval()
    x, mask = torch.randn(4, 4, 5), torch.ones(4, 1, 9)
    x[:, 3, :2] = 0.0
    assert torch.equal(timed(x, mask).logit, timed(x[:, :3], mask).logit)
    x[:, 3, :2] = torch.tensor([3.0, 1.0])
    assert not torch.allclose(timed(x, mask).logit, timed(x[:, :3], mask).logit)


def test_with_the_gate_off_every_weight_is_as_without_times(timed_cohort, small_config):
    off = replace(small_config, time_gate=False)
    weights = []
    for cohort in (timed_cohort, replace(timed_cohort, temporal=None)):
        trainer = Trainer(data=usable(training_data(cohort)), config=off)
        student = trainer.student(frozenset())
        weights.append(student.model.state_dict())
        assert student.features(trainer.data).shape[1] == len(MODALITIES)
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(w, weights[1][name]) for name, w in weights[0].items())


def test_a_label_planted_in_a_scored_fold_s_times_tells_nothing_of_others(
    timed_cohort, small_config
):
    data = usable(training_data(timed_cohort))
    fold = 1
    rows = np.flatnonzero(data.fold == fold)
    touched = np.arange(rows.size) % 2 == 0
    planted = data.gap.copy()
    planted[rows[touched], 0] = 500.0 * data.label[rows[touched]]
    masks = everything_masks(np.ones((1, 3), dtype=bool), data.modalities, TRANSFERS)
    before, after = (
        Trainer(data=d, config=small_config).score_fold(fold, masks)
        for d in (data, replace(data, gap=planted))
    )
    assert np.array_equal(before.logit[~touched], after.logit[~touched])
    assert np.array_equal(before.full[~touched], after.full[~touched])
    assert not np.array_equal(before.full[touched], after.full[touched])  # the gate is at work


def test_scaling_is_by_training_rows_and_survives_json():
    fitted = fit_times((DAYS, "weeks"), np.array([[10.0, np.nan], [30.0, np.nan], [50.0, np.nan]]))
    assert fitted.scale == (30.0, 1.0)
    assert fitted.longest == (50.0, 0.0)
    assert TimeScaler.from_json(json.loads(json.dumps(fitted.to_json()))) == fitted
    far = fitted.transform(np.array([[1e6, np.nan]]))
    assert far.tolist() == [[LONGEST, 0.0, 1.0, 0.0]]
    with pytest.raises(BundleError, match=r"preprocess\.json"):
        TimeScaler.from_json({"names": [DAYS]})


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        ({DAYS: -3}, "negative"),
        ({DAYS: float("nan")}, "not a number"),
        ({DAYS: float("inf")}, "beyond"),
        ({DAYS: float("-inf")}, "beyond"),
        ({DAYS: "soon"}, "a word"),
        ({DAYS: True}, "true or false"),
        ({"days_to_surgry": 3}, "Did you mean 'days_to_surgery'"),
    ],
    ids=["negative", "nan", "infinite", "minus-infinite", "word", "flag", "unknown-name"],
)
def test_what_is_no_time_gets_one_clear_error(sent, says):
    with pytest.raises(FeatureError, match=says) as caught:
        SCALER.row(sent)
    assert str(caught.value).startswith("temporal: ")
    assert "surgry" not in str(caught.value)


def test_a_time_that_is_none_or_left_out_is_not_known():
    assert np.isnan(SCALER.row({DAYS: None})).all()
    assert np.isnan(SCALER.row({})).all()
    assert SCALER.row({DAYS: 7}).tolist() == [[7.0]]
    assert SCALER.cautions(SCALER.row({DAYS: 150.0})) == ()
    assert DAYS in SCALER.cautions(SCALER.row({DAYS: 151.0}))[0]


@pytest.mark.parametrize("value", [-1.0, np.inf], ids=["negative", "infinite"])
def test_training_refuses_a_cohort_with_impossible_times(make_cohort, value):
    days = np.full(200, 5.0)
    days[[3, 4]] = value
    with pytest.raises(FeatureError, match="2 of 200 patients have a negative or infinite"):
        training_data(with_times(make_cohort(), days))


def test_training_refuses_a_modality_that_is_called_as_the_times_are(make_cohort):
    cohort = with_times(make_cohort(), np.full(200, 5.0))
    tables = {**cohort.tables, "temporal": cohort.tables["genomics"]}
    with pytest.raises(TrainingError, match="rename the modality"):
        training_data(replace(cohort, tables=tables))


def test_gaps_that_a_cohort_lacks_are_not_known():
    assert np.isnan(gaps_of(None, (DAYS,), 3)).all()
    frame = pd.DataFrame({"other": [1.0, 2.0]})
    assert np.isnan(gaps_of(frame, (DAYS,), 2)).all()


def test_a_served_case_may_come_with_its_times(bundle):
    runtime = StudentRuntime.open(bundle)
    assert runtime.times is not None
    assert runtime.times.names == (DAYS,)
    row = {"clinical": {"age": 61.0}, "pathology": {"area 0": 2.0}}
    run = ["pathology->genomics"]
    unknown, soon, late = (
        runtime.assess(runtime.prepare(row, temporal), run).logit
        for temporal in (None, {DAYS: 0.0}, {DAYS: 110})
    )
    assert len({unknown, soon, late}) == 3
    inside = runtime.prepare({**row, "temporal": {DAYS: 110}})
    assert runtime.assess(inside, run).logit == late
    assert DAYS in runtime.prepare(row, {DAYS: 1000}).cautions[0]
    with pytest.raises(FeatureError, match="negative"):
        runtime.prepare({**row, "temporal": {DAYS: -1}})


def test_a_bundle_without_times_refuses_them(bundle_path):
    runtime = StudentRuntime.open(bundle_path)
    with pytest.raises(FeatureError, match="modality names are unknown"):
        runtime.prepare({"clinical": {"age": 61.0}}, {DAYS: 3})


def test_evaluation_reads_the_cohort_s_times(bundle, timed_cohort):
    runtime = StudentRuntime.open(bundle)
    told = evaluate_bundle(runtime, timed_cohort)["full"]["auc"]["value"]
    days = np.where(np.arange(200) % 2, 0.0, 115.0)
    other = evaluate_bundle(runtime, with_times(timed_cohort, days))["full"]["auc"]["value"]
    silent = evaluate_bundle(runtime, replace(timed_cohort, temporal=None))
    assert told != other
    assert silent["full"]["auc"]["value"] not in (told, other)


def test_the_example_of_a_bundle_with_times_can_be_prepared(bundle):
    runtime = StudentRuntime.open(bundle)
    example = runtime.example()
    assert set(example["temporal"]) == {DAYS}
    assert runtime.prepare(example).cautions == ()
