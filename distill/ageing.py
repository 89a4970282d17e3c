"""How fast a teacher's word ages: the decay of its held-out log-odds with a gap, by likelihood.

A teacher is not told the times, so its log-odds are right for an average gap: too faint for a
fresh acquisition and too loud for an old one. One rate a modality, fitted on held-out patients,
corrects its soft labels and is where the student's gate starts. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int

from distill.temperature import fit_temperature, log_loss

RATES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.3)
"""Rates that are tried, per training median of the gap."""
NEEDED_NATS = 4.0
"""Log-likelihood that a rate has to gain over no decay on all held-out patients together: 4 nats
are a chance of less than 1 in 200 for one rate without any truth to it, and several are tried."""


@dataclass(frozen=True, kw_only=True)
class Ageing:
    """Decay of one modality's log-odds: ``prior + share * (logit - prior) / temperature``.

    Attributes:
        rates: per temporal column, 0 where it does not matter; the share is ``exp(-rates * gap)``.
        unknown: decay where a column's gap is not known, the mean share's.
        temperature: scale that goes with it; 1 where no column matters.
        prior: log-odds of the positive class before anything is known.
    """

    rates: tuple[float, ...]
    unknown: tuple[float, ...]
    temperature: float
    prior: float

    def apply(
        self, logit: Float64[np.ndarray, " rows"], times: Float32[np.ndarray, "rows features"]
    ) -> Float64[np.ndarray, " rows"]:
        """The log-odds of patients with these time features; unchanged where nothing ages."""
        if not any(self.rates):
            return logit
        share = np.exp(-_decay(times, self.rates, self.unknown))
        return np.asarray(self.prior + share * (logit - self.prior) / self.temperature)


def _decay(
    times: Float32[np.ndarray, "rows features"], rates: Sequence[float], unknown: Sequence[float]
) -> Float64[np.ndarray, " rows"]:
    columns = len(rates)
    gap, known = times[:, :columns].astype(np.float64), times[:, columns:] > 0
    return np.asarray((np.where(known, gap * np.array(rates), np.array(unknown))).sum(axis=1))


def fit_ageing(
    logit: Float64[np.ndarray, " rows"],
    label: Int[np.ndarray, " rows"],
    times: Float32[np.ndarray, "rows features"],
    prior: float,
) -> Ageing:
    """The likeliest rates on held-out log-odds, one column after the other; 0 where none helps.

    Args:
        logit: held-out log-odds of one modality's teacher; NaN rows are left out.
        label: classes of the rows.
        times: scaled gaps, then 1 for each that is known.
        prior: log-odds of the positive class before anything is known.
    """
    columns = times.shape[1] // 2
    seen = np.isfinite(logit)
    best = Ageing(rates=(0.0,) * columns, unknown=(0.0,) * columns, temperature=1.0, prior=prior)
    if not seen.any():
        return best
    z, y, t = logit[seen], label[seen], times[seen]
    # The same family without decay, so that a gain is the decay's and not the temperature's.
    least = log_loss(prior + (z - prior) / fit_temperature(z - prior, y), y)
    for column in range(columns):
        tried = [_tried(best, column, rate, z=z, y=y, times=t) for rate in RATES]
        loss, likeliest = min(tried, key=lambda pair: pair[0])
        if (least - loss) * y.size > NEEDED_NATS:
            best, least = likeliest, loss
    return best


def _tried(
    before: Ageing,
    column: int,
    rate: float,
    *,
    z: Float64[np.ndarray, " rows"],
    y: Int[np.ndarray, " rows"],
    times: Float32[np.ndarray, "rows features"],
) -> tuple[float, Ageing]:
    """Log-loss with this rate for this column, and the decay with the temperature that fits it."""
    known = times[:, len(before.rates) + column] > 0
    gap = times[known, column].astype(np.float64)
    mean_share = float(np.exp(-rate * gap).mean()) if gap.size else 1.0
    tried = replace(
        before,
        rates=_at(before.rates, column, rate),
        unknown=_at(before.unknown, column, -float(np.log(mean_share))),
        temperature=1.0,
    )
    away = tried.apply(z, times) - before.prior
    temperature = fit_temperature(away, y)
    return (
        log_loss(before.prior + away / temperature, y),
        replace(tried, temperature=temperature),
    )


def _at(values: tuple[float, ...], column: int, value: float) -> tuple[float, ...]:
    return (*values[:column], value, *values[column + 1 :])
