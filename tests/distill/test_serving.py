"""The int8 student: what it holds, when it is served, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from distill import quantise
from distill.bundle import GRAPHS, MANIFEST, STUDENT, STUDENT_INT8, Bundle, new_folder, seal
from distill.errors import BundleError
from distill.fit import features_of
from distill.grid import TorchGraph, on_grid
from distill.parity import Everywhere, answers, choose, compare
from distill.quantise import column_scales, finish_graph, graph_facts, to_int8, write_int8
from distill.runtime import StudentRuntime
from distill.train import Trained
from distill.write import write_bundle


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "copy"))


def reseal(bundle: Path, **changed: object) -> None:
    """Make the sums fit the files, as somebody would who wants an altered bundle to open."""
    facts = json.loads((bundle / MANIFEST).read_text())
    for key in ("files", "seal"):
        facts.pop(key, None)
    seal(bundle, {**facts, **changed})


def test_each_weight_is_within_half_a_step_and_the_grid_stays_where_it_is():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 20, 7)).astype(np.float32) * rng.random((3, 1, 7))
    weight[1, :, 2] = 0.0
    packed = to_int8(weight.astype(np.float32))
    assert np.all(np.abs(packed.weight - weight) <= column_scales(weight) * 0.5001)
    assert np.all(packed.weight[1, :, 2] == 0.0)
    assert np.abs(packed.values).max() == 127
    again = to_int8(packed.weight)
    assert np.array_equal(again.values, packed.values)
    np.testing.assert_allclose(again.weight, packed.weight, rtol=3e-7)


def test_int8_is_what_the_graph_holds_and_unpacking_is_all_that_was_added(bundle_path: Path):
    whole, small = (graph_facts(bundle_path / GRAPHS[p]) for p in ("fp32", "int8"))
    added = {k: v for k, v in small["operators"].items() if v != whole["operators"].get(k)}
    assert set(added) == {"DequantizeLinear"}
    assert "int8" not in whole["constant_bytes"]
    left = small["constant_bytes"]["float"] / whole["constant_bytes"]["float"]
    assert left + 4 * small["constant_bytes"]["int8"] / whole["constant_bytes"]["float"] > 0.99
    assert small["constant_bytes"]["int8"] * 4 > 0.5 * whole["constant_bytes"]["float"]
    assert small["bytes"] < 4_000_000


def test_parity_holds_on_all_patients_and_sets_so_int8_is_served(
    bundle_path: Path, trained: Trained
):
    serving = json.loads((bundle_path / "metrics.json").read_text())["serving"]
    parity = serving["parity_int8"]
    assert serving["precision"] == "int8"
    assert parity["holds"]
    assert parity["n_patients"] == trained.data.label.size
    reachable = np.isfinite(trained.out_of_fold.evidence).sum()
    assert parity["n_compared"] == reachable + trained.data.label.size
    assert parity["decisions_changed"] == parity["conformal_sets_changed"] == 0
    assert serving["rounding"]["max_logit_difference"] > parity["max_logit_difference"]
    manifest = Bundle.open(bundle_path).manifest
    assert manifest["student"]["precision"] == "int8"
    assert (
        "Served by default: int8 (same decision on all 200" in (bundle_path / "card.md").read_text()
    )


def test_precision_can_be_chosen_and_both_say_the_same(bundle_path: Path, trained: Trained):
    default = StudentRuntime.open(bundle_path)
    fp32, int8 = (StudentRuntime.open(bundle_path, precision=p) for p in ("fp32", "int8"))
    assert (default.precision, fp32.precision, int8.precision) == ("int8", "fp32", "int8")
    data, student = trained.data, trained.student
    x = features_of(data, student.preprocessors, student.shape.features)
    parity = compare(
        answers(fp32, x, data.present(), trained.sets),
        answers(int8, x, data.present(), trained.sets),
    )
    assert parity.max_logit_difference < 1e-5
    case = fp32.prepare({"clinical": {"age": 61, "stage": "ii"}})
    assert fp32.assess(case).probability == pytest.approx(int8.assess(case).probability, abs=1e-6)
    with pytest.raises(BundleError, match="Unknown precision 'int4'; there are fp32, int8"):
        StudentRuntime.open(bundle_path, precision="int4")


def test_the_student_that_is_scored_is_the_rounded_one(trained: Trained):
    student = trained.student
    assert student.as_trained is not None
    rounded, unrounded = student.model.state_dict(), student.as_trained.state_dict()
    assert not torch.equal(rounded["encoder.first.weight"], unrounded["encoder.first.weight"])
    assert torch.equal(rounded["encoder.first.bias"], unrounded["encoder.first.bias"])
    again = on_grid(student.model).state_dict()
    for name, value in rounded.items():
        torch.testing.assert_close(again[name], value, rtol=1e-6, atol=1e-8)
    largest = unrounded["encoder.first.weight"].abs().amax(dim=1, keepdim=True)
    gap = (rounded["encoder.first.weight"] - unrounded["encoder.first.weight"]).abs()
    assert bool((gap <= largest / 127 * 0.501).all())


def test_torch_and_session_answer_alike(bundle_path: Path, trained: Trained):
    data, student = trained.data, trained.student
    x = features_of(data, student.preprocessors, student.shape.features)
    runtime = StudentRuntime.open(bundle_path)
    torch_runtime = replace(runtime, session=TorchGraph(student.model))
    parity = compare(
        answers(torch_runtime, x, data.present(), trained.sets),
        answers(runtime, x, data.present(), trained.sets),
    )
    assert parity.max_logit_difference < 1e-4


def test_fp32_is_served_where_parity_is_broken_and_the_card_says_why(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(quantise, "STEPS", 3)
    out = write_bundle(
        trained, tmp_path / "coarse", transfer_kwh=1e-7,
        pipeline_kwh={"clinical": 0.0, "genomics": 1.0, "pathology": 1.0},
        created=datetime(2024, 5, 1, tzinfo=UTC),
    )  # fmt: skip
    serving = json.loads((out / "metrics.json").read_text())["serving"]
    assert serving["precision"] == "fp32"
    assert not serving["parity_int8"]["holds"]
    assert serving["parity_int8"]["decisions_changed"] > 0
    assert "Served by default: fp32 (log-odds differ by up to" in (out / "card.md").read_text()
    assert StudentRuntime.open(out).precision == "fp32"
    assert StudentRuntime.open(out, precision="int8").precision == "int8"


def everywhere(logit: list[list[float]]) -> Everywhere:
    values = np.array(logit)
    held = np.ones(values.shape, dtype=bool)
    sets = np.stack([values < 1.5, values > -0.5], axis=-1)
    return Everywhere(logit=values, conformal=sets, reachable=held)


def test_parity_counts_what_crosses_and_leaves_out_what_nobody_has():
    reference = everywhere([[0.01, 2.0, -1.0], [0.0, 0.3, 0.001]])
    same = compare(reference, reference)
    assert same.holds
    assert choose(same) == ("int8", "same decision on all 2 patients and 6 evidence sets")
    other = everywhere([[-0.005, 2.0, -1.0], [0.0, 0.3, -0.001]])
    crossed = compare(reference, other)
    assert crossed.max_logit_difference == pytest.approx(0.015)
    assert (crossed.decisions_changed, crossed.patients_changed) == (2, 1)
    assert choose(crossed) == ("fp32", "2 of 6 decisions change")
    hidden = replace(reference, reachable=np.array([[False, True, True], [True, True, False]]))
    assert compare(hidden, other).holds
    bare = replace(reference, conformal=np.ones_like(reference.conformal))
    assert choose(compare(reference, bare)) == ("fp32", "2 of 6 conformal sets change")
    far = compare(reference, everywhere([[0.01, 2.03, -1.0], [0.0, 0.3, 0.001]]))
    assert choose(far) == ("fp32", "log-odds differ by up to 0.03 (at most 0.02)")
    assert not compare(reference, everywhere([[np.nan] * 3, [0.0, 0.3, 0.001]])).holds


def test_an_earlier_bundle_without_int8_still_opens(copy: Path):
    (copy / STUDENT_INT8).unlink()
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest.pop("seal")
    manifest["files"].pop(STUDENT_INT8)
    manifest["student"]["precision"] = "float32"
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert StudentRuntime.open(copy).precision == "fp32"
    with pytest.raises(BundleError, match=r"has no int8 student .* it has fp32"):
        StudentRuntime.open(copy, precision="int8")
    shutil.copy(copy / STUDENT, copy / STUDENT_INT8)
    with pytest.raises(BundleError, match="has no int8 student"):
        StudentRuntime.open(copy, precision="int8")


def test_any_changed_byte_of_the_manifest_is_noticed(copy: Path):
    path = copy / MANIFEST
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in [*rng.integers(0, len(content), 60), len(content) - 1]:
        altered = bytearray(content)
        altered[at] ^= 1
        path.write_bytes(bytes(altered))
        with pytest.raises(BundleError):
            Bundle.open(copy)
    path.write_bytes(content.replace(b'"seal"', b'"meal"'))
    with pytest.raises(BundleError, match=r"manifest\.json is not as it was written"):
        Bundle.open(copy)
    path.write_bytes(content)
    assert Bundle.open(copy).served == "int8"


def test_a_missing_truncated_or_foreign_int8_graph_is_refused(copy: Path, tmp_path: Path):
    path = copy / STUDENT_INT8
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(BundleError, match=f"lacks {STUDENT_INT8}"):
        StudentRuntime.open(copy)
    for part in (b"", whole[:-7], whole[: len(whole) // 2]):
        path.write_bytes(part)
        with pytest.raises(BundleError, match="is not as it was written"):
            StudentRuntime.open(copy)
        reseal(copy)
        with pytest.raises(BundleError, match="is not a usable ONNX model"):
            StudentRuntime.open(copy)
    path.write_bytes(whole)
    finish_graph(path, "0123")
    reseal(copy)
    with pytest.raises(BundleError, match="is the student of another bundle"):
        StudentRuntime.open(copy)
    assert StudentRuntime.open(copy, precision="fp32").precision == "fp32"
    path.write_bytes(whole)
    reseal(copy)
    assert StudentRuntime.open(copy).precision == "int8"


def test_a_graph_without_large_matrices_stays_as_it_is(tmp_path: Path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 2])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 2])
    weight = onnx.numpy_helper.from_array(np.eye(2, dtype=np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [out], [weight])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "g.onnx")
    write_int8(tmp_path / "g.onnx", tmp_path / "g8.onnx")
    assert graph_facts(tmp_path / "g8.onnx") == graph_facts(tmp_path / "g.onnx")


def test_the_old_bundle_is_back_where_the_new_one_cannot_take_its_place(
    copy: Path, monkeypatch: pytest.MonkeyPatch
):
    import os

    move = os.replace

    def refuse(source: str | Path, target: str | Path) -> None:
        if Path(target) == copy and Path(source).parent == copy.parent:
            raise PermissionError("not now")
        move(source, target)

    monkeypatch.setattr("distill.bundle.os.replace", refuse)
    with pytest.raises(PermissionError, match="not now"), new_folder(copy) as folder:
        (folder / "manifest.json").write_text("{}")
    monkeypatch.undo()
    assert StudentRuntime.open(copy).precision == "int8"
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]
