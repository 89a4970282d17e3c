"""The process that a background job runs in: the command line, niced, and gone with its server.

``python -m api.job_child WORDS`` is ``greenboard WORDS``. Whoever starts it holds the other end of
its standard input and never writes: the pipe ends when that process does, however it died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading

NICENESS = 10
LARGEST_FILE = 512 * 1024 * 1024


def main() -> None:
    """Run the command that the words name."""
    _hold_back()
    threading.Thread(target=_end_with_server, daemon=True).start()
    # The command line takes a moment to import: only then is it too late to be killed.
    from api.cli.main import main as command  # noqa: PLC0415

    command()


def _hold_back() -> None:
    """Reviews come first; no file grows without end, and no memory is written to disk."""
    os.nice(NICENESS)
    with contextlib.suppress(ImportError):  # not on Windows
        import resource  # noqa: PLC0415

        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        limit = LARGEST_FILE if most == resource.RLIM_INFINITY else min(LARGEST_FILE, most)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_server() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
