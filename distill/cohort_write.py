"""Write a cohort folder: whole or not at all, the same bytes for the same cohort."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from distill.cohort import Cohort
from distill.errors import CohortError
from distill.manifest import CASE_ID, MANIFEST


def write_cohort(
    cohort: Cohort, path: Path, *, extra: Mapping[str, str] | None = None, force: bool = False
) -> Path:
    """Write a cohort as a folder that :func:`distill.cohort.read_cohort` reads back equal.

    The folder is built beside ``path`` and renamed when it is complete. Numbers are written in
    the shortest form that reads back to the same double. Modalities that were not read (role
    ``ignored``) are left out.

    Args:
        cohort: what to write; the names of its tables come from its manifest.
        path: the folder; its parents are created.
        extra: further text files by name, for example the truth of a synthetic cohort.
        force: replace a cohort folder that is already there.

    Raises:
        CohortError: if ``path`` exists and ``force`` is not set, or it is not a cohort folder.
    """
    check_target(path, force)
    path.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, text in _files(cohort, extra or {}):
            _write(building / name, text)
        building.chmod(0o755)
        _put_in_place(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return path


def check_target(path: Path, force: bool) -> None:
    """Refuse a place where a cohort cannot be written.

    Raises:
        CohortError: if it exists and is not a cohort folder, or ``force`` is not set.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir() or not (path / MANIFEST).is_file():
        raise CohortError(f"{path} exists and is not a cohort folder; name another place.")
    if not force:
        raise CohortError(f"{path} holds a cohort already; name another place, or use --force.")


def _put_in_place(building: Path, path: Path) -> None:
    if not path.exists():
        building.rename(path)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    path.rename(old)  # onto the empty folder: one step, and it can be undone
    try:
        building.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _files(cohort: Cohort, extra: Mapping[str, str]) -> Iterator[tuple[str, str | pd.DataFrame]]:
    ignored = {name for name, spec in cohort.manifest.modality.items() if spec.role == "ignored"}
    modality = {k: v for k, v in cohort.manifest.modality.items() if k not in ignored}
    manifest = cohort.manifest.model_copy(update={"modality": modality})
    yield MANIFEST, manifest.to_toml()
    yield manifest.label.table, _labels(cohort)
    for name, frame in cohort.tables.items():
        yield manifest.modality[name].table, frame
    yield from extra.items()


def _labels(cohort: Cohort) -> pd.DataFrame:
    spec = cohort.manifest.label
    classes = [spec.positive if one else spec.negative for one in cohort.label]
    frame = pd.DataFrame({spec.column: classes}, index=pd.Index(cohort.case_id, name=CASE_ID))
    if spec.group is not None:
        frame[spec.group] = list(cohort.group)
    if spec.fold is not None and cohort.fold is not None:
        frame[spec.fold] = cohort.fold
    return frame if cohort.temporal is None else frame.join(cohort.temporal)


def _write(path: Path, content: str | pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pd.DataFrame) and path.name.lower().endswith(".parquet"):
        content.reset_index().to_parquet(path, index=False)
        return
    text = content if isinstance(content, str) else _csv_text(content)
    data = text.encode("utf-8")
    if path.name.lower().endswith(".gz"):
        data = gzip.compress(data, mtime=0)  # no time stamp: the same cohort, the same bytes
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _csv_text(frame: pd.DataFrame) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([CASE_ID, *frame.columns])
    cells = [[_cell(value) for value in frame[name].tolist()] for name in frame.columns]
    writer.writerows(zip(frame.index, *cells, strict=True))
    return buffer.getvalue()


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
