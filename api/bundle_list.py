"""The bundles that a server may review with, and what their own figures say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from distill.bundle import MANIFEST, METRICS, read_json
from distill.errors import BundleError

HEADLINE = ("auc", "brier", "ece")
MOST = 200


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One bundle as its manifest and its metrics have it; nothing of it is loaded or checked.

    ``problem`` says why it cannot be read, where that is so.
    """

    folder: Path
    version: str | None
    cohort: str | None
    synthetic: bool | None
    created: datetime | None
    modalities: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, Any]]
    problem: str | None = None


def list_bundles(folders: Iterable[Path]) -> list[Listed]:
    """Each bundle once, in the order of the folders; two folders may hold the same one."""
    found: list[Listed] = []
    seen: set[Path] = set()
    for folder in folders:
        where = folder.resolve()
        if where in seen or len(seen) >= MOST:
            continue
        seen.add(where)
        found.append(read_listed(folder))
    return found


def read_listed(folder: Path) -> Listed:
    """One bundle; read again only when its files have changed, since its figures are many."""
    return _read(folder, tuple(_stamp(folder / name) for name in (MANIFEST, METRICS)))


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size


@lru_cache(maxsize=MOST)
def _read(folder: Path, _: object) -> Listed:
    try:
        manifest, metrics = read_json(folder / MANIFEST), read_json(folder / METRICS)
        full = metrics["full"]
        return Listed(
            folder=folder,
            version=str(manifest["version"]),
            cohort=str(manifest["cohort"]),
            synthetic=bool(manifest["synthetic"]),
            created=datetime.fromisoformat(manifest["created"]),
            modalities=tuple(str(name) for name in manifest["modalities"]),
            metrics={name: full[name] for name in HEADLINE if name in full},
        )
    except (BundleError, KeyError, TypeError, ValueError) as error:
        return Listed(
            folder=folder, version=None, cohort=None, synthetic=None, created=None,
            modalities=(), metrics={}, problem=f"{type(error).__name__}: it cannot be read",
        )  # fmt: skip
