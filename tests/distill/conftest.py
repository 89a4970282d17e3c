from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from distill.cohort import Cohort
from distill.config import TrainConfig
from distill.manifest import CohortManifest
from distill.train import Trained, fit
from distill.write import write_bundle

MANIFEST = {
    "name": "tiny",
    "description": "made up for tests",
    "synthetic": True,
    "label": {
        "table": "labels.csv", "column": "kind", "negative": "A", "positive": "B",
        "group": "site", "fold": "fold",
    },
    "modality": {
        "clinical": {"table": "clinical.csv", "role": "inference",
                     "pipeline": {"core_hours": 0.0}},
        "genomics": {"table": "genomics.csv", "role": "inference",
                     "pipeline": {"core_hours": 20.0, "memory_gb": 32.0}},
        "pathology": {"table": "pathology.csv", "role": "inference",
                      "pipeline": {"core_hours": 0.5, "gpu_hours": 0.1, "memory_gb": 32.0}},
        "proteomics": {"table": "proteomics.csv", "role": "privileged"},
    },
}  # fmt: skip


def make_tiny(seed: int = 0, patients: int = 200, prefix: str = "T") -> Cohort:
    """200 patients of 20 hospitals in 5 folds; signal in every modality, some rows missing."""
    rng = np.random.default_rng(seed)
    label = (rng.random(patients) < 0.5).astype(np.int8)
    site = np.arange(patients) % 20
    ids = np.array([f"{prefix}-{i:04d}" for i in range(patients)], dtype=object)
    shift = label - 0.5

    def frame(values: dict[str, object], missing: float) -> pd.DataFrame:
        table = pd.DataFrame(values, index=pd.Index(ids, name="case_id"))
        return table[rng.random(patients) >= missing]

    age = 60 + 4 * shift + 9 * rng.standard_normal(patients)
    age[rng.random(patients) < 0.1] = np.nan
    stage = np.where(rng.random(patients) < 0.5 + 0.3 * shift, "ii", "i").astype(object)
    # Whoever has no age has a stage: a case without any clinical value is refused.
    stage[(rng.random(patients) < 0.1) & np.isfinite(age)] = None
    rate = np.full(30, 0.2)[None] + shift[:, None] * np.r_[[0.3] * 4, [0.0] * 26][None]
    mutated = (rng.random((patients, 30)) < rate).astype(np.float64)
    areas = np.exp(rng.standard_normal((patients, 12)) + shift[:, None] * np.r_[1.5, [0.0] * 11])
    proteins = rng.standard_normal((patients, 8)) + shift[:, None] * 1.2
    return Cohort(
        manifest=CohortManifest.model_validate(MANIFEST),
        case_id=tuple(ids),
        label=label,
        group=tuple(f"H{s:02d}" for s in site),
        fold=(site % 5).astype(np.int16),
        temporal=None,
        tables={
            "clinical": frame({"age": age, "stage": stage}, 0.0),
            "genomics": frame({f"G{j}": mutated[:, j] for j in range(30)}, 0.15),
            "pathology": frame({f"area {j}": areas[:, j] for j in range(12)}, 0.2),
            "proteomics": frame({f"P{j}": proteins[:, j] for j in range(8)}, 0.3),
        },
    )


TINY_CONFIG = replace(
    TrainConfig.preset("quick", threads=1),
    epochs=15, learning_rate=0.02, screen_to=10, screen_trees=10, boosting_rounds=15,
    synthetic_rows=100, batch=64, width=12, latent=4, token=8, heads=2,
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """As in training: with tensors this small, more threads only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_cohort() -> Cohort:
    return make_tiny()


@pytest.fixture(scope="session")
def tiny_config() -> TrainConfig:
    return TINY_CONFIG


@pytest.fixture(scope="session")
def make_cohort() -> Callable[..., Cohort]:
    return make_tiny


@pytest.fixture(scope="session")
def progress_steps() -> list[tuple[int, int, str]]:
    return []


@pytest.fixture(scope="session")
def trained(tiny_cohort: Cohort, progress_steps: list[tuple[int, int, str]]) -> Trained:
    return fit(tiny_cohort, TINY_CONFIG, lambda *step: progress_steps.append(step))


KWH = {"clinical": 0.0, "genomics": 0.6, "pathology": 0.06}


def write_tiny(trained: Trained, out: Path) -> Path:
    return write_bundle(
        trained, out, pipeline_kwh=KWH, transfer_kwh=1e-7, created=datetime(2024, 5, 1, tzinfo=UTC)
    )


@pytest.fixture(scope="session")
def bundle_path(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(trained, tmp_path_factory.mktemp("bundles") / "tiny")


def assert_same_cohort(first: Cohort, second: Cohort) -> None:
    assert first.case_id == second.case_id
    assert first.group == second.group
    np.testing.assert_array_equal(first.label, second.label)
    np.testing.assert_array_equal(first.fold, second.fold)
    assert first.tables.keys() == second.tables.keys()
    for name, frame in first.tables.items():
        pd.testing.assert_frame_equal(frame, second.tables[name])


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Cohort, Cohort], None]:
    return assert_same_cohort
