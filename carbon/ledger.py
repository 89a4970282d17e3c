"""Append-only ledger of energy and emissions: one JSON object a line, on disk before it returns.

A crash can leave at most the last line unfinished. Opening the ledger drops that one, keeps
everything before it, and says what it dropped; any other damage is refused, since guessing would
change the books. Figures on different intensity bases are never added up.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import get_args

from carbon.entries import ALL, By, LedgerEntry, LedgerTotal, merge, parse_line, total
from carbon.errors import LedgerError
from carbon.ledger_index import STEP_BYTES, checkpoint, count


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What opening a ledger had to repair.

    Attributes:
        dropped_bytes: length of the unfinished last line; 0 if only its line end was missing.
        dropped_text: its beginning, for whoever wants to know.
        message: the same in one sentence.
    """

    dropped_bytes: int
    dropped_text: str
    message: str


def read_ledger(
    path: Path, *, on_unfinished: Callable[[str], None] | None = None
) -> Iterator[LedgerEntry]:
    """Go through a ledger without changing it, one entry at a time.

    Args:
        path: the file.
        on_unfinished: told about a last line that was not finished; it is skipped.

    Raises:
        LedgerError: if the file is missing or any other line is damaged; says which.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if (left := unfinished(path, raw)) is not None:
                    if on_unfinished is not None:
                        on_unfinished(left.message)
                    return
                yield parse_line(path, number, raw)
    except OSError as error:
        raise LedgerError(f"The ledger {path} cannot be read: {error.strerror}.") from error


def unfinished(path: Path, raw: bytes) -> Recovery | None:
    """What is to be said about a last line that was not finished; None if the line is whole."""
    if raw.endswith(b"\n") or _is_whole(raw):
        return None
    return _dropped(path, raw)


def ledger_totals(
    path: Path,
    by: By = "stage",
    *,
    use_index: bool = True,
    on_unfinished: Callable[[str], None] | None = None,
) -> tuple[LedgerTotal, ...]:
    """Sums by stage or case without holding the entries; quick where there is an index.

    Args:
        path: the ledger; it is not changed, the index beside it may be.
        by: one row for each stage or case, or one for all.
        use_index: False counts every line; see :mod:`carbon.ledger_index`.
        on_unfinished: told about a last line that was not finished; it is skipped.

    Raises:
        LedgerError: if the file is missing or a line is damaged; says which.
    """
    if by not in get_args(By):
        raise LedgerError(f"Cannot total by {by!r}. Allowed: {', '.join(get_args(By))}.")
    try:
        counted = count(path, by, use_index=use_index)
        with path.open("rb") as file:
            file.seek(counted.covered)
            rest = file.readlines()  # only what came after counting, or was left unfinished
    except OSError as error:
        raise LedgerError(f"The ledger {path} cannot be read: {error.strerror}.") from error
    rows = (replace(row, key=ALL) if by == "all" else row for row in counted.totals)
    entries = []
    for number, raw in enumerate(rest, start=counted.lines + 1):
        if (left := unfinished(path, raw)) is not None:
            if on_unfinished is not None:
                on_unfinished(left.message)
            break
        entries.append(parse_line(path, number, raw))
    return merge([*rows, *total(entries, by)])


def _sync_folder(path: Path) -> None:
    """Make a new file's name as durable as its content; harmless for one that was there."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Some file systems do not sync folders; the entries themselves are synced either way.
        with suppress(OSError):
            os.fsync(folder)
    finally:
        os.close(folder)


def ledger_line(path: Path, entry: LedgerEntry) -> bytes:
    """One line of UTF-8; read back once, since what is written can never be corrected.

    Args:
        path: the ledger, for messages.
        entry: what it is to hold.

    Raises:
        LedgerError: if the entry has a figure that is not finite.
    """
    try:
        text = json.dumps(
            entry.as_dict(), separators=(",", ":"), allow_nan=False, ensure_ascii=False
        )
    except ValueError as error:
        raise LedgerError(f"Entry {entry.stage!r} has a figure that is not finite.") from error
    # A lone surrogate (from an odd file name, say) is no text in UTF-8: it becomes a '?'.
    line = text.encode("utf-8", errors="replace")
    parse_line(path, 0, line)
    return line + b"\n"


def _is_whole(raw: bytes) -> bool:
    # Every entry is one JSON object, so no proper beginning of one parses.
    try:
        return isinstance(json.loads(raw), dict)
    except ValueError:
        return False


def _dropped(path: Path, raw: bytes) -> Recovery:
    text = raw[:80].decode("utf-8", errors="replace")
    return Recovery(
        dropped_bytes=len(raw),
        dropped_text=text,
        message=f"{path}: dropped an unfinished last line of {len(raw)} bytes, "
        f"beginning {text!r}: the process that wrote it ended in the middle.",
    )


class Ledger:
    """The file, open for appending. Several threads and processes may append to one file.

    Args:
        path: the file; it and its folder are made if need be.

    Attributes:
        path: the file.
        recovery: what had to be repaired on opening; None if nothing.

    Raises:
        LedgerError: if it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
            self._handle = os.open(path, flags, 0o640)
        except OSError as error:
            raise LedgerError(f"The ledger {path} cannot be opened: {error.strerror}.") from error
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            _sync_folder(path)
            self.recovery = self._recover()
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)

    def append(self, entry: LedgerEntry) -> None:
        """Write one entry; it is on disk when this returns.

        Raises:
            LedgerError: if it is not fit for the books or cannot be written; the file is then as
                it was before.
        """
        line = ledger_line(self.path, entry)
        with self._lock:
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            try:
                # Another process may have died in the middle of its line since we opened.
                recovery = self._recover()
                self.recovery = recovery if recovery is not None else self.recovery
                self._write(line)
                end = os.fstat(self._handle).st_size
                if end // STEP_BYTES != (end - len(line)) // STEP_BYTES:
                    checkpoint(self.path)
            finally:
                fcntl.flock(self._handle, fcntl.LOCK_UN)

    def entries(self) -> Iterator[LedgerEntry]:
        """Every entry, oldest first."""
        return read_ledger(self.path)

    def totals(self, by: By = "stage") -> tuple[LedgerTotal, ...]:
        """Sums by stage or case; see :func:`ledger_totals`."""
        return ledger_totals(self.path, by)

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        before = os.fstat(self._handle).st_size
        try:
            written = os.write(self._handle, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
            os.fsync(self._handle)
        except OSError as error:
            # If even that fails, the next opening or append drops the unfinished line.
            with suppress(OSError):
                os.ftruncate(self._handle, before)
            raise LedgerError(
                f"The ledger {self.path} could not be written: {error}. Free some space; the "
                "entry was not kept."
            ) from error

    def _recover(self) -> Recovery | None:
        size = os.fstat(self._handle).st_size
        if size == 0 or os.pread(self._handle, 1, size - 1) == b"\n":
            return None
        tail = self._tail(size)
        if _is_whole(tail):
            os.write(self._handle, b"\n")
            os.fsync(self._handle)
            return Recovery(
                dropped_bytes=0,
                dropped_text="",
                message=f"{self.path}: the last line was whole but for its line end; kept.",
            )
        os.ftruncate(self._handle, size - len(tail))
        os.fsync(self._handle)
        return _dropped(self.path, tail)

    def _tail(self, size: int) -> bytes:
        """What stands after the last line end, read from the back in blocks."""
        block = 4096
        start = size
        tail = b""
        while start > 0 and b"\n" not in tail:
            step = min(block, start)
            start -= step
            tail = os.pread(self._handle, step, start) + tail
        return tail.rsplit(b"\n", 1)[-1]
