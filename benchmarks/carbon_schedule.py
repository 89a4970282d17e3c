"""What waiting for cleaner electricity saves: 4 h job, 12 h slack, against perfect foresight.

    python benchmarks/carbon_schedule.py --data ../shared/data/carbon --out runs/schedule.json
    python benchmarks/carbon_schedule.py --select-on 2021 --only em_gb:life

Every hour of a year is a start. Policies: run now (saves 0 by definition), yesterday's profile,
and the learned one, both asked again each hour, for a job that runs through and for one that may
pause. Intervals: bootstrap over weeks. The learned policy's settings are the defaults, or with
--select-on those that are best on a year which is not scored, found anew. Ends with the verdicts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from carbon.schedule_backtest import (
    WEEK_H,
    WaitingConfig,
    learned_changes,
    regret,
    regret_interruptible,
    yesterday_changes,
)
from carbon.schedule_features import WARM_UP_H, ScheduleData, load_schedule_data

TARGET = 0.78
TARGET_TRACE = "em_gb"
CANDIDATES = tuple(
    {"num_leaves": leaves, "rounds": rounds}
    for leaves, rounds in itertools.product((7, 15, 31, 63), (60, 120, 240))
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One grid on one basis with one delay, scored by period."""

    trace: str
    basis: str
    zone: str
    delay_h: int
    periods: tuple[str, ...]

    @property
    def name(self) -> str:
        """As ``--only`` takes its beginning."""
        return f"{self.trace}:{self.basis}:{self.delay_h}"

    def data(self, folder: Path) -> ScheduleData:
        """The feed."""
        return load_schedule_data(folder / f"{self.trace}.csv.gz", self.basis, time_zone=self.zone)  # type: ignore[arg-type]


YEARS = ("2022", "2023", "2024")
RUNS = (
    *(Run(trace="em_gb", basis=basis, zone="Europe/London", delay_h=delay, periods=YEARS)
      for basis, delay in itertools.product(("life", "direct"), (0, 1))),
    Run(trace="em_ciso", basis="life", zone="America/Los_Angeles", delay_h=0, periods=YEARS),
    # The 00 UTC rows of this file hold the value of 24 h later from July 2021 on: left out.
    Run(trace="cc_de", basis="life", zone="Europe/Berlin", delay_h=0,
        periods=("2021-01/2021-06",)),
)  # fmt: skip


def bounds(period: str) -> tuple[np.datetime64, np.datetime64]:
    """First hour and the hour after the last one of ``2022`` or ``2021-01/2021-06``."""
    first, _, last = period.partition("/")
    stop = np.datetime64(last or first) + 1
    return np.datetime64(first).astype("datetime64[h]"), stop.astype("datetime64[h]")


def starts(data: ScheduleData, config: WaitingConfig, period: str) -> np.ndarray:
    """Rows of a period that have enough history before them and their deadline on file."""
    times, tail = data.trace.time_utc, config.slack_h + config.duration_h
    low, high = np.searchsorted(times, bounds(period))
    # A longer job's history is asked for, so that pausing jobs are scored on the same hours.
    least = WARM_UP_H + 4 * WEEK_H + tail + config.delay_h
    return np.arange(max(low, least), min(high, len(times) - tail + 1), dtype=np.int64)


def select(folder: Path, year: str, seed: int) -> WaitingConfig:
    """The candidate with the best mean share over both delays on a year of the target's grid."""
    shares = {}
    for number, candidate in enumerate(CANDIDATES):
        found = []
        for run in (r for r in RUNS if r.trace == TARGET_TRACE and r.basis == "life"):
            config = replace(WaitingConfig(), delay_h=run.delay_h, seed=seed, **candidate)
            data = run.data(folder)
            rows = starts(data, config, year)
            tail = config.slack_h + config.duration_h
            changes = learned_changes(data, config, int(rows[0]), int(rows[-1]) + tail)
            score = regret(data, config, changes, rows, np.random.default_rng(seed))
            found.append(score["share_of_perfect"]["value"])
        shares[number] = float(np.mean(found))
        print(f"select on {year}:", candidate, f"{shares[number]:.4f}", flush=True)
    best = CANDIDATES[max(shares, key=shares.__getitem__)]
    print(f"chosen on {year}:", best, flush=True)
    return replace(WaitingConfig(), **best)


def score(folder: Path, run: Run, config: WaitingConfig, *, pausing: bool) -> dict[str, Any]:
    """Figures of one run by period, kind of job and policy."""
    began = time.perf_counter()
    config = replace(config, delay_h=run.delay_h)
    data = run.data(folder)
    rows = {period: starts(data, config, period) for period in run.periods}
    first = min(int(r[0]) for r in rows.values())
    stop = max(int(r[-1]) for r in rows.values()) + config.slack_h + config.duration_h
    result: dict[str, Any] = {period: {} for period in rows}
    kinds = [("through", config, regret)]
    if pausing:
        kinds.append(("interruptible", config.hourly, regret_interruptible))
    for kind, foreseen, judge in kinds:
        policies = {
            "yesterday": yesterday_changes(data, foreseen),
            "learned": learned_changes(data, foreseen, first, stop),
        }
        for period, chosen in rows.items():
            result[period][kind] = {
                policy: judge(data, config, changes, chosen, np.random.default_rng(config.seed))
                for policy, changes in policies.items()
            }
            share = {p: _shown(r["share_of_perfect"]) for p, r in result[period][kind].items()}
            print(run.name, period, kind, share, flush=True)
    return {
        "run": asdict(run), "config": asdict(config), "periods": result,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def _shown(figure: dict[str, Any]) -> str:
    low, high = figure["ci95"]
    return f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"


def table(report: dict[str, Any]) -> str:
    """Every figure, as Markdown."""
    lines = [
        "| grid, basis | delay | period | job | perfect saves | yesterday: share | learned |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in report["runs"]:
        run = entry["run"]
        for period, kinds in entry["periods"].items():
            for kind, by in kinds.items():
                perfect = by["learned"]["perfect_saved_fraction"]["value"]
                shares = [_shown(by[p]["share_of_perfect"]) for p in ("yesterday", "learned")]
                lines.append(
                    f"| {run['trace']}, {run['basis']} | {run['delay_h']} h | {period} | {kind} | "
                    f"{perfect:.1%} | {' | '.join(shares)} |"
                )
    return "\n".join(lines)


def verdicts(report: dict[str, Any]) -> tuple[str, bool]:
    """The target, year by year: a job that runs through, in Great Britain."""
    lines = [
        f"| GB, 4 h job, 12 h slack, settings {report['chosen']} | share | to reach | |",
        "|---|---|---|---|",
    ]
    held = True
    for entry in report["runs"]:
        run = entry["run"]
        if run["trace"] != TARGET_TRACE:
            continue
        for period, kinds in entry["periods"].items():
            reached = kinds["through"]["learned"]["share_of_perfect"]["value"]
            held &= reached >= TARGET
            answer = "yes" if reached >= TARGET else "**no**"
            lines.append(
                f"| {run['basis']}, {run['delay_h']} h late, {period} | {reached:.3f} | "
                f">= {TARGET} | {answer} |"
            )
    return "\n".join(lines), held


def main() -> int:
    """Select if asked, run all, print tables and verdicts, write JSON; 1 if a verdict is no."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/carbon"))
    parser.add_argument("--out", type=Path, default=Path("runs/carbon_schedule.json"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--select-on", metavar="YEAR", help="a year that is not scored")
    parser.add_argument("--only", action="append", help="beginning of em_gb:life:0; repeatable")
    parser.add_argument("--no-pausing", action="store_true", help="only jobs that run through")
    options = parser.parse_args()
    runs = [r for r in RUNS if any(r.name.startswith(o) for o in options.only or [""])]
    if not runs:
        parser.error(f"--only fits none of {', '.join(r.name for r in RUNS)}")
    config, chosen = replace(WaitingConfig(), seed=options.seed), "defaults"
    if options.select_on:
        if options.select_on in YEARS:
            parser.error(f"{options.select_on} is scored; select on another year")
        config = replace(select(options.data, options.select_on, options.seed), seed=options.seed)
        chosen = f"selected on {options.select_on}"
    report: dict[str, Any] = {"chosen": chosen, "config": asdict(config), "runs": []}
    for run in runs:
        entry = score(options.data, run, config, pausing=not options.no_pausing)
        report["runs"].append(entry)
        write(options.out, report)
    lines, held = verdicts(report)
    judged = any(run.trace == TARGET_TRACE for run in runs)
    print(
        table(report), lines if judged else "no verdict: the target's grid was not run", sep="\n\n"
    )
    return 0 if held else 1


def write(path: Path, report: dict[str, Any]) -> None:
    """Whole or not at all; after each run, so that a stopped benchmark keeps what it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
