from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.attribution import feature_importance, integrated_gradients, mean_patient
from distill.card import _hospitals
from distill.student import Student, StudentShape
from distill.train import Trained
from distill.transfers import all_transfers

MODALITIES = ("clinical", "genomics")


@pytest.fixture
def model() -> Student:
    torch.manual_seed(0)
    shape = StudentShape(
        modalities=MODALITIES, transfers=all_transfers(MODALITIES), features=5, width=6, latent=3,
        token=8, heads=2, dropout=0.0,
    )  # fmt: skip
    made = Student(shape).eval()
    with torch.no_grad():
        made.interaction[2].weight.normal_()
        made.bridge_share.fill_(0.5)
    return made


def patients(n: int = 40) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, 2, 5)).astype(np.float32)


def logits(model: Student, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(x), torch.from_numpy(mask[:, None])).logit[:, 0].numpy()


def test_attributions_add_up_to_the_difference_from_the_baseline(model: Student):
    x, mask = patients(), np.ones((40, 4), dtype=np.float32)
    baseline = mean_patient(x, np.ones((40, 2), dtype=bool))
    share = integrated_gradients(model, x, mask, baseline, steps=64)
    gap = logits(model, x, mask) - logits(model, np.repeat(baseline[None], 40, 0), mask)
    assert np.allclose(share.sum(axis=(1, 2)), gap, atol=0.02)


def test_a_linear_student_gets_its_weights_times_the_deviation(model: Student):
    with torch.no_grad():
        for part in (model.encoder.head, model.interaction[2]):
            part.weight.zero_()
        model.bridge_share.zero_()
    x, mask = patients(), np.ones((40, 4), dtype=np.float32)
    baseline = mean_patient(x, np.ones((40, 2), dtype=bool))
    share = integrated_gradients(model, x, mask, baseline, steps=3)
    weight = model.encoder.direct.weight.detach().numpy()[:, :, 0]
    assert np.allclose(share, weight * (x - baseline), atol=1e-5)


def test_features_of_a_masked_modality_get_nothing(model: Student):
    x, mask = patients(), np.zeros((40, 4), dtype=np.float32)
    mask[:, 0] = 1.0
    share = integrated_gradients(model, x, mask, np.zeros((2, 5), dtype=np.float32))
    assert (share[:, 1] == 0).all()
    assert np.abs(share[:, 0]).max() > 0


def test_nobody_has_a_modality():
    x, present = patients(), np.ones((40, 2), dtype=bool)
    present[:, 1] = False
    assert (mean_patient(x, present)[1] == 0).all()


def test_agrees_with_captum(model: Student):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed")
    x, mask = patients(8), np.ones((8, 4), dtype=np.float32)
    baseline = mean_patient(x, np.ones((8, 2), dtype=bool))
    ours = integrated_gradients(model, x, mask, baseline, steps=50)
    theirs = captum.IntegratedGradients(
        lambda points, sets: model(points, sets).logit[:, 0]
    ).attribute(
        torch.from_numpy(x), torch.from_numpy(np.repeat(baseline[None], 8, 0)),
        additional_forward_args=(torch.from_numpy(mask[:, None]),), n_steps=50,
        method="riemann_middle",
    )  # fmt: skip
    assert np.allclose(ours, theirs.numpy(), atol=1e-4)


def test_planted_features_lead_with_the_right_sign(trained: Trained):
    found = feature_importance(
        trained.student, trained.calibration, trained.data, trained.cohort.group, seed=0, top=4
    )
    assert set(found) == {"clinical", "genomics", "pathology"}
    lead = found["pathology"][0]
    assert lead["feature"].startswith("area 0")  # the only one with signal
    assert lead["effect_per_sd"]["ci95"][0] > 0
    assert lead["effect_per_sd"]["n"] == trained.data.present()[:, 2].sum()
    sizes = [row["mean_abs_log_odds"] for row in found["genomics"]]
    assert sizes == sorted(sizes, reverse=True)


def test_the_order_of_patients_and_their_ids_change_no_importance(trained: Trained):
    args = (trained.student, trained.calibration, trained.data)
    renamed = [f"hospital {g}" for g in trained.cohort.group]
    first = feature_importance(*args, trained.cohort.group, seed=0)
    assert first == feature_importance(*args, renamed, seed=0)
    alone = feature_importance(*args, None, seed=0)["pathology"][0]
    assert alone["effect_per_sd"]["value"] == pytest.approx(
        first["pathology"][0]["effect_per_sd"]["value"]
    )


def test_card_and_metrics_tell_associations_and_sets(bundle_path: Path):
    metrics = json.loads((bundle_path / "metrics.json").read_text())
    card = (bundle_path / "card.md").read_text()
    assert metrics["importance"]["pathology"][0]["feature"] in card
    assert "associations that the student uses, not causes" in card
    assert "Calibration error with everything" in card
    assert "it is none for one hospital" in card
    assert not any(name in card for name in ("H00", "H19"))


def test_card_without_hospitals_says_so():
    text = _hospitals({"hospitals": [], "reason": "the cohort names no hospitals"})
    assert "not known: the cohort names no hospitals" in text
