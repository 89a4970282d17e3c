"""The arrangement that is exported says what the trained student says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.export import export_onnx
from distill.grid import on_grid
from distill.lean import LeanStudent
from distill.quantise import graph_facts, write_int8
from distill.session import open_session
from distill.student import Student, StudentShape
from distill.transfers import all_transfers


def student(modalities: tuple[str, ...], times: tuple[str, ...]) -> Student:
    """A student none of whose numbers is at its start, where some are zero."""
    torch.manual_seed(4)
    shape = StudentShape(
        modalities=modalities, transfers=all_transfers(modalities), features=12, width=10,
        latent=6, token=8, heads=2, times=times,
    )  # fmt: skip
    model = Student(shape).eval().requires_grad_(False)
    for value in model.parameters():
        value.add_(torch.randn_like(value), alpha=0.3)
    return model


def drawn(model: Student, patients: int, sets: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    shape = model.shape
    x = rng.standard_normal((patients, shape.inputs, shape.features)).astype(np.float32)
    if shape.times:
        known = rng.random((patients, len(shape.times))) < 0.7
        gap = np.where(known, 3 * rng.random(known.shape), 0.0)
        x[:, -1] = 0.0
        x[:, -1, : 2 * len(shape.times)] = np.concatenate([gap, known], axis=1)
    return x, (rng.random((patients, sets, len(shape.tokens))) < 0.5).astype(np.float32)


@pytest.mark.parametrize("times", [(), ("days_ct", "days_slide")])
@pytest.mark.parametrize(
    "modalities", [("clinical", "genomics"), ("clinical", "genomics", "pathology", "radiomics")]
)
def test_rearranged_is_the_same_student(modalities: tuple[str, ...], times: tuple[str, ...]):
    model = student(modalities, times)
    x, mask = map(torch.from_numpy, drawn(model, 9, 7))
    mask[0] = 0.0
    expected, got = model(x, mask), LeanStudent(model)(x, mask)
    for one, other in zip(expected, got):
        torch.testing.assert_close(other, one, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("times", [(), ("days_ct",)])
def test_graphs_of_a_student_on_the_grid_hold_the_same_numbers(
    times: tuple[str, ...], tmp_path: Path
):
    model = on_grid(student(("clinical", "genomics", "pathology"), times))
    whole, packed = tmp_path / "s.onnx", tmp_path / "s8.onnx"
    export_onnx(model, whole)
    write_int8(whole, packed)
    assert graph_facts(packed)["constant_bytes"]["int8"] > 0
    for patients, sets in ((1, 1), (5, 3)):
        x, mask = drawn(model, patients, sets)
        expected = model(torch.from_numpy(x), torch.from_numpy(mask))
        for path in (whole, packed):
            for one, other in zip(expected, open_session(path).run(None, {"x": x, "mask": mask})):
                np.testing.assert_allclose(other, one.numpy(), rtol=5e-5, atol=5e-5)
