from __future__ import annotations

from threading import Thread

import numpy as np
import pytest
from scipy import stats

from agent.workflow.drift import (
    ALPHA,
    FEWEST,
    DriftMonitor,
    DriftReference,
    _two_shares,
    drift_row,
)
from agent.workflow.told import DriftRow
from distill.evidence import EvidenceTable
from distill.transfers import EvidenceSets, all_transfers

MODALITIES = ("clinical", "genomics", "pathology")
SETS = EvidenceSets.enumerate(all_transfers(MODALITIES))
TRAINING = 600


def training(seed: int = 0) -> EvidenceTable:
    rng = np.random.default_rng(seed)
    n, k = TRAINING, len(SETS.bits)
    present = np.stack([np.ones(n, bool), rng.random(n) < 0.7, rng.random(n) < 0.98], axis=1)
    done = SETS.processed(MODALITIES)
    reach = (~present).astype(int) @ done.T.astype(int) == 0
    logit = np.where(reach, rng.normal(0.3, 1.2, (n, 1)) + np.zeros((1, k)), np.nan)
    return EvidenceTable(
        cohort="toy", synthetic=True, modalities=MODALITIES, sets=SETS,
        case_id=tuple(str(i) for i in range(n)), group=tuple(str(i % 9) for i in range(n)),
        fold=np.zeros(n, np.int16), label=(np.arange(n) % 2).astype(np.int8), present=present,
        quality=np.where(present, 0.9 + 0.1 * rng.random((n, 3)), 0).astype(np.float32),
        logit=logit.astype(np.float32), disagreement=np.zeros((n, k), np.float32),
        pipeline_kwh=np.zeros(3), transfer_kwh=np.zeros(len(SETS.transfers)), meta={},
    )  # fmt: skip


TABLE = training()
REFERENCE = DriftReference(evidence=TABLE)


def rows_of(picked: np.ndarray, *, shift: float = 0.0, lose: float = 0.0,
            rng: np.random.Generator) -> list[DriftRow]:  # fmt: skip
    """Training patients as cases, moved or with genomics lost as planted."""
    rows = []
    for i in picked:
        there = [m for m, has in zip(MODALITIES, TABLE.present[i]) if has]
        if rng.random() < lose:
            there = [m for m in there if m != "genomics"]
        rows.append(DriftRow(present=there, logit=float(TABLE.logit[i, 0]) + shift))
    return rows


def alarms(n: int, times: int, **planted: float) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(n)
    found = []
    for _ in range(times):
        monitor = DriftMonitor(REFERENCE)
        picked = rng.integers(0, TRAINING, n)
        monitor.restore((str(j), row) for j, row in enumerate(rows_of(picked, rng=rng, **planted)))
        found.append(monitor.report().alarms)
    return found


def new_patients(n: int, rng: np.random.Generator) -> list[DriftRow]:
    """Others of whom the training patients were drawn too."""
    genomics, pathology = rng.random(n) < 0.7, rng.random(n) < 0.98
    return [
        DriftRow(
            present=["clinical", *["genomics"] * bool(g), *["pathology"] * bool(p)],
            logit=float(x),
        )
        for x, g, p in zip(rng.normal(0.3, 1.2, n), genomics, pathology)
    ]


@pytest.mark.parametrize("n", [FEWEST, 60, 200])
def test_without_a_shift_alarms_are_rare_at_every_size(n: int) -> None:
    rng = np.random.default_rng(n)
    tables = [DriftReference(evidence=training(seed)) for seed in range(12)]
    alarmed = []
    for i in range(300):
        monitor = DriftMonitor(tables[i % len(tables)])
        monitor.restore((str(j), row) for j, row in enumerate(new_patients(n, rng)))
        alarmed.append(bool(monitor.report().alarms))
    assert np.mean(alarmed) <= ALPHA + 0.03  # ALPHA at most, and some room for chance


def test_a_planted_shift_of_the_scores_is_found() -> None:
    found = alarms(100, 60, shift=0.8)
    assert np.mean(["the scores" in said for said in found]) > 0.9


def test_a_planted_loss_of_data_is_found_and_named() -> None:
    found = alarms(100, 60, lose=0.4)
    assert np.mean(["how often genomics is missing" in said for said in found]) > 0.9
    assert np.mean(["how often pathology is missing" in said for said in found]) < 0.1


def test_few_cases_are_not_compared() -> None:
    monitor = DriftMonitor(REFERENCE)
    for i in range(FEWEST - 1):
        monitor.observe(str(i), DriftRow(present=["clinical"], logit=9.0))
    assert monitor.report().alarms == ()
    (gauge,) = monitor.gauges()
    assert (gauge.name, gauge.value) == ("greenboard_drift_window_cases", FEWEST - 1)
    monitor.observe("last", DriftRow(present=["clinical"], logit=9.0))
    assert len(monitor.report().alarms) == 3


@pytest.mark.parametrize(
    ("here", "n", "there", "m"),
    [(3, 20, 180, 600), (0, 50, 12, 600), (30, 50, 300, 600), (5, 5, 0, 40)],
)
def test_the_test_of_two_shares_is_the_exact_one(here: int, n: int, there: int, m: int) -> None:
    law = stats.hypergeom(n + m, here + there, n)
    expected = min(1.0, 2 * min(law.cdf(here), law.sf(here - 1)))
    assert _two_shares(here, n, there, m) == pytest.approx(expected, rel=1e-9)


def test_distance_and_index_are_those_of_the_definitions() -> None:
    rng = np.random.default_rng(4)
    monitor = DriftMonitor(REFERENCE)
    rows = rows_of(rng.integers(0, TRAINING, 80), shift=0.3, rng=rng)
    monitor.restore((str(i), row) for i, row in enumerate(rows))
    scores = monitor.report().scores
    assert scores is not None
    window = np.array([row.logit for row in rows])
    reference = TABLE.logit[:, 0].astype(float)
    assert scores.ks == pytest.approx(stats.ks_2samp(window, reference).statistic)
    # one in a hundred or so would be larger by chance, at a third of ALPHA
    assert scores.ks_critical == pytest.approx(
        stats.kstwobign.isf(ALPHA / 3) * np.sqrt(1 / 80 + 1 / TRAINING)
    )
    assert scores.psi_critical == pytest.approx(
        stats.chi2.isf(ALPHA / 3, 9) * (1 / 80 + 1 / TRAINING)
    )
    same = DriftMonitor(REFERENCE, window=TRAINING)
    same.restore((str(i), DriftRow(present=[], logit=float(x))) for i, x in enumerate(reference))
    again = same.report().scores
    assert again is not None
    assert again.ks == pytest.approx(0.0, abs=1e-12)
    assert again.psi == pytest.approx(0.0, abs=1e-12)


def test_the_window_forgets_and_counts_a_case_once() -> None:
    monitor = DriftMonitor(REFERENCE, window=30)
    row = DriftRow(present=["clinical"], logit=0.0)
    for _ in range(3):
        monitor.observe("same", row)
    assert monitor.report().n == 1
    for i in range(50):
        monitor.observe(str(i), row)
    assert monitor.report().n == 30


def test_it_is_rebuilt_from_stored_rows() -> None:
    rng = np.random.default_rng(6)
    rows = rows_of(rng.integers(0, TRAINING, 120), lose=0.5, rng=rng)
    first, second = DriftMonitor(REFERENCE), DriftMonitor(REFERENCE)
    for i, row in enumerate(rows):
        first.observe(str(i), row)
    stored = [(str(i), row.model_dump_json()) for i, row in enumerate(rows)]
    second.restore((case, DriftRow.model_validate_json(text)) for case, text in stored)
    assert first.gauges() == second.gauges()
    assert first.report().alarms


def test_threads_may_observe_at_once() -> None:
    monitor = DriftMonitor(REFERENCE, window=400)
    row = DriftRow(present=["clinical"], logit=0.0)

    def feed(name: int) -> None:
        for i in range(100):
            monitor.observe(f"{name}-{i}", row)
            if i % 25 == 0:
                monitor.gauges()

    threads = [Thread(target=feed, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.report().n == 400


def test_gauges_are_named_and_labelled_once_each() -> None:
    rng = np.random.default_rng(8)
    monitor = DriftMonitor(REFERENCE)
    rows = rows_of(rng.integers(0, TRAINING, 50), rng=rng)
    rows = [row.model_copy(update={"outside": {"genomics": 0.1}}) for row in rows]
    monitor.restore((str(i), row) for i, row in enumerate(rows))
    gauges = monitor.gauges()
    names = [(gauge.name, tuple(gauge.labels.items())) for gauge in gauges]
    assert len(set(names)) == len(names)
    assert all(name.startswith("greenboard_drift_") for name, _ in names)
    assert ("greenboard_drift_missing_alarm", (("modality", "pathology"),)) in names
    (share,) = [g.value for g in gauges if g.name == "greenboard_drift_outside_share"]
    assert share == pytest.approx(0.1)
    assert all(np.isfinite(gauge.value) for gauge in gauges)


USUAL = {
    "present": ["clinical", "genomics", "pathology"],
    "quality": dict.fromkeys(MODALITIES, 0.95),
    "outside": {"clinical": (0, 5), "genomics": (2, 30), "pathology": None},
    "transfers_run": [],
    "logit": 0.3,
}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, None),
        ({"outside": {"genomics": (4, 30)}}, "genomics: 4 of 30 numbers lie outside"),
        ({"outside": {"genomics": (4, 100)}}, None),  # a few always do
        ({"present": ["clinical"]}, "training patients had exactly clinical"),
        ({"quality": {"genomics": 0.4}}, "genomics: 40 % filled in; 99 % of the training"),
        ({"logit": 9.0}, "Extreme score: higher than those of 100.0 % of the 600"),
        ({"logit": -9.0}, "Extreme score: lower than"),
    ],
)
def test_a_case_is_flagged_for_what_is_unusual(changed: dict, words: str | None) -> None:
    flags = REFERENCE.flags(**USUAL | changed)
    if words is None:
        assert flags == []
    else:
        (flag,) = flags
        assert words in flag


def test_few_training_patients_would_be_flagged() -> None:
    flagged = []
    for i in range(TRAINING):
        there = [m for m, has in zip(MODALITIES, TABLE.present[i]) if has]
        quality = dict(zip(MODALITIES, map(float, TABLE.quality[i])))
        flagged.append(bool(REFERENCE.flags(
            present=there, quality={m: quality[m] for m in there}, outside={}, transfers_run=[],
            logit=float(TABLE.logit[i, 0]),
        )))  # fmt: skip
    # by construction 1 % for the score, 1 % a modality for how complete it is, and rare mixes
    assert np.mean(flagged) < 0.06


def test_a_row_holds_no_more_than_the_watch_needs() -> None:
    row = drift_row(
        present=["clinical"], outside={"clinical": (1, 4), "genomics": None},
        probability_clinical_only=0.75, flags=["x"],
    )  # fmt: skip
    assert row.logit == pytest.approx(np.log(3.0))
    assert row.outside == {"clinical": 0.25}
    assert row.flagged
    assert drift_row(present=[], outside={}, probability_clinical_only=1.0, flags=[]).logit < 30
