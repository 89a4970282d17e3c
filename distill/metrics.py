"""Discrimination, sharpness and calibration, each with its interval and its n.

DeLong et al. 1988 for the AUC's variance, by the mid-rank algorithm of Sun and Xu 2014;
calibration error over equal-mass bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Shaped
from scipy.special import expit
from scipy.stats import rankdata

Z95 = 1.959963984540054
N_BINS = 15
N_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number with its 95 % interval and the number of patients behind it.

    ``value`` is None, with a reason, where the number does not exist (a single class).
    """

    value: float | None
    ci95: tuple[float, float] | None
    n: int
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """``{"value", "ci95", "n"}``, and ``"reason"`` where the value is null."""
        out: dict[str, Any] = {
            "value": self.value,
            "ci95": list(self.ci95) if self.ci95 is not None else None,
            "n": self.n,
        }
        return out if self.reason is None else {**out, "reason": self.reason}


def auc_over_hospitals(
    label: Int[np.ndarray, " n"],
    score: Float64[np.ndarray, " n"],
    group: Sequence[str] | None,
    rng: np.random.Generator,
) -> Figure:
    """AUC with an interval of another draw of whole hospitals, where DeLong's draws patients.

    Args:
        label: 0 or 1 per patient.
        score: higher for the positive class.
        group: hospital of each patient; None where the cohort names none.
        rng: source of the redraws.
    """
    if group is None:
        reason: str | None = "the cohort names no hospitals"
    else:
        reason = _one_class(label) or ("one hospital" if len(set(group)) < 2 else None)
    if group is None or reason is not None:
        return Figure(value=None, ci95=None, n=int(label.size), reason=reason)
    interval = cluster_bootstrap(
        lambda drawn: auc_value(label[drawn], score[drawn]), np.array(group), rng
    )
    return Figure(value=auc_value(label, score), ci95=interval, n=int(label.size))


def _placements(
    label: Int[np.ndarray, " n"], score: Float64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, " pos"], Float64[np.ndarray, " neg"]]:
    """Share of the other class that each patient is ordered rightly against."""
    positive, negative = score[label == 1], score[label == 0]
    m, k = positive.size, negative.size
    ranks = rankdata(np.concatenate([positive, negative]))
    v_pos = (ranks[:m] - rankdata(positive)) / k
    v_neg = 1.0 - (ranks[m:] - rankdata(negative)) / m
    return v_pos, v_neg


def auc_value(label: Int[np.ndarray, " n"], score: Float64[np.ndarray, " n"]) -> float:
    """Area under the ROC curve, ties counted half; NaN where a class is absent."""
    n_pos = int((label == 1).sum())
    n_neg = label.size - n_pos
    if not n_pos or not n_neg:
        return float("nan")
    rank_sum = float(rankdata(score)[label == 1].sum())
    return (rank_sum - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)


def _one_class(label: Int[np.ndarray, " n"]) -> str | None:
    classes = np.unique(label)
    if classes.size == 2:
        return None
    return "no patients" if not classes.size else f"only one class (label {int(classes[0])})"


def auc(label: Int[np.ndarray, " n"], score: Float64[np.ndarray, " n"]) -> Figure:
    """AUC with DeLong's interval; null with a reason where only one class is there."""
    reason = _one_class(label)
    if reason is not None:
        return Figure(value=None, ci95=None, n=int(label.size), reason=reason)
    v_pos, v_neg = _placements(label, score)
    value = float(v_pos.mean())
    variance = _mean_variance(v_pos) + _mean_variance(v_neg)
    half = Z95 * float(np.sqrt(variance))
    return Figure(value=value, ci95=_clipped(value - half, value + half), n=int(label.size))


def auc_difference(
    label: Int[np.ndarray, " n"],
    first: Float64[np.ndarray, " n"],
    second: Float64[np.ndarray, " n"],
) -> Figure:
    """AUC of the first score minus that of the second on the same patients (paired DeLong)."""
    reason = _one_class(label)
    if reason is not None:
        return Figure(value=None, ci95=None, n=int(label.size), reason=reason)
    a_pos, a_neg = _placements(label, first)
    b_pos, b_neg = _placements(label, second)
    value = float(a_pos.mean() - b_pos.mean())
    half = Z95 * float(np.sqrt(_mean_variance(a_pos - b_pos) + _mean_variance(a_neg - b_neg)))
    return Figure(value=value, ci95=(value - half, value + half), n=int(label.size))


def _mean_variance(v: Float64[np.ndarray, " n"]) -> float:
    return float(v.var(ddof=1) / v.size) if v.size > 1 else 0.0


def _clipped(low: float, high: float) -> tuple[float, float]:
    return (max(0.0, low), min(1.0, high))


def brier(label: Int[np.ndarray, " n"], probability: Float64[np.ndarray, " n"]) -> Figure:
    """Mean squared error of the probability, with a normal interval of the mean."""
    if not label.size:
        return Figure(value=None, ci95=None, n=0, reason="no patients")
    error = (probability - label) ** 2
    value, half = float(error.mean()), Z95 * float(np.sqrt(_mean_variance(error)))
    return Figure(value=value, ci95=_clipped(value - half, value + half), n=int(label.size))


def _bins(probability: Float64[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    order = np.argsort(probability, kind="stable")
    bins = np.empty(order.size, dtype=np.int64)
    bins[order] = np.arange(order.size) * N_BINS // order.size
    return bins


def ece(
    label: Int[np.ndarray, " n"],
    probability: Float64[np.ndarray, " n"],
    rng: np.random.Generator,
    resamples: int = N_RESAMPLES,
) -> Figure:
    """Expected calibration error over 15 equal-mass bins, with a parametric bootstrap interval.

    Every bin's gap is drawn from its normal sampling distribution. The interval is reflected
    about the estimate, since resampling adds noise to every bin and so biases the error upwards;
    where that bias is so large that the reflection ends below the estimate, it ends there.
    """
    n = int(label.size)
    if n < N_BINS:
        return Figure(value=None, ci95=None, n=n, reason=f"fewer than {N_BINS} patients")
    bins, gap = _bins(probability), label - probability
    total = np.bincount(bins, weights=gap, minlength=N_BINS)
    spread = np.sqrt(np.bincount(bins, weights=gap**2, minlength=N_BINS))
    value = float(np.abs(total).sum() / n)
    drawn = np.abs(total + spread * rng.standard_normal((resamples, N_BINS))).sum(axis=1) / n
    low, high = np.quantile(drawn, [0.025, 0.975])
    upper = max(value, 2 * value - float(low))
    return Figure(value=value, ci95=_clipped(2 * value - float(high), upper), n=n)


def ece_if_calibrated(
    probability: Float64[np.ndarray, " n"],
    rng: np.random.Generator,
    resamples: int = N_RESAMPLES,
) -> Figure:
    """The calibration error that these very probabilities would show if they were exactly right.

    Bins hold few patients, whose labels fall by chance to either side, so the error of a perfectly
    calibrated model is not 0. Labels are drawn from the probabilities; the value is the mean error
    over the draws and the interval holds 95 % of them: an error inside it is no sign of
    miscalibration.
    """
    n = int(probability.size)
    if n < N_BINS:
        return Figure(value=None, ci95=None, n=n, reason=f"fewer than {N_BINS} patients")
    p = np.sort(probability, kind="stable")
    drawn = (rng.random((resamples, n)) < p) - p
    edges = np.searchsorted(np.arange(n) * N_BINS // n, np.arange(N_BINS))
    error = np.abs(np.add.reduceat(drawn, edges, axis=1)).sum(axis=1) / n
    low, high = np.quantile(error, [0.025, 0.975])
    return Figure(value=float(error.mean()), ci95=(float(low), float(high)), n=n)


def score_card(
    label: Int[np.ndarray, " n"],
    logit: Float64[np.ndarray, " n"],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """AUC, Brier score and calibration error of log-odds; patients with NaN are left out.

    ``ece_if_calibrated`` is what chance alone makes of the error with as many patients.
    """
    seen = np.isfinite(logit)
    y, z = label[seen].astype(np.int64), logit[seen].astype(np.float64)
    p = expit(z)
    return {
        "auc": auc(y, z).to_json(),
        "brier": brier(y, p).to_json(),
        "ece": ece(y, p, rng).to_json(),
        "ece_if_calibrated": ece_if_calibrated(p, rng).to_json(),
    }


def cluster_bootstrap(
    statistic: Callable[[Int[np.ndarray, " drawn"]], float],
    group: Shaped[np.ndarray, " n"],
    rng: np.random.Generator,
    resamples: int = 1000,
) -> tuple[float, float]:
    """95 % percentile interval of a statistic when whole hospitals are drawn with replacement.

    Args:
        statistic: takes the drawn patients' row numbers; a NaN result is left out.
        group: hospital of each patient.
        rng: source of randomness.
        resamples: number of draws.
    """
    names, back = np.unique(group, return_inverse=True)
    rows = [np.flatnonzero(back == g) for g in range(names.size)]
    drawn = []
    for _ in range(resamples):
        pick = rng.integers(0, names.size, names.size)
        drawn.append(statistic(np.concatenate([rows[g] for g in pick])))
    low, high = np.nanquantile(np.array(drawn), [0.025, 0.975])
    return float(low), float(high)


def means_over_hospitals(
    value: Float64[np.ndarray, "n figures"],
    counted: Bool[np.ndarray, "n figures"],
    group: Shaped[np.ndarray, " n"] | None,
    rng: np.random.Generator,
    resamples: int = 400,
) -> list[Figure]:
    """Means over patients with intervals that draw whole hospitals with replacement.

    Args:
        value: a column a figure.
        counted: which patients each mean is over.
        group: hospital of each patient; None where the cohort names none: patients are drawn.
        rng: source of randomness; all figures share the draws.
        resamples: number of draws.
    """
    n = value.shape[0]
    _, back = np.unique(np.arange(n) if group is None else group, return_inverse=True)
    units = int(back.max()) + 1 if n else 1
    count, total = np.zeros((units, value.shape[1])), np.zeros((units, value.shape[1]))
    np.add.at(count, back, counted)
    np.add.at(total, back, np.where(counted, value, 0.0))
    times = rng.multinomial(units, np.full(units, 1.0 / units), size=resamples)
    drawn = times @ count
    mean = np.divide(times @ total, drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0)
    figures = []
    for j in range(value.shape[1]):
        size = int(counted[:, j].sum())
        if not size:
            figures.append(Figure(value=None, ci95=None, n=0, reason="no patients"))
            continue
        low, high = np.nanquantile(mean[:, j], [0.025, 0.975])
        centre = float(total[:, j].sum() / size)
        figures.append(Figure(value=centre, ci95=(float(low), float(high)), n=size))
    return figures
