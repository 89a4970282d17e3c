from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from distill.cohort import Cohort
from distill.config import PRESETS, TrainConfig
from distill.crossfit import TeacherLattice, inner_groups, seed_for
from distill.errors import TrainingError
from distill.fit import soft_labels
from distill.teacher import CANDIDATES, choose, fit_teacher, screen
from distill.train import training_data


@pytest.fixture(scope="module")
def lattice(tiny_cohort: Cohort, tiny_config: TrainConfig) -> TeacherLattice:
    return TeacherLattice(data=training_data(tiny_cohort), config=tiny_config)


def test_each_remaining_fold_is_held_out_once():
    assert inner_groups({0, 2, 3}) == (frozenset({0}), frozenset({2}), frozenset({3}))
    many = inner_groups(range(12))
    assert len(many) == 5
    assert sorted(f for group in many for f in group) == list(range(12))


def test_seeds_depend_on_what_is_left_out_only(tiny_config: TrainConfig):
    first = seed_for(tiny_config, 3, {1, 2})
    assert first == seed_for(tiny_config, 3, [2, 1])
    others = {seed_for(tiny_config, 3, {1}), seed_for(tiny_config, 4, {1, 2}),
              seed_for(replace(tiny_config, seed=1), 3, {1, 2})}  # fmt: skip
    assert first not in others
    assert len(others) == 3


def test_held_out_log_odds_cover_exactly_who_may_be_seen(lattice: TeacherLattice):
    data = lattice.data
    teacher, logit = lattice.teacher("genomics", frozenset({0}))
    having = np.isin(np.arange(data.label.size), data.tables["genomics"].row)
    assert np.array_equal(np.isfinite(logit), having & (data.fold != 0))
    assert teacher.choice in CANDIDATES
    assert 0.2 <= teacher.temperature <= 8


def test_fits_are_shared_between_the_folds_that_need_them(lattice: TeacherLattice):
    pair = frozenset({0, 1})
    assert lattice.fit("genomics", pair) is lattice.fit("genomics", frozenset({1, 0}))


def test_teachers_learn_and_privileged_ones_join_the_soft_label(lattice: TeacherLattice):
    data = lattice.data
    together, each = soft_labels(lattice, frozenset({0}))
    seen = data.fold != 0
    label = data.label.astype(float)
    assert np.isfinite(together[seen]).all()
    assert np.corrcoef(together[seen], label[seen])[0, 1] > 0.5
    assert each.shape == (data.label.size, 3)


def test_screening_keeps_what_tells(tiny_config: TrainConfig):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 300)
    features = rng.standard_normal((300, 60)).astype(np.float32)
    features[:, [7, 31]] += 2 * label[:, None]
    kept = screen(features, label, tiny_config, seed=0)
    assert {7, 31} <= set(kept)
    assert len(kept) == tiny_config.screen_to
    assert screen(features[:, :5], label, tiny_config, seed=0) == (0, 1, 2, 3, 4)


def test_the_candidate_with_least_held_out_loss_is_chosen():
    label = np.array([0, 1] * 50)
    good = 3.0 * (2 * label - 1) + np.random.default_rng(0).standard_normal(100)
    held_out = {"logistic": -good, "boosting": good, "blend": 0 * good}
    assert choose(held_out, label)[0] == "boosting"


def test_too_few_patients_and_too_few_folds_are_refused(
    tiny_cohort: Cohort, tiny_config: TrainConfig
):
    data = training_data(tiny_cohort)
    raw = data.tables["genomics"].raw.take(np.arange(12))
    with pytest.raises(TrainingError, match=r"hold 12 patients.*role = \"ignored\""):
        fit_teacher("genomics", raw, np.array([0, 1] * 6), tiny_config, 0)
    with pytest.raises(TrainingError, match="3 folds"):
        training_data(replace(tiny_cohort, fold=tiny_cohort.fold % 3))
    tables = {"clinical": tiny_cohort.tables["clinical"]}
    with pytest.raises(TrainingError, match="at least two"):
        training_data(replace(tiny_cohort, tables=tables))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name: str):
    assert TrainConfig.preset(name, seed=3).seed == 3


@pytest.mark.parametrize(
    "changes", [{"threads": -1}, {"heads": 5}, {"swap_rate": 0.0}, {"epochs": 0}]
)
def test_impossible_settings_are_refused(changes: dict[str, int]):
    with pytest.raises(TrainingError):
        replace(TrainConfig(), **changes)
    with pytest.raises(TrainingError, match="Unknown preset"):
        TrainConfig.preset("quik")
