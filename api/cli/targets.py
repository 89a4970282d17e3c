"""``--out`` checked before long work: what cannot be written is said at once."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from api.cli.atomic import OutputError


def check_out_folder(path: Path, *, replaced: bool = False) -> None:
    """Refuse a place where no folder can be made or written to.

    Args:
        path: the folder.
        replaced: it is built beside its name and renamed, not written into.

    Raises:
        OutputError: if it is a file, or the file system takes nothing there.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; name a folder.")
    _probe(path, path.parent if replaced else path)


def check_out_file(path: Path) -> None:
    """Refuse a place where no file can be written; one that is there will be replaced.

    Raises:
        OutputError: if it is a folder, or the file system takes nothing there.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file in it.")
    _probe(path, path.parent)


def _probe(path: Path, folder: Path) -> None:
    """Make and remove an empty folder: permissions alone do not tell (as on /proc, as root)."""
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        os.rmdir(tempfile.mkdtemp(prefix=".greenboard.", dir=there))
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}. Name another place."
        ) from error
