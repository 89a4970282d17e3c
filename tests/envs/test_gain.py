"""The gain model: its formula, what it may read, and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.evidence import EvidenceTable
from envs.errors import GainError
from envs.gain import GRID_SIZE, GainModel
from envs.setup import build_setup
from envs.toy import toy_evidence


@pytest.fixture(scope="module")
def evidence() -> EvidenceTable:
    return toy_evidence(600, 0)


@pytest.fixture(scope="module")
def model(evidence: EvidenceTable) -> GainModel:
    return GainModel.fit(evidence, np.arange(400), 30, 34)


def test_closed_transfers_gain_nothing(evidence: EvidenceTable, model: GainModel) -> None:
    assert model.table.shape == (64, GRID_SIZE, 6)
    closed = evidence.sets.next_set < 0
    assert not model.table.transpose(0, 2, 1)[closed].any()
    assert model.table.transpose(0, 2, 1)[~closed].any()


def test_prediction_is_the_formula_evaluated_by_hand(
    evidence: EvidenceTable, model: GainModel
) -> None:
    """Averaging over the observed shifts themselves instead of a normal of the same moments."""
    rows = np.arange(400)
    t = next(i for i, tr in enumerate(evidence.transfers) if tr.source == "pathology")
    end = evidence.sets.next_set[0, t]
    logit, label = evidence.logit[rows].astype(float), evidence.label[rows] == 1
    known = np.isfinite(logit[:, end])
    shift = logit[:, end] - logit[:, 0]
    size = 100 * evidence.processed.sum(1) + evidence.sets.membership.sum(1)
    fullest = np.where(evidence.reachable[rows], size, -1).argmax(1)
    held = np.stack([logit[:, 0], logit[rows, fullest]], axis=1)
    at = np.linspace(-2.0, 2.0, 17)
    p = 1 / (1 + np.exp(-at))

    def cdf(scores: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.mean(scores.ravel() <= x[..., None], axis=-1)

    up, down = shift[known & label], shift[known & ~label]
    positive = cdf(held[~label], at[:, None] + up).mean(axis=1) - cdf(held[~label], at)
    negative = cdf(held[label], at) - cdf(held[label], at[:, None] + down).mean(axis=1)
    by_hand = p * positive / 30 + (1 - p) * negative / 34
    predicted = model.predict(np.zeros(17, dtype=np.int64), at.astype(np.float32))[:, t]
    assert np.corrcoef(predicted, by_hand)[0, 1] > 0.95
    assert np.mean(predicted) == pytest.approx(np.mean(by_hand), rel=0.05)


def test_gains_are_largest_where_the_classes_meet(model: GainModel) -> None:
    at = model.predict(np.zeros(3, dtype=np.int64), np.float32([-6.0, 0.0, 6.0]))
    fresh = [not name.startswith("clinical") for name in model.transfers]
    assert (at[1, fresh] > at[0, fresh]).all()
    assert (at[1, fresh] > at[2, fresh]).all()


def test_a_modality_that_says_more_is_expected_to_gain_more(
    evidence: EvidenceTable, model: GainModel
) -> None:
    gain = dict(zip(model.transfers, model.predict(np.array([0]), np.float32([0.0]))[0]))
    assert gain["genomics->pathology"] > 10 * abs(gain["clinical->genomics"])
    assert gain["genomics->pathology"] > 0.001


def test_prediction_tells_realised_credit(evidence: EvidenceTable, model: GainModel) -> None:
    """On rows never seen, the mean realised credit is near the mean predicted one."""
    rows = np.arange(400, 600)
    held_out = evidence.logit[rows].astype(float)
    label = evidence.label[rows] == 1
    t = 0
    end = int(evidence.sets.next_set[0, t])
    ok = np.isfinite(held_out[:, end])
    base = held_out[:, 0]
    credit = np.zeros(len(rows))
    for i in np.flatnonzero(ok):
        others = base[~label] if label[i] else base[label]
        change = np.mean((held_out[i, end] > others).astype(float) - (base[i] > others))
        credit[i] = change / 30 if label[i] else -change / 34
    predicted = model.predict(np.zeros(200, dtype=np.int64), evidence.logit[rows, 0])[:, t]
    assert np.mean(predicted[ok]) == pytest.approx(np.mean(credit[ok]), rel=0.5)
    assert np.corrcoef(predicted[ok], credit[ok])[0, 1] > 0.1


def test_held_out_labels_and_scores_never_reach_it(evidence: EvidenceTable) -> None:
    """Plant nonsense in the held-out fold: what is predicted there does not change by a bit."""
    held_out = evidence.fold == 4
    label = np.where(held_out, 1 - evidence.label, evidence.label).astype(np.int8)
    planted = replace(evidence, label=label)
    args = {"folds": [4], "fit_folds": [0, 1, 2, 3], "n_cases": 20}
    true, false = build_setup(evidence=evidence, **args), build_setup(evidence=planted, **args)
    counts = {(s.n_pos, s.n_neg) for s in (true, false)}
    rows = np.flatnonzero(~held_out)
    for setup in (true, false):
        expected = GainModel.fit(evidence, rows, setup.n_pos, setup.n_neg)
        assert setup.gain_model.table.tobytes() == expected.table.tobytes()
    assert counts  # the counts follow the fold's prevalence; nothing else may differ


def test_too_few_training_rows_of_a_class_are_refused(evidence: EvidenceTable) -> None:
    positives = np.flatnonzero(evidence.label == 1)[:30]
    with pytest.raises(GainError, match="Choose more fit_folds"):
        GainModel.fit(evidence, positives, 10, 10)


def test_it_is_stored_without_pickle_and_comes_back(model: GainModel, tmp_path: Path) -> None:
    path = tmp_path / "gain.npz"
    model.save(path)
    loaded = GainModel.load(path)
    assert loaded.table.tobytes() == model.table.tobytes()
    assert replace(loaded, table=model.table) == model
    with np.load(path, allow_pickle=False) as data:
        assert sorted(data.files) == ["header", "table"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"no archive"])
def test_a_file_that_is_no_gain_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "gain.npz"
    path.write_bytes(content)
    with pytest.raises(GainError, match="not a gain model"):
        GainModel.load(path)
    with pytest.raises(GainError, match="not a gain model"):
        GainModel.load(tmp_path / "absent.npz")


def test_a_gain_model_of_other_evidence_is_refused(model: GainModel) -> None:
    other = toy_evidence(100, 0, ("clinical", "genomics"))
    with pytest.raises(GainError, match="Fit it on this evidence"):
        build_setup(evidence=other, n_cases=8, gain_model=model)
