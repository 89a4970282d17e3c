"""What is wrong with a cohort folder: where it is, what came, what to do; collected, bounded."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.errors import CohortError

MAX_KEPT = 200
"""A report longer than this helps nobody; the count stays exact."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to correct in a cohort folder.

    Attributes:
        file: name of the file inside the folder.
        line: line as an editor shows it (CSV, TOML) or row of data counted from 1 (Parquet).
        column: name of the column, or key of the manifest.
        message: what came, what is allowed, what to do.
        row_word: ``"line"`` for text files, ``"row"`` for Parquet.
    """

    file: str
    message: str
    line: int | None = None
    column: str | None = None
    row_word: str = "line"

    def __str__(self) -> str:
        where = self.file
        where += f", {self.row_word} {self.line}" if self.line is not None else ""
        where += f", column {self.column!r}" if self.column is not None else ""
        return f"{where}: {self.message}"


class Problems:
    """Collects problems; keeps the first :data:`MAX_KEPT` and counts the others."""

    def __init__(self) -> None:
        self._kept: list[Problem] = []
        self.total = 0

    def add(self, problem: Problem) -> None:
        """Note one more problem."""
        self.total += 1
        if len(self._kept) < MAX_KEPT:
            self._kept.append(problem)

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._kept)

    def error(self, folder: Path) -> CohortError:
        """The first problem as an error, saying how many more there are."""
        rest = self.total - 1
        more = f" ({rest} more; 'greenboard cohort check {folder}' lists them.)" if rest else ""
        return CohortError(f"{folder.name}/{self._kept[0]}{more}")


def suggest(given: str, allowed: Sequence[str], limit: int = 12) -> str:
    """A sentence that names what is allowed and, if one is close, what was probably meant."""
    rest = len(allowed) - limit
    shown = ", ".join(allowed[:limit]) + (f" and {rest} more" if rest > 0 else "")
    close = difflib.get_close_matches(given, allowed, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Allowed: {shown}.{hint}"
