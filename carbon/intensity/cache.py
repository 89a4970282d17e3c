"""Provider answers on disk, each with the time it was fetched, so that its age is known."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class CachedBody:
    """A body as the provider sent it, and when.

    Attributes:
        body: the text.
        fetched_at: when it arrived, UTC.
    """

    body: str
    fetched_at: datetime

    def age_s(self, now: datetime) -> float:
        """Seconds since it arrived; 0 if the clock went backwards."""
        return max(0.0, (now - self.fetched_at).total_seconds())


class ResponseCache:
    """Answers by key: in memory, and in a folder where one is given.

    A file that cannot be read counts as absent: a cache may lose, but never mislead or stop work.

    Args:
        folder: where to keep answers between runs; None keeps them in memory only.
        keep_s: answers older than this are deleted when new ones arrive.
    """

    def __init__(self, folder: Path | None = None, *, keep_s: float = 2 * 86_400.0) -> None:
        self._folder = folder
        self._keep = timedelta(seconds=keep_s)
        self._memory: dict[str, CachedBody] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> CachedBody | None:
        """The last answer under this key, however old; None if there is none."""
        with self._lock:
            if key not in self._memory and self._folder is not None:
                found = _read(self._path(self._folder, key), key)
                if found is not None:
                    self._memory[key] = found
            return self._memory.get(key)

    def put(self, key: str, body: str, fetched_at: datetime) -> None:
        """Keep an answer; replaces the file at once or not at all.

        A full or read-only disk costs the file, not the answer: memory still has it.
        """
        entry = CachedBody(body=body, fetched_at=fetched_at.astimezone(UTC))
        with self._lock:
            oldest = entry.fetched_at - self._keep
            self._memory = {k: v for k, v in self._memory.items() if v.fetched_at >= oldest}
            self._memory[key] = entry
            if self._folder is not None:
                try:
                    _write(self._path(self._folder, key), key, entry)
                    _prune(self._folder, oldest)
                except OSError:
                    return

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read(path: Path, key: str) -> CachedBody | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != key:
            return None
        fetched_at = datetime.fromisoformat(content["fetched_at"])
        if fetched_at.utcoffset() is None:
            return None
        return CachedBody(body=str(content["body"]), fetched_at=fetched_at)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, key: str, entry: CachedBody) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"key": key, "fetched_at": entry.fetched_at.isoformat(), "body": entry.body}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


def _prune(folder: Path, oldest: datetime) -> None:
    for path in folder.glob("*.json"):
        if path.stat().st_mtime < oldest.timestamp():
            path.unlink(missing_ok=True)
