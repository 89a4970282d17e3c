"""One command line in a process of its own: started without a shell, followed, stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import api

CHILD = ("-P", "-m", "api.job_child")
LAST_LINES = 20
LONGEST_LINE = 4096
ERROR = "error: "


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far a command says it is."""

    stage: str
    finished: float
    total: float

    @property
    def share(self) -> float:
        """Of this stage, 0 to 1."""
        return min(max(self.finished / self.total, 0.0), 1.0) if self.total > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    error: str

    @property
    def failure(self) -> str | None:
        """Why it came to nothing; None if it did not."""
        if self.code == 0:
            return None
        return self.error or f"The command ended with code {self.code}."


class JobProcess:
    """A running command; :meth:`follow` blocks, so it belongs in a thread."""

    def __init__(self, words: Sequence[str], *, folder: Path, output: str | None) -> None:
        """Start ``greenboard WORDS`` in ``folder``.

        Args:
            words: the command's words; no shell reads them.
            folder: where it works.
            output: file in the folder that takes its standard output; None to drop that.

        Raises:
            OSError: if the process cannot be started.
        """
        command = [sys.executable, *CHILD, *words]
        with contextlib.ExitStack() as stack:
            out = subprocess.DEVNULL
            if output is not None:
                out = stack.enter_context((folder / output).open("wb")).fileno()
            self._process = subprocess.Popen(  # noqa: S603  # our own command, and no shell
                command, cwd=folder, env=_environment(folder), start_new_session=True,
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE,
            )  # fmt: skip

    def follow(self, on_step: Callable[[Step], None]) -> Ended:
        """Wait for the end; tell of each step on the way."""
        assert self._process.stderr is not None  # noqa: S101  # a pipe was asked for
        last: deque[str] = deque(maxlen=LAST_LINES)
        with self._process.stderr as lines:
            while raw := lines.readline(LONGEST_LINE):
                line = raw.decode(errors="replace").strip()
                step = read_step(line)
                if step is not None:
                    on_step(step)
                elif line:
                    last.append(line)
        code = self._process.wait()
        self._close_input()
        errors = [line for line in last if line.startswith(ERROR)]
        return Ended(code=code, error=errors[-1].removeprefix(ERROR) if errors else "")

    def kill(self) -> None:
        """End it and whatever it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _close_input(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


def read_step(line: str) -> Step | None:
    """A line of ``--progress-lines``; None for anything else."""
    if not line.startswith("{"):
        return None
    try:
        data = json.loads(line)
        return Step(
            stage=str(data["stage"])[:200],
            finished=float(data["finished"]),
            total=float(data["total"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the server's own, which may hold keys: the same code, one core, own folders."""
    return {
        "PYTHONPATH": str(Path(api.__file__).resolve().parents[1]),
        "PYTHONUTF8": "1",
        "HOME": str(folder),
        "MPLCONFIGDIR": str(folder / ".matplotlib"),
        "OMP_NUM_THREADS": "1",
    }
