"""How much of what perfect foresight saves do waiting policies save? Rolling and causal.

Every hour of a period is a start: a job of some hours may begin then or up to ``slack_h`` later,
and the policy is asked again each hour, with what is known by then, whether to begin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
from jaxtyping import Bool, Float64, Int64

from carbon.errors import UnitError
from carbon.schedule_features import (
    WARM_UP_H,
    ScheduleData,
    profile_lag,
    shifted,
    window_features,
    window_means,
)

WEEK_H = 168
Gains = Float64[np.ndarray, "hours offsets"]


@dataclass(frozen=True, kw_only=True)
class WaitingConfig:
    """The job, what is known, and the learned policy.

    Attributes:
        duration_h: hours of work, uninterrupted.
        slack_h: latest start, hours from now.
        delay_h: 0 if the running hour's intensity is known (as ``CarbonMonitor.now`` gives it),
            1 if the newest one known is that of the hour before.
        refit_h: hours between refits.
        rounds: boosting rounds of each model.
        learning_rate: of the boosting.
        num_leaves: of each tree.
        seed: of the row and column sampling.
    """

    duration_h: int = 4
    slack_h: int = 12
    delay_h: int = 0
    refit_h: int = 56 * 24
    rounds: int = 120
    learning_rate: float = 0.04
    num_leaves: int = 31
    seed: int = 1

    def __post_init__(self) -> None:
        least = {"duration_h": 1, "slack_h": 1, "delay_h": 0, "refit_h": 1, "rounds": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UnitError(f"{name} is {getattr(self, name)}; give {low} or more.")


def yesterday_changes(data: ScheduleData, config: WaitingConfig) -> Gains:
    """Column k: mean of the window k hours on minus that of the window now, as it was yesterday."""
    windows = window_means(data.trace.g_per_kwh, config.duration_h)
    lag = profile_lag(config.duration_h, config.slack_h, config.delay_h)
    now = shifted(windows, -lag)
    return np.stack([shifted(windows, k - lag) - now for k in range(config.slack_h + 1)], axis=1)


def learned_changes(
    data: ScheduleData, config: WaitingConfig, start: int, stop: int,
    progress: Callable[[int, int], None] | None = None,
) -> Gains:  # fmt: skip
    """The same, foreseen by one LightGBM model for each offset, refitted on the past alone.

    Args:
        data: the feed.
        config: job and models.
        start: first row that is foreseen.
        stop: row after the last one.
        progress: called with (rows finished, rows in all) after each refit.

    Returns:
        NaN outside ``start`` to ``stop``.

    Raises:
        UnitError: if there is too little before ``start`` to learn from.
    """
    if _last_label(config, start) < WARM_UP_H + 4 * WEEK_H:
        need = WARM_UP_H + 4 * WEEK_H + start - _last_label(config, start)
        raise UnitError(f"{start} hours of history are too few; start at row {need} or later.")
    x = window_features(data, config.duration_h, config.slack_h, config.delay_h)
    windows = window_means(data.trace.g_per_kwh, config.duration_h)
    changes = np.full((len(x), config.slack_h + 1), np.nan)
    changes[start:stop, 0] = 0.0
    for first in range(start, stop, config.refit_h):
        rows = slice(first, min(first + config.refit_h, stop))
        past = slice(WARM_UP_H, _last_label(config, first))
        train = lgb.Dataset(x[past], free_raw_data=False, params=_parameters(config))
        for k in range(1, config.slack_h + 1):
            train.set_label((shifted(windows, k) - windows)[past])
            model = lgb.train(_parameters(config), train, config.rounds)
            changes[rows, k] = model.predict(x[rows], num_threads=1)
        if progress is not None:
            progress(rows.stop - start, stop - start)
    return changes


def _last_label(config: WaitingConfig, now: int) -> int:
    """Row after the last one whose farthest window was over and published before row ``now``."""
    return now - config.slack_h - config.duration_h - config.delay_h


def _parameters(config: WaitingConfig) -> dict[str, Any]:
    return {
        "objective": "regression", "num_leaves": config.num_leaves,
        "learning_rate": config.learning_rate, "min_data_in_leaf": 60, "lambda_l2": 5.0,
        "feature_fraction": 0.4, "bagging_fraction": 0.6, "bagging_freq": 1, "max_bin": 63,
        # One thread: several that spin on a shared machine cost more than they gain.
        "num_threads": 1, "verbosity": -1, "seed": config.seed, "deterministic": True,
    }  # fmt: skip


def starts_of(changes: Gains, rows: Int64[np.ndarray, " starts"]) -> Int64[np.ndarray, " starts"]:
    """Offset at which each job begins: as soon as no later start still allowed looks better.

    Args:
        changes: expected change by waiting k hours; asked again at every hour, column 0 is 0.
        rows: hours at which jobs arrive.
    """
    slack = changes.shape[1] - 1
    begun = np.full(len(rows), slack)
    waiting: Bool[np.ndarray, " starts"] = np.ones(len(rows), dtype=bool)
    for waited in range(slack):
        left = changes[rows + waited, 1 : slack - waited + 1]
        stop = waiting & ~(left.min(axis=1) < 0)
        begun[stop] = waited
        waiting &= ~stop
    return begun


def regret(
    data: ScheduleData,
    config: WaitingConfig,
    changes: Gains,
    rows: Int64[np.ndarray, " starts"],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """What a policy saves against running now, as a share of what perfect foresight saves.

    Args:
        data: the feed.
        config: the job.
        changes: what the policy foresees.
        rows: hours at which jobs arrive, in order; each needs duration and slack after it.
        rng: for the bootstrap over weeks (2,000 draws).

    Raises:
        UnitError: if rows are missing, or the trace ends before the last deadline.
    """
    if not len(rows) or rows[-1] + config.slack_h + config.duration_h > len(data.trace):
        raise UnitError("No starts, or the trace ends before the last deadline; give fewer rows.")
    windows = window_means(data.trace.g_per_kwh, config.duration_h)
    options = windows[rows[:, None] + np.arange(config.slack_h + 1)]
    begun = starts_of(changes, rows)
    now = options[:, 0]
    saved = now - options[np.arange(len(rows)), begun]
    best = now - options.min(axis=1)
    week = (rows - rows[0]) // WEEK_H
    sums = np.stack([np.bincount(week, weights=v) for v in (saved, best, now)])
    draws = rng.integers(0, sums.shape[1], size=(2000, sums.shape[1]))
    s, b, n = sums[:, draws].sum(axis=2)
    return {
        "share_of_perfect": _figure(saved.sum(), best.sum(), s, b, len(rows)),
        "saved_fraction": _figure(saved.sum(), now.sum(), s, n, len(rows)),
        "perfect_saved_fraction": _figure(best.sum(), now.sum(), b, n, len(rows)),
        "regret_g_per_kwh": _figure(
            (best - saved).sum(), float(len(rows)), b - s, _counts(week, draws), len(rows)
        ),
        "mean_wait_h": {"value": float(begun.mean()), "ci95": None, "n": len(rows)},
    }


def _counts(
    week: Int64[np.ndarray, " starts"], draws: Int64[np.ndarray, "draws weeks"]
) -> Float64[np.ndarray, " draws"]:
    return np.asarray(np.bincount(week).astype(np.float64)[draws].sum(axis=1))


def _figure(
    top: float,
    bottom: float,
    tops: Float64[np.ndarray, " draws"],
    bottoms: Float64[np.ndarray, " draws"],
    n: int,
) -> dict[str, Any]:
    if not bottom > 0 or not (bottoms > 0).all():
        return {"value": None, "ci95": None, "n": n, "reason": "nothing could be saved"}
    low, high = np.quantile(tops / bottoms, [0.025, 0.975])
    return {"value": float(top / bottom), "ci95": [float(low), float(high)], "n": n}
