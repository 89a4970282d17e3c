"""Sum a long ledger by stage: with the index, without it, and with a stale one; time and memory.

    python benchmarks/carbon_ledger.py --rows 10000000 --json runs/carbon_ledger.json

Writes a ledger of that many made-up entries (about 480 bytes each) into a temporary folder and
times each way in a process of its own, imports included. `Ledger.append` keeps the index; here the
lines are written straight, since ten million synced appends would take hours. So the index is made
by the first count, which is timed as `first_count`. `cold_no_index` drops the file from the page
cache before (where the system allows it) and counts every line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from carbon.entries import LedgerEntry, emissions_g_co2e
from carbon.intensity.protocol import IntensityReading

START = datetime(2024, 1, 1, tzinfo=UTC)
STAGES = ("assess", "train", *(f"transfer:{s}->pathology" for s in ("genomics", "radiomics")))
SECONDS, PEAK_MB = 2.0, 500.0
CHILD = """
import json, resource, sys, time
began = time.perf_counter()
from pathlib import Path
from carbon.ledger import ledger_totals
rows = ledger_totals(Path(sys.argv[1]), "stage", use_index=sys.argv[2] == "index")
spent = time.perf_counter() - began
print(json.dumps({"seconds": spent, "entries": sum(r.entries for r in rows),
                  "g_co2e": sum(r.g_co2e for r in rows),
                  "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def _lines(rows: int) -> list[bytes]:
    """Some thousand different entries, repeated to the length that is wanted."""
    made = []
    for i in range(min(rows, 5000)):
        at = START + timedelta(minutes=i)
        grid = IntensityReading(
            g_per_kwh=100.0 + i % 300 + 0.25, zone="GB", time=at, age_s=600.0,
            basis="average-direct-consumption", provider="neso", kind="measured",
        )  # fmt: skip
        kwh = 0.001 + (i % 97) / 1000
        entry = LedgerEntry(
            time=at, stage=STAGES[i % len(STAGES)], case=f"case-{i // 4:06d}", energy_kwh=kwh,
            energy_basis="modelled", energy_source="declared pipeline",
            energy_reason="Green Algorithms", seconds=None, intensity=grid,
            g_co2e=emissions_g_co2e(kwh, grid), policy="price", unit="thoracic",
        )  # fmt: skip
        made.append(json.dumps(entry.as_dict(), separators=(",", ":")).encode() + b"\n")
    return made


def write_ledger(path: Path, rows: int) -> None:
    """A ledger of so many lines."""
    made = _lines(rows)
    block = b"".join(made)
    with path.open("wb") as file:
        for _ in range(rows // len(made)):
            file.write(block)
        file.write(b"".join(made[: rows % len(made)]))
        file.flush()
        os.fsync(file.fileno())


def drop_cache(path: Path) -> None:
    """Ask the system to forget the file's pages."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(path: Path, how: str, rounds: int, *, cold: bool = False) -> dict[str, Any]:
    """Seconds and peak memory of counting in a fresh process; n is the number of rounds."""
    runs = []
    for _ in range(rounds):
        if cold:
            drop_cache(path)
        command = [sys.executable, "-c", CHILD, str(path), how]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    seconds = sorted(run["seconds"] for run in runs)
    return {
        "seconds": {"value": seconds[len(seconds) // 2], "ci95": None, "n": rounds},
        "slowest_s": seconds[-1],
        "peak_mb": {"value": max(run["peak_mb"] for run in runs), "ci95": None, "n": rounds},
        "entries": runs[0]["entries"],
        "g_co2e": runs[0]["g_co2e"],
    }


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """Every way of counting one ledger."""
    path = folder / "ledger.jsonl"
    began = time.perf_counter()
    write_ledger(path, rows)
    report: dict[str, Any] = {"rows": rows, "bytes": path.stat().st_size}
    report["written_in_s"] = time.perf_counter() - began
    report["cold_no_index"] = timed(path, "none", 1, cold=True)
    report["first_count"] = timed(path, "index", 1)
    report["with_index"] = timed(path, "index", 5)
    report["with_index_cold"] = timed(path, "index", 5, cold=True)
    with path.open("ab") as file:
        file.write(b"".join(_lines(1000)))
    report["with_index_1000_lines_behind"] = timed(path, "index", 1)
    return report


def verdicts(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Time and memory of every way, each held against the same limits."""
    ways = {name: found for name, found in report.items() if isinstance(found, dict)}
    rows = [(f"{name}, s", found["seconds"]["value"], SECONDS) for name, found in ways.items()]
    rows += [(f"{name}, MB", found["peak_mb"]["value"], PEAK_MB) for name, found in ways.items()]
    return [
        {"what": what, "value": value, "at_most": limit, "reached": value <= limit}
        for what, value, limit in rows
    ]


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where to put the ledger (5 GB for 10 M rows)")
    parser.add_argument("--json", dest="out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report = measure(Path(folder), options.rows)
    report["verdicts"] = verdicts(report)
    report["machine"] = {
        "cpus": os.cpu_count(), "python": platform.python_version(),
        "cpu": platform.processor() or platform.machine(),
    }  # fmt: skip
    text = json.dumps(report, indent=2)
    for verdict in report["verdicts"]:
        word = "reached" if verdict["reached"] else "MISSED"
        print(f"{verdict['what']}: {verdict['value']:.4g} (<= {verdict['at_most']:g}) {word}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        partial = options.out.with_suffix(options.out.suffix + ".partial")
        partial.write_text(text + "\n")
        os.replace(partial, options.out)


if __name__ == "__main__":
    main()
