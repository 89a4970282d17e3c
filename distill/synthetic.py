"""The embedded synthetic cohort: seeded, bit-identical per seed, with its truth known.

Synthetic: no row is a patient. The disease (``distill.synthetic_model``) is the same for every
seed; the seed draws the hospitals and the patients, so two seeds are two cohorts of one disease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int8

from distill.cohort import Cohort
from distill.cohort_folds import assign_folds
from distill.errors import CohortError
from distill.manifest import CASE_ID, CohortManifest, LabelSpec, ModalitySpec, PipelineSpec
from distill.synthetic_likelihood import (
    TIMED,
    Evidence,
    clinical_llr,
    evidence_of,
    genomics_llr,
    information,
)
from distill.synthetic_model import (
    BURDEN_SHARE,
    CLINICAL_CATEGORIES,
    CLINICAL_NUMBERS,
    KAPPA,
    MISSING_CELLS,
    MISSING_ROWS,
    NEGATIVE,
    NO_SCANNER_SHARE,
    POSITIVE,
    PREVALENCE,
    STAGE_MISSING,
    GaussianModality,
    draw_days,
    fidelity,
    gaussian_modalities,
    genome,
)
from distill.synthetic_truth import METHOD, MODALITIES, Truth, compute_best

DAYS = "days_ct_to_surgery"
DECIMALS = 4
CHUNK = 25_000
STAGES = ("stage_i", "stage_ii", "stage_iii")
_ASSUMED = "assumed for the synthetic cohort; replace by the site's own measurement"
PIPELINES = {
    "clinical": PipelineSpec(core_hours=0.0, note="from the record; nothing to compute"),
    "genomics": PipelineSpec(
        core_hours=20.0, memory_gb=32.0, note=f"exome alignment and variant calling; {_ASSUMED}"
    ),
    "pathology": PipelineSpec(
        core_hours=0.5, gpu_hours=0.1, memory_gb=32.0, note=f"one whole-slide image; {_ASSUMED}"
    ),
    "radiomics": PipelineSpec(
        core_hours=0.5, gpu_hours=0.02, memory_gb=16.0,
        note=f"segmentation and features of one CT series; {_ASSUMED}",
    ),
    "proteomics": PipelineSpec(
        core_hours=3.0, memory_gb=16.0, note=f"protein quantification; {_ASSUMED}"
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What to draw.

    Attributes:
        n_patients: cases in the cohort.
        seed: draws hospitals and patients; the disease stays the same.
        n_hospitals: hospitals that the patients come from, of unequal size.
        n_folds: hospital-grouped folds written into the label table.
        privileged: modalities that only teach; all others may be processed at review.
        n_simulated: simulated patients behind the truth's AUCs.
    """

    n_patients: int = 2000
    seed: int = 0
    n_hospitals: int = 30
    n_folds: int = 5
    privileged: tuple[str, ...] = ("proteomics",)
    n_simulated: int = 200_000

    def __post_init__(self) -> None:
        allowed = MODALITIES[1:]
        unknown = sorted(set(self.privileged) - set(allowed))
        if unknown:
            raise CohortError(
                f"{unknown[0]!r} cannot be privileged; allowed are {', '.join(allowed)}."
            )
        for name, low in (("n_patients", 100), ("seed", 0), ("n_simulated", 1000)):
            if getattr(self, name) < low:
                raise CohortError(f"{name} is {getattr(self, name)}; it must be {low} or more.")
        if not 2 <= self.n_folds <= self.n_hospitals <= self.n_patients // 3:
            raise CohortError(
                f"{self.n_patients} patients of {self.n_hospitals} hospitals in {self.n_folds} "
                "folds: have at least 2 folds, as many hospitals as folds, and 3 patients a "
                "hospital."
            )


def make_synthetic(config: SyntheticConfig) -> tuple[Cohort, Truth]:
    """Draw the cohort and compute the best possible AUC of every set of modalities.

    Raises:
        CohortError: if so few patients were asked for that no folds can be made.
    """
    cohort = _draw_cohort(config)
    days = np.asarray(_temporal(cohort)[DAYS], dtype=np.float64)
    here = evidence_of(cohort.tables, days, cohort.case_id)
    simulated = _simulate(config)
    best = compute_best(
        simulated,
        _incomplete(simulated, config),
        here,
        cohort.label,
        cohort.modalities("inference"),
    )
    truth = Truth(
        cohort=cohort.name,
        seed=config.seed,
        n_patients=config.n_patients,
        best=best,
        method=METHOD,
    )
    return cohort, truth


def _temporal(cohort: Cohort) -> pd.DataFrame:
    assert cohort.temporal is not None  # noqa: S101  drawn with it
    return cohort.temporal


def _generator(config: SyntheticConfig, stream: int) -> np.random.Generator:
    # One stream a part, so that a change in one part leaves the draws of the others alone.
    return np.random.default_rng((config.seed, stream))


def _draw_cohort(config: SyntheticConfig) -> Cohort:
    n = config.n_patients
    rng = _generator(config, 0)
    weights = rng.gamma(3.0, 1.0, config.n_hospitals)
    hospital = rng.choice(config.n_hospitals, n, p=weights / weights.sum())
    label = (rng.random(n) < PREVALENCE).astype(np.int8)
    state = KAPPA * (label - 0.5) + rng.standard_normal(n)
    days = draw_days(n, rng)
    # The seed is in the id, so that a case of another draw is never taken for one of this.
    case_id = tuple(f"SYN{config.seed}-{i:06d}" for i in range(1, n + 1))
    index = pd.Index(case_id, name=CASE_ID, dtype=object)
    tables = {
        "clinical": draw_clinical(label, _generator(config, 1)),
        "genomics": draw_genomics(label, _generator(config, 2)),
    }
    for stream, (name, model) in enumerate(gaussian_modalities().items(), start=3):
        shown = state * fidelity(days) if name == TIMED else state
        tables[name] = _draw_measured(
            model, shown, hospital, MISSING_CELLS[name], _generator(config, stream)
        )
    present = _draw_present(config, hospital)
    cohort = Cohort(
        manifest=_manifest(config),
        case_id=case_id,
        label=label,
        group=tuple(f"H{h + 1:02d}" for h in hospital),
        fold=None,
        temporal=pd.DataFrame({DAYS: days}, index=index),
        tables={name: frame.set_index(index)[present[name]] for name, frame in tables.items()},
    )
    return replace(cohort, fold=assign_folds(cohort, config.n_folds, config.seed))


def _manifest(config: SyntheticConfig) -> CohortManifest:
    return CohortManifest(
        name="synthetic-nsclc",
        description=(
            "Synthetic lung cancer patients, adenocarcinoma versus squamous cell carcinoma; "
            f"no row is a patient (seed {config.seed})"
        ),
        synthetic=True,
        label=LabelSpec(
            table="labels.csv", column="subtype", negative=NEGATIVE, positive=POSITIVE,
            group="hospital", fold="fold", temporal=(DAYS,),
        ),
        modality={
            name: ModalitySpec(
                table=f"{name}.csv",
                role="privileged" if name in config.privileged else "inference",
                pipeline=PIPELINES[name],
            )
            for name in MODALITIES
        },
    )  # fmt: skip


def draw_clinical(label: Int8[np.ndarray, " n"], rng: np.random.Generator) -> pd.DataFrame:
    """Clinical rows given the label; missing cells independent of everything."""
    n = label.size
    columns: dict[str, np.ndarray] = {}
    for number in CLINICAL_NUMBERS:
        mean = np.array(number.mean)[label]
        value = np.round(mean + number.spread * rng.standard_normal(n), 1)
        columns[number.name] = np.where(rng.random(n) < number.missing, np.nan, value)
    for category in CLINICAL_CATEGORIES:
        cumulative = np.cumsum(category.probability, axis=1)[label][:, :-1]
        code = (rng.random(n)[:, None] > cumulative).sum(axis=1)
        names = [float(c) if category.numeric else c for c in category.categories]
        columns[category.name] = np.array(names, dtype=None if category.numeric else object)[code]
        if category.name == "n_category":
            columns["stage"] = _stage(columns["t_category"], code, rng)
    for category in CLINICAL_CATEGORIES:  # after the stage, which follows from whole cells
        missing = rng.random(n) < category.missing
        columns[category.name][missing] = np.nan if category.numeric else None
    return pd.DataFrame(columns)


def _stage(t_category: np.ndarray, n_code: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    large = np.isin(t_category, ("t3", "t4")).astype(np.int64)
    stage = np.array(STAGES, dtype=object)[np.minimum(n_code + large, 2)]
    stage[rng.random(stage.size) < STAGE_MISSING] = None
    return stage


def draw_genomics(label: Int8[np.ndarray, " n"], rng: np.random.Generator) -> pd.DataFrame:
    """Mutations (0 or 1) given the label and an unseen mutation burden."""
    genes, log_odds = genome().genes, genome().log_odds
    burden = rng.choice(len(BURDEN_SHARE), label.size, p=BURDEN_SHARE)
    rate = 1.0 / (1.0 + np.exp(-log_odds))
    mutated = (rng.random((label.size, len(genes))) < rate[label, burden]).astype(np.float64)
    mutated[rng.random(mutated.shape) < MISSING_CELLS["genomics"]] = np.nan
    return pd.DataFrame(mutated, columns=list(genes))


def _draw_measured(
    model: GaussianModality,
    shown: np.ndarray,
    hospital: np.ndarray,
    missing: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    n, width = shown.size, len(model.columns)
    rows = rng.standard_normal((n, width)) + shown[:, None] * model.signal
    # Added one by one, not as a matrix product: its last bits differ between machines.
    for loading in model.factors:
        rows += rng.standard_normal(n)[:, None] * loading
    for loading in model.batch:
        rows += rng.standard_normal(int(hospital.max()) + 1)[hospital][:, None] * loading
    rows = np.round(model.location + model.scale * rows, DECIMALS)
    rows[rng.random((n, width)) < missing] = np.nan
    return pd.DataFrame(rows, columns=list(model.columns))


def _draw_present(
    config: SyntheticConfig, hospital: np.ndarray
) -> dict[str, Bool[np.ndarray, " n"]]:
    rng = _generator(config, 9)
    present = {"clinical": np.ones(hospital.size, dtype=bool)}
    for name, share in MISSING_ROWS.items():
        rate = share + rng.uniform(-0.1, 0.1, config.n_hospitals)
        if name == TIMED:
            rate[rng.random(config.n_hospitals) < NO_SCANNER_SHARE] = 1.0
        present[name] = rng.random(hospital.size) >= rate[hospital]
    return present


def _simulate(config: SyntheticConfig) -> Evidence:
    """Evidence of many patients of new hospitals, drawn through its sufficient statistics."""
    rng = np.random.default_rng((config.seed, 77))
    sizes = [CHUNK] * (config.n_simulated // CHUNK)
    if config.n_simulated % CHUNK:
        sizes.append(config.n_simulated % CHUNK)
    parts = [_simulate_chunk(size, rng) for size in sizes]

    def joined(pick: str) -> Mapping[str, Float64[np.ndarray, " n"]]:
        names = getattr(parts[0], pick)
        return {m: np.concatenate([getattr(part, pick)[m] for part in parts]) for m in names}

    return Evidence(
        llr=joined("llr"),
        precision=joined("precision"),
        pull=joined("pull"),
        fidelity=joined("fidelity"),
    )


def _incomplete(evidence: Evidence, config: SyntheticConfig) -> Evidence:
    """Simulated patients with modalities missing at the cohort's rates.

    A patient of an unknown hospital lacks each modality independently: hospitals draw the rates
    of different modalities independently of each other.
    """
    rng = np.random.default_rng((config.seed, 78))
    share = dict(MISSING_ROWS)
    share[TIMED] = NO_SCANNER_SHARE + (1 - NO_SCANNER_SHARE) * share[TIMED]
    absent = {name: rng.random(evidence.n_patients) < rate for name, rate in share.items()}

    def without(part: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: np.where(absent[name], np.nan, value) if name in absent else value
            for name, value in part.items()
        }

    return Evidence(
        llr=without(evidence.llr),
        precision=without(evidence.precision),
        pull=without(evidence.pull),
        fidelity=evidence.fidelity,
    )


def _simulate_chunk(n: int, rng: np.random.Generator) -> Evidence:
    label = (rng.random(n) < PREVALENCE).astype(np.int8)
    state = KAPPA * (label - 0.5) + rng.standard_normal(n)
    shown = {name: np.ones(n) for name in gaussian_modalities()}
    shown[TIMED] = fidelity(draw_days(n, rng))
    precision, pull = {}, {}
    for name, model in gaussian_modalities().items():
        filled = rng.random((n, len(model.columns))) >= MISSING_CELLS[name]
        precision[name] = information(model, filled)
        noise = np.sqrt(precision[name]) * rng.standard_normal(n)
        pull[name] = precision[name] * shown[name] * state + noise
    return Evidence(
        llr={
            "clinical": clinical_llr(draw_clinical(label, rng)),
            "genomics": genomics_llr(draw_genomics(label, rng).to_numpy(dtype=np.float64)),
        },
        precision=precision,
        pull=pull,
        fidelity=shown,
    )
