"""The evidence table: consistent, exact on disk, and clear about what is wrong with a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.errors import BundleError
from distill.evidence import ARRAYS, EvidenceTable
from distill.transfers import EvidenceSets, all_transfers

MODALITIES = ("clinical", "genomics", "pathology")


def make_table(n: int = 12, seed: int = 0) -> EvidenceTable:
    rng = np.random.default_rng(seed)
    sets = EvidenceSets.enumerate(all_transfers(MODALITIES))
    present = rng.random((n, 3)) < 0.7
    present[:, 0] = True
    lacking = (~present).astype(int) @ sets.processed(MODALITIES).T.astype(int)
    logit = np.where(lacking == 0, rng.normal(size=(n, len(sets.bits))), np.nan)
    return EvidenceTable(
        cohort="toy",
        synthetic=True,
        modalities=MODALITIES,
        sets=sets,
        case_id=tuple(f"case-{i}" for i in range(n)),
        group=tuple(f"hospital-{i % 3}" for i in range(n)),
        fold=(np.arange(n) % 3).astype(np.int16),
        label=(np.arange(n) % 2).astype(np.int8),
        present=present,
        quality=present.astype(np.float32),
        logit=logit.astype(np.float32),
        disagreement=np.where(np.isnan(logit), np.nan, 0.1).astype(np.float32),
        pipeline_kwh=np.array([0.0, 0.8, 0.1]),
        transfer_kwh=np.full(6, 1e-6),
        meta={"seed": seed},
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    table = make_table()
    table.save(tmp_path / "evidence.npz")
    again = EvidenceTable.load(tmp_path / "evidence.npz")
    for name in ARRAYS:
        if name not in ("bits", "next_set", "case_id", "group"):
            np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    np.testing.assert_array_equal(again.sets.bits, table.sets.bits)
    np.testing.assert_array_equal(again.sets.next_set, table.sets.next_set)
    assert (again.case_id, again.group, again.meta) == (table.case_id, table.group, table.meta)
    assert (again.cohort, again.synthetic, again.transfers) == ("toy", True, table.transfers)


def test_the_file_holds_no_pickle(tmp_path: Path) -> None:
    make_table().save(tmp_path / "evidence.npz")
    with np.load(tmp_path / "evidence.npz", allow_pickle=False) as data:
        assert all(data[name].dtype != object for name in data.files)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.full(12, 2, dtype=np.int8)}, "labels must be 0 or 1"),
        ({"case_id": ("same",) * 12}, "unique"),
        ({"group": ("one",)}, "one hospital each"),
        ({"logit": np.zeros((12, 64), dtype=np.float32)}, "exactly where reachable"),
    ],
)
def test_an_inconsistent_table_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        replace(make_table(), **change)  # type: ignore[arg-type]


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evidence.npz"
    with pytest.raises(BundleError, match="No evidence table"):
        EvidenceTable.load(path)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match="not an evidence table"):
        EvidenceTable.load(path)
    make_table().save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BundleError, match="not an evidence table"):
        EvidenceTable.load(path)


def test_missing_arrays_and_other_formats_are_named(tmp_path: Path) -> None:
    path = tmp_path / "evidence.npz"
    make_table().save(path)
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    np.savez(path, **{name: value for name, value in arrays.items() if name != "logit"})
    with pytest.raises(BundleError, match="lacks the arrays logit"):
        EvidenceTable.load(path)
    header = json.loads(str(arrays["header"])) | {"format": 99}
    np.savez(path, **(arrays | {"header": np.array(json.dumps(header))}))
    with pytest.raises(BundleError, match="evidence format 99"):
        EvidenceTable.load(path)
