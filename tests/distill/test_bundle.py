from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.bundle import FILES, Bundle, check_target, hash_case_id, new_folder
from distill.errors import BundleError, TrainingError
from distill.export import check_parity, export_onnx
from distill.fit import features_of
from distill.train import Trained
from distill.write import write_bundle


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copy"))


def test_holds_everything_and_nothing_pickled(bundle_path: Path):
    names = {path.name for path in bundle_path.iterdir()}
    assert names == {*FILES, "manifest.json"}
    assert not [n for n in names if n.endswith((".pkl", ".pickle", ".joblib", ".pt", ".pth"))]
    manifest = Bundle.open(bundle_path).manifest
    assert manifest["cohort"] == "tiny"
    assert manifest["synthetic"] is True
    assert manifest["modalities"][0] == "clinical"
    assert manifest["created"] == "2024-05-01T00:00:00+00:00"


def test_size_is_far_below_the_limit(bundle_path: Path):
    assert sum(path.stat().st_size for path in bundle_path.iterdir()) < 10_000_000


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_noticed(copy: Path, name: str):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f"{name} is not as it was written"):
        Bundle.open(copy)


def test_missing_files_wrong_formats_and_escaping_names_are_refused(copy: Path, tmp_path: Path):
    manifest = json.loads((copy / "manifest.json").read_text())
    with pytest.raises(BundleError, match="No bundle at"):
        Bundle.open(tmp_path / "nowhere")
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(BundleError, match="format 1"):
        Bundle.open(copy)
    files = {**manifest["files"], "../outside": {"sha256": "0", "bytes": 1}}
    (copy / "manifest.json").write_text(json.dumps({**manifest, "files": files}))
    with pytest.raises(BundleError, match="lacks"):
        Bundle.open(copy)
    (copy / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(BundleError, match=r"No manifest\.json"):
        Bundle.open(copy)


def test_training_patients_are_kept_as_sums_only(bundle_path: Path, trained: Trained):
    text = (bundle_path / "training_ids.json").read_text()
    assert trained.cohort.case_id[0] not in text
    assert hash_case_id(trained.cohort.case_id[0]) in text


def test_a_half_written_bundle_never_shows(tmp_path: Path):
    def fail_halfway() -> None:
        with new_folder(tmp_path / "bundle") as folder:
            (folder / "a").write_text("x")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert list(tmp_path.iterdir()) == []


def test_an_older_bundle_is_replaced_but_nothing_else_is(copy: Path, tmp_path: Path):
    with new_folder(copy) as folder:
        (folder / "manifest.json").write_text("{}")
    assert [p.name for p in copy.iterdir()] == ["manifest.json"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("mine")
    with pytest.raises(BundleError, match="is not a bundle"):
        check_target(other)
    check_target(tmp_path / "new")


def test_export_says_the_same_as_torch_for_any_number_of_sets(trained: Trained, tmp_path: Path):
    data, student = trained.data, trained.student
    x = features_of(data, student.preprocessors, student.shape.features)
    export_onnx(student.model, tmp_path / "student.onnx")
    rng = np.random.default_rng(0)
    worst = check_parity(student.model, tmp_path / "student.onnx", x, data.present(), rng)
    assert worst < 1e-4


def test_an_export_that_differs_is_refused(trained: Trained, tmp_path: Path):
    data, student = trained.data, trained.student
    x = features_of(data, student.preprocessors, student.shape.features)
    export_onnx(student.model, tmp_path / "student.onnx")
    weight = student.model.encoder.head.bias
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight += 0.01
        with pytest.raises(BundleError, match="no bundle was written"):
            check_parity(
                student.model, tmp_path / "student.onnx", x, data.present(),
                np.random.default_rng(0),
            )  # fmt: skip
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_unknown_pipeline_energy_is_refused_and_leaves_nothing(trained: Trained, tmp_path: Path):
    with pytest.raises(TrainingError, match="No pipeline energy for genomics"):
        write_bundle(
            trained, tmp_path / "out", pipeline_kwh={"clinical": 0.0, "pathology": 0.1},
            transfer_kwh=1e-7, created=datetime(2024, 5, 1, tzinfo=UTC),
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_card_says_what_it_is_for(bundle_path: Path):
    card = (bundle_path / "card.md").read_text()
    assert "Research use only" in card
    assert "SYNTHETIC" in card
