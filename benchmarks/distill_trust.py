"""Can the student's probabilities, sets and explanations be trusted on hospitals it has not seen?

    python benchmarks/distill_trust.py --cohort ../shared/data/tcga_nsclc --out runs/trust.json

Writes one JSON: calibration error and coverage of the conformal sets for every evidence set, out
of fold, per class and per hospital; the same on --splits N other divisions of the hospitals; how
much changes when what an explanation calls important is removed; and the targets, reached or not.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import spearmanr

from api.cli.atomic import write_json
from distill.arrays import training_data, usable
from distill.calibrate import Calibration
from distill.cohort import Cohort, read_cohort
from distill.cohort_folds import assign_folds, with_folds
from distill.config import TrainConfig
from distill.conformal import fit_conformal
from distill.coverage import ConformalSets, conformal_sets, coverage_card
from distill.crossfit import TrainingData
from distill.faithfulness import (
    Asked,
    above_zero,
    attention_by_modality,
    features_removed,
    left_out,
    most_against_least,
    randomised,
    swapped,
)
from distill.figures import student_figures
from distill.fit import FittedStudent
from distill.masks import everything_masks
from distill.metrics import auc, cluster_bootstrap, ece, means_over_hospitals
from distill.mixtures import mixture_numbers
from distill.temperature import PRIOR_ROWS, fit_temperature, log_loss
from distill.train import OutOfFold, Trainer

FULL_ECE, SET_ECE, COVERAGE_POINTS = 0.05, 0.08, 0.02
KS = (1, 3, 5, 10)
DRAWS = 10
Held = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""Per fold: the masks to calibrate on, and the other folds' held-out log-odds."""


def main() -> None:
    """Parse arguments, run, write whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--preset", default="default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cohort = with_folds(read_cohort(args.cohort), seed=args.seed)
    config = TrainConfig.preset(args.preset, seed=args.seed, threads=args.threads)
    result: dict[str, Any] = {
        "cohort": cohort.name, "synthetic": cohort.synthetic, "n": cohort.n_patients,
        "hospitals": len(set(cohort.group)), "preset": args.preset, "seed": args.seed,
        **own_folds(cohort, config),
    }  # fmt: skip
    write_json(args.out, {**result, "targets": targets(result)})
    result["random_splits"] = []
    for k in range(args.splits):
        other = replace(cohort, fold=assign_folds(cohort, 5, seed=1000 + k))
        trainer, scores = crossfit(other, replace(config, seed=args.seed + k))
        result["random_splits"].append(summary(figures(other, trainer, scores)))
        print(f"split {k}: {result['random_splits'][-1]}", flush=True)
        # Whole after every split, so that an interrupted run keeps what it has.
        write_json(args.out, {**result, "targets": targets(result)})


def crossfit(cohort: Cohort, config: TrainConfig) -> tuple[Trainer, OutOfFold]:
    """Every patient scored by a student of other hospitals."""

    def tell(done: int, total: int, stage: str) -> None:
        if done % 20 == 0:
            print(f"{done} of {total} fits ({stage})", flush=True)

    data = usable(training_data(cohort))
    trainer = Trainer(data=data, config=config, progress=tell)
    return trainer, trainer.out_of_fold()


def own_folds(cohort: Cohort, config: TrainConfig) -> dict[str, Any]:
    """Everything that is reported on the cohort's own folds."""
    trainer, scores = crossfit(cohort, config)
    shown = figures(cohort, trainer, scores)
    held = {f: trainer.held_out(frozenset({f})) for f in trainer.data.folds}
    return {
        "fixed_folds": shown,
        "summary": summary(shown),
        "other_calibrations": other_calibrations(trainer, scores, held),
        "other_thresholds": other_thresholds(cohort, trainer, scores, held),
        "faithfulness": faithfulness(cohort, trainer, scores.calibration, config.seed),
    }


def _inside(trainer: Trainer, scores: OutOfFold, fitted: Mapping[int, Calibration]
            ) -> ConformalSets:  # fmt: skip
    data = trainer.data
    inside = conformal_sets(
        fitted, data.fold, data.present(), sets=trainer.sets, modalities=data.modalities,
        full=scores.full, evidence=scores.evidence, single=scores.single,
    )  # fmt: skip
    assert inside is not None
    return inside


def figures(cohort: Cohort, trainer: Trainer, scores: OutOfFold) -> dict[str, Any]:
    """The student's part of ``metrics.json``."""
    data = trainer.data
    return student_figures(
        data.label, sets=trainer.sets, modalities=data.modalities, full=scores.full,
        evidence=scores.evidence, single=scores.single, seed=0, group=cohort.named_group,
        inside=_inside(trainer, scores, scores.calibration),
    )  # fmt: skip


def summary(shown: Mapping[str, Any]) -> dict[str, Any]:
    """The few figures that the targets speak of."""
    evidence = {name: card for name, card in shown["evidence"].items() if card["ece"]["n"]}
    worst = max(evidence, key=lambda name: evidence[name]["ece"]["value"])
    cover = {name: card["conformal"]["coverage"]["value"] for name, card in evidence.items()}
    off = max(cover, key=lambda name: abs(cover[name] - shown["full"]["conformal"]["level"]))
    full = shown["full"]
    return {
        "auc": full["auc"], "ece_full": full["ece"], "ece_full_if_calibrated": full[
            "ece_if_calibrated"],
        "ece_worst_set": {"set": worst, **evidence[worst]["ece"]},
        "ece_worst_set_if_calibrated": evidence[worst]["ece_if_calibrated"],
        "ece_mean_over_sets": float(np.mean([c["ece"]["value"] for c in evidence.values()])),
        "ece_mean_over_sets_if_calibrated": float(
            np.mean([c["ece_if_calibrated"]["value"] for c in evidence.values()])),
        "ece_single": {m: card["ece"] for m, card in shown["single"].items()},
        "conformal_full": {k: v for k, v in full["conformal"].items() if k != "over_hospitals"},
        "coverage_furthest_set": {"set": off, **evidence[off]["conformal"]["coverage"]},
        "coverage_of_sets": [min(cover.values()), max(cover.values())],
        "over_hospitals": {
            k: v for k, v in full["conformal"]["over_hospitals"].items() if k != "hospitals"
        },
    }  # fmt: skip


def other_calibrations(trainer: Trainer, scores: OutOfFold, held: Held) -> dict[str, Any]:
    """Calibration error and log-loss of other ways, fitted on the same held-out patients."""
    data, label = trainer.data, trainer.data.label.astype(np.int64)
    every = everything_masks(data.present(), data.modalities, trainer.sets.transfers)
    out = {}
    for way in ("none", "one temperature", "temperature per mixture", "and a bias per mixture"):
        full = np.empty(label.size)
        for f, fitted in scores.calibration.items():
            masks, logit = held[f]
            rows = np.flatnonzero(data.fold == f)
            raw = scores.full[rows] * fitted.of_masks(every[rows])
            number = mixture_numbers(every[rows], len(data.modalities))
            for mixture in np.unique(number):
                chosen = mixture_numbers(masks, len(data.modalities)) == mixture
                fit_on = logit if way == "one temperature" else logit[:, chosen]
                t, bias = _scaling(way, fit_on, label)
                full[rows[number == mixture]] = raw[number == mixture] / t + bias
        rng = np.random.default_rng(0)
        out[way] = {
            "log_loss": log_loss(full, label), "ece": ece(label, expit(full), rng).to_json(),
            "auc": auc(label, full).to_json(),
        }  # fmt: skip
    return out


def _scaling(way: str, logit: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    z, y = logit.ravel(), np.repeat(label, logit.shape[1])
    seen = np.isfinite(z)
    if way == "none":
        return 1.0, 0.0
    if way != "and a bias per mixture":
        return fit_temperature(z, y), 0.0

    def loss(at: np.ndarray) -> float:
        pull = PRIOR_ROWS / seen.sum() * 0.5 * float(at @ at)
        return log_loss(z[seen] / np.exp(at[0]) + at[1], y[seen]) + pull

    best = minimize(loss, np.zeros(2)).x
    return float(np.exp(best[0])), float(best[1])


def other_thresholds(
    cohort: Cohort, trainer: Trainer, scores: OutOfFold, held: Held
) -> dict[str, Any]:
    """Coverage if whole hospitals, not patients, are taken as exchangeable."""
    data, label = trainer.data, trainer.data.label.astype(np.int64)
    group = np.array(cohort.group)
    fitted = {}
    for f, calibration in scores.calibration.items():
        masks, logit = held[f]
        scaled = logit / calibration.of_masks(masks)
        by_hospital = fit_conformal(data.modalities, masks, scaled, label, group)
        fitted[f] = replace(calibration, conformal=by_hospital)
    inside = _inside(trainer, scores, fitted)
    rng = np.random.default_rng(0)
    lack = np.isnan(scores.evidence)
    covered = inside.evidence[np.arange(label.size), :, label].astype(float)
    cover = np.nanmean(np.where(lack, np.nan, covered), axis=0)
    return {"hospital_weighted": {
        "full": coverage_card(label, inside.full, group, rng, inside.level),
        "coverage_of_sets": [float(cover.min()), float(cover.max())],
    }}  # fmt: skip


def faithfulness(
    cohort: Cohort, trainer: Trainer, calibration: Mapping[int, Calibration], seed: int
) -> dict[str, Any]:
    """Removal of modalities and of features, with controls, pooled over the folds."""
    data, group = trainer.data, np.array(cohort.group)
    n, m = data.label.size, len(data.modalities)
    ways = ("contribution", "attention", "random model", "fixed order")
    effects = ("swapped", "any swap", "other student")
    said = {way: np.full((n, m), np.nan) for way in ways}
    effect = {way: np.full((n, m), np.nan) for way in effects}
    removed: dict[int, dict[str, np.ndarray]] = {
        k: {name: np.full(n, np.nan) for name in ("top", "random", "random_model")} for k in KS
    }
    for f in data.folds:
        rng = np.random.default_rng([seed, f])
        rows, rest = np.flatnonzero(data.fold == f), np.flatnonzero(data.fold != f)
        left, fitted = frozenset({f}), calibration[f]
        student = trainer.student(left)
        here, there = (asked(student, data, some, fitted) for some in (rows, rest))
        for way, value in modalities_said(here, there, rng).items():
            said[way][rows] = value
        effect["swapped"][rows], effect["any swap"][rows] = swapped(here, rng)
        others = [
            asked(trainer.student(left | {g}, left), data, rows, fitted)
            for g in data.folds
            if g != f
        ]
        effect["other student"][rows] = np.mean([np.abs(left_out(o)) for o in others], axis=0)
        for k, changes in features_removed(there, here, KS, rng, DRAWS).items():
            for name, change in changes.items():
                removed[k][name][rows] = change
    rng = np.random.default_rng(seed)
    said["random choice"] = np.where(np.isnan(said["attention"]), np.nan, rng.random((n, m)))
    return {
        "modalities": {
            way: {
                name: most_against_least(v, e, group, rng, control=said["random model"])
                for name, e in effect.items()
            }
            for way, v in said.items()
        },
        "within_modality": {
            way: within_modality(said[way], effect["swapped"], data.modalities, group)
            for way in ("contribution", "attention", "random model")
        },
        "features": {str(k): feature_figures(removed[k], group, rng) for k in KS},
    }


def asked(
    student: FittedStudent, data: TrainingData, rows: np.ndarray, calibration: Calibration
) -> Asked:
    """A student, asked about these patients."""
    return Asked(
        student=student, calibration=calibration, x=student.features(data)[rows],
        present=data.present()[rows],
    )  # fmt: skip


def modalities_said(here: Asked, there: Asked, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What each way of explaining says of the held-out patients' modalities."""
    blind = replace(here, student=randomised(here.student, int(rng.integers(2**31))))
    usual = np.nanmean(np.abs(left_out(there)), axis=0)
    return {
        "contribution": np.abs(left_out(here)),
        "attention": attention_by_modality(here),
        "random model": np.abs(left_out(blind)),
        # The order that the training patients have on average, the same for everybody.
        "fixed order": np.where(here.present, usual, np.nan),
    }


def within_modality(
    said: np.ndarray, effect: np.ndarray, modalities: tuple[str, ...], group: np.ndarray
) -> dict[str, Any]:
    """Rank correlation over patients, one modality at a time: is the patient's own said right?"""
    out = {}
    for j, name in enumerate(modalities):
        rows = np.flatnonzero(np.isfinite(said[:, j]))
        a, b, rng = said[rows, j], effect[rows, j], np.random.default_rng(j)

        def rank(drawn: np.ndarray, a: np.ndarray = a, b: np.ndarray = b) -> float:
            return float(spearmanr(a[drawn], b[drawn]).statistic)

        interval = cluster_bootstrap(rank, group[rows], rng, 300)
        value = rank(np.arange(rows.size))
        out[name] = {"value": value, "ci95": list(interval), "n": int(rows.size)}
    return out


def feature_figures(
    removed: Mapping[str, np.ndarray], group: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    """Change of the log-odds per patient, and what the top features change beyond the controls."""
    columns = {
        "top": removed["top"], "random": removed["random"], "random_model": removed["random_model"],
        "top_minus_random": removed["top"] - removed["random"],
        "top_minus_random_model": removed["top"] - removed["random_model"],
    }  # fmt: skip
    value = np.stack(list(columns.values()), axis=1)
    every = np.ones(value.shape, dtype=bool)
    made = means_over_hospitals(value, every, group, rng)
    return {name: figure.to_json() for name, figure in zip(columns, made)}


def targets(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, on the cohort's own folds and on every other split."""
    rows = []
    for where, s in (("own folds", result["summary"]), *(
        (f"split {k}", s) for k, s in enumerate(result.get("random_splits", ()))
    )):  # fmt: skip
        level = s["conformal_full"]["level"]
        covered = s["conformal_full"]["coverage"]["value"]
        low, high = s["coverage_of_sets"]
        far = max(level - low, high - level)
        rows += [
            target(where, "calibration error, everything", s["ece_full"]["value"], FULL_ECE),
            target(where, "calibration error, worst set", s["ece_worst_set"]["value"], SET_ECE),
            target(where, "coverage from nominal", abs(covered - level), COVERAGE_POINTS),
            target(where, "coverage from nominal, worst set", far, COVERAGE_POINTS),
        ]
    faithful = result["faithfulness"]
    for way in ("contribution", "attention"):
        for effect, shown in faithful["modalities"][way].items():
            rows.append({
                "where": "own folds", "what": f"{way}: most minus least said, {effect}",
                "value": shown["most_minus_least"]["value"], "limit": "interval above 0",
                "reached": above_zero(shown["most_minus_least"]),
            })  # fmt: skip
    for k, shown in faithful["features"].items():
        rows.append({
            "where": "own folds", "what": f"top {k} features minus random ones",
            "value": shown["top_minus_random"]["value"], "limit": "interval above 0",
            "reached": above_zero(shown["top_minus_random"]),
        })  # fmt: skip
    return rows


def target(where: str, what: str, value: float, limit: float) -> dict[str, Any]:
    """One row of the table."""
    return {
        "where": where, "what": what, "value": value, "limit": limit, "reached": value <= limit,
    }  # fmt: skip


if __name__ == "__main__":
    main()
