"""The features that a student takes."""

from __future__ import annotations

from collections.abc import Mapping

from agent.workflow.protocols import Student
from api.fhir.columns import Columns
from distill.preprocess import TablePreprocessor
from distill.runtime import StudentRuntime
from distill.temporal import TEMPORAL


def columns_of(student: Student) -> dict[str, Columns]:
    """By modality; times stand under ``temporal`` where the bundle takes any."""
    if isinstance(student, StudentRuntime):
        found = {
            name: _fitted(table) for name, table in zip(student.modalities, student.preprocessors)
        }
        times = student.times.names if student.times is not None else ()
    else:
        found = {
            name: _shown(row or {}) for name, row in student.example().items() if name != TEMPORAL
        }
        found |= {name: _shown({}) for name in student.modalities if name not in found}
        times = tuple(student.example().get(TEMPORAL) or ())
    if times:
        found[TEMPORAL] = Columns(numbers=frozenset(times), words={}, flags=frozenset())
    return found


def _fitted(table: TablePreprocessor) -> Columns:
    flags = [c.name for c in table.numbers if c.span is not None and _is_flag(*c.span)]
    return Columns(
        numbers=frozenset(table.schema.numbers),
        words={c.name: c.words for c in table.texts},
        flags=frozenset(flags),
    )


def _is_flag(low: float, high: float) -> bool:
    return low in (0.0, 1.0) and high in (0.0, 1.0)


def _shown(row: Mapping[str, object]) -> Columns:
    """What an example row tells, for students that have no table."""
    words = {name: (value,) for name, value in row.items() if isinstance(value, str)}
    return Columns(numbers=frozenset(row.keys() - words.keys()), words=words, flags=frozenset())
