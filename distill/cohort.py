"""A cohort folder in memory: labels, hospitals, folds and one table of features per modality.

A folder holds ``cohort.toml``, a label table and one table per modality (CSV, CSV.gz or Parquet),
keyed by ``case_id``. A missing row is a missing modality, a missing cell a missing value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int8, Int16, Integer

from distill.cohort_load import labels_of, load_features, read_label_table, split_empty_rows
from distill.cohort_problems import Problems
from distill.errors import CohortError
from distill.manifest import CohortManifest, PipelineSpec, Role, parse_manifest


@dataclass(frozen=True, kw_only=True, eq=False)
class Cohort:
    """Patients of one cohort, as read.

    Attributes:
        manifest: what ``cohort.toml`` says.
        case_id: identifiers, in the label table's order; for joins only, never a feature.
        label: 1 for the positive class.
        group: hospital of each patient; without a group column each case is its own group
            (``manifest.label.group is None`` tells).
        fold: the given folds, which never split a hospital; None where the cohort has none
            (see :func:`distill.cohort_folds.with_folds`).
        temporal: numeric time columns of the label table, one row a patient, or None.
        tables: per modality (``ignored`` ones left out) a frame indexed by case id, only the
            patients that have it, in the order of ``case_id``; columns in file order, float64,
            in ``clinical`` also object columns of text with None where missing. Outside
            clinical a row holds one value at least: who has none lacks the modality.
        empty_rows: per modality, rows of its file without a value; left out, except in clinical.
    """

    manifest: CohortManifest
    case_id: tuple[str, ...]
    label: Int8[np.ndarray, " patients"]
    group: tuple[str, ...]
    fold: Int16[np.ndarray, " patients"] | None
    temporal: pd.DataFrame | None
    tables: Mapping[str, pd.DataFrame]
    empty_rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the cohort."""
        return self.manifest.name

    @property
    def description(self) -> str:
        """One line about the patients and the label."""
        return self.manifest.description

    @property
    def synthetic(self) -> bool:
        """Whether the patients are synthetic; whatever shows them must say so."""
        return self.manifest.synthetic

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len(self.case_id)

    @property
    def named_group(self) -> tuple[str, ...] | None:
        """Hospital of each patient; None where the manifest names no group column."""
        return None if self.manifest.label.group is None else self.group

    @property
    def hospital(self) -> tuple[str, ...]:
        """The same as ``group``, in the words of the review."""
        return self.group

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.case_id, dtype=object)

    def modalities(self, role: Role | None = None) -> tuple[str, ...]:
        """Modalities that have a table here (of one role, if given), clinical first."""
        return tuple(name for name in self.manifest.modalities(role) if name in self.tables)

    def present(self, modality: str) -> Bool[np.ndarray, " patients"]:
        """Which patients have a row, and so a value, in a modality's table.

        Raises:
            CohortError: if the cohort has no such modality.
        """
        self._require(modality)
        return np.asarray(self._index.isin(self.tables[modality].index), dtype=bool)

    def pipeline(self, modality: str) -> PipelineSpec:
        """What processing one case of a modality takes.

        Raises:
            CohortError: if the cohort has no such modality, or no pipeline is declared for it.
        """
        self._require(modality)
        declared = self.manifest.modality[modality].pipeline
        if declared is None:
            raise CohortError(
                f"Cohort {self.name!r}: [modality.{modality}] declares no pipeline, so its energy "
                "is unknown. Add pipeline = { core_hours = ..., gpu_hours = ..., memory_gb = ... }."
            )
        return declared

    def subset(
        self, which: Bool[np.ndarray, " patients"] | Integer[np.ndarray, " chosen"]
    ) -> Cohort:
        """The cohort of some patients, by mask or by indices (kept in the given order)."""
        chosen = np.arange(self.n_patients)[which]
        case_id = tuple(self.case_id[i] for i in chosen)
        tables = {
            name: frame.loc[[case for case in case_id if case in frame.index]]
            for name, frame in self.tables.items()
        }
        return replace(
            self,
            case_id=case_id,
            label=self.label[chosen],
            group=tuple(self.group[i] for i in chosen),
            fold=None if self.fold is None else self.fold[chosen],
            temporal=None if self.temporal is None else self.temporal.iloc[chosen],
            tables=tables,
        )

    def _require(self, modality: str) -> None:
        if modality not in self.tables:
            raise CohortError(
                f"Cohort {self.name!r} has no modality {modality!r}; it has "
                f"{', '.join(self.tables)}."
            )


def read_cohort(path: Path) -> Cohort:
    """Read a cohort folder, refusing whatever a model would silently get wrong.

    Tables of modalities with role ``ignored`` are not opened.

    Raises:
        CohortError: with the first problem (file, line, column, what came, what to do) and the
            number of further ones; :func:`distill.cohort_check.check_cohort` lists them all.
    """
    problems = Problems()
    cohort = load_cohort(path, problems)
    if cohort is None or len(problems):
        raise problems.error(path)
    return cohort


def load_cohort(path: Path, problems: Problems) -> Cohort | None:
    """Read a cohort folder, adding every problem to ``problems``; None where it cannot be used.

    Raises:
        CohortError: if there is no such folder.
    """
    manifest = parse_manifest(path, problems)
    if manifest is None:
        return None
    table = read_label_table(path, manifest, problems)
    labels = None if table is None else labels_of(table, manifest.label, problems)
    case_id = () if table is None else table.case_id
    read = {
        name: load_features(path, manifest, name, case_id, problems)
        for name in manifest.modalities()
        if manifest.modality[name].role != "ignored"
    }
    if labels is None or len(problems):
        return None
    tables = {
        name: split_empty_rows(name, frame) for name, frame in read.items() if frame is not None
    }
    return Cohort(
        manifest=manifest,
        case_id=labels.case_id,
        label=labels.label,
        group=labels.group,
        fold=labels.fold,
        temporal=labels.temporal,
        tables={name: frame for name, (frame, _) in tables.items()},
        empty_rows={name: empty for name, (_, empty) in tables.items() if empty},
    )
