"""Does the time gate help on a real cohort, and what does a small cohort ask of the student?

    python benchmarks/distill_temporal.py --cohort ../shared/data/r01_radiogenomics \
        --out runs/distill_temporal.json --preset quick

Twenty random splits (a fifth scored; by hospital where the cohort names any). Every split trains
the teachers once, on five inner folds of the training patients, and on them the student with the
gate, without it, with permuted times, with the times as clinical features, and in smaller and more
regularised sizes; beside them late and early fusion by logistic regression and the teachers'
summed log-odds. With --strengths it writes what knowing the times is worth at best on the synthetic
disease, were radiomics more informative or its signal faster to fade: exact scores, no training.
All settings are listed here and none is chosen by the scored patients. Intervals
are corrected for the patients that splits share (Nadeau and Bengio).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from scipy.special import logit as to_logit
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from api.cli.atomic import write_json
from distill.arrays import training_data, usable
from distill.baselines import LOGISTIC_C, encode
from distill.cohort import Cohort, read_cohort
from distill.cohort_folds import assign_folds
from distill.config import TrainConfig
from distill.crossfit import TeacherLattice, TrainingData
from distill.fit import ageing_of, fit_student, time_scaler
from distill.masks import everything_masks
from distill.metrics import auc_difference, auc_value
from distill.splits import corrected_interval, hospital_splits
from distill.synthetic import draw_clinical, draw_genomics
from distill.synthetic_likelihood import (
    TIMED,
    Evidence,
    best_logit,
    best_logit_blind,
    clinical_llr,
    genomics_llr,
)
from distill.synthetic_model import (
    DECAY_DAYS,
    INFORMATION,
    KAPPA,
    PREVALENCE,
    delay_quantiles,
    draw_days,
    fidelity,
)
from distill.teacher import prior_logit, summed_logit
from distill.transfers import BASE_MODALITY

GATE, OFF, PERMUTED, FEATURE = "gate", "no_gate", "permuted_times", "times_as_clinical_features"
SIZES: Mapping[str, Mapping[str, Any]] = {
    "width 16": {"width": 16, "token": 16, "latent": 8},
    "dropout .5": {"dropout": 0.5},
    "weight decay .5": {"weight_decay": 0.5},
    "soft share 1": {"soft_share": 1.0},
}
LATE, EARLY, STRONG = "late_fusion_logistic", "early_fusion_logistic", "strong_late_fusion"
SCORED: frozenset[int] = frozenset({0})
EPSILON = 1e-6


def main() -> None:
    """Parse arguments, run, write whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--strengths", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--preset", default="default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.strengths:
        write_json(args.out, {"synthetic": True, "times_are_worth": worth_of_times()})
        return
    cohort = read_cohort(args.cohort)
    aucs: list[dict[str, float]] = []
    aged: list[dict[str, list[float]]] = []
    sizes: list[tuple[int, int]] = []
    for k, (train, test) in enumerate(hospital_splits(cohort, args.splits)):
        config = TrainConfig.preset(args.preset, seed=k, threads=1)
        scored, rates = one_split(cohort, train, config)
        aucs.append(scored)
        aged.append(rates)
        sizes.append((int(train.sum()), int(test.sum())))
        print(f"split {k}: " + ", ".join(f"{n} {a:.3f}" for n, a in scored.items()), flush=True)
        write_json(args.out, summary(cohort, args, aucs, aged, sizes))


def worth_of_times(n: int = 40_000) -> list[dict[str, Any]]:
    """AUC of the optimum less that of the optimum that is not told the times.

    Patients are drawn through their sufficient statistics, every cell filled. A decay of 15 days
    instead of 45 is the same as delays three times as long.
    """
    out = []
    for information, faster in ((1.0, 1.0), (4.0, 1.0), (1.0, 3.0), (4.0, 3.0), (16.0, 3.0)):
        rng = np.random.default_rng(0)
        label = (rng.random(n) < PREVALENCE).astype(np.int8)
        state = KAPPA * (label - 0.5) + rng.standard_normal(n)
        share = {"pathology": np.ones(n), TIMED: fidelity(faster * draw_days(n, rng))}
        precision = {
            "pathology": np.full(n, INFORMATION["pathology"]), TIMED: np.full(n, information)
        }  # fmt: skip
        pull = {
            m: p * share[m] * state + np.sqrt(p) * rng.standard_normal(n)
            for m, p in precision.items()
        }
        mutated = draw_genomics(label, rng).to_numpy(dtype=np.float64)
        llr = {
            BASE_MODALITY: clinical_llr(draw_clinical(label, rng)),
            "genomics": genomics_llr(mutated),
        }
        evidence = Evidence(llr=llr, precision=precision, pull=pull, fidelity=share)
        for chosen in ((TIMED,), (BASE_MODALITY, TIMED), (*llr, *pull)):
            told = best_logit(evidence, chosen)
            blind = best_logit_blind(evidence, chosen, faster * delay_quantiles(40))
            gain = auc_difference(label.astype(np.int64), told, blind)
            out.append(
                {
                    "information": information,
                    "decay_days": DECAY_DAYS / faster,
                    "processed": list(chosen),
                    **gain.to_json(),
                }
            )
    return out


def split_cohort(cohort: Cohort, train: np.ndarray, seed: int) -> Cohort:
    """The cohort with the scored patients as fold 0 and the others in folds 1 to 5."""
    fold = np.zeros(cohort.n_patients, dtype=np.int16)
    fold[train] = 1 + assign_folds(cohort.subset(train), 5, seed)
    return replace(cohort, fold=fold)


def one_split(
    cohort: Cohort, train: np.ndarray, config: TrainConfig
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """AUC of every variant and baseline on the scored patients, and the fitted rates of ageing."""
    folded = split_cohort(cohort, train, config.seed)
    data = usable(training_data(folded))
    lattice = TeacherLattice(data=data, config=config)
    out = {OFF: student_auc(lattice, replace(config, time_gate=False))}
    rates: dict[str, list[float]] = {}
    if data.gap is not None:
        rates = rates_of(lattice)
        order = np.random.default_rng(config.seed).permutation(data.label.size)
        mixed = replace(lattice, data=replace(data, gap=data.gap[order]))
        # Where nothing ages every gate stays open, and the student is the one without it.
        ages, mixes = (any(map(any, r.values())) for r in (rates, rates_of(mixed)))
        out[GATE] = student_auc(lattice, config) if ages else out[OFF]
        out[PERMUTED] = student_auc(mixed, config) if mixes else out[OFF]
        told = usable(training_data(as_features(folded)))
        # Only the clinical table is another one; the other teachers stay as they are.
        others = {key: fit for key, fit in lattice._fits.items() if key[0] != BASE_MODALITY}
        featured = TeacherLattice(data=told, config=config, _fits=others)
        out[FEATURE] = student_auc(featured, replace(config, time_gate=False))
    for name, change in SIZES.items():
        out[name] = student_auc(lattice, replace(config, time_gate=False, **change))
    return {**out, **baseline_aucs(data, lattice)}, rates


def rates_of(lattice: TeacherLattice) -> dict[str, list[float]]:
    """How fast each inference teacher's word ages, by column, fitted on the training patients."""
    found = ageing_of(lattice, SCORED, time_scaler(lattice.data, SCORED))
    return {m: list(a.rates) for m, a in zip(lattice.data.modalities, found)}


def as_features(cohort: Cohort) -> Cohort:
    """The times as columns of the clinical table."""
    if cohort.temporal is None:
        return cohort
    clinical = cohort.tables[BASE_MODALITY].join(cohort.temporal)
    return replace(cohort, tables={**cohort.tables, BASE_MODALITY: clinical})


def student_auc(lattice: TeacherLattice, config: TrainConfig) -> float:
    """Full input, scored patients; the student's settings are ``config``'s."""
    kept, lattice.config = lattice.config, config
    try:
        student = fit_student(lattice, SCORED)
    finally:
        lattice.config = kept
    data, shape = lattice.data, student.shape
    rows = np.flatnonzero(data.fold == 0)
    mask = everything_masks(data.present()[rows], shape.modalities, shape.transfers)
    logit = student.logits(student.features(data)[rows], mask[:, None])[0][:, 0]
    return auc_value(data.label[rows].astype(np.int64), logit)


def baseline_aucs(data: TrainingData, lattice: TeacherLattice) -> dict[str, float]:
    """Logistic fusions and the teachers' sum, on the same scored patients."""
    train, rows = data.fold != 0, np.flatnonzero(data.fold == 0)
    label = data.label.astype(np.int64)
    each = np.full((data.label.size, len(data.modalities)), np.nan)
    word = each.copy()
    whole = []
    for j, name in enumerate(data.modalities):
        table = data.tables[name]
        inside = train[table.row]
        base = table.raw.take(np.flatnonzero(inside))
        x = encode(base, table.raw)
        each[table.row, j] = logistic(x[inside], label[table.row[inside]], x)
        word[table.row, j] = lattice.teacher(name, SCORED)[0].logit(table.raw)
        wide = np.full((data.label.size, x.shape[1]), np.nan)
        wide[table.row] = x
        whole.append(wide)
    joined = np.concatenate(whole, axis=1)
    scores = {
        "clinical_logistic": each[:, data.modalities.index(BASE_MODALITY)],
        LATE: np.nanmean(expit(each), axis=1),
        EARLY: logistic(joined[train], label[train], joined),
        STRONG: summed_logit(word, prior_logit(label[train])),
    }
    return {name: auc_value(label[rows], score[rows]) for name, score in scores.items()}


def logistic(x: np.ndarray, label: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Probability of the positive class by penalised logistic regression."""
    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(),
        LogisticRegression(C=LOGISTIC_C, solver="newton-cholesky"),
    )  # fmt: skip
    p = model.fit(x, label).predict_proba(rows)[:, 1]
    return np.asarray(to_logit(np.clip(p, EPSILON, 1 - EPSILON)))


def summary(
    cohort: Cohort,
    args: argparse.Namespace,
    aucs: Sequence[Mapping[str, float]],
    aged: Sequence[Mapping[str, list[float]]],
    sizes: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    """Means over splits and paired differences with corrected intervals."""
    n_train, n_test = (float(np.mean(part)) for part in zip(*sizes))

    def paired(first: str, second: str) -> dict[str, Any]:
        gaps = [a[first] - a[second] for a in aucs]
        if len(gaps) < 2:
            return {"value": gaps[0], "ci95": None, "n": len(gaps)}
        mean, low, high = corrected_interval(gaps, n_train, n_test)
        return {"value": mean, "ci95": [low, high], "n": len(gaps),
                "wins": sum(gap > 0 for gap in gaps)}  # fmt: skip

    names = list(aucs[0])
    return {
        "cohort": cohort.name, "synthetic": cohort.synthetic, "patients": cohort.n_patients,
        "positive": int(cohort.label.sum()), "preset": args.preset, "n_is": "splits",
        "n_train": n_train, "n_test": n_test,
        "auc_mean": {name: float(np.mean([a[name] for a in aucs])) for name in names},
        "gate_minus": {name: paired(GATE, name) for name in (OFF, PERMUTED, FEATURE)
                       if name in names},
        "no_gate_minus": {name: paired(OFF, name) for name in (LATE, EARLY, STRONG)},
        "size_minus_no_gate": {name: paired(name, OFF) for name in SIZES},
        "splits_in_which_a_modality_ages": sum(any(any(r) for r in a.values()) for a in aged),
        "targets": [{
            "what": "student not below late fusion by logistic regression", "target": 0.0,
            **paired(OFF, LATE), "reached": paired(OFF, LATE)["value"] >= 0.0,
        }],
        "runs": [{"auc": dict(a), "rates": dict(r)} for a, r in zip(aucs, aged)],
    }  # fmt: skip


if __name__ == "__main__":
    main()
