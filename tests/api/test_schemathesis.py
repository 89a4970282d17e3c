"""Schemathesis against a real server: what ``/openapi.json`` promises holds, and no 5xx."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.workflow.doubles import StillMonitor
from api import job_process

HERE = Path(__file__).parent
LEAVES_FILES = """
import os
os.makedirs("out", exist_ok=True)
for name in ("account.html", "out/report.html", "out/report.json", "out/shadow.html",
             "out/shadow.json"):
    open(name, "w").write("{}")
print("{}")
"""
RUN = "from schemathesis.cli import schemathesis; schemathesis()"


@pytest.mark.parametrize("phases", ["examples,coverage", "fuzzing,stateful"])
def test_the_schema_holds(serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, phases) -> None:
    # Jobs end at once: what their commands do is tested elsewhere.
    monkeypatch.setattr(job_process, "CHILD", ("-S", "-c", LEAVES_FILES))
    grid = StillMonitor(ahead=(250.0, 150.0))
    with serve(monitor=grid, policy="never", cds_open=True) as running:
        command = [
            sys.executable, "-c", RUN, "--config-file", str(HERE / "schemathesis.toml"), "run",
            f"{running.url}/openapi.json", "--header", "Authorization: Bearer admin-key",
            "--phases", phases, "--seed", "1", "--warnings", "off",
        ]  # fmt: skip
        found = subprocess.run(
            command, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120,
            env={"PYTHONPATH": str(HERE), "PYTHONUTF8": "1", "HOME": str(tmp_path)},
        )  # fmt: skip
    assert found.returncode == 0, found.stdout[-20000:] + found.stderr[-2000:]
