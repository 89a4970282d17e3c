"""What a cohort folder holds and what is wrong with it: the report behind ``cohort check``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from distill.cohort import Cohort, load_cohort
from distill.cohort_problems import Problem, Problems
from distill.manifest import CohortManifest, parse_manifest
from distill.transfers import BASE_MODALITY

SMALL_CLASS = 10
ODD_SHARE = 0.02
ODD_LEAST = 50
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class ModalityRow:
    """One modality of the report; shares in percent, None where the table was not read."""

    name: str
    role: str
    patients: int | None
    columns: int | None
    missing_patients_pct: float | None
    missing_cells_pct: float | None
    core_hours: float | None
    gpu_hours: float | None
    memory_gb: float | None


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """Patients and classes of one hospital, or of one fold with its number of hospitals."""

    name: str
    patients: int
    negative: int
    positive: int
    hospitals: int = 1


@dataclass(frozen=True, kw_only=True)
class CohortReport:
    """What ``greenboard cohort check`` prints.

    Attributes:
        path: the folder.
        name: name of the cohort, None if the manifest cannot be read.
        synthetic: whether the patients are synthetic.
        classes: the negative and the positive class.
        has_hospitals: whether the manifest names a group column.
        patients: the number of patients, and of each class.
        modalities: one row a modality, clinical first.
        hospitals: one row a hospital, largest first (empty without a group column).
        folds: one row a fold (empty without a fold column).
        warnings: what is allowed but should be known.
        problems: what must be corrected, the first ones.
        n_problems: how many there are in all.
    """

    path: Path
    name: str | None = None
    synthetic: bool = False
    classes: tuple[str, str] | None = None
    has_hospitals: bool = False
    patients: GroupRow | None = None
    modalities: tuple[ModalityRow, ...] = ()
    hospitals: tuple[GroupRow, ...] = ()
    folds: tuple[GroupRow, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    n_problems: int = 0

    @property
    def clean(self) -> bool:
        """Whether the cohort can be used as it is."""
        return self.n_problems == 0

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        raw = asdict(self)
        raw["path"] = str(self.path)
        raw["clean"] = self.clean
        raw["problems"] = [{**asdict(p), "text": str(p)} for p in self.problems]
        return raw


def check_cohort(path: Path) -> CohortReport:
    """Read a cohort folder and report all its problems; nothing is raised for them.

    Raises:
        CohortError: if there is no such folder.
    """
    problems = Problems()
    cohort = load_cohort(path, problems)
    found: dict[str, Any] = {
        "path": path,
        "problems": tuple(problems),
        "n_problems": problems.total,
    }
    if cohort is None:
        manifest = parse_manifest(path, Problems())
        return CohortReport(**found, **({} if manifest is None else _of_manifest(manifest)))
    hospitals = tuple(_groups(cohort, np.array(cohort.group)))
    folds = () if cohort.fold is None else tuple(_groups(cohort, cohort.fold))
    grouped = cohort.manifest.label.group is not None
    everyone = next(_groups(cohort, np.zeros(cohort.n_patients, dtype=np.int8)))
    return CohortReport(
        **found,
        **{**_of_manifest(cohort.manifest), "modalities": tuple(_modalities(cohort))},
        patients=everyone,
        hospitals=tuple(sorted(hospitals, key=lambda g: -g.patients)) if grouped else (),
        folds=folds,
        warnings=tuple(_warnings(cohort, hospitals, folds)),
    )


def _of_manifest(manifest: CohortManifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "synthetic": manifest.synthetic,
        "classes": (manifest.label.negative, manifest.label.positive),
        "has_hospitals": manifest.label.group is not None,
        "modalities": tuple(_declared(manifest, name) for name in manifest.modalities()),
    }


def _declared(manifest: CohortManifest, name: str) -> ModalityRow:
    spec = manifest.modality[name]
    pipeline = spec.pipeline
    return ModalityRow(
        name=name,
        role=spec.role,
        patients=None,
        columns=None,
        missing_patients_pct=None,
        missing_cells_pct=None,
        core_hours=None if pipeline is None else pipeline.core_hours,
        gpu_hours=None if pipeline is None else pipeline.gpu_hours,
        memory_gb=None if pipeline is None else pipeline.memory_gb,
    )


def _modalities(cohort: Cohort) -> Iterator[ModalityRow]:
    for name in cohort.manifest.modalities():
        row = asdict(_declared(cohort.manifest, name))
        frame = cohort.tables.get(name)
        if frame is not None:
            row["patients"], row["columns"] = frame.shape
            row["missing_patients_pct"] = 100.0 * (1 - len(frame) / cohort.n_patients)
            row["missing_cells_pct"] = 100.0 * float(frame.isna().to_numpy().mean())
        yield ModalityRow(**row)


def _groups(cohort: Cohort, of: np.ndarray) -> Iterator[GroupRow]:
    hospital = np.array(cohort.group)
    names, code = np.unique(of, return_inverse=True)
    positive = np.bincount(code, weights=cohort.label, minlength=names.size).astype(int)
    patients = np.bincount(code, minlength=names.size)
    for k, name in enumerate(names):
        yield GroupRow(
            name=str(name),
            patients=int(patients[k]),
            positive=int(positive[k]),
            negative=int(patients[k] - positive[k]),
            hospitals=int(np.unique(hospital[code == k]).size),
        )


def _warnings(
    cohort: Cohort, hospitals: tuple[GroupRow, ...], folds: tuple[GroupRow, ...]
) -> Iterator[str]:
    if cohort.manifest.label.group is None:
        yield (
            "The manifest names no hospital column ([label] group), so each case counts as its "
            "own hospital, and nothing keeps one hospital's cases out of both training and test."
        )
    else:
        yield from _confounding(hospitals)
    if len(folds) == 1:
        yield "All patients are in one fold: fit for evaluating on, not for training on."
    for fold in folds:
        if not fold.positive or not fold.negative:
            yield f"Fold {fold.name} holds one class only, so its AUC does not exist."
    for name, spec in cohort.manifest.modality.items():
        if spec.role == "inference" and spec.pipeline is None:
            yield (
                f"[modality.{name}] declares no pipeline, so its energy is unknown and policies "
                "cannot price it. Add pipeline = { core_hours = ..., memory_gb = ... }."
            )
    for name, frame in cohort.tables.items():
        yield from _empty_rows(name, cohort.empty_rows.get(name, 0))
        yield from _odd_flags(name, frame)
        yield from _thin_tables(cohort, name, int(frame.isna().all().sum()))


def _confounding(hospitals: tuple[GroupRow, ...]) -> Iterator[str]:
    single = [h for h in hospitals if not h.positive or not h.negative]
    if len(single) == len(hospitals):
        yield (
            "No hospital contributed both classes: whatever identifies the hospital gives the "
            "label away. Split by hospital, and never standardise within one."
        )
    elif single:
        cases = sum(h.patients for h in single)
        yield f"{len(single)} of {len(hospitals)} hospitals ({cases} cases) hold one class only."


def _empty_rows(name: str, empty: int) -> Iterator[str]:
    if empty and name == BASE_MODALITY:
        yield (
            f"{name}: {empty} rows hold no value; what is usual stands in for these patients, as "
            "for any missing cell. Fill the rows, or remove the patients."
        )
    elif empty:
        yield (
            f"{name}: {empty} rows hold no value; these patients count as not having {name}. "
            "Remove the rows, or fill them."
        )


def _odd_flags(name: str, frame: pd.DataFrame) -> Iterator[str]:
    """Columns of 0 and 1 in which something else stands here and there: a typing error, mostly."""
    numbers = frame.select_dtypes("number")
    values = numbers.to_numpy(dtype=np.float64)
    known = np.isfinite(values).sum(axis=0)
    odd = (np.isfinite(values) & (values != 0) & (values != 1)).sum(axis=0)
    found = np.flatnonzero((odd > 0) & (odd <= ODD_SHARE * known) & (known >= ODD_LEAST))
    if found.size:
        shown = ", ".join(repr(str(numbers.columns[j])) for j in found[:SHOWN])
        more = f" and {found.size - SHOWN} more" if found.size > SHOWN else ""
        yield (
            f"{name}: {int(odd[found].sum())} values are neither 0 nor 1, where nearly all others "
            f"of the column are: {shown}{more}. Check them."
        )


def _thin_tables(cohort: Cohort, name: str, empty_columns: int) -> Iterator[str]:
    if empty_columns:
        yield f"{name}: {empty_columns} columns have no value for anyone."
    smallest = int(np.bincount(cohort.label[cohort.present(name)], minlength=2).min())
    if smallest < SMALL_CLASS:
        yield f"{name}: only {smallest} patients of one class have it; little can be learnt."
