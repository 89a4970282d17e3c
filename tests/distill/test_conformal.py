from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from distill.calibrate import Calibration, calibration_masks, fit_calibration
from distill.cohort import Cohort
from distill.config import TrainConfig
from distill.conformal import Conformal, fit_conformal, members, threshold
from distill.errors import BundleError, TrainingError
from distill.train import Trained, Trainer, training_data
from distill.transfers import all_transfers

MODALITIES = ("clinical", "genomics")
TRANSFERS = all_transfers(MODALITIES)
MASKS = calibration_masks(MODALITIES, TRANSFERS)
ONE = np.array([[1.0, 0.0, 0.0, 0.0]], dtype=np.float32)


@pytest.mark.parametrize("n", [9, 10, 57, 99, 100, 819])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_one_row_a_group_is_split_conformal_prediction(n, level):
    score = np.random.default_rng(n).standard_normal(n)
    rank = math.ceil((n + 1) * level - 1e-9)
    expected = np.sort(score)[rank - 1] if rank <= n else math.inf
    assert threshold(score, np.arange(n), level) == expected


def test_hospitals_weigh_alike_whatever_their_size():
    # 4 hospitals weigh 1/5 each; the big one's 100 patients share its fifth.
    score = np.concatenate([np.arange(100.0) / 100, [1.0, 2.0, 3.0]])
    hospital = np.array(["big"] * 100 + ["x", "y", "z"])
    assert threshold(score, hospital, 0.1) == pytest.approx(0.49)
    assert [threshold(score, hospital, q) for q in (0.2, 0.4, 0.6, 0.8)] == [0.99, 1.0, 2.0, 3.0]
    assert threshold(score, hospital, 0.81) == math.inf
    # Counted by patients the big hospital would decide alone.
    assert threshold(score, np.arange(103), 0.9) == pytest.approx(0.93)


def test_rows_of_one_patient_weigh_as_one():
    rng = np.random.default_rng(3)
    score = rng.standard_normal(50)
    twice = np.repeat(score, 2)
    group = np.repeat(np.arange(50), 2)
    assert threshold(twice, group, 0.9) == threshold(score, np.arange(50), 0.9)


def test_exchangeable_patients_are_covered_within_binomial_error():
    rng = np.random.default_rng(0)
    draws, n, level = 3000, 59, 0.9
    covered = sum(
        rng.standard_normal() <= threshold(rng.standard_normal(n), np.arange(n), level)
        for _ in range(draws)
    )
    # The exact probability is ceil((n + 1) level) / (n + 1) = 54 / 60.
    low, high = binom.ppf([0.0005, 0.9995], draws, 54 / 60)
    assert low <= covered <= high


def test_a_new_hospital_is_covered_where_hospitals_are_the_unit():
    rng = np.random.default_rng(1)
    draws, hospitals, size = 1500, 39, 5
    group = np.repeat(np.arange(hospitals), size)
    covered = []
    for _ in range(draws):
        shift = 2.0 * rng.standard_normal(hospitals + 1)
        score = shift[group] + rng.standard_normal(group.size)
        covered.append(shift[-1] + rng.standard_normal() <= threshold(score, group, 0.9))
    low = binom.ppf(0.0005, draws, 0.9)
    assert low <= np.sum(covered) <= binom.ppf(0.9995, draws, 0.9 + 1 / (hospitals + 1))


def held_out(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    logit = 2.0 * label - 1 + 1.5 * rng.standard_normal(n)
    return np.repeat(logit[:, None], len(MASKS), axis=1), label


def test_every_class_is_covered_also_where_the_classes_differ():
    logit, label = held_out(3000)
    logit = np.where(label[:, None] == 1, 3 * logit, logit)
    fitted = fit_conformal(MODALITIES, MASKS, logit[:1500], label[:1500])
    inside = members(logit[1500:, 0], np.repeat(fitted.of_masks(MASKS[:1]), 1500, axis=0))
    for kind in (0, 1):
        of_class = label[1500:] == kind
        assert inside[of_class, kind].mean() == pytest.approx(0.9, abs=0.035)


@given(
    score=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    levels=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    hospitals=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_more_is_kept_at_a_higher_level_and_never_below_the_share(score, levels, hospitals):
    values = np.array(score)
    group = np.arange(values.size) % hospitals
    low, high = (threshold(values, group, q) for q in sorted(levels))
    assert low <= high
    weight = 1.0 / ((np.unique(group).size + 1.0) * np.bincount(group)[group])
    for level, limit in zip(sorted(levels), (low, high)):
        if math.isfinite(limit):
            assert weight[values <= limit].sum() >= level - 1e-6
            assert weight[values < limit].sum() < level + 1e-6


@given(
    logit=st.floats(allow_nan=True, allow_infinity=True),
    limits=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
)
@settings(max_examples=60, deadline=None)
def test_a_class_is_ruled_out_by_log_odds_beyond_its_threshold_only(logit, limits):
    inside = members(np.array([logit]), np.array([limits]))[0]
    assert inside.tolist() == [not logit > limits[0], not -logit > limits[1]]


def test_equals_the_crepes_library():
    crepes = pytest.importorskip("crepes", reason="crepes is not installed: pip install crepes")
    logit, label = held_out(217, seed=4)
    test, _ = held_out(200, seed=5)
    fitted = fit_conformal(MODALITIES, MASKS, logit, label)
    ours = members(test[:, 0], np.repeat(fitted.of_masks(MASKS[:1]), 200, axis=0))
    # Class-conditional: the calibration patients of each class are its Mondrian category.
    strange = np.where(label == 1, -logit[:, 0], logit[:, 0])
    theirs = []
    for kind, sign in ((0, 1.0), (1, -1.0)):
        classifier = crepes.ConformalClassifier().fit(strange[label == kind])
        sets = classifier.predict_set(sign * test[:, :1], confidence=0.9, smoothing=False)
        theirs.append(sets[:, 0].astype(bool))
    assert np.array_equal(ours, np.stack(theirs, axis=1))


@pytest.mark.parametrize(
    ("score", "level", "message"),
    [
        ([], 0.9, "held-out patients with finite log-odds; there are 0"),
        ([0.0, np.nan], 0.9, "there are 2, 1 of them finite"),
        ([0.0], 1.0, "lies between 0 and 1; this one is 1.0"),
        ([0.0], 0.0, "lies between 0 and 1"),
        ([0.0], np.nan, "lies between 0 and 1"),
    ],
)
def test_an_empty_calibration_and_impossible_levels_are_refused(score, level, message):
    with pytest.raises(TrainingError, match=message):
        threshold(np.array(score), np.arange(len(score)), level)


def test_nobody_held_out_is_refused_and_one_class_is_never_ruled_out():
    logit, label = held_out(80)
    with pytest.raises(TrainingError, match="there are none"):
        fit_conformal(MODALITIES, MASKS, np.full_like(logit, np.nan), label)
    fitted = fit_conformal(MODALITIES, MASKS, logit, np.ones_like(label))
    negative, positive = fitted.of_masks(MASKS[:1])[0]
    assert negative == math.inf
    assert math.isfinite(positive)


def test_few_patients_rule_nothing_out():
    logit, label = np.zeros((8, len(MASKS))), np.array([0, 1] * 4)
    fitted = fit_conformal(MODALITIES, MASKS, logit, label)
    assert np.isinf(fitted.of_masks(MASKS)).all()


def test_thresholds_survive_json_infinite_and_unknown_ones_included():
    logit, label = held_out(200)
    label[:] = np.where(np.arange(200) < 6, 0, 1)
    calibration = fit_calibration(MODALITIES, MASKS, logit, label)
    text = json.dumps(calibration.to_json(), allow_nan=False)
    assert Calibration.from_json(json.loads(text)) == calibration
    assert calibration.conformal is not None
    assert math.isinf(calibration.conformal.of_masks(ONE)[0, 0])
    nothing = np.zeros_like(ONE)
    assert np.isinf(calibration.conformal.of_masks(nothing)).all()
    assert calibration.members(np.array([99.0]), nothing).all()
    assert calibration.level == 0.9
    assert calibration.prior_logit == pytest.approx(math.log(194.5 / 6.5))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"level": 0.9},
        {"level": "high", "threshold": {}},
        {"level": 0.9, "threshold": {"clinical": [1.0]}},
        {"level": 0.9, "threshold": {"radiomics": [1.0, 2.0]}},
        {"level": 0.9, "threshold": {"clinical": ["a", "b"]}},
        {"level": 0.9, "threshold": []},
    ],
)
def test_unreadable_thresholds_get_one_clear_error(data):
    with pytest.raises(BundleError, match=r"calibration\.json: conformal is not readable"):
        Conformal.from_json(data, MODALITIES)


def test_a_calibration_of_an_earlier_version_still_loads_and_rules_nothing_out():
    old = {"modalities": list(MODALITIES), "default": 1.1, "temperature": {"clinical": 1.2}}
    calibration = Calibration.from_json(old)
    assert calibration.level is None
    assert calibration.prior_logit == 0.0
    assert calibration.members(np.array([9.0]), ONE).tolist() == [[True, True]]


def test_labels_of_the_scored_fold_change_no_temperature_and_no_threshold(
    trained: Trained, tiny_cohort: Cohort, tiny_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    # That they do not reach the student either is tested in test_train.py, bit for bit.
    monkeypatch.setattr(Trainer, "student", lambda self, *folds: trained.student)

    def fitted(flip: int | None) -> Calibration:
        label = tiny_cohort.label.copy()
        if flip is not None:
            label[tiny_cohort.fold == flip] ^= 1
        data = training_data(replace(tiny_cohort, label=label))
        config = replace(tiny_config, calibration_folds=5)
        return Trainer(data=data, config=config).calibration(frozenset({1}))

    plain = fitted(None)
    assert plain.conformal is not None
    assert fitted(1) == plain
    # The control: the same plant in a fold that does calibrate moves every figure.
    assert fitted(2).temperature != plain.temperature
    assert fitted(2).conformal != plain.conformal
