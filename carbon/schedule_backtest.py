"""How much of what perfect foresight saves do waiting policies save? Rolling and causal.

Every hour of a period is a start: a job of some hours may begin then or up to ``slack_h`` later,
and the policy is asked again each hour, with what is known by then, whether to begin. A job that
may be interrupted is asked about each hour until its work is done or must be done without a pause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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

    The tree size and the rounds are the best of twelve on 2021 of Great Britain, a year that is
    not scored: ``benchmarks/carbon_schedule.py --select-on 2021``.
    """

    duration_h: int = 4
    slack_h: int = 12
    delay_h: int = 0
    refit_h: int = 28 * 24
    rounds: int = 120
    learning_rate: float = 0.04
    num_leaves: int = 63
    seed: int = 1

    def __post_init__(self) -> None:
        least = {"duration_h": 1, "slack_h": 1, "delay_h": 0, "refit_h": 1, "rounds": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UnitError(f"{name} is {getattr(self, name)}; give {low} or more.")

    @property
    def hourly(self) -> WaitingConfig:
        """For a job that may pause: single hours, up to the last one before its deadline."""
        return replace(self, duration_h=1, slack_h=self.slack_h + self.duration_h - 1)


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


def runs_of(
    changes: Gains, rows: Int64[np.ndarray, " starts"], duration_h: int
) -> Bool[np.ndarray, "starts slots"]:
    """In which hours a job that may pause runs: whenever too few later ones look cleaner.

    Args:
        changes: expected change by taking the hour k hours on instead of this one, foreseen with
            :attr:`WaitingConfig.hourly`; asked again at every hour, column 0 is 0.
        rows: hours at which jobs arrive.
        duration_h: hours of work.
    """
    slots = changes.shape[1]
    runs = np.zeros((len(rows), slots), dtype=bool)
    left = np.full(len(rows), duration_h)
    for slot in range(slots):
        cleaner = (changes[rows + slot, 1 : slots - slot] < 0).sum(axis=1)
        # With as much work left as hours, there are fewer later hours than work: it must run.
        runs[:, slot] = cleaner < left
        left -= runs[:, slot]
    return runs


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
    _check_rows(data, config, rows)
    windows = window_means(data.trace.g_per_kwh, config.duration_h)
    options = windows[rows[:, None] + np.arange(config.slack_h + 1)]
    begun = starts_of(changes, rows)
    return _scores(
        now=options[:, 0],
        taken=options[np.arange(len(rows)), begun],
        best=options.min(axis=1),
        wait_h=begun.astype(np.float64),
        rows=rows,
        rng=rng,
    )


def regret_interruptible(
    data: ScheduleData,
    config: WaitingConfig,
    changes: Gains,
    rows: Int64[np.ndarray, " starts"],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """The same for a job that may pause; perfect foresight takes the cleanest hours of all.

    Args:
        data: the feed.
        config: the job.
        changes: what the policy foresees of single hours, with ``config.hourly``.
        rows: hours at which jobs arrive.
        rng: for the bootstrap.

    Raises:
        UnitError: as :func:`regret`, or if ``changes`` are not those of ``config.hourly``.
    """
    _check_rows(data, config, rows)
    slots, work = config.slack_h + config.duration_h, config.duration_h
    if changes.shape[1] != slots:
        raise UnitError(
            f"{changes.shape[1]} offsets came, {slots} are needed; foresee with config.hourly."
        )
    hours = data.trace.g_per_kwh[rows[:, None] + np.arange(slots)]
    runs = runs_of(changes, rows, work)
    last = slots - 1 - np.argmax(runs[:, ::-1], axis=1)
    return _scores(
        now=hours[:, :work].mean(axis=1),
        taken=(hours * runs).sum(axis=1) / work,
        best=np.sort(hours, axis=1)[:, :work].mean(axis=1),
        wait_h=last - (work - 1.0),
        rows=rows,
        rng=rng,
    )


def _check_rows(
    data: ScheduleData, config: WaitingConfig, rows: Int64[np.ndarray, " starts"]
) -> None:
    if not len(rows) or rows[-1] + config.slack_h + config.duration_h > len(data.trace):
        raise UnitError("No starts, or the trace ends before the last deadline; give fewer rows.")


def _scores(
    *,
    now: Float64[np.ndarray, " starts"],
    taken: Float64[np.ndarray, " starts"],
    best: Float64[np.ndarray, " starts"],
    wait_h: Float64[np.ndarray, " starts"],
    rows: Int64[np.ndarray, " starts"],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Figures from mean intensities: of running now, as the policy did, and at best."""
    saved, most = now - taken, now - best
    week = (rows - rows[0]) // WEEK_H
    sums = np.stack([np.bincount(week, weights=v) for v in (saved, most, now)])
    draws = rng.integers(0, sums.shape[1], size=(2000, sums.shape[1]))
    s, b, n = sums[:, draws].sum(axis=2)
    return {
        "share_of_perfect": _figure(saved.sum(), most.sum(), s, b, len(rows)),
        "saved_fraction": _figure(saved.sum(), now.sum(), s, n, len(rows)),
        "perfect_saved_fraction": _figure(most.sum(), now.sum(), b, n, len(rows)),
        "regret_g_per_kwh": _figure(
            (most - saved).sum(), float(len(rows)), b - s, _counts(week, draws), len(rows)
        ),
        "mean_wait_h": {"value": float(wait_h.mean()), "ci95": None, "n": len(rows)},
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
