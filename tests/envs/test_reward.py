"""Credits against pairs counted one by one; every kind telescopes to the change of its value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import bounds_problem as bounds
from envs.expected import expected_labels
from envs.observation import ObservationLayout
from envs.reward import (
    WEIGHT_UNIT,
    auc,
    credit,
    credit_basis,
    expected_credit,
    half_win_change,
    half_wins,
    midpoint_credit,
    pooled_auc,
    weighted_auc,
    whole_weights,
)
from envs.tables import PatientTables, patient_tables
from envs.toy import toy_evidence

# Few distinct values, so that ties are common.
SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


def counted_auc(pos: list[float], neg: list[float]) -> float:
    won = sum(1.0 if p > q else 0.5 if p == q else 0.0 for p in pos for q in neg)
    return won / (len(pos) * len(neg))


def test_three_pairs_by_hand() -> None:
    # 2 beats 1 and 0; 1 ties with 1 and beats 0: (1 + 1 + 1/2 + 1) / 4.
    pos, neg = np.float32([[2.0, 1.0]]), np.float32([[1.0, 0.0]])
    wins = half_wins(pos, neg)
    assert wins.tolist() == [7]
    assert auc(wins, 2, 2).tolist() == [3.5 / 4]


@given(pos=SCORES, neg=SCORES)
@settings(max_examples=60, deadline=None)
def test_half_wins_are_the_mann_whitney_statistic(pos: list[int], neg: list[int]) -> None:
    wins = half_wins(np.float32([pos]), np.float32([neg]))
    assert auc(wins, len(pos), len(neg))[0] == pytest.approx(counted_auc(pos, neg), abs=1e-15)


@given(pos=SCORES, neg=SCORES, new=st.integers(-3, 3))
@settings(max_examples=60, deadline=None)
def test_credit_is_the_change_of_auc_for_either_class(
    pos: list[int], neg: list[int], new: int
) -> None:
    moved = np.float32([new])
    up = half_win_change(np.float32([pos[0]]), moved, np.float32([neg]))
    change = counted_auc([new, *pos[1:]], neg) - counted_auc(pos, neg)
    assert auc(up, len(pos), len(neg))[0] == pytest.approx(change, abs=1e-15)
    down = -half_win_change(np.float32([neg[0]]), moved, np.float32([pos]))
    change = counted_auc(pos, [new, *neg[1:]]) - counted_auc(pos, neg)
    assert auc(down, len(pos), len(neg))[0] == pytest.approx(change, abs=1e-15)


def test_sessions_are_counted_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pos, neg = np.float32(rng.normal(size=(7, 5))), np.float32(rng.normal(size=(7, 4)))
    whole = half_wins(pos, neg)
    monkeypatch.setattr("envs.reward.CHUNK_PAIRS", 45)
    assert half_wins(pos, neg).tolist() == whole.tolist()


def toy_tables() -> PatientTables:
    evidence = toy_evidence(90, 3)
    layout = ObservationLayout(evidence.modalities, evidence.transfers)
    return patient_tables(evidence, np.arange(90), layout)


TABLES = toy_tables()
N_POS, N = 5, 13


def values(kind: str, patient: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """The quantity whose change each kind credits, worked out anew from all scores."""
    score = TABLES.logit[patient * TABLES.n_sets + sets]
    if kind == "auc":
        wins = half_wins(score[:, :N_POS], score[:, N_POS:])
        return auc(wins, N_POS, N - N_POS)
    if kind == "expected_auc":
        return weighted_auc(score, whole_weights(expected_labels(TABLES))[patient])
    p = 1.0 / (1.0 + np.exp(-score.astype(np.float64)))
    y = np.arange(N) < N_POS
    if kind == "brier":
        return -((p - y) ** 2).mean(axis=1)
    return np.where(y, np.log(p), np.log(1.0 - p)).mean(axis=1)


def walk(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Random transfers on random cases: what was credited, and by how much the value changed."""
    patient = np.stack(
        [
            np.r_[
                rng.choice(TABLES.positives, N_POS, replace=False),
                rng.choice(TABLES.negatives, N - N_POS, replace=False),
            ]
            for _ in range(4)
        ]
    )
    basis = credit_basis(kind, TABLES, N_POS)  # type: ignore[arg-type]
    sets, total, rows = np.zeros((4, N), dtype=np.int64), np.zeros(4), np.arange(4)
    start = values(kind, patient, sets)
    for _ in range(60):
        case = rng.integers(0, N, 4)
        before = sets[rows, case]
        who = patient[rows, case]
        open_ = TABLES.is_open[before] & TABLES.has_source[who]
        pick = (rng.random(open_.shape) * open_).argmax(axis=1)
        after = np.where(open_.any(axis=1), TABLES.next_set[before, pick], before).astype(np.int64)
        score = TABLES.logit[patient * TABLES.n_sets + sets]
        total += credit(basis, score=score, patient=patient, case=case, before=before, after=after)
        sets[rows, case] = after
    return total, values(kind, patient, sets) - start


@pytest.mark.parametrize("kind", ["auc", "expected_auc", "logloss", "brier"])
def test_credits_telescope_to_the_change_of_their_value(kind: str) -> None:
    total, change = walk(kind, np.random.default_rng(11))
    assert total == pytest.approx(change, abs=1e-6 if kind in ("logloss", "brier") else 1e-13)
    assert np.abs(change).min() > 1e-3


def test_expected_credit_is_the_bounds_weighted_auc() -> None:
    """Ties, extreme weights and a case that stays put included."""
    rng = np.random.default_rng(2)
    probability = np.clip(rng.random((6, 9)) * 1.4 - 0.2, 0.0, 1.0)
    weight = whole_weights(probability.ravel()).reshape(6, 9)
    score = np.float32(rng.integers(-2, 3, (6, 9)))
    case, new = rng.integers(0, 9, 6), np.float32(rng.integers(-2, 3, 6))
    old = score[np.arange(6), case]
    gained = expected_credit(score, weight, case, old, new)
    moved = score.copy()
    moved[np.arange(6), case] = new
    for row in range(6):
        exact = weight[row] / WEIGHT_UNIT
        change = bounds.weighted_auc(moved[row].astype(float), exact) - bounds.weighted_auc(
            score[row].astype(float), exact
        )
        assert gained[row] == pytest.approx(change, abs=1e-15)
        whole = weighted_auc(moved[row : row + 1], weight[row : row + 1])[0]
        assert whole == pytest.approx(
            bounds.weighted_auc(moved[row].astype(float), exact), abs=1e-15
        )


def test_expected_credit_with_labels_as_weights_is_the_auc_credit() -> None:
    rng = np.random.default_rng(4)
    score = np.float32(rng.normal(size=(5, 7)))
    weight = np.tile(np.where(np.arange(7) < 3, WEIGHT_UNIT, 0), (5, 1)).astype(np.int64)
    case, new = np.array([0, 1, 2, 4, 6]), np.float32(rng.normal(size=5))
    gained = expected_credit(score, weight, case, score[np.arange(5), case], new)
    moved = score.copy()
    moved[np.arange(5), case] = new
    change = half_wins(moved[:, :3], moved[:, 3:]) - half_wins(score[:, :3], score[:, 3:])
    assert gained.tolist() == auc(change, 3, 4).tolist()


@pytest.mark.parametrize("kind", ["auc", "expected_auc", "logloss", "brier"])
def test_credits_of_a_row_do_not_depend_on_the_batch(kind: str) -> None:
    rng = np.random.default_rng(5)
    patient = np.stack([rng.permutation(90)[:N] for _ in range(33)])
    score = TABLES.logit[patient * TABLES.n_sets]
    case, before = rng.integers(0, N, 33), np.zeros(33, dtype=np.int64)
    open_ = TABLES.has_source[patient[np.arange(33), case]]
    after = TABLES.next_set[0, open_.argmax(axis=1)].astype(np.int64) * open_.any(axis=1)
    basis = credit_basis(kind, TABLES, N_POS)  # type: ignore[arg-type]

    def of(rows: slice) -> np.ndarray:
        return credit(
            basis,
            score=score[rows],
            patient=patient[rows],
            case=case[rows],
            before=before[rows],
            after=after[rows],
        )

    alone = np.concatenate([of(slice(i, i + 1)) for i in range(33)])
    assert of(slice(None)).tobytes() == alone.tobytes()


def test_expected_labels_are_calibrated_and_know_no_single_label() -> None:
    p = expected_labels(TABLES)
    assert ((p > 0.0) & (p < 1.0)).all()
    # A logistic fit with an intercept meets the mean (up to the slight ridge).
    assert p.mean() == pytest.approx(len(TABLES.positives) / 90, abs=1e-2)


@given(pos=SCORES, neg=SCORES, seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_midpoint_parts_sum_to_the_gain(pos: list[int], neg: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = np.float32([pos + neg])
    final = np.float32(rng.integers(-3, 4, first.shape))
    is_positive = np.arange(first.shape[1]) < len(pos)
    # The classes may stand in any order, so long as they stand there in every session.
    order = rng.permutation(first.shape[1])
    parts = midpoint_credit(first[:, order], final[:, order], is_positive[order])
    n = len(pos)
    gain = counted_auc(final[0, :n].tolist(), final[0, n:].tolist()) - counted_auc(pos, neg)
    assert parts.sum() == pytest.approx(gain, abs=1e-14)


def test_midpoint_by_hand() -> None:
    # 0 against 1 becomes 2 against 0: a lost pair is won. The positive's move wins it alone; the
    # negative's move alone makes a tie.
    first, final = np.float32([[0.0, 1.0]]), np.float32([[2.0, 0.0]])
    parts = midpoint_credit(first, final, np.array([True, False]))
    # Positive: (1 - 0)/2 against 1, (1 - 1/2)/2 against 0; negative: (1/2 - 0)/2, (1 - 1)/2.
    assert parts.tolist() == [[0.75, 0.25]]
    still = midpoint_credit(first, first, np.array([True, False]))
    assert still.tolist() == [[0.0, 0.0]]


def test_midpoint_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    first, final = np.float32(rng.normal(size=(2, 9, 8)))
    is_positive = np.arange(8) < 3
    whole = midpoint_credit(first, final, is_positive)
    monkeypatch.setattr("envs.reward.CHUNK_PAIRS", 31)
    assert midpoint_credit(first, final, is_positive).tobytes() == whole.tobytes()


def test_pooled_auc_compares_across_sessions() -> None:
    score = np.float32([[1.0, 0.0], [3.0, 2.0]])
    is_positive = np.array([True, False])
    # Within each session the positive wins; pooled, 1 loses to 2: three of four pairs.
    assert pooled_auc(score, is_positive) == 0.75
    assert pooled_auc(np.float32([[1.0, 1.0]]), is_positive) == 0.5
