"""Write a file whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from api.errors import ApiError


class OutputError(ApiError, OSError):
    """An output file that cannot be written."""


def write_json(path: Path, data: Any) -> None:
    """Write beside the target, flush to disk, then rename.

    Raises:
        OutputError: if the folder does not exist or cannot be written to.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside the target, flush to disk, then rename.

    Raises:
        OutputError: if the folder does not exist or cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            # A full disk, a folder of that name, Ctrl-C: nothing half-written stays behind.
            os.unlink(name)
            raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
