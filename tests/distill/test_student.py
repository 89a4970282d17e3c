from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.calibrate import Calibration, calibration_masks, disagreement, fit_calibration, lacking
from distill.errors import BundleError
from distill.losses import latent_regression, soft_cross_entropy, weighted_mean
from distill.masks import everything_masks, set_masks, single_masks
from distill.preprocess import fit_preprocessor
from distill.sampling import random_sets, swapped_rows
from distill.student import Student, StudentShape, TeacherNet, count_parameters
from distill.table import RawTable, TableSchema
from distill.temperature import fit_temperature, log_loss
from distill.transfers import EvidenceSets, all_transfers

MODALITIES = ("clinical", "genomics", "pathology")
TRANSFERS = all_transfers(MODALITIES)
SHAPE = StudentShape(modalities=MODALITIES, transfers=TRANSFERS, features=5, width=8, latent=4,
                     token=8, heads=2)  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    student = Student(SHAPE).eval()
    with torch.no_grad():  # the interaction starts at zero: give it something to say
        student.interaction[2].weight.normal_()
        student.bridge_share.normal_()
    return student


def sets_of(model, x, mask):
    with torch.no_grad():
        return model(torch.from_numpy(x), torch.from_numpy(mask)).logit.numpy()


def test_all_sets_in_one_pass_equal_each_set_alone(model):
    x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    masks = set_masks(EvidenceSets.enumerate(TRANSFERS), MODALITIES)
    together = sets_of(model, x, np.repeat(masks[None], 4, axis=0))
    for k in (0, 1, 17, 63):
        alone = sets_of(model, x, np.repeat(masks[None, k : k + 1], 4, axis=0))
        assert np.allclose(together[:, k], alone[:, 0], atol=1e-6)


def test_what_is_masked_has_no_influence(model):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 3, 5)).astype(np.float32)
    other = x.copy()
    other[:, 2] = rng.standard_normal((3, 5))
    mask = np.zeros((3, 1, 9), dtype=np.float32)
    mask[:, :, [0, 1]] = 1
    mask[:, :, 3 + [t.name for t in TRANSFERS].index("genomics->pathology")] = 1
    assert np.array_equal(sets_of(model, x, mask), sets_of(model, other, mask))
    mask[:, :, 2] = 1
    assert not np.allclose(sets_of(model, x, mask), sets_of(model, other, mask))


def test_attention_is_a_share_and_is_zero_where_masked(model):
    x = torch.randn(2, 3, 5)
    mask = torch.zeros(2, 2, 9)
    mask[:, 1, :2] = 1
    attention = model(x, mask).attention
    assert (attention[:, 0] == 0).all()  # an empty set leaves all of it on the absent token
    assert (attention[:, 1, 2:] == 0).all()
    assert ((attention.sum(-1) > 0) == torch.tensor([False, True])).all()
    assert (attention.sum(-1) < 1).all()


def test_default_sizes_stay_small():
    for n, most in ((3, 40_000), (4, 55_000)):
        names = ("clinical", "genomics", "pathology", "radiomics")[:n]
        shape = StudentShape(modalities=names, transfers=all_transfers(names), features=65)
        assert 20_000 < count_parameters(Student(shape)) < most


def test_gradient_reaches_every_parameter(model):
    model.train()
    out = model(torch.randn(6, 3, 5), torch.ones(6, 2, 9))
    encoded = model.encode(torch.randn(6, 3, 5))
    (out.logit.sum() + encoded.bridge_latent.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_teacher_net_gives_latent_and_log_odds():
    latent, logit = TeacherNet(5, 4)(torch.randn(7, 5))
    assert latent.shape == (7, 4)
    assert logit.shape == (7,)


def test_random_sets_never_use_what_is_absent():
    rng = np.random.default_rng(0)
    present = rng.random((50, 3)) < 0.6
    present[:, 0] = True
    mask = random_sets(present, SHAPE, 40, rng)
    assert not mask[:, :, :3][np.repeat(~present[:, None], 40, axis=1)].any()
    source = list(SHAPE.sources)
    assert (mask[:, :, 3:] <= mask[:, :, source]).all()


def test_random_sets_cover_reviews_and_single_modalities():
    present = np.ones((200, 3), dtype=bool)
    mask = random_sets(present, SHAPE, 60, np.random.default_rng(0)).reshape(-1, 9)
    seen = {tuple(row) for row in mask.astype(int)}
    singles = single_masks(MODALITIES, TRANSFERS).astype(int)
    assert all(tuple(row) in seen for row in singles)
    reviews = set_masks(EvidenceSets.enumerate(TRANSFERS), MODALITIES).astype(int)
    assert np.mean([tuple(row) in seen for row in reviews]) > 0.95
    everything = everything_masks(present[:1], MODALITIES, TRANSFERS)[0]
    assert (mask == everything).all(axis=1).mean() > 0.2


def test_swapped_rows_keep_columns_and_derive_the_burden_anew():
    rng = np.random.default_rng(0)
    values = (rng.random((40, 12)) < 0.3).astype(float)
    raw = RawTable(schema=TableSchema(numbers=tuple("abcdefghijkl"), texts=()), numbers=values,
                   texts=np.empty((40, 0), dtype=object))  # fmt: skip
    synthetic = swapped_rows(raw, 2000, 0.35, rng)
    assert np.abs(synthetic.numbers.mean(axis=0) - values.mean(axis=0)).max() < 0.05
    fitted = fit_preprocessor(raw)
    burden = fitted.select([12]).transform(synthetic)[:, 0]
    assert np.corrcoef(burden, np.log1p(synthetic.numbers.sum(axis=1)))[0, 1] > 0.999
    real = {tuple(row) for row in values}
    assert np.mean([tuple(row) not in real for row in synthetic.numbers]) > 0.5


def test_losses_by_hand():
    logit, half = torch.zeros(2), torch.tensor([0.5, 1.0])
    one = torch.ones(2)
    assert soft_cross_entropy(logit, half, one).item() == pytest.approx(np.log(2))
    hidden = torch.tensor([1.0, 0.0])
    wild = torch.tensor([0.0, 50.0])
    assert soft_cross_entropy(wild, torch.zeros(2), hidden).item() == pytest.approx(np.log(2))
    assert weighted_mean(one, torch.zeros(2)).item() == 0.0
    estimate, latent = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 3.0], [9.0, 9.0]]])
    assert latent_regression(estimate, latent, torch.tensor([[1.0, 0.0]])).item() == 5.0


def test_mixed_target_is_the_mixture_of_losses():
    logit, hard, soft, one = torch.tensor([0.7]), torch.tensor([1.0]), torch.tensor([0.3]), 1
    weight = torch.full((1,), float(one))
    mixed = soft_cross_entropy(logit, 0.3 * hard + 0.7 * soft, weight)
    parts = 0.3 * soft_cross_entropy(logit, hard, weight)
    parts = parts + 0.7 * soft_cross_entropy(logit, soft, weight)
    assert mixed.item() == pytest.approx(parts.item(), abs=1e-6)


def test_temperature_finds_what_was_multiplied_in():
    rng = np.random.default_rng(0)
    z = 2 * rng.standard_normal(20_000)
    label = (rng.random(20_000) < 1 / (1 + np.exp(-z))).astype(int)
    assert fit_temperature(z, label) == pytest.approx(1.0, abs=0.05)
    assert fit_temperature(3 * z, label) == pytest.approx(3.0, abs=0.15)
    assert fit_temperature(np.array([np.nan]), np.array([1])) == 1.0
    assert log_loss(np.zeros(3), np.array([0, 1, 1])) == pytest.approx(np.log(2))


def test_calibration_is_per_mixture_and_survives_json():
    masks = calibration_masks(MODALITIES, TRANSFERS)
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 4000)
    base = (2.0 * label - 1 + 2 * rng.standard_normal(4000)) / 2.0
    factor = np.where(masks[:, 1] > 0, 4.0, 1.0)
    calibration = fit_calibration(MODALITIES, masks, base[:, None] * factor[None], label)
    got = calibration.of_masks(masks)
    assert np.allclose(got / got[0], factor, rtol=0.05)
    assert Calibration.from_json(calibration.to_json()) == calibration
    with pytest.raises(BundleError, match=r"calibration\.json"):
        Calibration.from_json({"modalities": ["a"], "default": 1, "temperature": {"b": 1}})


def test_disagreement_by_hand_and_lacking():
    token = np.array([[1.0, 3.0, 100.0]])
    mask = np.array([[1, 1, 0], [1, 0, 0]], dtype=np.float32)
    assert np.allclose(disagreement(token, mask), [[1.0, 0.0]])
    present = np.array([[True, False, True]])
    needs = np.array([[1, 1, 0], [1, 0, 1]], dtype=np.float32)
    assert lacking(needs, present).tolist() == [[True, False]]
