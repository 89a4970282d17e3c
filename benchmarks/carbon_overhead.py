"""What measuring costs: an energy window, its share of a training run, and importing `carbon`.

    OMP_NUM_THREADS=1 python benchmarks/carbon_overhead.py --json runs/carbon_overhead.json

`window` opens and closes an empty window many times; the first one, which loads libraries, is left
out of the median and given apart. `with counters` reads two RAPL packages and their memory from
files of the same shape in a temporary folder, for machines that have none. `booked` adds the ledger
line, which waits for the disk. The training run fits gradient boosting on made-up data with and
without a booked window around it, alternately; what the window adds is given twice: as the time
spent in its own code, which is what the verdict is on, and as the paired difference of CPU times,
which other load on the machine blurs. `import` starts a fresh interpreter each time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from carbon.backends import MachineMeter, make_meter
from carbon.counters import RaplMeter
from carbon.intensity.build import GridConfig
from carbon.meter import Meter, energy_window
from carbon.monitor import CarbonMonitor, build_monitor

WINDOW_MS, SHARE, IMPORT_S = 1.0, 0.01, 0.3
MODULES = ("carbon", "carbon.monitor", "carbon.account", "carbon.ledger")
CHILD = (
    "import time; began, cpu = time.perf_counter(), time.process_time(); import {module}; "
    "print(time.perf_counter() - began, time.process_time() - cpu)"
)


def figure(values: list[float], *, low: float = 2.5, high: float = 97.5) -> dict[str, Any]:
    """Median with the central 95 % of the runs themselves, and how many there were."""
    return {
        "value": statistics.median(values),
        "ci95": None,
        "central95_of_runs": [float(np.percentile(values, q)) for q in (low, high)],
        "n": len(values),
    }


def fake_rapl(folder: Path) -> Path:
    """Two packages with memory each, as Linux shows them."""
    for package in range(2):
        for suffix, name in (("", f"package-{package}"), (":0", "dram")):
            zone = folder / f"intel-rapl:{package}{suffix}"
            zone.mkdir()
            (zone / "name").write_text(f"{name}\n")
            (zone / "max_energy_range_uj").write_text("262143328850\n")
            (zone / "energy_uj").write_text("123456789\n")
    return folder


def empty_windows(meter: Meter, rounds: int) -> dict[str, Any]:
    """Milliseconds that an empty window takes."""
    spent = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        with energy_window(meter):
            pass
        spent.append(1000 * (time.perf_counter() - began))
    return {"first_ms": spent[0], "ms": figure(spent[1:])}


def booked_windows(monitor: CarbonMonitor, rounds: int) -> dict[str, Any]:
    """Milliseconds that an empty window takes with its line in the ledger."""
    spent = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        with monitor.window("benchmark"):
            pass
        spent.append(1000 * (time.perf_counter() - began))
    return {"first_ms": spent[0], "ms": figure(spent[1:])}


def train() -> None:
    """A training run of about two seconds on one core: short, so that the share is a high one."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(0)
    x = rng.normal(size=(6000, 40))
    y = x[:, 0] + rng.normal(size=6000) > 0
    HistGradientBoostingClassifier(max_iter=500, random_state=0).fit(x, y)


def cpu_s(work: Callable[[], None]) -> tuple[float, float]:
    """CPU seconds of all threads, and wall seconds."""
    began_cpu, began = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - began_cpu, time.perf_counter() - began


def training(monitor: CarbonMonitor, rounds: int) -> dict[str, Any]:
    """Share that one booked window adds to a training run."""
    inside: list[float] = []

    def windowed() -> None:
        began = time.perf_counter()
        with monitor.window("train"):
            opened = time.perf_counter()
            train()
            closing = time.perf_counter()
        inside.append((opened - began) + (time.perf_counter() - closing))

    train()  # what is loaded once belongs to neither side
    plain: list[tuple[float, float]] = []
    measured: list[tuple[float, float]] = []
    for i in range(rounds):
        sides: list[tuple[Callable[[], None], list[tuple[float, float]]]] = [
            (train, plain),
            (windowed, measured),
        ]
        for work, kept in sides if i % 2 else sides[::-1]:
            kept.append(cpu_s(work))
    run_s = [wall for _, wall in measured]
    difference = [m[0] - p[0] for m, p in zip(measured, plain)]
    return {
        "run_s": figure(run_s),
        "window_s": figure(inside),
        "share": figure([spent / run for spent, run in zip(inside, run_s)]),
        "paired_cpu_difference_s": figure(difference),
    }


def cold_import(module: str, rounds: int) -> dict[str, Any]:
    """Seconds to import a module in a fresh interpreter, by the clock and of CPU time."""
    spent: list[tuple[float, float]] = []
    for _ in range(rounds):
        done = subprocess.run(
            [sys.executable, "-c", CHILD.format(module=module)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        wall, cpu = map(float, done.stdout.split())
        spent.append((wall, cpu))
    return {"s": figure([wall for wall, _ in spent]), "cpu_s": figure([cpu for _, cpu in spent])}


def measure(rounds: int, runs: int) -> dict[str, Any]:
    """Everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counters = fake_rapl_meter(folder / "rapl")
        grid = GridConfig(sources=("synthetic",))
        monitor = build_monitor(grid, ledger=folder / "ledger.jsonl")
        return {
            "window": empty_windows(make_meter("machine"), rounds),
            "window_process": empty_windows(make_meter("process"), rounds),
            "window_with_counters": empty_windows(counters, rounds),
            "window_booked": booked_windows(monitor, max(50, rounds // 10)),
            "training": training(monitor, runs),
            "import": {module: cold_import(module, runs) for module in MODULES},
        }


def fake_rapl_meter(folder: Path) -> Meter:
    """The machine's meter with readable counters."""
    folder.mkdir()
    return MachineMeter(rapl=RaplMeter(fake_rapl(folder)))


def verdicts(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, and whether it was."""
    reached = [
        ("window, ms", report["window"]["ms"]["value"], WINDOW_MS),
        ("window per process, ms", report["window_process"]["ms"]["value"], WINDOW_MS),
        ("window with counters, ms", report["window_with_counters"]["ms"]["value"], WINDOW_MS),
        ("share of a training run, booked", report["training"]["share"]["value"], SHARE),
    ]
    reached += [
        (f"cold import of {module}, {words}", found[key]["value"], IMPORT_S)
        for module, found in report["import"].items()
        for key, words in (("s", "s"), ("cpu_s", "CPU s, which other load blurs less"))
    ]
    return [
        {"what": what, "value": value, "at_most": limit, "reached": value <= limit}
        for what, value, limit in reached
    ]


def main() -> None:
    """Measure, print the verdicts, write JSON where asked."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000, help="empty windows")
    parser.add_argument("--runs", type=int, default=10, help="training runs and imports")
    parser.add_argument("--json", type=Path, help="JSON file to write")
    options = parser.parse_args()
    report = measure(options.rounds, options.runs)
    report["verdicts"] = verdicts(report)
    report["machine"] = {
        "cpus": os.cpu_count(), "python": platform.python_version(),
        "load_1min": os.getloadavg()[0],
    }  # fmt: skip
    for verdict in report["verdicts"]:
        word = "reached" if verdict["reached"] else "MISSED"
        print(f"{verdict['what']}: {verdict['value']:.4g} (<= {verdict['at_most']:g}) {word}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        partial = options.json.with_suffix(options.json.suffix + ".partial")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        os.replace(partial, options.json)


if __name__ == "__main__":
    main()
