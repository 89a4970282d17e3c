"""One server a state folder: two would take up each other's cases after a restart."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.errors import SettingsError, StateLockedError
from api.store.private import private_file, private_folder

LOCK = "serve.lock"


@contextmanager
def hold(state: Path) -> Iterator[None]:
    """Hold the folder until the block ends or the process dies.

    Raises:
        StateLockedError: if another process holds it.
        SettingsError: if the folder cannot be made or written to.
    """
    try:
        private_folder(state)
        private_file(state / LOCK)
        descriptor = os.open(state / LOCK, os.O_RDWR)
    except OSError as error:
        raise SettingsError(
            f"The state folder {state} cannot be used: {error.strerror or error}. Name another "
            "with --state."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateLockedError(
                f"Another server works on {state}; stop it, or give this one its own --state."
            ) from error
        yield
    finally:
        os.close(descriptor)
