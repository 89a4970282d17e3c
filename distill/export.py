"""Export the student to one ONNX file, and refuse it where it does not say the same."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32

from distill.errors import BundleError
from distill.lean import LeanStudent
from distill.masks import everything_masks
from distill.quantise import OPSET, finish_graph
from distill.sampling import random_sets
from distill.session import open_session
from distill.student import Student

PARITY_LIMIT = 1e-3
"""Largest allowed difference of log-odds between torch and onnxruntime (float32)."""
PARITY_SETS = 8
LATENCY_RUNS = 100


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own internals; what it writes is checked against torch anyway."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def export_onnx(model: Student, path: Path, identity: str = "") -> None:
    """Write the student with dynamic numbers of patients and of evidence sets.

    Args:
        model: the trained student.
        path: file to write.
        identity: SHA-256 of the weights file that belongs to it, kept in the graph.
    """
    shape = model.shape
    x = torch.zeros(2, shape.inputs, shape.features)
    mask = torch.ones(2, 3, len(shape.tokens))
    batch, sets = torch.export.Dim("batch"), torch.export.Dim("sets")
    with _quiet():
        torch.onnx.export(
            LeanStudent(model).eval(), (x, mask), str(path), dynamo=True, verbose=False,
            external_data=False,
            input_names=["x", "mask"], output_names=["logit", "token_logit", "attention"],
            dynamic_shapes={"x": {0: batch}, "mask": {0: batch, 1: sets}}, opset_version=OPSET,
        )  # fmt: skip
    finish_graph(path, identity)


def check_parity(
    model: Student,
    path: Path,
    x: Float32[np.ndarray, "rows inputs features"],
    present: Bool[np.ndarray, "rows modalities"],
    rng: np.random.Generator,
) -> float:
    """Largest difference of log-odds between torch and the exported file on these patients.

    Raises:
        BundleError: if it exceeds :data:`PARITY_LIMIT`.
    """
    mask = random_sets(present, model.shape, PARITY_SETS, rng)
    mask[:, 0] = everything_masks(present, model.shape.modalities, model.shape.transfers)
    with torch.no_grad():
        expected = model(torch.from_numpy(x), torch.from_numpy(mask))
    got = open_session(path).run(["logit", "token_logit"], {"x": x, "mask": mask})
    worst = max(
        float(np.abs(got[0] - expected.logit.numpy()).max()),
        float(np.abs(got[1] - expected.token_logit.numpy()).max()),
    )
    if not worst <= PARITY_LIMIT:
        raise BundleError(
            f"The exported student differs from the trained one by {worst:.2g} in log-odds; at "
            f"most {PARITY_LIMIT:g} is allowed, so no bundle was written. Train again with "
            "another seed and report this."
        )
    return worst


def median_latency_s(path: Path, x: Float32[np.ndarray, "rows inputs features"],
                     mask: Float32[np.ndarray, "maskrows sets tokens"]) -> float:  # fmt: skip
    """Median time of the exported student for one patient and one set on one core, seconds."""
    session = open_session(path)
    feed = {"x": x[:1], "mask": mask[:1, :1]}
    session.run(["logit"], feed)
    spent = []
    for _ in range(LATENCY_RUNS):
        start = time.perf_counter()
        session.run(["logit"], feed)
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))
