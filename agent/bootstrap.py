"""Intervals that hold for other patients: folds, patients, sessions and training seeds redrawn.

Sessions of a fold share its patients, so redrawing sessions alone pretends to more evidence than
there is. Here each of four kinds of units is redrawn with replacement, independently of the other
three (Owen 2007, "The pigeonhole bootstrap"; Owen and Eckles 2012): the folds, and within them
patients, sessions and training seeds. A redrawn patient is a patient with a whole-numbered weight;
a session's AUC under weights w is that of the session in which each patient stands w times:

    A(w) = sum_ij w[i] w[j] psi[i, j] / (sum_i w[i] sum_j w[j])    (i positive, j negative),

and its emissions are the weighted mean over cases times their number. Every policy meets the same
redraws, so differences are paired by subtracting replicate from replicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from agent.errors import ComparisonError
from agent.rollout import SessionRecords

REPLICATES = 1000
POOLED_REPLICATES = 200


@dataclass(frozen=True, kw_only=True)
class FoldRedraws:
    """How often each unit of one fold occurs in each redraw (R redraws).

    Attributes:
        patient: pool index of each case of each session.
        n_pos: how many cases of each session, the first ones, are positive.
        patients: weight of each patient of the pool, a whole number.
        sessions: weight of each session; sums to 1 in each redraw.
    """

    patient: Int64[np.ndarray, "sessions cases"]
    n_pos: int
    patients: Float32[np.ndarray, "replicates pool"]
    sessions: Float64[np.ndarray, "replicates sessions"]


@dataclass(frozen=True, kw_only=True)
class Redraws:
    """All folds' redraws.

    Attributes:
        folds: weight of each fold; sums to 1 in each redraw.
        by_fold: one entry a fold.
    """

    folds: Float64[np.ndarray, "replicates folds"]
    by_fold: tuple[FoldRedraws, ...]

    @property
    def n(self) -> int:
        """Number of redraws."""
        return len(self.folds)


def shares(
    rng: np.random.Generator, n: int, replicates: int
) -> Float64[np.ndarray, "replicates units"]:
    """How often each of ``n`` units occurs in a redraw of ``n``, as shares of that redraw."""
    return np.asarray(rng.multinomial(n, np.full(n, 1.0 / n), size=replicates) / n)


def redraw(
    records: Sequence[SessionRecords],
    n_patients: Sequence[int],
    rng: np.random.Generator,
    replicates: int = REPLICATES,
) -> Redraws:
    """Draw the weights of folds, patients and sessions that all policies will meet.

    Args:
        records: of any one policy, one entry a fold; sessions are shared.
        n_patients: size of each fold's pool.
        rng: source of the redraws.
        replicates: number of redraws.
    """
    folds = shares(rng, len(records), replicates)
    by_fold = []
    for record, n in zip(records, n_patients, strict=True):
        weights = rng.multinomial(n, np.full(n, 1.0 / n), size=replicates)
        by_fold.append(
            FoldRedraws(
                patient=record.patient,
                n_pos=int(record.label[0].sum()),
                patients=weights.astype(np.float32),
                sessions=shares(rng, len(record.patient), replicates),
            )
        )
    return Redraws(folds=folds, by_fold=tuple(by_fold))


@dataclass(frozen=True, kw_only=True)
class SessionDraws:
    """What a policy's runs on one fold come to under each redraw of patients (K seeds).

    Attributes:
        auc_gain: NaN where a redraw leaves a session without one of the classes.
        g_co2e: emissions, g.
    """

    auc_gain: Float32[np.ndarray, "seeds sessions replicates"]
    g_co2e: Float32[np.ndarray, "seeds sessions replicates"]


def _psi(
    score: Float32[np.ndarray, "seeds cases"], n_pos: int
) -> Float32[np.ndarray, "pos seeds neg"]:
    """1 where the positive scores higher, 1/2 where they tie, else 0."""
    sign = np.sign(score[:, :n_pos, None] - score[:, None, n_pos:])
    return np.asarray((sign.transpose(1, 0, 2) + 1.0) / 2.0, dtype=np.float32)


def weighted_gains(
    first: Float32[np.ndarray, "seeds cases"],
    final: Float32[np.ndarray, "seeds cases"],
    n_pos: int,
    weight: Float32[np.ndarray, "replicates cases"],
) -> Float32[np.ndarray, "seeds replicates"]:
    """AUC gain of one session when each case stands as often as its weight says.

    Args:
        first: scores at the start, positives first; one row a training seed.
        final: scores at the end.
        n_pos: positives.
        weight: of each case, in each redraw.
    """
    seeds, n_neg = len(final), final.shape[1] - n_pos
    change = _psi(final, n_pos) - _psi(first, n_pos)
    pos, neg = weight[:, :n_pos], weight[:, n_pos:]
    met = (pos @ change.reshape(n_pos, seeds * n_neg)).reshape(len(weight), seeds, n_neg)
    won = np.einsum("rkn,rn->kr", met, neg)
    pairs = pos.sum(axis=1) * neg.sum(axis=1)
    gains = np.full(won.shape, np.nan, dtype=np.float32)
    np.divide(won, pairs, out=gains, where=np.broadcast_to(pairs > 0, won.shape))
    return gains


def session_draws(runs: Sequence[SessionRecords], fold: FoldRedraws) -> SessionDraws:
    """A policy's gain and carbon in each session of a fold under each redraw of its patients.

    Args:
        runs: one a training seed.
        fold: the redraws.

    Raises:
        ComparisonError: if the runs are not of the sessions that were redrawn.
    """
    if not all(np.array_equal(run.patient, fold.patient) for run in runs):
        raise ComparisonError("A policy did not review the sessions that the others did.")
    n_sessions, n_cases = fold.patient.shape
    shape = (len(runs), n_sessions, len(fold.patients))
    gain, grams = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    for s in range(n_sessions):
        weight = fold.patients[:, fold.patient[s]]
        first = np.stack([run.first_score[s] for run in runs])
        final = np.stack([run.final_score[s] for run in runs])
        gain[:, s] = weighted_gains(first, final, fold.n_pos, weight)
        spent = np.stack([run.case_g_co2e[s] for run in runs]).astype(np.float32)
        total = weight.sum(axis=1)
        grams[:, s] = np.where(total > 0, n_cases * (spent @ weight.T) / np.maximum(total, 1), 0.0)
    return SessionDraws(auc_gain=gain, g_co2e=grams)


def fold_mean(
    values: Float[np.ndarray, "seeds sessions replicates"],
    seeds: Float64[np.ndarray, "replicates seeds"],
    sessions: Float64[np.ndarray, "replicates sessions"],
) -> Float64[np.ndarray, " replicates"]:
    """Mean over redrawn training seeds and sessions; sessions without a value are left out."""
    per_session = np.einsum("ksr,rk->rs", values, seeds, optimize=True)
    held = np.isfinite(per_session)
    weight = np.where(held, sessions, 0.0)
    total = weight.sum(axis=1)
    summed = (np.where(held, per_session, 0.0) * weight).sum(axis=1)
    mean = np.full(len(total), np.nan)
    np.divide(summed, total, out=mean, where=total > 0)
    return mean


def over_folds(
    by_fold: Sequence[Float64[np.ndarray, " replicates"]],
    folds: Float64[np.ndarray, "replicates folds"],
) -> Float64[np.ndarray, " replicates"]:
    """The folds' means, weighted by how often each fold was redrawn."""
    return np.asarray((np.stack(by_fold, axis=1) * folds).sum(axis=1))


def pooled_gains(
    run: SessionRecords, fold: FoldRedraws, replicates: int = POOLED_REPLICATES
) -> Float64[np.ndarray, " replicates"]:
    """Gain of the AUC over all cases of a fold's sessions together, patients and sessions redrawn.

    Args:
        run: the fold's records of one policy.
        fold: the redraws; the first ``replicates`` of them are used.
        replicates: how many.
    """
    used = min(replicates, len(fold.patients))
    weight = fold.patients[:used][:, fold.patient] * fold.sessions[:used, :, None]
    final = pooled_weighted_auc(run.final_score, fold.n_pos, weight)
    return np.asarray(final - pooled_weighted_auc(run.first_score, fold.n_pos, weight))


def pooled_weighted_auc(
    score: Float32[np.ndarray, "sessions cases"],
    n_pos: int,
    weight: Float[np.ndarray, "replicates sessions cases"],
) -> Float64[np.ndarray, " replicates"]:
    """AUC over every case of every session together, each counting by its weight; ties half."""
    replicates = len(weight)
    negatives = score[:, n_pos:].ravel()
    order = np.argsort(negatives, kind="stable")
    ordered = negatives[order]
    against = weight[:, :, n_pos:].reshape(replicates, -1)[:, order]
    below = np.concatenate([np.zeros((replicates, 1)), np.cumsum(against, axis=1)], axis=1)
    positives = score[:, :n_pos].ravel()
    left = np.searchsorted(ordered, positives, side="left")
    right = np.searchsorted(ordered, positives, side="right")
    mine = weight[:, :, :n_pos].reshape(replicates, -1)
    won = (mine * (below[:, left] + below[:, right])).sum(axis=1) / 2.0
    pairs = mine.sum(axis=1) * below[:, -1]
    return np.asarray(np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1.0), np.nan))
