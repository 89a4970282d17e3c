from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from distill.card import objective_line
from distill.choice import BASE, CANDIDATES, Candidate, Chooser, decide, mean_and_error
from distill.cohort import Cohort
from distill.config import TrainConfig
from distill.crossfit import TeacherLattice, TrainingData
from distill.masks import single_masks
from distill.train import Trainer, training_data
from distill.transfers import all_transfers

NAMES = ("up", "same", "noisy", "off")
MADE_UP = (
    Candidate(name="up", weights={"contrast_weight": 0.5}),
    Candidate(name="same", weights={"bridge_latent_weight": 0.0}),
    Candidate(name="noisy", weights={"match_weight": 0.0}),
    Candidate(name="off", weights={"soft_share": 0.0}),
)


def made_up_losses() -> list[dict[str, np.ndarray]]:
    base = np.ones(4)
    gains = {"up": (0.1, 0.2, 0.3), "same": (0.0,) * 3, "noisy": (1.0, -1.0, 0.3),
             "off": (0.5, 0.5, 0.5)}  # fmt: skip
    return [{BASE: base, **{n: base - gains[n][k] for n in NAMES}} for k in range(3)]


def test_what_gains_more_than_one_standard_error_is_adopted():
    config = TrainConfig()
    choice = decide(config, made_up_losses(), MADE_UP)
    assert choice.adopted == ("up", "off")
    assert choice.gain["up"] == pytest.approx((0.2, 0.1 / 3**0.5))
    assert choice.gain["same"] == (0.0, 0.0)
    assert choice.variant == 0b1001
    assert (choice.config.contrast_weight, choice.config.soft_share) == (0.5, 0.0)
    assert choice.config.match_weight == config.match_weight
    assert choice.to_json()["weights"]["contrast_weight"] == 0.5


def test_one_fold_takes_its_error_from_the_patients():
    mean, error = mean_and_error([np.array([1.0, 2.0, 3.0])])
    assert (mean, error) == pytest.approx((2.0, 1 / 3**0.5))


def test_every_candidate_may_switch_a_term_off_or_on():
    base = TrainConfig()
    for candidate in CANDIDATES:
        changed = candidate.applied(base)
        assert changed != base
        assert all(getattr(changed, n) == w for n, w in candidate.weights.items())
    assert any(0.0 in candidate.weights.values() for candidate in CANDIDATES)


@pytest.fixture(scope="module")
def config(tiny_config: TrainConfig) -> TrainConfig:
    return replace(tiny_config, choose_weights=True, choice_epochs=1, choice_folds=1, epochs=1)


def flipped(data: TrainingData, fold: int) -> TrainingData:
    label = data.label.copy()
    label[data.fold == fold] = 1 - label[data.fold == fold]
    return replace(data, label=label)


def small(cohort: Cohort) -> TrainingData:
    """Two modalities, to be quick."""
    return replace(training_data(cohort), modalities=("clinical", "pathology"), privileged=())


def chooser(data: TrainingData, config: TrainConfig) -> Chooser:
    return Chooser(lattice=TeacherLattice(data=data, config=config))


def test_the_choice_never_sees_the_scored_hospitals(tiny_cohort: Cohort, config: TrainConfig):
    data = small(tiny_cohort)
    first, second = chooser(data, config), chooser(flipped(data, 1), config)
    scored = frozenset({1})
    assert first.choice(scored) == second.choice(scored)
    assert set(first.choice(scored).gain) == {c.name for c in CANDIDATES}
    # The control: a fold that the choice may see does change it.
    assert first.choice(scored) != chooser(flipped(data, 2), config).choice(scored)


def test_scores_of_a_fold_do_not_depend_on_its_labels_with_chosen_weights(
    tiny_cohort: Cohort, config: TrainConfig
):
    data = small(tiny_cohort)
    masks = single_masks(data.modalities, all_transfers(data.modalities))
    scores = [
        Trainer(data=d, config=config).score_fold(1, masks).full for d in (data, flipped(data, 1))
    ]
    assert np.array_equal(scores[0], scores[1])


def test_pairs_of_folds_share_their_short_fits(tiny_cohort: Cohort, config: TrainConfig):
    made = chooser(small(tiny_cohort), replace(config, choice_folds=2))
    assert made.groups(frozenset({0})) == (frozenset({1}), frozenset({4}))
    unseen = {frozenset({f}) | g for f in range(5) for g in made.groups(frozenset({f}))}
    assert len(unseen) == 5


def test_fixed_weights_are_not_chosen(tiny_cohort: Cohort, tiny_config: TrainConfig):
    made = chooser(small(tiny_cohort), tiny_config)
    assert made.choice(frozenset({0})).config is made.lattice.config
    assert made.choice(frozenset({0})).adopted == ()


def test_the_card_tells_what_was_chosen():
    config = TrainConfig()
    chosen = decide(config, made_up_losses(), MADE_UP).to_json()
    line = objective_line({"chosen": True, "serving": chosen, "folds": {"0": chosen}})
    assert "up, off; 1 of the 1 students" in line
    assert "contrast_weight 0.5" in line
    assert "fixed by the settings" in objective_line({"chosen": False, "serving": chosen})
