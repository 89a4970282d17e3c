"""From tables on disk to labels and features: every rule that a cohort's tables must keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int8, Int16

from distill.cohort_problems import Problem, Problems, suggest
from distill.cohort_tables import RawTable, as_feature, as_numbers, as_text, read_table
from distill.manifest import CASE_ID, MANIFEST, CohortManifest, LabelSpec
from distill.transfers import BASE_MODALITY

MAX_FOLD = 1000


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The label table, checked.

    Attributes:
        case_id: one id a patient, in file order.
        label: 1 for the positive class.
        group: hospital, or the case itself where the manifest names no group column.
        fold: the given fold, or None.
        temporal: numeric context columns indexed by case id, or None.
    """

    case_id: tuple[str, ...]
    label: Int8[np.ndarray, " patients"]
    group: tuple[str, ...]
    fold: Int16[np.ndarray, " patients"] | None
    temporal: pd.DataFrame | None


def read_label_table(folder: Path, manifest: CohortManifest, problems: Problems) -> RawTable | None:
    """Read the label table; None where it, or a column that the manifest names, is not there."""
    table = read_table(folder, manifest.label.table, problems)
    if table is None or not _columns_are_there(table, manifest.label, problems):
        return None
    return table


def labels_of(table: RawTable, spec: LabelSpec, problems: Problems) -> Labels | None:
    """Labels, hospitals, folds and times of a label table; None where a cell has problems."""
    before = len(problems)
    _check_ids(table, problems)
    label = _classes(table, spec, problems)
    group = _hospitals(table, spec, problems)
    fold = _folds(table, spec, group, problems)
    temporal = {name: as_numbers(table, name, problems) for name in spec.temporal}
    if len(problems) > before:
        return None
    index = pd.Index(table.case_id, name=CASE_ID, dtype=object)
    return Labels(
        case_id=table.case_id,
        label=label,
        group=group,
        fold=fold,
        temporal=pd.DataFrame(temporal, index=index) if temporal else None,
    )


def load_features(
    folder: Path,
    manifest: CohortManifest,
    modality: str,
    case_id: Sequence[str],
    problems: Problems,
) -> pd.DataFrame | None:
    """Read one modality's table, rows in the order of ``case_id``; None where it has problems.

    Only ``clinical`` may hold text columns (object, ``None`` where missing); all else is float64.
    Rows without a single value are among them: see :func:`split_empty_rows`.
    With an empty ``case_id`` (the label table could not be read) the cases are not compared.
    """
    before = len(problems)
    table = read_table(folder, manifest.modality[modality].table, problems)
    if table is None:
        return None
    if not table.case_id or not table.columns:
        lacking = "rows" if table.columns else f"columns beside {CASE_ID!r}"
        message = f"the table has no {lacking}. Fill it, or remove [modality.{modality}]."
        problems.add(table.problem(message))
        return None
    _check_ids(table, problems)
    _check_leaks(table, manifest.label, problems)
    if case_id:
        _check_cases(table, modality, case_id, manifest.label.table, problems)
    read = as_feature if modality == BASE_MODALITY else as_numbers
    columns = {name: read(table, name, problems) for name in table.columns}
    if len(problems) > before:
        return None
    frame = pd.DataFrame(columns, index=pd.Index(table.case_id, name=CASE_ID, dtype=object))
    if not _has_values(table, modality, frame, problems):
        return None
    has_row = set(table.case_id)
    return frame.loc[[case for case in case_id if case in has_row]] if case_id else frame


def _has_values(table: RawTable, modality: str, frame: pd.DataFrame, problems: Problems) -> bool:
    if frame.notna().to_numpy().any():
        return True
    message = f"the table has no value. Fill it, or remove [modality.{modality}]."
    problems.add(table.problem(message))
    return False


def split_empty_rows(modality: str, frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows that hold a value, and how many do not: a modality without values is missing.

    Except for clinical, which every patient has: its rows stay, and are imputed.
    """
    empty = frame.isna().all(axis=1).to_numpy()
    kept = frame if modality == BASE_MODALITY or not empty.any() else frame[~empty]
    return kept, int(empty.sum())


def _columns_are_there(table: RawTable, spec: LabelSpec, problems: Problems) -> bool:
    before = len(problems)
    for name in spec.columns:
        if name not in table.columns:
            message = f"[label] names the column {name!r}, which {table.file} does not have. "
            message += suggest(name, tuple(table.columns)) + " Correct the name."
            problems.add(Problem(file=MANIFEST, message=message))
    if not table.case_id:
        problems.add(table.problem("the table has no rows. It must hold one row a case."))
    return len(problems) == before


def _check_ids(table: RawTable, problems: Problems) -> None:
    seen: dict[str, int] = {}
    for row, case in enumerate(table.case_id):
        if not case:
            message = "the case has no id. Write it, or remove the row."
            problems.add(table.problem(message, row, CASE_ID))
        elif case in seen:
            first = int(table.lines[seen[case]])
            message = f"the same case as in {table.row_word} {first}. Keep one row a case."
            problems.add(table.problem(message, row, CASE_ID))
        else:
            seen[case] = row


def _check_leaks(table: RawTable, spec: LabelSpec, problems: Problems) -> None:
    for name in (spec.column, spec.group, spec.fold):
        if name in table.columns:
            message = f"the label table's column {name!r} must not be a feature: it gives the "
            message += "answer or the hospital away. Remove it from this table."
            problems.add(table.problem(message, column=name))


def _check_cases(
    table: RawTable, modality: str, case_id: Sequence[str], label_table: str, problems: Problems
) -> None:
    known = set(case_id)
    strangers = [row for row, case in enumerate(table.case_id) if case and case not in known]
    if strangers:
        more = f" (and {len(strangers) - 1} more rows)" if len(strangers) > 1 else ""
        message = f"no case of {label_table} has this id{more}. Add its label there, or remove "
        problems.add(table.problem(message + "the row.", strangers[0], CASE_ID))
    lacking = len(known - set(table.case_id))
    if modality == BASE_MODALITY and lacking:
        message = f"{lacking} cases of {label_table} have no row here. {BASE_MODALITY} is always "
        message += "processed: add a row for each (some of its cells may be empty)."
        problems.add(table.problem(message, column=CASE_ID))


def _classes(table: RawTable, spec: LabelSpec, problems: Problems) -> np.ndarray:
    cells = as_text(table.columns[spec.column])
    allowed = f"{spec.negative!r} or {spec.positive!r}"
    for row, cell in enumerate(cells):
        if cell not in (spec.negative, spec.positive):
            came = f"{cell!r} is not a class" if cell else "the label is missing"
            message = f"{came}; allowed is {allowed}. Correct the cell, or remove the case."
            problems.add(table.problem(message, row, spec.column))
    for name in (spec.negative, spec.positive):
        if name not in cells:
            message = f"no case is {name!r}; both classes are needed. Add cases of it, or correct "
            message += "the class names in cohort.toml."
            problems.add(table.problem(message, column=spec.column))
    return np.array([cell == spec.positive for cell in cells], dtype=np.int8)


def _hospitals(table: RawTable, spec: LabelSpec, problems: Problems) -> tuple[str, ...]:
    if spec.group is None:
        return table.case_id
    cells = as_text(table.columns[spec.group])
    for row, cell in enumerate(cells):
        if not cell:
            message = "the hospital is missing. Write it (cases of unknown hospitals may share one "
            problems.add(table.problem(message + "name), or remove the case.", row, spec.group))
    return tuple(cells)


def _folds(
    table: RawTable, spec: LabelSpec, group: Sequence[str], problems: Problems
) -> np.ndarray | None:
    if spec.fold is None:
        return None
    cells = as_text(table.columns[spec.fold])
    fold = np.zeros(len(cells), dtype=np.int16)
    before = len(problems)
    for row, cell in enumerate(cells):
        digits = cell.removesuffix(".0")  # what a spreadsheet makes of a whole number
        if digits.isascii() and digits.isdigit() and int(digits) < MAX_FOLD:
            fold[row] = int(digits)
        else:
            message = f"{cell!r} is not a fold; allowed are whole numbers from 0. Correct the cell."
            problems.add(table.problem(message, row, spec.fold))
    if len(problems) == before:
        _check_folds(table, spec, group, fold, problems)
    return fold


def _check_folds(
    table: RawTable, spec: LabelSpec, group: Sequence[str], fold: np.ndarray, problems: Problems
) -> None:
    if spec.group is None:
        return
    first: dict[str, int] = {}
    split: set[str] = set()
    for row, hospital in enumerate(group):
        home = first.setdefault(hospital, row)
        if hospital and fold[row] != fold[home] and hospital not in split:
            split.add(hospital)
            message = f"fold {fold[row]} splits hospital {hospital!r}, which is in fold "
            message += f"{fold[home]} in {table.row_word} {table.lines[home]}. Give all cases of "
            message += "one hospital the same fold."
            problems.add(table.problem(message, row, spec.fold))
