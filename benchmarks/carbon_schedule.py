"""What waiting for cleaner electricity saves: 4 h job, 12 h slack, against perfect foresight.

    python benchmarks/carbon_schedule.py --data ../shared/data/carbon --out runs/schedule.json

Every hour of a year is a start. Policies: run now (saves 0 by definition), yesterday's profile,
and the learned one, both asked again each hour. Intervals: bootstrap over weeks.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from carbon.schedule_backtest import WaitingConfig, learned_changes, regret, yesterday_changes
from carbon.schedule_features import load_schedule_data

RUNS: tuple[tuple[str, str, str, int, tuple[str, ...]], ...] = (
    ("em_gb", "life", "Europe/London", 0, ("2022", "2023", "2024")),
    ("em_gb", "life", "Europe/London", 1, ("2022", "2023", "2024")),
    ("em_gb", "direct", "Europe/London", 0, ("2022", "2023", "2024")),
    ("em_ciso", "life", "America/Los_Angeles", 0, ("2022", "2023", "2024")),
    # The 00 UTC rows of this file hold the value of 24 h later from July 2021 on: left out.
    ("cc_de", "life", "Europe/Berlin", 0, ("2021-01/2021-06",)),
)


def bounds(period: str) -> tuple[np.datetime64, np.datetime64]:
    """First hour and the hour after the last one of ``2022`` or ``2021-01/2021-06``."""
    first, _, last = period.partition("/")
    stop = np.datetime64(last or first) + 1
    return np.datetime64(first).astype("datetime64[h]"), stop.astype("datetime64[h]")


def run(data_dir: Path, spec: tuple[str, str, str, int, tuple[str, ...]], seed: int) -> Any:
    """One grid on one basis with one delay: figures by period and policy."""
    name, basis, zone, delay, periods = spec
    began = time.perf_counter()
    config = replace(WaitingConfig(), delay_h=delay, seed=seed)
    data = load_schedule_data(data_dir / f"{name}.csv.gz", basis, time_zone=zone)
    times = data.trace.time_utc
    tail = config.slack_h + config.duration_h
    first = int(np.searchsorted(times, bounds(periods[0])[0]))
    stop = min(int(np.searchsorted(times, bounds(periods[-1])[1])) + tail, len(times))
    policies = {
        "yesterday": yesterday_changes(data, config),
        "learned": learned_changes(data, config, first, stop),
    }
    result = {}
    for period in periods:
        low, high = np.searchsorted(times, bounds(period))
        rows = np.arange(low, min(high, len(times) - tail + 1), dtype=np.int64)
        result[period] = {
            policy: regret(data, config, changes, rows, np.random.default_rng(seed))
            for policy, changes in policies.items()
        }
        share = {p: round(r["share_of_perfect"]["value"], 4) for p, r in result[period].items()}
        print(name, basis, f"delay {delay} h", period, share, flush=True)
    return {
        "trace": name, "basis": basis, "config": asdict(config), "periods": result,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def main() -> None:
    """Run all, print shares, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/carbon"))
    parser.add_argument("--out", type=Path, default=Path("runs/carbon_schedule.json"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    report = {"runs": [run(options.data, spec, options.seed) for spec in RUNS]}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    partial = options.out.with_suffix(options.out.suffix + ".partial")
    partial.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(partial, options.out)


if __name__ == "__main__":
    main()
