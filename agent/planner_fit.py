"""Fitting a planner's tables to training patients: transitions, values, demand by price.

Reads the tables of a TRAINING setup only, so that held-out patients have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64

from agent.policies.patient_program import BINS, GRID, LOWEST, STEP, PatientProgram, solve
from agent.policies.shadow import DemandCurves
from envs.setup import ReviewSetup
from envs.tables import PatientTables

PRICES, FEES = 13, 7
DEMAND_PRICES, DEMAND_FEES = 25, 12
SETS_EACH = 3
"""Evidence sets that stand for all those with the same modalities processed: the smallest ones."""
MAX_PATIENTS = 600
WIDTH = 0.5
"""Width of the kernel over log-odds within which patients move alike."""
NEWTON_STEPS, PULL = 12, 10.0
SHRINK = 1e-4
"""Weight of every other patient of the class, so that an empty neighbourhood borrows from all."""


def stated_probability(
    logit: Float64[np.ndarray, " rows"], positive: Bool[np.ndarray, " rows"]
) -> Float64[np.ndarray, " bins"]:
    """Probability of the positive class along the grid, by logistic regression on these rows.

    Newton's method, with a pull towards taking the log-odds at their word.
    """
    design = np.stack([np.ones(len(logit)), logit], axis=1)
    coefficient = np.array([0.0, 1.0])
    for _ in range(NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-design @ coefficient))
        slope = design.T @ (p - positive) + PULL * (coefficient - [0.0, 1.0])
        curve = (design * (p * (1.0 - p))[:, None]).T @ design + PULL * np.eye(2)
        coefficient = coefficient - np.linalg.solve(curve, slope)
    return np.asarray(1.0 / (1.0 + np.exp(-(coefficient[0] + coefficient[1] * GRID))))


@dataclass(frozen=True, kw_only=True)
class Opponents:
    """Scores that a case is compared with: each patient's first and fullest, by class.

    Attributes:
        positives: sorted scores of the positive class.
        negatives: sorted scores of the negative class.
        n_pos: positives in a session.
        n_neg: negatives in a session.
    """

    positives: Float64[np.ndarray, " positives"]
    negatives: Float64[np.ndarray, " negatives"]
    n_pos: int
    n_neg: int

    def won(
        self, label: bool, old: Float64[np.ndarray, "..."], new: Float64[np.ndarray, "..."]
    ) -> Float64[np.ndarray, "..."]:
        """Session AUC that a case of this class wins by moving from one score to another."""
        scores = self.negatives if label else self.positives
        share = (_below(scores, new) - _below(scores, old)) / max(len(scores), 1)
        return np.asarray(share / self.n_pos if label else -share / self.n_neg)


def _below(
    scores: Float64[np.ndarray, " scores"], at: Float64[np.ndarray, "..."]
) -> Float64[np.ndarray, "..."]:
    """How many of the sorted scores are lower; ties count half."""
    left = np.searchsorted(scores, at, side="left")
    return np.asarray((left + np.searchsorted(scores, at, side="right")) / 2.0)


@dataclass(frozen=True, kw_only=True)
class TrainingCases:
    """The patients of a training setup and where transfers lead them.

    Attributes:
        setup: training sessions' fixed numbers.
    """

    setup: ReviewSetup

    @property
    def tables(self) -> PatientTables:
        """The pool's tables."""
        return self.setup.tables

    @cached_property
    def logit(self) -> Float64[np.ndarray, "patients sets"]:
        """Log-odds of each patient and set; NaN where it cannot be reached."""
        return self.tables.logit.reshape(-1, self.tables.n_sets).astype(np.float64)

    @cached_property
    def label(self) -> Bool[np.ndarray, " patients"]:
        """Class of each patient."""
        return np.isin(np.arange(len(self.logit)), self.tables.positives)

    @cached_property
    def source(self) -> Int64[np.ndarray, " transfers"]:
        """Modality that each transfer processes."""
        modalities, transfers = self.setup.layout.modalities, self.setup.catalogue.transfers
        return np.array([modalities.index(t.source) for t in transfers], dtype=np.int64)

    @cached_property
    def done(self) -> Int64[np.ndarray, " sets"]:
        """Bits of the modalities that each set has processed, clinical left out."""
        m = len(self.setup.layout.modalities)
        processed = self.tables.progress[:, 1:m] > 0.5
        return np.asarray(processed.astype(np.int64) @ (1 << np.arange(m - 1, dtype=np.int64)))

    @cached_property
    def present(self) -> Int64[np.ndarray, " patients"]:
        """Bits of the modalities that each patient has, clinical left out."""
        m = len(self.setup.layout.modalities)
        there = self.tables.traits[:, 1:m] > 0.5
        return np.asarray(there.astype(np.int64) @ (1 << np.arange(m - 1, dtype=np.int64)))

    @cached_property
    def others(self) -> Opponents:
        """Scores that the cases of a session are compared with."""
        size = self.tables.progress.sum(axis=1) + 100.0 * self.tables.progress[
            :, : len(self.setup.layout.modalities)
        ].sum(axis=1)
        fullest = np.where(np.isfinite(self.logit), size, -1.0).argmax(axis=1)
        last = self.logit[np.arange(len(fullest)), fullest]
        known = np.stack([self.logit[:, 0], last], axis=1)
        return Opponents(
            positives=np.sort(known[self.label], axis=None),
            negatives=np.sort(known[~self.label], axis=None),
            n_pos=self.setup.n_pos,
            n_neg=self.setup.n_neg,
        )

    @cached_property
    def case_kwh(self) -> Float64[np.ndarray, " modalities"]:
        """Energy of processing each modality, its share of a full run's start included."""
        kwh = np.zeros(len(self.setup.layout.modalities) - 1)
        for m in range(len(kwh)):
            steps = np.flatnonzero(self.source == m + 1)
            kwh[m] = self.tables.step_kwh[0, steps].min() if steps.size else np.inf
        config = self.setup.config
        return kwh * (1.0 + config.setup_factor / config.slots_per_hour)


def fit_program(cases: TrainingCases) -> PatientProgram:
    """Solve the patients' programme on the transitions of these patients."""
    n = len(cases.setup.layout.modalities) - 1
    gain = np.zeros((1 << n, n, BINS))
    move = np.zeros((1 << n, n, BINS, BINS))
    size = cases.tables.progress[:, n + 1 :].sum(axis=1)
    for done in range(1 << n):
        sets = np.flatnonzero(cases.done == done)
        sets = sets[np.argsort(size[sets], kind="stable")][:SETS_EACH]
        for m in (m for m in range(n) if not done >> m & 1):
            gain[done, m], move[done, m] = _transition(cases, sets, m)
    price, fee = price_grids(cases, PRICES, FEES)
    return solve(gain, move, cases.case_kwh, price, fee)


def price_grids(
    cases: TrainingCases, n_prices: int, n_fees: int
) -> tuple[Float64[np.ndarray, " prices"], Float64[np.ndarray, " fees"]]:
    """Prices from 0 to where nobody would run anything, closer together where they are low."""
    most = max(float(cases.setup.gain_model.table.max()), 1e-6) * 1.5
    kwh = cases.case_kwh[np.isfinite(cases.case_kwh)]
    dearest = most / max(float(kwh[kwh > 0].min(initial=np.inf)), 1e-9) if kwh.size else 1.0
    price = np.concatenate([[0.0], dearest * np.geomspace(1e-4, 1.0, n_prices - 1)])
    fee = np.concatenate([[0.0], most * np.geomspace(1e-2, 1.0, n_fees - 1)])
    return price, fee


def _transition(
    cases: TrainingCases, sets: Int64[np.ndarray, " sets"], m: int
) -> tuple[Float64[np.ndarray, " bins"], Float64[np.ndarray, "bins bins"]]:
    """Gain of processing modality m by log-odds, and where the log-odds go."""
    steps = np.flatnonzero(cases.source == m + 1)
    old, new, positive = [], [], []
    for k in sets:
        open_ = steps[cases.tables.is_open[k, steps]]
        if not open_.size:
            continue
        for t in open_:
            after = cases.logit[:, cases.tables.next_set[k, t]]
            known = np.isfinite(after)
            old.append(cases.logit[known, k])
            new.append(after[known])
            positive.append(cases.label[known])
    if not old:
        return np.full(BINS, -1.0), np.eye(BINS)
    return transition(
        np.concatenate(old), np.concatenate(new), np.concatenate(positive), cases.others
    )


def transition(
    old: Float64[np.ndarray, " steps"],
    new: Float64[np.ndarray, " steps"],
    positive: Bool[np.ndarray, " steps"],
    others: Opponents,
) -> tuple[Float64[np.ndarray, " bins"], Float64[np.ndarray, "bins bins"]]:
    """Expected gain of a step and the probability of each log-odds after it, for each before.

    From the steps of patients with similar log-odds, class by class; the classes are mixed by the
    probability that the log-odds state, recalibrated on these patients. The gain is what the step
    changes against the opposite class's scores, as in :mod:`envs.gain`, but by the steps as they
    were, not by a normal one.
    """
    probability = stated_probability(old, positive)
    gain, move = np.zeros(BINS), np.zeros((BINS, BINS))
    shares = {True: probability, False: 1.0 - probability}
    for label, share in shares.items():
        rows = positive == label
        if not rows.any():
            continue
        near = np.exp(-0.5 * ((GRID[:, None] - old[rows]) / WIDTH) ** 2) + SHRINK
        near *= (share / near.sum(axis=1))[:, None]
        gain += near @ others.won(label, old[rows], new[rows])
        land = np.clip((new[rows] - LOWEST) / STEP, 0.0, BINS - 1.0)
        below = np.minimum(land.astype(np.int64), BINS - 2)
        part = land - below
        np.add.at(move.T, below, (near * (1.0 - part)).T)
        np.add.at(move.T, below + 1, (near * part).T)
    return gain, move / np.maximum(move.sum(axis=1, keepdims=True), 1e-12)


Choice = Callable[
    [Int64[np.ndarray, " rows"], Int64[np.ndarray, " rows"], np.ndarray, np.ndarray],
    Int64[np.ndarray, " rows"],
]
"""Chooses a transfer, or -1, for patients in sets at prices and fees."""


def fit_demand(
    cases: TrainingCases, program: PatientProgram | None, min_gain: float, *, once: bool
) -> DemandCurves:
    """What the training patients would take at each price of energy and fee of a slot.

    Every patient is followed through its own scores, at every pair of prices at once.

    Args:
        cases: training patients.
        program: what is expected to follow; None to look one transfer ahead.
        min_gain: AUC that a transfer must gain beyond its costs.
        once: whether the first transfer closes the case.
    """
    price, fee = price_grids(cases, DEMAND_PRICES, DEMAND_FEES)
    n = min(len(cases.logit), MAX_PATIENTS)
    patients = np.linspace(0, len(cases.logit) - 1, n).astype(np.int64)
    pair = np.arange(len(price) * len(fee))
    patient, pair = patients.repeat(len(pair)), np.tile(pair, n)
    per_kwh, per_slot = price[pair // len(fee)], fee[pair % len(fee)]
    kwh, slots = np.zeros(len(patient)), np.zeros(len(patient))
    at = np.zeros(len(patient), dtype=np.int64)
    going = np.ones(len(patient), dtype=np.bool_)
    for _ in range(1 if once else cases.setup.catalogue.depth):
        rows = np.flatnonzero(going)
        chosen = _best(cases, program, min_gain, (patient[rows], at[rows]),
                       (per_kwh[rows], per_slot[rows]))  # fmt: skip
        going[rows] = chosen >= 0
        rows, chosen = rows[chosen >= 0], chosen[chosen >= 0]
        kwh[rows] += _kwh(cases, at[rows])[np.arange(len(rows)), chosen]
        slots[rows] += 1.0
        at[rows] = cases.tables.next_set[at[rows], chosen]
    shape = (n, len(price), len(fee))
    return DemandCurves(
        per_kwh=price,
        per_slot=fee,
        kwh=kwh.reshape(shape).mean(axis=0),
        slots=slots.reshape(shape).mean(axis=0),
    )


def _kwh(
    cases: TrainingCases, at: Int64[np.ndarray, " rows"]
) -> Float64[np.ndarray, "rows transfers"]:
    """Energy of each transfer, its share of a full run's start included."""
    base = cases.tables.step_kwh[at]
    fresh = (cases.done[at][:, None] >> np.maximum(cases.source - 1, 0) & 1) == 0
    config = cases.setup.config
    full = 1.0 + config.setup_factor / config.slots_per_hour
    return np.asarray(np.where(fresh & (cases.source > 0), base * full, base))


def _best(
    cases: TrainingCases,
    program: PatientProgram | None,
    min_gain: float,
    where: tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " rows"]],
    prices: tuple[Float64[np.ndarray, " rows"], Float64[np.ndarray, " rows"]],
) -> Int64[np.ndarray, " rows"]:
    """The transfer of the highest net value, or -1 where none is above 0."""
    patient, at = where
    per_kwh, per_slot = prices
    logit = cases.logit[patient, at]
    gain = cases.setup.gain_model.predict(at, logit.astype(np.float32)).astype(np.float64)
    done, present = cases.done[at], cases.present[patient]
    fresh = (cases.source > 0) & ((done[:, None] >> np.maximum(cases.source - 1, 0) & 1) == 0)
    net = gain - min_gain - per_slot[:, None] - _kwh(cases, at) * per_kwh[:, None]
    if program is not None:
        onward = program.follow((present, done), logit, per_kwh, per_slot)
        onward = np.concatenate([np.zeros((len(onward), 1)), onward], axis=1)
        net += np.where(fresh, onward[:, cases.source], 0.0)
    open_ = cases.tables.is_open[at] & cases.tables.has_source[patient]
    net = np.where(open_, net, -np.inf)
    net = np.where((fresh & (net > 0)).any(axis=1, keepdims=True) & ~fresh, -np.inf, net)
    best = net.argmax(axis=1)
    return np.where(net[np.arange(len(best)), best] > 0, best, -1)


def first_gains(cases: TrainingCases) -> Float64[np.ndarray, " patients"]:
    """The best predicted gain of each patient at first sight, ascending."""
    at = np.zeros(len(cases.logit), dtype=np.int64)
    gain = cases.setup.gain_model.predict(at, cases.logit[:, 0].astype(np.float32))
    open_ = cases.tables.is_open[0] & cases.tables.has_source
    best = np.where(open_, gain, 0.0).max(axis=1, initial=0.0)
    return np.sort(best.astype(np.float64))
