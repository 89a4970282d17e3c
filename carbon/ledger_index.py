"""Sums by stage that need not read the whole ledger again: checkpoints in a file beside it.

The ledger is the truth and the index a note about its first so many bytes. Before it is believed,
the ledger must be at least that long, its bytes at 64 places and at the end of that stretch must
hash to what was noted, and a ledger of just that length must not have been touched since. What
does not fit is counted anew. Lines after the stretch are always read.

An edit in place, hidden between the 64 places, in a ledger that has grown since, is not found:
``use_index=False`` counts every line.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from carbon.entries import By, LedgerTotal, merge, parse_line, total
from carbon.errors import LedgerError

FORMAT = 1
STEP_BYTES = 1 << 20
"""A checkpoint is written for about every so many bytes of ledger."""
BLOCK_BYTES = 16 << 20
SAMPLES = 64
SAMPLE_BYTES = 4096
TAIL_BYTES = 1 << 16
MOST_ROWS = 10_000
"""With more stages than this the index would be as slow as the ledger."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """Sums over the whole lines in the first bytes of a ledger.

    Attributes:
        covered: bytes counted; ends at a line end.
        lines: lines counted.
        totals: one row for each key and intensity basis.
        modified_ns: when the ledger was last changed, as seen before counting.
    """

    covered: int
    lines: int
    totals: tuple[LedgerTotal, ...]
    modified_ns: int


EMPTY = Count(covered=0, lines=0, totals=(), modified_ns=0)


def index_path(ledger: Path) -> Path:
    """Where the index of a ledger lies."""
    return ledger.with_name(ledger.name + ".index.json")


def count(path: Path, by: By = "stage", *, use_index: bool = True) -> Count:
    """Add up all whole lines, from the last checkpoint on where there is one that fits.

    Args:
        path: the ledger.
        by: one row for each stage or case, or one for all. Cases are not indexed.
        use_index: False reads every line and leaves the index alone.

    Raises:
        LedgerError: if a line is damaged; says which.
        OSError: if the ledger cannot be read.
    """
    indexed = use_index and by != "case"
    with path.open("rb") as file:
        start = _load(path, file) if indexed else None
        counted = _extend(path, file, start or EMPTY, "stage" if indexed else by)
        if indexed and counted.covered - (start or EMPTY).covered >= STEP_BYTES:
            _save(path, file, counted)
    return counted


def checkpoint(path: Path) -> None:
    """Bring the index up to date after an append, if that is quick; for the ledger itself.

    An index that is missing or far behind is left to the next reader, since whoever appends
    should not wait for a long ledger to be counted.
    """
    with suppress(OSError, LedgerError), path.open("rb") as file:
        start = _load(path, file) or EMPTY
        if os.fstat(file.fileno()).st_size - start.covered <= 2 * STEP_BYTES:
            _save(path, file, _extend(path, file, start, "stage"))


def _extend(path: Path, file: BinaryIO, start: Count, by: By) -> Count:
    """Count on from ``start`` to the last line end that is there now."""
    status = os.fstat(file.fileno())
    covered, lines, parts = start.covered, start.lines, [*start.totals]
    for block in _blocks(file, covered, status.st_size):
        rows = _count_block(path, block, by, first_line=lines + 1)
        parts = [*merge([*parts, *rows])]
        covered += len(block)
        lines += block.count(b"\n")
    return Count(
        covered=covered, lines=lines, totals=tuple(parts), modified_ns=status.st_mtime_ns
    )  # fmt: skip


def _blocks(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """The bytes from ``start`` to the last line end before ``end``, cut at line ends."""
    file.seek(start)
    rest = b""
    while start < end:
        read = file.read(min(BLOCK_BYTES, end - start))
        if not read:
            return
        start += len(read)
        cut = read.rfind(b"\n") + 1
        if cut:
            yield rest + read[:cut]
            rest = read[cut:]
        else:
            rest += read


def _count_block(path: Path, block: bytes, by: By, *, first_line: int) -> tuple[LedgerTotal, ...]:
    if len(block) > 2 * STEP_BYTES:
        # Loading Arrow pays off from some thousand lines on.
        from carbon.ledger_columns import count_columns  # noqa: PLC0415

        rows = count_columns(block, by)
        if rows is not None:
            return rows
    lines = block.split(b"\n")[:-1]
    return total((parse_line(path, first_line + i, line) for i, line in enumerate(lines)), by)


def _fingerprint(file: BinaryIO, covered: int) -> str:
    digest = hashlib.sha256()
    handle = file.fileno()
    for i in range(SAMPLES):
        at = i * covered // SAMPLES
        digest.update(os.pread(handle, min(SAMPLE_BYTES, covered - at), at))
    tail = max(0, covered - TAIL_BYTES)
    digest.update(os.pread(handle, covered - tail, tail))
    return digest.hexdigest()


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _load(path: Path, file: BinaryIO) -> Count | None:
    """The checkpoint, if it fits the ledger; None for any that does not, or that is torn."""
    try:
        body = json.loads(index_path(path).read_bytes())
        seal = body.pop("seal")
        if body["format"] != FORMAT or seal != _seal(body):
            return None
        found = Count(
            covered=body["covered"],
            lines=body["lines"],
            totals=tuple(LedgerTotal(**row) for row in body["totals"]),
            modified_ns=body["modified_ns"],
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    status = os.fstat(file.fileno())
    if status.st_size < found.covered:
        return None
    touched = status.st_mtime_ns != found.modified_ns
    if touched and status.st_size == found.covered:
        return None
    return found if body["fingerprint"] == _fingerprint(file, found.covered) else None


def _save(path: Path, file: BinaryIO, counted: Count) -> None:
    """Put the checkpoint beside the ledger, whole or not at all; failing to is no failure."""
    if len(counted.totals) > MOST_ROWS:
        return
    body: dict[str, Any] = {
        "format": FORMAT,
        "covered": counted.covered,
        "lines": counted.lines,
        "modified_ns": counted.modified_ns,
        "fingerprint": _fingerprint(file, counted.covered),
        "totals": [asdict(row) for row in counted.totals],
    }
    text = json.dumps({**body, "seal": _seal(body)})
    target = index_path(path)
    # A folder that may only be read still gets its sums, just not faster the next time.
    with suppress(OSError):
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            os.chmod(name, 0o640)
            os.replace(name, target)
        except OSError:
            os.unlink(name)
            raise
