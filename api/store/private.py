"""Files that hold patients' features: for the server's own user alone, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600
SQLITE_TAILS = ("", "-wal", "-shm", "-journal")


def private_folder(path: Path) -> None:
    """Make a folder that nobody else can enter; one that is there keeps its own permissions.

    Raises:
        OSError: if it cannot be made, or is a file.
    """
    try:
        path.mkdir(mode=FOLDER_MODE, parents=True)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    path.chmod(FOLDER_MODE)


def private_file(path: Path) -> None:
    """Close a SQLite database to others before anything is in it; an older one is closed too.

    SQLite gives the files beside a database the database's own permissions.

    Raises:
        OSError: if it cannot be made or is not one's own.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE))
    for tail in SQLITE_TAILS:
        beside = path.with_name(path.name + tail)
        if beside.exists():
            beside.chmod(FILE_MODE)
