"""What is looked up is what would be put together, and large batches are small ones bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from envs import sight
from envs.config import RULES
from envs.engine import ReviewEngine
from envs.setup import ReviewSetup, build_setup
from envs.sight import BATCH, Sight
from envs.toy import toy_evidence

EVIDENCE = toy_evidence(60, 0, ("clinical", "genomics", "pathology", "radiomics"))


def made(setup: ReviewSetup) -> Sight:
    return Sight(setup.tables, setup.gain_model, setup.layout)


def test_one_at_a_time_or_all_at_once_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = build_setup(evidence=EVIDENCE, n_cases=8)
    at = np.random.default_rng(0).integers(0, len(setup.tables.logit), 3 * BATCH)
    kept = made(setup)
    monkeypatch.setattr(sight, "MOST_NUMBERS", 0)
    never_kept = made(setup)
    for name in ("case", "steps", "possible"):
        rows = getattr(kept, name)(at)
        assert rows.tobytes() == getattr(never_kept, name)(at).tobytes()
        alone = [getattr(made(setup), name)(at[i : i + 1]) for i in range(len(at))]
        assert rows.tobytes() == np.concatenate(alone).tobytes()


@pytest.mark.parametrize("rules", RULES)
def test_a_large_batch_is_its_sessions_alone(rules: str) -> None:
    setup = build_setup(
        evidence=EVIDENCE, rules=rules, n_cases=12, setup_factor=2.0, session_h_max=30
    )
    n = BATCH + 5
    batch = ReviewEngine(setup, n)
    batch.begin(np.arange(n), [np.random.default_rng(i) for i in range(n)])
    singles = {
        row: ReviewEngine(
            build_setup(
                evidence=EVIDENCE, rules=rules, n_cases=12, setup_factor=2.0, session_h_max=30
            ),
            1,
        )
        for row in (0, 7, n - 1)
    }
    for row, single in singles.items():
        single.begin(np.array([0]), [np.random.default_rng(row)])
    rng = np.random.default_rng(1)
    for _ in range(60):
        actions = (rng.random(batch.mask.shape) * batch.mask).argmax(axis=1)
        seen, outcome = batch.observe(), batch.step(actions)
        for row, single in singles.items():
            assert single.observe()[0].tobytes() == seen[row].tobytes()
            alone = single.step(actions[row : row + 1])
            assert alone.reward[0] == outcome.reward[row]
            assert single.mask[0].tobytes() == batch.mask[row].tobytes()
