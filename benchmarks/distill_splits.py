"""Twenty random hospital-grouped splits: the student, its controls, and what else could be used.

    python benchmarks/distill_splits.py --cohort ../shared/data/tcga_nsclc --out runs/splits.json

Every split trains on about 80 % of the patients and scores the others, whole hospitals each time.
Teachers are fitted once a split and shared by the student, its supervised twin (same network, steps
and evidence sets, hard labels alone) and the permuted control (every teacher's answers given to
another patient). Baselines see the same patients. Differences are paired by split, intervals are
corrected for the patients that splits share (Nadeau and Bengio 2003). Rows of finished splits are
kept beside the result, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distill_baselines import baseline_logits, subsets_of

from api.cli.atomic import write_json
from distill.arrays import training_data, usable
from distill.batches import Batches
from distill.choice import Chooser
from distill.cohort import Cohort, read_cohort
from distill.cohort_folds import assign_folds
from distill.config import TrainConfig
from distill.crossfit import Folds, TeacherLattice, TrainingData
from distill.fit import FittedStudent, Inputs, fit_student, student_inputs
from distill.masks import everything_masks
from distill.metrics import auc_value
from distill.objective import supervised_twin, weights_of
from distill.splits import corrected_interval, hospital_splits
from distill.teacher import prior_logit, summed_logit
from distill.transfers import all_transfers

SCORED: Folds = frozenset({0})
INNER_FOLDS = 5
FULL = "full"
LATE, STRONG, TEACHERS = "late_fusion", "strong_late_fusion", "teachers_sum"
ARMS = ("student", "twin", "permuted")
Row = dict[str, Any]


def main() -> None:
    """Parse arguments, run what is missing, write whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the splits and of every fit")
    parser.add_argument("--preset", default="default")
    parser.add_argument("--epochs", type=int, help="of student and twin; the preset's by default")
    parser.add_argument(
        "--choose", action="store_true", help="choose the objective's weights inside every split"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    cohort = read_cohort(args.cohort)
    config = TrainConfig.preset(args.preset, seed=args.seed, threads=1)
    config = replace(config, choose_weights=args.choose, epochs=args.epochs or config.epochs)
    kept = args.out.with_name(f"{args.out.stem}.rows.json")
    run = {"cohort": cohort.name, "n": cohort.n_patients, "seed": args.seed,
           "preset": args.preset, "epochs": config.epochs, "chosen": args.choose,
           "weights": weights_of(config)}  # fmt: skip
    rows = finished_rows(kept, run)
    for split, (train, test) in enumerate(hospital_splits(cohort, args.splits, 0.2, args.seed)):
        if split < len(rows):
            continue
        rows.append(one_split(cohort, train, test, config, split))
        write_json(kept, {**run, "rows": rows})
        told = {arm: round(rows[-1]["auc"][arm][FULL], 4) for arm in (*ARMS, LATE, STRONG)}
        print(f"split {split}: {told}, {rows[-1]['wall_s']:.0f} s", flush=True)
    result = {**run, "hospitals": len(set(cohort.group)), **summary(rows[: args.splits])}
    write_json(args.out, result)
    print(json.dumps(result["targets"], indent=1))


def finished_rows(kept: Path, run: Row) -> list[Row]:
    """Rows of an earlier run with the same settings; none otherwise."""
    if not kept.exists():
        return []
    earlier = json.loads(kept.read_text(encoding="utf-8"))
    rows: list[Row] = earlier.pop("rows")
    return rows if earlier == run else []


def one_split(
    cohort: Cohort, train: np.ndarray, test: np.ndarray, config: TrainConfig, split: int
) -> Row:
    """AUC of every arm and baseline on one split, for every mixture of modalities."""
    start = time.monotonic()
    fold = np.zeros(cohort.n_patients, dtype=np.int16)
    fold[train] = 1 + assign_folds(cohort.subset(train), INNER_FOLDS, seed=split)
    data = usable(training_data(replace(cohort, fold=fold)))
    lattice = TeacherLattice(data=data, config=replace(config, seed=config.seed + split))
    choice = Chooser(lattice=lattice).choice(SCORED)
    inputs = student_inputs(lattice, SCORED)
    fitted = {
        "student": fit_student(lattice, SCORED, choice.config, inputs),
        "twin": fit_student(lattice, SCORED, supervised_twin(lattice.config), inputs),
        "permuted": fit_student(lattice, SCORED, choice.config, permuted(inputs, lattice, split)),
    }
    scores = {arm: student_scores(model, data, test) for arm, model in fitted.items()}
    scores[TEACHERS] = teacher_scores(lattice, test)
    for name, of_mixture in baseline_logits(data, train, test, seed=split).items():
        scores[name] = of_mixture
    return {
        "split": split, "n_train": int(train.sum()), "n_test": int(test.sum()),
        "auc": aucs(scores, data, test), "adopted": list(choice.adopted),
        "wall_s": time.monotonic() - start,
    }  # fmt: skip


def permuted(inputs: Inputs, lattice: TeacherLattice, seed: int) -> Inputs:
    """The same lesson with every teacher's answers given to another patient or synthetic row."""
    rng = np.random.default_rng([seed, 99])
    data: Batches = inputs.batches
    order = torch.from_numpy(rng.permutation(data.x.shape[0]))
    made_up = torch.from_numpy(rng.permutation(data.synthetic_x.shape[0]))
    share = lattice.config.soft_share
    soft = (data.target - (1 - share) * data.label) / share if share else data.label
    return replace(inputs, batches=replace(
        data, target=(1 - share) * data.label + share * soft[order],
        teacher=data.teacher[order], latent=data.latent[order],
        synthetic_logit=data.synthetic_logit[made_up],
    ))  # fmt: skip


def student_scores(
    model: FittedStudent, data: TrainingData, test: np.ndarray
) -> dict[str, np.ndarray]:
    """Log-odds of the scored patients for every mixture; NaN where they lack a part of it."""
    x, present = model.features(data)[test], data.present()[test]
    transfers = all_transfers(data.modalities)
    out = {}
    for name, members in subsets_of(data.modalities).items():
        shown = present if name == FULL else np.tile(members, (present.shape[0], 1))
        mask = everything_masks(shown, data.modalities, transfers)[:, None]
        score = model.logits(x, mask)[0][:, 0]
        out[name] = np.where((present | ~shown).all(axis=1), score, np.nan)
    return out


def teacher_scores(lattice: TeacherLattice, test: np.ndarray) -> dict[str, np.ndarray]:
    """The calibrated teachers' summed log-odds for every mixture, NaN likewise."""
    data = lattice.data
    each = np.full((data.label.size, len(data.modalities)), np.nan)
    for j, m in enumerate(data.modalities):
        table = data.tables[m]
        inside = np.flatnonzero(test[table.row])
        each[table.row[inside], j] = lattice.teacher(m, SCORED)[0].logit(table.raw.take(inside))
    prior = prior_logit(data.label[~test].astype(np.int64))
    out = {}
    for name, members in subsets_of(data.modalities).items():
        part = each[test][:, members]
        lacking = ~np.isfinite(part).all(axis=1) if name != FULL else np.zeros(len(part), bool)
        out[name] = np.where(lacking, np.nan, summed_logit(part, prior))
    return out


def aucs(
    scores: dict[str, dict[str, np.ndarray]], data: TrainingData, test: np.ndarray
) -> dict[str, dict[str, float]]:
    """AUC per arm and mixture, over the scored patients who have all of it."""
    label = data.label[test].astype(np.int64)
    out: dict[str, dict[str, float]] = {}
    for arm, of_mixture in scores.items():
        out[arm] = {}
        for mixture, score in of_mixture.items():
            have = np.isfinite(score)
            out[arm][mixture] = auc_value(label[have], score[have].astype(np.float64))
    return out


def summary(rows: list[Row]) -> Row:
    """Means, paired differences with corrected intervals, wins, and the targets."""
    n_train, n_test = (float(np.mean([r[k] for r in rows])) for k in ("n_train", "n_test"))

    def values(arm: str, mixture: str) -> np.ndarray:
        return np.array([r["auc"][arm][mixture] for r in rows])

    def figure(x: np.ndarray) -> Row:
        mean, low, high = corrected_interval([float(v) for v in x], n_train, n_test)
        return {"value": mean, "ci95": [low, high], "n": len(rows)}

    def versus(first: str, second: str, mixture: str = FULL) -> Row:
        gap = values(first, mixture) - values(second, mixture)
        return {**figure(gap), "wins": int((gap > 0).sum())}

    arms, mixtures = list(rows[0]["auc"]), list(rows[0]["auc"]["student"])
    auc = {m: {a: figure(values(a, m)) for a in arms if m in rows[0]["auc"][a]} for m in mixtures}
    best = {m: best_baseline(auc[m]) for m in mixtures}
    against = {
        "student_minus": {a: versus("student", a) for a in auc[FULL] if a != "student"},
        "permuted_minus_twin": versus("permuted", "twin"),
        "twin_minus_late_fusion": versus("twin", LATE),
    }
    subsets = {m: {"baseline": best[m], **versus("student", best[m], m)} for m in mixtures}
    return {
        "splits": len(rows), "n_train": n_train, "n_test": n_test, "auc": auc,
        "differences": against, "subsets": subsets,
        "targets": targets(against["student_minus"], subsets, against["permuted_minus_twin"]),
        "adopted": {n: sum(n in r["adopted"] for r in rows)
                    for n in sorted({n for r in rows for n in r["adopted"]})},
        "wall_s": float(sum(r["wall_s"] for r in rows)),
    }  # fmt: skip


def best_baseline(auc: dict[str, Row]) -> str:
    """The baseline with the highest mean AUC over the splits; arms and teachers are none."""
    names = [name for name in auc if name not in (*ARMS, TEACHERS)]
    return max(names, key=lambda name: auc[name]["value"])


def targets(minus: dict[str, Row], subsets: dict[str, Row], permuted_gap: Row) -> list[Row]:
    """What was to be reached: the mean and, where a gain is claimed, an interval without 0."""
    asked = [
        ("student - late_fusion", minus[LATE], 0.03, True),
        ("student - supervised twin", minus["twin"], 0.02, True),
        ("student - strong_late_fusion", minus[STRONG], -0.005, False),
        ("student - teachers_sum", minus[TEACHERS], -0.005, False),
        *((f"student - {f['baseline']}, {m}", f, -0.01, False) for m, f in subsets.items()),
    ]
    out = []
    for name, figure, least, excludes_zero in asked:
        reached = figure["value"] >= least and (figure["ci95"][0] > 0 or not excludes_zero)
        out.append({"name": name, "at_least": least, "interval_excludes_0": excludes_zero,
                    **figure, "reached": bool(reached)})  # fmt: skip
    out.append({"name": "permuted teachers - twin", "at_most": 0.0, **permuted_gap,
                "reached": bool(permuted_gap["value"] <= 0.0)})  # fmt: skip
    return out


if __name__ == "__main__":
    main()
