from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from distill.calibrate import Calibration
from distill.cohort import Cohort
from distill.coverage import conformal_sets, coverage_card, hospital_spread
from distill.evaluate import evaluate_bundle
from distill.metrics import cluster_bootstrap, ece, ece_if_calibrated, means_over_hospitals
from distill.runtime import StudentRuntime
from distill.train import Trained
from distill.transfers import EvidenceSets, all_transfers


def test_card_counted_by_hand():
    label = np.array([0, 0, 1, 1])
    inside = np.array([[True, False], [False, True], [True, True], [False, False]])
    card = coverage_card(label, inside, None, np.random.default_rng(0), 0.9)
    assert card["level"] == 0.9
    got = {k: (v["value"], v["n"]) for k, v in card.items() if k != "level"}
    assert got == {
        "coverage": (0.5, 4), "mean_set_size": (1.0, 4), "singletons": (0.5, 4),
        "undecided": (0.25, 4), "empty": (0.25, 4),
        "coverage_negative": (0.5, 2), "coverage_positive": (0.5, 2),
    }  # fmt: skip


def test_nobody_and_one_class_have_reasons_instead_of_numbers():
    nothing = np.zeros((0, 2), dtype=bool)
    card = coverage_card(np.zeros(0, dtype=int), nothing, None, np.random.default_rng(0), 0.9)
    assert card["coverage"]["reason"] == "no patients"
    inside = np.ones((6, 2), dtype=bool)
    card = coverage_card(np.ones(6, dtype=int), inside, None, np.random.default_rng(0), 0.9)
    assert card["coverage_negative"]["value"] is None
    assert card["coverage_positive"] == {"value": 1.0, "ci95": [1.0, 1.0], "n": 6}


def test_interval_over_hospitals_is_the_cluster_bootstraps():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(30), rng.integers(2, 30, 30))
    value = (rng.random(30)[group] < 0.6).astype(float)
    (fast,) = means_over_hospitals(
        value[:, None], np.ones((group.size, 1), dtype=bool), group, rng, resamples=4000
    )
    low, high = cluster_bootstrap(lambda rows: float(value[rows].mean()), group, rng, 4000)
    assert fast.value == pytest.approx(value.mean())
    assert fast.ci95 == pytest.approx((low, high), abs=0.015)


def test_dispersion_tells_hospitals_that_differ_from_chance():
    rng = np.random.default_rng(1)
    group = [f"H{h:02d}" for h in range(20) for _ in range(30)]
    label = np.zeros(600, dtype=int)
    both = np.ones((600, 2), dtype=bool)
    alike, apart = both.copy(), both.copy()
    alike[:, 0] = rng.random(600) < 0.9
    apart[:, 0] = rng.random(600) < np.repeat(np.r_[[1.0] * 14, [0.6] * 6], 30)
    chance = hospital_spread(label, alike, group, rng)
    differ = hospital_spread(label, apart, group, rng)
    low, high = chance["dispersion"]["ci95"]
    assert low <= chance["dispersion"]["value"] <= high
    assert differ["dispersion"]["value"] > differ["dispersion"]["ci95"][1]
    assert differ["min"] < 0.75 < 1.0 == differ["max"]
    assert len(differ["hospitals"]) == 20
    for row in differ["hospitals"]:
        assert row["ci95"][0] <= row["value"] <= row["ci95"][1]
    nowhere = hospital_spread(label, both, group, rng)["dispersion"]
    assert nowhere["reason"] == "no variance at all"


def test_spread_needs_hospitals_of_ten():
    inside = np.ones((18, 2), dtype=bool)
    rng, label = np.random.default_rng(0), np.zeros(18, dtype=int)
    small = hospital_spread(label, inside, ["A"] * 9 + ["B"] * 9, rng)
    assert small == {"hospitals": [], "reason": "fewer than two hospitals with 10 patients"}
    assert "names no hospitals" in hospital_spread(label, inside, None, rng)["reason"]


def test_a_calibrated_models_error_is_what_is_foretold():
    rng = np.random.default_rng(2)
    p = expit(1.5 * rng.standard_normal(400))
    foretold = ece_if_calibrated(p, rng, 400)
    drawn = [ece((rng.random(400) < p).astype(int), p, rng, 2).value for _ in range(300)]
    assert foretold.ci95 is not None
    assert foretold.value == pytest.approx(np.mean(drawn), abs=0.003)
    assert foretold.ci95[0] < float(np.median(drawn)) < foretold.ci95[1]
    assert foretold.value > 0.03  # not 0, though the model is right
    assert "fewer than" in str(ece_if_calibrated(p[:9], rng).reason)


def test_a_calibration_without_thresholds_gives_no_sets():
    modalities = ("clinical", "genomics")
    old = Calibration(modalities=modalities, temperature={})
    sets = EvidenceSets.enumerate(all_transfers(modalities))
    got = conformal_sets(
        {0: old}, np.zeros(3, dtype=int), np.ones((3, 2), dtype=bool), sets=sets,
        modalities=modalities, full=np.zeros(3), evidence=np.zeros((3, len(sets.bits))),
        single=np.zeros((3, 2)),
    )  # fmt: skip
    assert got is None


def test_metrics_hold_the_sets_of_every_evidence(bundle_path: Path, trained: Trained):
    metrics = json.loads((bundle_path / "metrics.json").read_text())
    cards = [metrics["full"], *metrics["evidence"].values(), *metrics["single"].values()]
    for card in cards:
        shown = card["conformal"]
        assert shown["coverage"]["n"] == card["auc"]["n"]
        assert 0.7 < shown["coverage"]["value"] <= 1.0
        assert 0.0 <= card["ece_if_calibrated"]["value"] < 0.25
        kinds = [shown[k]["value"] for k in ("singletons", "undecided", "empty")]
        assert sum(kinds) == pytest.approx(1.0)
    assert len(metrics["full"]["conformal"]["over_hospitals"]["hospitals"]) == 20
    # By hand: each patient by the calibration of the patient's own fold.
    data, scores = trained.data, trained.out_of_fold
    covered = 0
    for f, fitted in scores.calibration.items():
        assert fitted.conformal is not None
        for i in np.flatnonzero(data.fold == f):
            number = sum(1 << j for j, has in enumerate(data.present()[i]) if has)
            limit = fitted.conformal.threshold[number][data.label[i]]
            covered += (1 - 2 * data.label[i]) * scores.full[i] <= limit
    assert metrics["full"]["conformal"]["coverage"]["value"] == pytest.approx(covered / 200)


def test_an_unseen_cohort_is_scored_with_the_bundles_thresholds(
    bundle_path: Path, make_cohort: Callable[..., Cohort]
):
    runtime = StudentRuntime.open(bundle_path)
    unseen = make_cohort(seed=9, patients=120, prefix="U")
    figures = evaluate_bundle(runtime, unseen)
    assert figures["full"]["conformal"]["coverage"]["n"] == 120
    row = {m: unseen.tables[m].loc["U-0005"].to_dict() for m in ("clinical",)}
    got = runtime.assess(runtime.prepare(row))
    assert got.conformal_level == 0.9
    assert set(got.conformal_set) <= {"A", "B"}
    sign = {"A": 1.0, "B": -1.0}
    assert runtime.calibration.conformal is not None
    limits = runtime.calibration.conformal.threshold[1]
    expected = tuple(k for k, q in zip("AB", limits) if sign[k] * got.logit <= q)
    assert got.conformal_set == expected


def test_contributions_are_what_leaving_out_changes(bundle_path: Path, tiny_cohort: Cohort):
    runtime = StudentRuntime.open(bundle_path)
    names = ("clinical", "genomics", "pathology")
    case = next(
        c for c in tiny_cohort.case_id if all(c in tiny_cohort.tables[m].index for m in names)
    )
    prepared = runtime.prepare({m: tiny_cohort.tables[m].loc[case].to_dict() for m in names})
    run = ["genomics->pathology", "clinical->genomics"]
    whole = runtime.assess(prepared, run)
    assert set(whole.contributions) == {"clinical", "genomics"}
    without = runtime.assess(prepared, ["clinical->genomics"])
    assert whole.contributions["genomics"] == pytest.approx(whole.logit - without.logit, abs=1e-5)
    alone = runtime.assess(prepared)
    prior = runtime.calibration.prior_logit
    assert alone.contributions == pytest.approx({"clinical": alone.logit - prior})
