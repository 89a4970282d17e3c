"""Sequential AUC credit against pairs counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.reward import auc, half_win_change, half_wins

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
