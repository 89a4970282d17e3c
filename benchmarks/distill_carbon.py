"""Does a carbon-aware training loop pay? Ablation at equal steps, shorter runs, cleaner hours.

    python benchmarks/distill_carbon.py --cohort ../shared/data/tcga_nsclc \
        --grids ../shared/data/carbon --out runs/distill_carbon.json

Students of random hospital-grouped splits: by number of epochs, and, at equal steps, by what sets
temperature or learning rate (nothing, steps, carbon, carbon in a shuffled order). The number of
epochs chosen on those is then held against the usual one on further splits. The rest is
arithmetic: gCO2e of a run that starts at every hour of a year, as it comes, scheduled within 24
hours by a forecast, shortened, or both. Training takes minutes; energy is modelled (CPU time x
12 W). Rows are kept in OUT.rows.jsonl, so that an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from api.cli.atomic import write_json
from carbon import schedule_backtest as backtest
from carbon.intensity.recorded import load_trace
from carbon.schedule_features import load_schedule_data
from distill.arrays import training_data, usable
from distill.carbon_aware import CarbonRun
from distill.carbon_book import CarbonSettings
from distill.choice import CANDIDATES
from distill.cohort import Cohort, read_cohort
from distill.config import TrainConfig
from distill.crossfit import TeacherLattice, TrainingData, seed_for
from distill.fit import SEED_STUDENT, Inputs, features_of, student_inputs
from distill.loop import StepControl, train_student
from distill.masks import everything_masks
from distill.metrics import auc_value
from distill.objective import student_loss
from distill.splits import corrected_interval, hospital_splits
from distill.train import Trainer

TRACES = {"em_ciso": "America/Los_Angeles", "em_gb": "Europe/London"}
FULL, SHORT, EQUAL = 200, 100, 30
"""Epochs: as usual, of the carbon-aware run, and of every arm of the ablation."""
LEAST, CURVE = 20, (10, 20, 30, 40, 60, 100, 200)
SPLIT_SEED, FOLD_SEED, INNER, SETS_A_SPLIT = 3, 7, 5, 6  # last: what teachers leave out, in turn
DAY_H, HOURS, CORE_W, J_PER_KWH = 24, (1, 8), 12.0, 3.6e6
EQUAL_AUC, TARGET, SCORED = 0.005, 0.60, frozenset({0})


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One arm of the ablation at equal steps."""

    name: str
    start: float = 1.0
    held: bool = False
    anneal: str = "steps"
    rate: float = 0.0
    shuffled: bool = False


VARIANTS = (
    Variant(name="annealed 3 to 1, by steps", start=3.0),
    Variant(name="annealed 3 to 1, by carbon (California)", start=3.0, anneal="carbon"),
    Variant(name="annealed 3 to 1, by shuffled carbon", start=3.0, anneal="carbon", shuffled=True),
    Variant(name="fixed temperature 3", start=3.0, anneal="carbon", held=True),
    Variant(name="learning rate by carbon (California)", rate=1.0),
    Variant(name="learning rate by shuffled carbon", rate=1.0, shuffled=True),
)
FIXED = "fixed temperature 1"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One split, with its teachers fitted: all that training a student takes."""

    inputs: Inputs
    x: np.ndarray
    mask: np.ndarray
    label: np.ndarray
    teacher_s: float
    batches_s: float

    def auc(self, config: TrainConfig, control: StepControl | None = None) -> float:
        """AUC of everything a scored patient has; uncalibrated, which no ranking needs here."""
        model = train_student(
            self.inputs.batches, self.inputs.shape, config,
            seed_for(config, SEED_STUDENT, SCORED), loss=student_loss, control=control,
        )  # fmt: skip
        with torch.no_grad():
            logit = model(torch.from_numpy(self.x), torch.from_numpy(self.mask)).logit
        return auc_value(self.label, logit[:, 0].double().numpy())


def inner_folds(cohort: Cohort, train: np.ndarray, number: int) -> np.ndarray:
    """Fold 0 is scored; the other hospitals go, largest first, to the smallest of five folds."""
    group, label = np.array(cohort.group), cohort.label
    fold = np.zeros(len(group), dtype=np.int16)
    rng = np.random.default_rng([FOLD_SEED, number])
    hospitals = np.unique(group[train])
    size = {h: int((group == h).sum()) for h in hospitals}
    for kind in (0, 1):
        chosen = [h for h in hospitals if round(float(label[group == h].mean())) == kind]
        total = np.zeros(INNER)
        for h in sorted(rng.permutation(chosen), key=lambda h: -size[h]):
            j = int(total.argmin())
            total[j] += size[h]
            fold[group == h] = j + 1
    return fold


def prepare(data: TrainingData, rows: np.ndarray, config: TrainConfig) -> Prepared:
    """Fit the teachers that have not seen the scored hospitals."""
    start = time.process_time()
    lattice = TeacherLattice(data=data, config=config)
    for m in (*data.modalities, *data.privileged):
        lattice.teacher(m, SCORED)
    fitted = time.process_time()
    inputs = student_inputs(lattice, SCORED)
    mask = everything_masks(data.present()[rows], data.modalities, inputs.shape.transfers)
    width = inputs.shape.features
    return Prepared(
        inputs=inputs, mask=mask[:, None], label=data.label[rows].astype(np.int64),
        x=features_of(data, inputs.preprocessors, width)[rows], teacher_s=fitted - start,
        batches_s=time.process_time() - fitted,
    )  # fmt: skip


def controlled(variant: Variant, hours: np.ndarray, usual: float, steps: int) -> StepControl:
    """The arm's control; its run is spread over a day of the trace, whatever it really takes."""
    settings = CarbonSettings(
        temperature=variant.start, anneal=variant.anneal, rate_by_intensity=variant.rate,
        reference_g_per_kwh=usual, step_kwh=1.0,
    )  # fmt: skip

    def now() -> float:
        return float(hours[min(DAY_H - 1, DAY_H * run.book.steps // steps)])

    run = CarbonRun(settings, intensity=now, energy_kwh=lambda: None)
    return run.attend(0)


class Rows:
    """Results so far, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._path, self._commit = path, commit()
        text = path.read_text() if path.is_file() else ""
        self.all = [json.loads(line) for line in text.splitlines()]

    def has(self, **key: Any) -> bool:
        """Whether there is a row with these values."""
        return any(row.items() >= key.items() for row in self.all)

    def add(self, **row: Any) -> None:
        """Keep one, with the code that it is of."""
        row["commit"] = self._commit
        self.all.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row)[:200], flush=True)


def train_splits(cohort: Cohort, rows: Rows, args: argparse.Namespace) -> None:
    """Every arm of every split and seed that is not yet among the rows."""
    base, config = usable(training_data(cohort)), TrainConfig(threads=1)
    grid = load_trace(args.grids / "em_ciso.csv.gz", "life").g_per_kwh
    splits = hospital_splits(cohort, n=args.splits + args.confirm, seed=SPLIT_SEED)
    chosen = [(FIXED, epochs) for epochs in CURVE] + [(v.name, EQUAL) for v in VARIANTS]
    splits = hospital_splits(cohort, n=args.splits + args.confirm, seed=SPLIT_SEED)
    for number, (train, test) in enumerate(splits):
        arms = chosen if number < args.ablation else chosen[: len(CURVE)]
        if number >= args.splits:
            arms = [(FIXED, SHORT), (FIXED, FULL)]
        wanted = [(arm, seed) for arm in arms for seed in range(args.seeds)
                  if not rows.has(split=number, seed=seed, arm=arm[0], epochs=arm[1])]  # fmt: skip
        if not wanted:
            continue
        data = replace(base, fold=inner_folds(cohort, train, number))
        prepared = prepare(data, np.flatnonzero(test), config)
        for (name, epochs), seed in wanted:
            start = time.process_time()
            steps = epochs * math.ceil(int(train.sum()) / config.batch)
            control = arm_control(name, grid, number, steps)
            auc = prepared.auc(replace(config, epochs=epochs, seed=seed), control)
            rows.add(
                split=number, seed=seed, arm=name, epochs=epochs, auc=auc,
                cpu_s=time.process_time() - start, teacher_s=prepared.teacher_s,
                n_train=int(train.sum()), n_test=int(test.sum()),
            )  # fmt: skip


def arm_control(name: str, values: np.ndarray, split: int, steps: int) -> StepControl | None:
    """The control of a named arm, on a day drawn for the split (the same for every arm)."""
    variant = next((v for v in VARIANTS if v.name == name), None)
    if variant is None:
        return None
    rng = np.random.default_rng([11, split])
    start = int(rng.integers(backtest.WEEK_H, len(values) - DAY_H))
    # Held: of so much carbon, none is ever used.
    usual = 1e15 if variant.held else float(values[start - backtest.WEEK_H : start].mean())
    day = values[start : start + DAY_H]
    hours = rng.permutation(values)[:DAY_H] if variant.shuffled else day
    return controlled(variant, hours, usual, steps)


def paired(
    rows: Rows, one: tuple[str, int], other: tuple[str, int], splits: range
) -> dict[str, Any]:
    """AUC of one arm less the other's: mean over seeds, corrected interval over splits."""
    table: dict[tuple[str, int], dict[int, dict[int, float]]] = {}
    for row in rows.all:
        if "arm" in row and row["split"] in splits:
            arm = table.setdefault((row["arm"], row["epochs"]), {})
            arm.setdefault(row["split"], {})[row["seed"]] = row["auc"]
    a, b = table.get(one, {}), table.get(other, {})
    both = {s: [k for k in a[s] if k in b[s]] for s in sorted(set(a) & set(b))}
    common = {s: seeds for s, seeds in both.items() if seeds}
    gaps = [float(np.mean([a[s][k] - b[s][k] for k in seeds])) for s, seeds in common.items()]
    sized = [(row["n_train"], row["n_test"]) for row in rows.all if row.get("split") in common]
    n_train, n_test = (float(v) for v in np.mean(sized, axis=0))
    mean, low, high = corrected_interval(gaps, n_train, n_test)
    level = float(np.mean([a[s][k] for s, seeds in common.items() for k in seeds]))
    return {"value": mean, "ci95": [low, high], "n": len(gaps), "unit": "splits", "auc": level}


def run_parts(cohort: Cohort, rows: Rows) -> dict[str, Any]:
    """Energy of a whole run from the CPU time of its parts, each measured once, times how many."""
    config = TrainConfig(threads=1)
    trainer = Trainer(data=usable(training_data(cohort)), config=config)
    students, teachers = (len(unseen) for unseen in trainer._unseen())
    if not rows.has(parts=True):
        train, test = hospital_splits(cohort, n=1, seed=SPLIT_SEED + 1)[0]
        data = replace(trainer.data, fold=inner_folds(cohort, train, 0))
        prepared = prepare(data, np.flatnonzero(test), config)
        start = time.process_time()
        prepared.auc(replace(config, epochs=10))
        epoch_s, start = (time.process_time() - start) / 10, time.process_time()
        trainer.baselines()
        rows.add(
            parts=True, teacher_s=prepared.teacher_s, batches_s=prepared.batches_s,
            epoch_s=epoch_s, baselines_s=time.process_time() - start,
        )  # fmt: skip
    row = next(row for row in rows.all if row.get("parts"))
    short_fits = len(trainer._short_fits())
    choice = short_fits * (len(CANDIDATES) + 1) * config.choice_epochs * row["epoch_s"]
    seconds = {
        "teachers": row["teacher_s"] * teachers / SETS_A_SPLIT,
        "targets": row["batches_s"] * (students + short_fits),
        "choice_of_weights": choice, "baselines": row["baselines_s"],
        "students": students * FULL * row["epoch_s"],
    }  # fmt: skip
    full = sum(seconds.values())
    fixed = 1 - seconds["students"] / full
    return {
        "basis": "modelled: CPU time of each part x 12 W, times how often a run has it",
        "left_out": "calibration, importance, export", "measured": row, "cpu_s": seconds,
        "full_kwh": full * CORE_W / J_PER_KWH, "fixed_share": fixed,
        "short_share": fixed + (1 - fixed) * SHORT / FULL,
    }  # fmt: skip


def scheduled(trace: str, args: argparse.Namespace) -> dict[int, dict[str, np.ndarray]]:
    """Mean intensity by hours of work and policy, for every start; models end before the year."""
    data = load_schedule_data(args.grids / f"{trace}.csv.gz", "life", time_zone=TRACES[trace])
    values, times = data.trace.g_per_kwh, data.trace.time_utc
    first, last = (np.datetime64(args.year) + k for k in (0, 1))
    starts = np.arange(
        np.searchsorted(times, first.astype("datetime64[h]")),
        np.searchsorted(times, last.astype("datetime64[h]")) - DAY_H,
    )
    config = backtest.WaitingConfig(duration_h=1, slack_h=DAY_H - 1, refit_h=53 * backtest.WEEK_H)
    ahead = values[starts[:, None] + np.arange(DAY_H)]
    learned = backtest.learned_changes(data, config, int(starts[0]), int(starts[-1]) + DAY_H)
    policies = {"learned": learned, "yesterday": backtest.yesterday_changes(data, config)}
    out = {}
    for hours in HOURS:
        out[hours] = {"now": ahead[:, :hours].mean(axis=1),
                      "perfect": np.sort(ahead, axis=1)[:, :hours].mean(axis=1)}  # fmt: skip
        for name, changes in policies.items():
            runs = backtest.runs_of(changes, starts, hours)
            out[hours][name] = (ahead * runs).sum(axis=1) / hours
    return out


def ratio(top: np.ndarray, bottom: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """sum(top) / sum(bottom), with a bootstrap over weeks."""
    week = np.arange(len(top)) // backtest.WEEK_H
    sums = np.stack([np.bincount(week, weights=v) for v in (top, bottom)])
    draws = np.random.default_rng(seed).integers(0, sums.shape[1], size=(2000, sums.shape[1]))
    t, b = sums[:, draws].sum(axis=2)
    low, high = np.quantile(t / b, [0.025, 0.975])
    value = float(top.sum() / bottom.sum())
    return {"value": value, "ci95": [float(low), float(high)], "n": len(top), "unit": "starts"}


def schedule_grids(rows: Rows, args: argparse.Namespace) -> None:
    """Intensity by policy as a share of the unscheduled one's, and epochs by a constant budget."""
    for trace in TRACES:
        if rows.has(grid=trace, hours=HOURS[-1], year=args.year):
            continue
        for hours, found in scheduled(trace, args).items():
            now = found["now"]
            # The budget that affords SHORT epochs at the median hour: fewer when it is dirty.
            epochs = np.clip(SHORT * np.median(now) / now, LEAST, FULL)
            rows.add(
                grid=trace, hours=hours, year=args.year,
                shares={name: ratio(found[name], now) for name in found if name != "now"},
                budget_epochs=[float(v) for v in np.quantile(epochs, [0.05, 0.5, 0.95])],
                budget_steps_share=float((now * epochs).sum() / now.sum() / FULL),
                budget_histogram=np.bincount(epochs.astype(int), minlength=FULL + 1).tolist(),
            )  # fmt: skip


def grid_figures(row: dict[str, Any], run: dict[str, Any], curve: dict[str, Any]) -> dict[str, Any]:
    """gCO2e as a share of the unscheduled run of all epochs, by lever."""

    def times(figure: dict[str, Any], by: float) -> dict[str, Any]:
        return {**figure, "value": by * figure["value"], "ci95": [by * v for v in figure["ci95"]]}

    out: dict[str, Any] = {"shorter_alone": {"value": run["short_share"], "ci95": None, "n": 1}}
    for policy, figure in row["shares"].items():
        out[f"{policy}_alone"] = figure
        out[f"{policy}_and_shorter"] = times(figure, run["short_share"])
    gaps = [*(curve[str(e)]["value"] for e in CURVE[:-1]), 0.0]
    lost = np.interp(np.arange(FULL + 1), CURVE, gaps)
    held, fixed = np.array(row["budget_histogram"]), run["fixed_share"]
    out["constant_budget_alone"] = {
        "value": fixed + (1 - fixed) * row["budget_steps_share"], "ci95": None,
        "auc_less_full": float(held @ lost / held.sum()), "n": int(held.sum()),
        "epochs_p5_p50_p95": row["budget_epochs"],
    }  # fmt: skip
    return out


def main() -> None:
    """Parse arguments, run what is missing, write whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("cohort", "grids", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name, default in (("splits", 8), ("ablation", 8), ("confirm", 8), ("seeds", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--year", default="2024")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cohort, rows = read_cohort(args.cohort), Rows(args.out.with_name(f"{args.out.name}.rows.jsonl"))
    torch.set_num_threads(1)
    schedule_grids(rows, args)
    parts = run_parts(cohort, rows)
    train_splits(cohort, rows, args)
    write_json(args.out, summary(rows, parts, args))


def summary(rows: Rows, run: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """All figures and the verdicts."""
    n, full = args.splits, (FIXED, FULL)
    first, further = range(n), range(n, n + args.confirm)
    curve = {str(e): paired(rows, (FIXED, e), full, first) for e in CURVE if e != FULL}
    arms = {v.name: paired(rows, (v.name, EQUAL), (FIXED, EQUAL), first) for v in VARIANTS}
    controls = {
        f"{what}: carbon less shuffled carbon": paired(
            rows, (VARIANTS[i].name, EQUAL), (VARIANTS[i + 1].name, EQUAL), first)
        for what, i in (("temperature", 1), ("learning rate", 4))
    }  # fmt: skip
    equal = paired(rows, (FIXED, SHORT), full, further if args.confirm else first)
    targets = {f"AUC of {SHORT} epochs within {EQUAL_AUC} of {FULL}": {
        **equal, "reached": abs(equal["value"]) <= EQUAL_AUC,
        "interval_within": equal["ci95"][0] >= -EQUAL_AUC}}  # fmt: skip
    grids = {}
    for row in (row for row in rows.all if row.get("year") == args.year):
        grids[f"{row['grid']}, {row['hours']} h"] = grid_figures(row, run, curve)
    for trace in TRACES:
        figure = grids[f"{trace}, 1 h"]["learned_and_shorter"]
        targets[f"gCO2e on {trace} <= {TARGET}"] = {
            **figure, "reached": figure["value"] <= TARGET,
            "interval_within": figure["ci95"][1] <= TARGET}  # fmt: skip
    return {
        "commits": sorted({row["commit"] for row in rows.all}), "year": args.year,
        "basis": "average-life-consumption", "epochs_less_full": curve,
        "at_equal_steps_less_fixed": arms, "controls": controls,
        "short_less_full": equal, "on_further_splits": bool(args.confirm),
        "run_parts": run, "share_of_unscheduled_full_run": grids, "targets": targets,
    }  # fmt: skip


def commit() -> str:
    """What the code was."""
    command = ("git", "rev-parse", "--short", "HEAD")
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
