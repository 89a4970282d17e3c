"""The disease behind the synthetic cohort: every parameter, fixed whatever the cohort's seed.

A label gives a hidden tumour state ``z ~ N(+-KAPPA/2, 1)``. Pathology, radiomics and proteomics
each measure ``z`` through a few of their columns, under correlated noise and hospital shifts;
clinical columns and mutations depend on the label alone. See DATA_CARD.md for the equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float64

NEGATIVE = "LUAD"
POSITIVE = "LUSC"
PREVALENCE = 0.45
"""Share of the positive class, the same in every hospital: a hospital says nothing of the label."""
KAPPA = 2.83
"""Distance of the two classes in the hidden state, in its standard deviations; it caps what the
three measured modalities together can tell."""
DECAY_DAYS = 45.0
"""A scan ``d`` days before surgery measures ``exp(-d / 45)`` of the state that the tissue shows."""
PROMPT_DAYS = (3, 30)
DELAYED_DAYS = (45, 180)
DELAYED_SHARE = 0.45
_PARAMETER_SEED = 7

INFORMATION = {"pathology": 0.55, "radiomics": 1.00, "proteomics": 7.2}
"""Fisher information about ``z`` in one complete row (for radiomics on the day of surgery)."""


@dataclass(frozen=True, kw_only=True)
class ClinicalNumber:
    """A Gaussian clinical column: mean of each class, one spread, and how it is rounded."""

    name: str
    mean: tuple[float, float]
    spread: float
    missing: float


@dataclass(frozen=True, kw_only=True)
class ClinicalCategory:
    """A clinical column of categories with the probabilities of each class (LUAD, LUSC)."""

    name: str
    categories: tuple[str, ...]
    probability: tuple[tuple[float, ...], tuple[float, ...]]
    missing: float
    numeric: bool = False


def _same(*probability: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return probability, probability


CLINICAL_NUMBERS = (
    ClinicalNumber(name="age", mean=(65.0, 67.8), spread=9.0, missing=0.0),
    ClinicalNumber(name="fev1_percent", mean=(81.0, 75.5), spread=18.0, missing=0.25),
    ClinicalNumber(name="bmi", mean=(26.5, 26.5), spread=4.5, missing=0.10),
)
CLINICAL_CATEGORIES = (
    ClinicalCategory(
        name="sex", categories=("female", "male"), probability=((0.5, 0.5), (0.34, 0.66)),
        missing=0.0,
    ),
    ClinicalCategory(
        name="smoking", categories=("never", "former", "current"),
        probability=((0.16, 0.54, 0.30), (0.06, 0.54, 0.40)), missing=0.08,
    ),
    ClinicalCategory(
        name="ecog", categories=("0", "1", "2"), probability=_same(0.45, 0.43, 0.12),
        missing=0.06, numeric=True,
    ),
    ClinicalCategory(
        name="t_category", categories=("t1", "t2", "t3", "t4"),
        probability=_same(0.30, 0.45, 0.16, 0.09), missing=0.02,
    ),
    ClinicalCategory(
        name="n_category", categories=("n0", "n1", "n2"), probability=_same(0.64, 0.21, 0.15),
        missing=0.04,
    ),
    ClinicalCategory(
        name="lobe",
        categories=("upper_right", "upper_left", "lower_right", "lower_left", "middle"),
        probability=_same(0.33, 0.26, 0.20, 0.16, 0.05), missing=0.05,
    ),
)  # fmt: skip
"""Means and shares are chosen for the demonstration, not measured; ``stage`` follows from T and N
and says nothing of the label, as they do."""
STAGE_MISSING = 0.03

DRIVERS: tuple[tuple[str, float, float, Literal["both", "luad", "lusc"]], ...] = (
    ("TP53", 0.46, 0.81, "both"), ("KEAP1", 0.17, 0.12, "both"), ("PIK3CA", 0.07, 0.16, "both"),
    ("RB1", 0.04, 0.07, "both"), ("CDKN2A", 0.04, 0.15, "both"),
    ("KRAS", 0.33, 0.04, "luad"), ("STK11", 0.17, 0.05, "luad"), ("EGFR", 0.14, 0.04, "luad"),
    ("NF1", 0.11, 0.11, "luad"), ("BRAF", 0.10, 0.06, "luad"), ("SETD2", 0.09, 0.07, "luad"),
    ("RBM10", 0.08, 0.04, "luad"), ("MGA", 0.08, 0.06, "luad"), ("MET", 0.07, 0.05, "luad"),
    ("ARID1A", 0.07, 0.07, "luad"), ("SMARCA4", 0.06, 0.05, "luad"), ("U2AF1", 0.03, 0.01, "luad"),
    ("RIT1", 0.02, 0.01, "luad"),
    ("KMT2D", 0.10, 0.20, "lusc"), ("NFE2L2", 0.04, 0.15, "lusc"), ("PTEN", 0.04, 0.08, "lusc"),
    ("NOTCH1", 0.04, 0.08, "lusc"), ("HLA-A", 0.01, 0.03, "lusc"),
)  # fmt: skip
"""Gene, share mutated in LUAD and in LUSC, and which of the two is published.

LUAD: The Cancer Genome Atlas Research Network, Nature 511:543 (2014), 230 patients. LUSC: Nature
489:519 (2012), 178 patients (MLL2 is now KMT2D). A share that the paper does not list among its
significantly mutated genes is an assumption.
"""
PASSENGERS = (
    "TTN", "MUC16", "CSMD3", "RYR2", "LRP1B", "USH2A", "ZFHX4", "XIRP2", "SPTA1", "FLG", "RYR3",
    "NAV3", "SYNE1", "PCLO", "PCDH15", "FAT3", "FAM135B", "DNAH9", "CSMD1", "COL11A1", "ANK2",
    "PKHD1L1", "CUBN", "DNAH5", "APOB", "MUC17", "HMCN1", "OBSCN", "AHNAK2", "PAPPA2", "ABCA13",
    "DNAH8", "UNC13C", "RP1L1", "CNTNAP5", "RELN", "LPHN3",
)  # fmt: skip
"""Long or late-replicating genes; their shares (0.48 falling to 0.10) are assumed, and equal in
both classes, so they tell only of the tumour's mutation burden."""
BURDEN_SHARE = (0.3, 0.45, 0.25)
BURDEN_SHIFT = (-0.9, 0.0, 0.9)
"""Three levels of mutation burden, unseen and independent of the label: log-odds added to every
passenger, and a third of it to every driver. This is what correlates mutations with each other."""
DRIVER_BURDEN = 1.0 / 3.0

MISSING_CELLS = {"genomics": 0.01, "pathology": 0.04, "radiomics": 0.03, "proteomics": 0.06}
MISSING_ROWS = {"genomics": 0.12, "pathology": 0.15, "radiomics": 0.18, "proteomics": 0.30}
"""Mean share of patients without the modality; each hospital has its own, within 0.1 of it."""
NO_SCANNER_SHARE = 0.1
"""Share of hospitals without a CT archive, whose patients never have radiomics."""

_TISSUES = ("epithelium", "stroma", "tumour", "necrosis", "lymphocytes", "vessels")
_MEASURES = (
    "area_share", "nuclear_area", "nuclear_eccentricity", "nuclear_density", "haematoxylin",
    "eosin", "texture_contrast", "texture_entropy",
)  # fmt: skip
_FILTERS = ("original", "wavelet_low", "wavelet_high", "log_sigma_2")
_IMAGING = (
    "mean", "variance", "skewness", "energy", "glcm_contrast", "glcm_correlation",
    "glrlm_run_length", "glszm_zone_size", "gldm_dependence", "ngtdm_coarseness",
)  # fmt: skip
_PROTEINS = (
    "TTF1", "NAPSA", "P63", "CK5", "CK6", "SOX2", "CK7", "DSG3", "E_CADHERIN", "N_CADHERIN",
    "EGFR", "EGFR_pY1068", "HER2", "HER3", "MET_pY1235", "AKT", "AKT_pS473", "AKT_pT308", "MTOR",
    "P70S6K", "S6_pS235", "S6_pS240", "4EBP1_pS65", "PTEN", "PI3K_P85", "ERK2", "MAPK_pT202",
    "MEK1", "BRAF", "CRAF", "P53", "P21", "P27", "RB_pS807", "CYCLIN_B1", "CYCLIN_D1", "CYCLIN_E1",
    "CDK1", "PCNA", "CHK1", "CHK2", "ATM", "BAX", "BCL2", "BCLXL", "BIM", "CASPASE_7", "ASNS",
    "FASN", "ACC1", "AMPK", "LKB1", "CAVEOLIN_1", "FIBRONECTIN", "COLLAGEN_6", "VEGFR2", "SRC",
    "STAT3_pY705", "NOTCH1", "BETA_CATENIN",
)  # fmt: skip
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "pathology": tuple(f"{tissue}_{measure}" for tissue in _TISSUES for measure in _MEASURES),
    "radiomics": tuple(f"{name}_{feature}" for name in _FILTERS for feature in _IMAGING),
    "proteomics": _PROTEINS,
}


@dataclass(frozen=True, kw_only=True)
class GaussianModality:
    """One measured modality: ``x = location + scale * (a z signal + f factors + g batch + e)``.

    Attributes:
        columns: names of its columns.
        location: mean of each column, in its own unit.
        scale: residual standard deviation of each column, in its own unit.
        signal: what a unit of the hidden state adds, 0 in the nuisance columns.
        factors: loadings of noise that a patient's columns share (``f ~ N(0, I)`` a patient).
        batch: loadings of the hospital's shifts (``g ~ N(0, I)`` a hospital; none in proteomics).
    """

    columns: tuple[str, ...]
    location: Float64[np.ndarray, " columns"]
    scale: Float64[np.ndarray, " columns"]
    signal: Float64[np.ndarray, " columns"]
    factors: Float64[np.ndarray, "factors columns"]
    batch: Float64[np.ndarray, "shifts columns"]

    @property
    def loadings(self) -> Float64[np.ndarray, "noise columns"]:
        """Factors and shifts together: for one patient of an unknown hospital both are noise."""
        return np.concatenate([self.factors, self.batch])


@dataclass(frozen=True, kw_only=True)
class Genome:
    """Mutations: given class and burden, each gene is mutated independently.

    Attributes:
        genes: names of the columns, drivers first.
        share: share mutated in each class, over all burdens.
        log_odds: log-odds of a mutation, by class, burden and gene, that give this share.
    """

    genes: tuple[str, ...]
    share: Float64[np.ndarray, "2 genes"]
    log_odds: Float64[np.ndarray, "2 3 genes"]


@lru_cache(maxsize=1)
def genome() -> Genome:
    """The genes with their frequencies and burden-dependent log-odds."""
    passengers = np.linspace(0.48, 0.10, len(PASSENGERS)).round(2)
    share = np.array([
        [d[1] for d in DRIVERS] + passengers.tolist(),
        [d[2] for d in DRIVERS] + passengers.tolist(),
    ])  # fmt: skip
    weight = np.array([DRIVER_BURDEN] * len(DRIVERS) + [1.0] * len(PASSENGERS))
    shift = np.array(BURDEN_SHIFT)[:, None] * weight
    return Genome(
        genes=tuple(d[0] for d in DRIVERS) + PASSENGERS,
        share=share,
        log_odds=_base_log_odds(share, shift)[:, None, :] + shift,
    )


def _base_log_odds(share: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Bisect for the log-odds whose mean over the burdens is the published share."""
    low, high = np.full_like(share, -12.0), np.full_like(share, 12.0)
    for _ in range(60):
        middle = (low + high) / 2
        rates = 1.0 / (1.0 + np.exp(-(middle[:, None, :] + shift)))
        too_high = np.einsum("b,cbg->cg", np.array(BURDEN_SHARE), rates) > share
        low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
    return np.asarray(np.round((low + high) / 2, 9))


@lru_cache(maxsize=1)
def gaussian_modalities() -> Mapping[str, GaussianModality]:
    """Pathology, radiomics and proteomics, with their loadings."""
    rng = np.random.default_rng(_PARAMETER_SEED)
    shape = {"pathology": (10, 0.5), "radiomics": (5, 0.35), "proteomics": (8, 0.0)}
    return {
        name: _gaussian(COLUMNS[name], INFORMATION[name], informative, batch, rng)
        for name, (informative, batch) in shape.items()
    }


def _gaussian(
    columns: Sequence[str], information: float, informative: int, batch: float,
    rng: np.random.Generator,
) -> GaussianModality:  # fmt: skip
    width = len(columns)
    signal = np.zeros(width)
    chosen = rng.choice(width, informative, replace=False)
    signal[chosen] = rng.choice([-1.0, 1.0], informative) * rng.uniform(0.6, 1.0, informative)
    factors = rng.normal(0.0, 0.45, (3, width))
    shifts = rng.normal(0.0, batch, (3, width)) if batch else np.zeros((0, width))
    loadings = np.concatenate([factors, shifts])
    covariance = np.eye(width) + loadings.T @ loadings
    signal *= np.sqrt(information / float(signal @ np.linalg.solve(covariance, signal)))
    # Rounded, so that the last bit of a linear-algebra library cannot change a cohort.
    return GaussianModality(
        columns=tuple(columns),
        location=np.round(rng.normal(0.0, 20.0, width), 3),
        scale=np.round(np.exp(rng.normal(1.0, 0.7, width)), 3),
        signal=np.round(signal, 9),
        factors=np.round(factors, 9),
        batch=np.round(shifts, 9),
    )


def fidelity(days: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Share of the hidden state that a scan still shows, by days from scan to surgery."""
    return np.asarray(np.exp(-days / DECAY_DAYS))


def draw_days(n: int, rng: np.random.Generator) -> Float64[np.ndarray, " n"]:
    """Whole days from scan to surgery: most soon after it, the others months later."""
    soon = rng.integers(PROMPT_DAYS[0], PROMPT_DAYS[1] + 1, n)
    late = rng.integers(DELAYED_DAYS[0], DELAYED_DAYS[1] + 1, n)
    return np.where(rng.random(n) < DELAYED_SHARE, late, soon).astype(np.float64)


def delay_quantiles(n: int) -> Float64[np.ndarray, " n"]:
    """``n`` equally likely delays that stand for the distribution of :func:`draw_days`."""
    n_late = round(n * DELAYED_SHARE)
    late = DELAYED_DAYS[0] + (np.arange(n_late) + 0.5) / n_late * (
        DELAYED_DAYS[1] + 1 - DELAYED_DAYS[0]
    )
    soon = PROMPT_DAYS[0] + (np.arange(n - n_late) + 0.5) / (n - n_late) * (
        PROMPT_DAYS[1] + 1 - PROMPT_DAYS[0]
    )
    return np.concatenate([soon, late]) - 0.5
