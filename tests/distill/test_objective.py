from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.batches import Batches
from distill.config import WEIGHTS, TrainConfig
from distill.errors import TrainingError
from distill.fit import doubts, remixed
from distill.loop import Draw, draw_batch, train_student
from distill.objective import DISTILLED, set_loss, student_loss, supervised_twin
from distill.student import Student, StudentShape
from distill.transfers import all_transfers

MODALITIES = ("clinical", "genomics", "pathology")
SHAPE = StudentShape(
    modalities=MODALITIES, transfers=all_transfers(MODALITIES), features=6, width=8, latent=4,
    token=8, heads=2,
)  # fmt: skip
CONFIG = replace(
    TrainConfig.preset("quick", threads=1), epochs=3, batch=16, width=8, latent=4, token=8, heads=2,
    contrast_weight=0.2, relational_weight=0.3,
)  # fmt: skip


def make_batches(rows: int = 32, synthetic: int = 20) -> Batches:
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    label = (torch.arange(rows) % 2).float()
    soft = torch.sigmoid(normal(rows))
    present = np.random.default_rng(0).random((rows, 3)) < 0.8
    present[:, 0] = True
    return Batches(
        x=normal(rows, 3, 6), present=present, target=0.3 * label + 0.7 * soft, label=label,
        labelled=torch.ones(rows), teacher=torch.sigmoid(normal(rows, 3)),
        latent=normal(rows, 3, 4), synthetic_x=normal(synthetic, 3, 6),
        synthetic_logit=normal(synthetic, 3), prior=0.0,
    )  # fmt: skip


def trained(data: Batches, config: TrainConfig) -> Student:
    return train_student(data, SHAPE, config, 5, loss=student_loss)


def same(first: Student, second: Student) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values())
    return all(torch.equal(a, b) for a, b in pairs)


NAN = float("nan")


@pytest.mark.parametrize(
    ("weights", "spoilt"),
    [
        (("match_weight", "fused_match_weight"), ("synthetic_logit", "synthetic_x")),
        (("bridge_latent_weight", "contrast_weight", "relational_weight"), ("latent",)),
        (("bridge_soft_weight",), ("teacher",)),
    ],
)
def test_a_weight_of_zero_is_the_training_without_the_term_bit_for_bit(
    weights: tuple[str, ...], spoilt: tuple[str, ...]
):
    # What only that term reads is filled with NaN: were it read at all, the weights would be NaN.
    data, off = make_batches(), replace(CONFIG, **dict.fromkeys(weights, 0.0))
    nothing = {name: torch.full_like(getattr(data, name), NAN) for name in spoilt}
    assert same(trained(data, off), trained(replace(data, **nothing), off))
    assert not same(trained(data, off), trained(data, CONFIG))


@pytest.mark.parametrize("name", [n for n in WEIGHTS if n != "bridge_task_weight"])
def test_every_term_has_a_part_when_its_weight_is_not_zero(name: str):
    data = make_batches()
    assert not same(trained(data, CONFIG), trained(data, replace(CONFIG, **{name: 0.0})))


def test_the_supervised_twin_hears_no_teacher():
    data, twin = make_batches(), supervised_twin(CONFIG)
    assert all(getattr(twin, name) == 0 for name in DISTILLED)
    deaf = replace(
        remixed(data, 0.7, 0.0), teacher=data.teacher * NAN, latent=data.latent * NAN,
        synthetic_logit=data.synthetic_logit * NAN,
    )  # fmt: skip
    assert torch.equal(deaf.target, data.label)
    assert same(trained(deaf, twin), trained(replace(data, target=data.label), twin))
    assert (twin.epochs, twin.sets_per_patient) == (CONFIG.epochs, CONFIG.sets_per_patient)


def test_same_seed_same_weights():
    assert same(trained(make_batches(), CONFIG), trained(make_batches(), CONFIG))


def test_targets_are_mixed_anew():
    data = make_batches()
    again = remixed(remixed(data, 0.7, 0.35), 0.35, 0.7)
    assert torch.allclose(again.target, data.target, atol=1e-6)
    half = remixed(data, 0.7, 0.35).target
    assert torch.allclose(half, (data.label + data.target) / 2, atol=1e-6)
    with pytest.raises(TrainingError, match="soft_share is 0"):
        remixed(data, 0.0, 0.5)


@pytest.mark.parametrize(
    "changes", [{"contrast_weight": -0.1}, {"relational_weight": NAN}, {"match_weight": np.inf},
                {"contrast_temperature": 0.0}, {"doubt_share": 1.5},
                {"choice_folds": 0}, {"choice_epochs": 0}]
)  # fmt: skip
def test_impossible_weights_are_refused(changes: dict[str, float]):
    with pytest.raises(TrainingError, match=r"contrast|relational|match|choice|doubt"):
        replace(TrainConfig(), **changes)


def test_doubt_is_two_less_twice_the_auc_of_the_teachers_sum():
    label = np.array([0, 0, 1, 1, 1])
    knows = np.array([-2.0, -1.0, 1.0, 2.0, np.nan])
    guesses = np.array([0.0, 1.0, 0.0, 1.0, np.nan])
    worse = np.array([1.0, 1.0, -1.0, np.nan, np.nan])
    got = doubts(np.column_stack([knows, guesses, worse]), label, 0.0)
    # none, knows, guesses, knows + guesses, worse than guessing (with whatever else it has)
    assert got[:5].tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]
    alone = doubts(np.column_stack([knows, np.full(5, np.nan)]), label, 0.0)
    assert alone.tolist() == [1.0, 0.0, 1.0, 1.0]
    assert doubts(knows[:, None], np.ones(5, dtype=np.int64), 0.0).tolist() == [1.0, 1.0]


def drawn(data: Batches, config: TrainConfig) -> Draw:
    return draw_batch(data, np.arange(16), SHAPE, config, np.random.default_rng(0))


def test_full_doubt_asks_the_teachers_of_the_set_and_none_the_label():
    data = make_batches()
    draw = drawn(data, CONFIG)
    fused = torch.zeros(draw.mask.shape[:2])

    def loss(doubt: float, teacher: torch.Tensor) -> float:
        changed = replace(data, doubt=torch.full((8,), doubt), teacher=teacher)
        return set_loss(fused, changed, draw, CONFIG).item()

    without = set_loss(fused, data, draw, CONFIG).item()
    assert loss(0.0, data.teacher) == pytest.approx(without, rel=1e-5)
    off = replace(CONFIG, doubt_share=0.0)
    assert set_loss(fused, replace(data, doubt=torch.ones(8)), draw, off).item() == without
    # At log-odds of 0 the cross-entropy is log 2 whatever the target; elsewhere the teachers tell.
    assert loss(1.0, data.teacher) == pytest.approx(float(np.log(2)), rel=1e-5)
    fused = fused + 2.0
    sure, unsure = torch.full_like(data.teacher, 0.99), torch.full_like(data.teacher, 0.01)
    assert loss(1.0, sure) < loss(1.0, unsure)
    assert loss(0.0, sure) == pytest.approx(loss(0.0, unsure))
