"""One server a state folder: two would take up each other's cases after a restart."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.errors import StateLockedError

LOCK = "serve.lock"


@contextmanager
def hold(state: Path) -> Iterator[None]:
    """Hold the folder until the block ends or the process dies.

    Raises:
        StateLockedError: if another process holds it.
    """
    state.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(state / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
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
