"""Few labels: does a teacher of another modality help a student of one, and what else would?

    python benchmarks/distill_low_labels.py --cohort ../shared/data/tcga_nsclc \
        --out runs/distill_low_labels.json

On random hospital-grouped splits, 100 training patients keep their label. Privileged teachers that
are fitted on those label the other training patients; a student of one modality learns from both
and is scored on unseen hospitals. Beside it: the supervised twin (same network, same steps, the
100 labels), two kinds of self-training, the permuted teacher, tree models on the 100 labels, and
the same student with every training label. Paired differences have Nadeau and Bengio's corrected
intervals. With --curve the same for 50 to 400 labels on fewer splits. Every split is cached beside
the result, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import torch
from sklearn.ensemble import ExtraTreesClassifier
from threadpoolctl import threadpool_limits

from api.cli.atomic import write_json
from distill.cohort import Cohort, read_cohort
from distill.cohort_folds import assign_folds
from distill.config import TrainConfig
from distill.controls import permuted_teacher, self_training, twin
from distill.crossfit import TeacherLattice, TrainingData
from distill.metrics import auc_value
from distill.preprocess import fit_preprocessor
from distill.single import Lesson, fit_single, lesson_of, steps_for
from distill.splits import Split, corrected_interval, hospital_splits
from distill.train import training_data, usable

MODALITIES = ("genomics", "pathology")
TREES = ("extra_trees", "extra_trees_leaf3", "lightgbm")
ARMS = (
    "student", "twin", "self_training", "self_training_trees", "permuted_teacher", "all_labels",
)  # fmt: skip
SELF_TRAINER = "lightgbm"
SCORED_SEED = 0
TUNED_SEED = 777
TEST_FOLD = 4
CURVE = (50, 200, 400)
CURVE_SPLITS = 4
"""The curve leaves out self-training and the permuted teacher."""
FORMAT = 1
Scores = dict[str, dict[str, float]]


def config_of(seed: int) -> TrainConfig:
    """Settings, chosen on the splits of ``TUNED_SEED``."""
    return replace(
        TrainConfig(seed=seed), screen_trees=100, boosters=1, epochs=40, threads=1
    )  # fmt: skip


def split_data(cohort: Cohort, data: TrainingData, split: Split, n_labels: int, seed: int) -> (
    TrainingData
):  # fmt: skip
    """Training hospitals in folds 0 to 3, the scored ones in fold 4; labels of few are kept.

    Labels are drawn by class among the training patients who have both modalities, so that either
    student has the same number of them.
    """
    train, _ = split
    fold = np.full(cohort.n_patients, TEST_FOLD, dtype=np.int16)
    fold[train] = assign_folds(cohort.subset(train), TEST_FOLD, seed=seed)
    able = train.copy()
    for name in MODALITIES:
        able &= cohort.present(name)
    rng = np.random.default_rng([seed, n_labels])
    kept = np.zeros(cohort.n_patients, dtype=bool)
    positive = round(n_labels * float(data.label[able].mean()))
    for kind, count in ((1, positive), (0, n_labels - positive)):
        rows = np.flatnonzero(able & (data.label == kind))
        kept[rng.permutation(rows)[:count]] = True
    return replace(data, fold=fold, label_kept=kept)


def tree_models(rows: int, seed: int) -> dict[str, Any]:
    """Supervised tree models at usual settings; smaller leaves for LightGBM where rows are few."""
    leaf = 5 if rows <= 200 else 10
    return {
        "extra_trees": ExtraTreesClassifier(200, random_state=seed),
        "extra_trees_leaf3": ExtraTreesClassifier(200, min_samples_leaf=3, random_state=seed),
        "lightgbm": lightgbm.LGBMClassifier(
            n_estimators=150, learning_rate=0.05, num_leaves=15, min_child_samples=leaf,
            colsample_bytree=0.4, subsample=0.8, subsample_freq=1, reg_lambda=1.0, n_jobs=1,
            random_state=seed, verbosity=-1,
        ),
    }  # fmt: skip


def one_modality(
    lattice: TeacherLattice, modality: str, config: TrainConfig, controls: bool
) -> dict[str, float]:
    """AUC of every arm on the scored hospitals."""
    data = lattice.data
    excluded = frozenset({TEST_FOLD})
    lesson = lesson_of(lattice, modality, excluded)
    table = data.tables[modality]
    heard = np.isfinite(lattice.target(excluded)[table.row])
    truth = data.label[table.row[heard]].astype(np.float64)
    inside = np.flatnonzero(data.fold[table.row] == TEST_FOLD)
    test, label = table.raw.take(inside), data.label[table.row[inside]].astype(np.int64)
    # What an arm may see of the labels: zeros where they are not kept.
    seen = np.where(lesson.labelled, truth, 0.0)
    steps = steps_for(len(lesson.raw), config)
    out: dict[str, float] = {}

    def arm(name: str, taught: Lesson) -> Callable[[Any], np.ndarray]:
        student = fit_single(taught, config, config.seed, steps=steps)
        out[name] = auc_value(label, student.logit(test))
        return student.logit

    arm("student", lesson)
    own = arm("twin", twin(lesson, seen))
    trees = tree_scores(lesson, seen, test, config.seed)
    out |= {name: auc_value(label, scores[1]) for name, scores in trees.items()}
    if controls:
        arm("self_training", self_training(lesson, seen, own(lesson.raw)))
        arm("self_training_trees", self_training(lesson, seen, trees[SELF_TRAINER][0]))
        arm("permuted_teacher", permuted_teacher(lesson, seen, np.random.default_rng(config.seed)))
    arm("all_labels", replace(lesson, target=truth, labelled=np.ones_like(lesson.labelled)))
    silent = ~lesson.labelled
    out["teacher_on_unlabelled"] = auc_value(truth[silent].astype(np.int64), lesson.target[silent])
    out["taught"], out["scored"] = float(len(lesson.raw)), float(label.size)
    return out


def tree_scores(
    lesson: Lesson, seen: np.ndarray, test: Any, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Log-odds of each supervised tree model for the lesson's rows and the scored ones."""
    fitted = fit_preprocessor(lesson.raw)
    x, x_test = fitted.transform(lesson.raw), fitted.transform(test)
    kept = lesson.labelled
    scores = {}
    for name, model in tree_models(int(kept.sum()), seed).items():
        model.fit(x[kept], seen[kept].astype(np.int64))
        p = [np.clip(model.predict_proba(z)[:, 1], 0.01, 0.99) for z in (x, x_test)]
        scores[name] = (np.log(p[0] / (1 - p[0])), np.log(p[1] / (1 - p[1])))
    return scores


def run_splits(
    cohort: Cohort, data: TrainingData, n: int, n_labels: int, cache: Path, *,
    controls: bool = True,
) -> list[Scores]:  # fmt: skip
    """Every split's scores, from the cache where they are there."""
    out = []
    for k, split in enumerate(hospital_splits(cohort, n=n, seed=SCORED_SEED)):
        file = cache / f"v{FORMAT}_{n_labels}_labels_split_{k}.json"
        if not file.is_file():
            start = time.process_time()
            config = config_of(k)
            few = split_data(cohort, data, split, n_labels, seed=k)
            lattice = TeacherLattice(data=few, config=config)
            scores = {m: one_modality(lattice, m, config, controls) for m in MODALITIES}
            write_json(file, scores)
            told = "; ".join(
                f"{m} {s['student']:.3f}, twin {s['twin']:.3f}" for m, s in scores.items()
            )
            print(f"{n_labels} labels, split {k}, {time.process_time() - start:.0f} s: {told}",
                  flush=True)  # fmt: skip
        out.append(json.loads(file.read_text(encoding="utf-8")))
    return out


def difference(rows: list[dict[str, float]], arm: str, reference: str) -> dict[str, Any]:
    """One arm minus another, paired: mean, corrected interval, splits, and how many are won."""
    gaps = np.array([r[arm] - r[reference] for r in rows])
    n_train = float(np.mean([r["taught"] for r in rows]))
    n_test = float(np.mean([r["scored"] for r in rows]))
    mean, low, high = corrected_interval(gaps.tolist(), n_train, n_test)
    return {"value": mean, "ci95": [low, high], "n": gaps.size, "wins": int((gaps > 0).sum())}


def level(rows: list[dict[str, float]], arm: str) -> dict[str, Any]:
    """Mean AUC of one arm, with the corrected interval of a mean over splits."""
    values = np.array([r[arm] for r in rows])
    n_train = float(np.mean([r["taught"] for r in rows]))
    n_test = float(np.mean([r["scored"] for r in rows]))
    mean, low, high = corrected_interval(values.tolist(), n_train, n_test)
    return {"value": mean, "ci95": [low, high], "n": values.size}


def summary(scores: list[Scores], modality: str) -> dict[str, Any]:
    """Levels of all arms, and the student against each of them."""
    rows = [s[modality] for s in scores]
    best = max(TREES, key=lambda name: float(np.mean([r[name] for r in rows])))
    arms = [arm for arm in (*ARMS, *TREES) if all(arm in r for r in rows)]
    extra = {}
    if "permuted_teacher" in arms:
        extra = {"permuted_teacher_minus_twin": difference(rows, "permuted_teacher", "twin")}
    return {
        "auc": {arm: level(rows, arm) for arm in (*arms, "teacher_on_unlabelled")},
        "student_minus": {arm: difference(rows, "student", arm) for arm in arms[1:]},
        **extra,
        "best_tree_model": best,
        "taught_patients": float(np.mean([r["taught"] for r in rows])),
        "scored_patients": float(np.mean([r["scored"] for r in rows])),
    }  # fmt: skip


def targets(modality: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, what came, and whether it was reached."""
    gains = found["student_minus"]
    forest = max(("extra_trees", "extra_trees_leaf3"), key=lambda n: found["auc"][n]["value"])
    asked = [
        ("twin", 0.08), ("self_training", 0.06), (forest, 0.03), (found["best_tree_model"], 0.03),
    ]  # fmt: skip
    table = [
        {
            "modality": modality, "what": f"student minus {arm}", "to_reach": f">= {least}",
            "figure": gains[arm], "reached": gains[arm]["value"] >= least,
            "interval_excludes_0": gains[arm]["ci95"][0] > 0,
        }
        for arm, least in dict(asked).items()
    ]  # fmt: skip
    for arm in ("twin", "self_training"):
        wins, n = gains[arm]["wins"], gains[arm]["n"]
        table.append({
            "modality": modality, "what": f"splits won against {arm}", "to_reach": ">= 90 %",
            "figure": {"value": wins, "ci95": None, "n": n}, "reached": wins >= 0.9 * n,
        })  # fmt: skip
    permuted = found["permuted_teacher_minus_twin"]
    table.append({
        "modality": modality, "what": "permuted teacher minus twin",
        "to_reach": "interval holds 0 or lies below", "figure": permuted,
        "reached": permuted["ci95"][0] <= 0,
    })  # fmt: skip
    return table


def show(result: dict[str, Any]) -> None:
    """The table that the model card quotes."""
    for row in result["targets"]:
        figure = row["figure"]
        interval = "" if figure["ci95"] is None else "[{:+.3f}, {:+.3f}]".format(*figure["ci95"])
        mark = "reached" if row["reached"] else "NOT reached"
        print(f"{row['modality']:10} {row['what']:36} {figure['value']:+.3f} {interval:18} "
              f"{row['to_reach']:32} {mark}")  # fmt: skip


def main() -> None:
    """Parse arguments, run, write whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--curve", action="store_true", help="also 50, 200 and 400 labels")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cohort = read_cohort(args.cohort)
    data = usable(training_data(cohort))
    cache = args.out.with_suffix(".cache")
    cache.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with threadpool_limits(limits=1):
        scores = run_splits(cohort, data, args.splits, args.labels, cache)
        found = {m: summary(scores, m) for m in MODALITIES}
        curve = {}
        for n in CURVE if args.curve else ():
            few = run_splits(cohort, data, min(args.splits, CURVE_SPLITS), n, cache, controls=False)
            curve[str(n)] = {m: summary(few, m) for m in MODALITIES}
        if args.curve:
            curve[str(args.labels)] = {m: summary(scores[:CURVE_SPLITS], m) for m in MODALITIES}
    result = {
        "cohort": cohort.name, "synthetic": cohort.synthetic, "labels": args.labels,
        "splits": args.splits, "splits_seed": SCORED_SEED, "tuned_on_splits_seed": TUNED_SEED,
        "modality": found, "curve": curve,
        "targets": [row for m in MODALITIES for row in targets(m, found[m])],
        "wall_s": time.monotonic() - start,
    }  # fmt: skip
    write_json(args.out, result)
    show(result)


if __name__ == "__main__":
    main()
