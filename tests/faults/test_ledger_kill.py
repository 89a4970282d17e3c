"""kill -9 in the middle of booking: what was acknowledged is there, and budgets count just that."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from carbon.budget import Budget
from carbon.budget_keeper import BudgetKeeper
from carbon.ledger import Ledger, read_ledger

AT = datetime(2024, 3, 1, 12, tzinfo=UTC)
DAY = Budget(period="day", soft_g_co2e=1.0, hard_g_co2e=1e9)
CHILD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from carbon.entries import LedgerEntry
from carbon.intensity.protocol import IntensityReading
from carbon.ledger import Ledger

at = datetime(2024, 3, 1, 12, tzinfo=UTC)
grid = IntensityReading(g_per_kwh=100.0, zone="GB", time=at, basis="average-direct-consumption",
                        provider="a test", kind="measured", age_s=0.0)
with Ledger(Path(sys.argv[1])) as ledger:
    print("open", flush=True)
    for i in range(1_000_000):
        ledger.append(LedgerEntry(
            time=at, stage=f"stage-{i}", case=None, energy_kwh=0.01, energy_basis="modelled",
            energy_source="a test", intensity=grid, g_co2e=1.0, note="x" * (i % 5000)))
        print(i, flush=True)
"""


def keeper(path: Path) -> BudgetKeeper:
    return BudgetKeeper(path, [DAY], timezone=UTC, clock=lambda: AT)


def killed(path: Path, after_s: float) -> int:
    """Append until killed; how many appends were acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    time.sleep(after_s)
    os.kill(child.pid, signal.SIGKILL)
    lines = child.stdout.read().splitlines()
    child.wait()
    child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    # The last word may itself have been cut.
    return sum(line.isdigit() for line in lines)


@pytest.mark.slow
def test_what_was_acknowledged_survives(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    rng, least, most = random.Random(0), 0, 0
    for _ in range(5):
        acknowledged = killed(path, rng.uniform(0.02, 0.3))
        # Each kill may leave one more entry than was acknowledged, and one unfinished line.
        least, most = least + acknowledged, most + acknowledged + 1
        kept = keeper(path)
        (day,) = kept.status()
        assert least <= day.entries <= most
        assert day.spent_g_co2e == float(day.entries)
        seen: list[str] = []
        assert len(list(read_ledger(path, on_unfinished=seen.append))) == day.entries
        assert bool(seen) == bool(kept.dropped)
        least = day.entries
        most = day.entries
    with Ledger(path) as ledger:
        assert len(list(ledger.entries())) == least


def test_a_line_that_a_kill_cut_is_dropped_and_said(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    killed(path, 0.1)
    with Ledger(path):
        pass  # drops what the kill itself may have cut
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole + lines[0][: len(lines[0]) // 2])
    kept = keeper(path)
    (day,) = kept.status()
    assert day.entries == len(lines)
    assert len(kept.dropped) == 1
    with Ledger(path) as ledger:
        assert ledger.recovery is not None
        assert ledger.recovery.dropped_bytes == len(lines[0]) // 2
    assert path.read_bytes() == whole
