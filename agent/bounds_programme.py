"""Each case's dynamic programme, for all patients, states and prices at once.

A case that stands where patient j stands, with the modalities W processed, stops with one of W's
evidence sets or processes one more modality and sees its score. What it then gets, Y, is patient
j's own credit or what j gets later less the price; what is chosen is what is best on average over
those who may stand there, by the weights mix_W:

    Q(stop with S) = mix_W c_S,     Q(process s) = mix_W (Y_{W+s} - price_s),
    Y_W(j) = c_S(j) or Y_{W+s}(j) - price_s, whichever has the highest Q at j.

(Regression on simulated paths: Longstaff and Schwartz 2001, with patients for paths.) A case at its
first score is worth the highest Q there. So no value exceeds what someone would get who knows the
patient's scores beforehand, and in-sample estimates make it optimistic. Values fall with prices and
are read between those of a grid multilinearly.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float64, Int8, Int64

from agent.bounds_knowledge import Knowledge

STOP = 0


@dataclass(frozen=True, kw_only=True)
class PriceGrid:
    """Prices of processing each modality at which values are tabulated.

    Attributes:
        axes: rising prices of each modality, from 0 to one at which nobody would pay.
        points: all their combinations.
    """

    axes: tuple[Float64[np.ndarray, " _"], ...]
    points: Float64[np.ndarray, "points sources"]

    @classmethod
    def of(cls, axes: list[Float64[np.ndarray, " _"]]) -> PriceGrid:
        """All combinations of these prices."""
        mesh = np.meshgrid(*axes, indexing="ij")
        return cls(axes=tuple(axes), points=np.stack([m.ravel() for m in mesh], axis=1))


@dataclass(frozen=True, kw_only=True)
class Programme:
    """The solved dynamic programme.

    Attributes:
        grid: its prices.
        first: what a case may expect at its first score [patients, points].
        own: what each patient gets if it is itself that stands there [patients, points].
        choice: at each node: 0 to stop, else the position of the modality plus 1.
        last: at each node, the evidence set with which a case that stops ends.
    """

    grid: PriceGrid
    first: Float64[np.ndarray, "patients points"]
    own: Float64[np.ndarray, "patients points"]
    choice: tuple[Int8[np.ndarray, "patients points"], ...]
    last: tuple[Int64[np.ndarray, " patients"], ...]


def solve(
    knowledge: Knowledge, credit: Float64[np.ndarray, "patients sets"], grid: PriceGrid
) -> Programme:
    """Solve backwards, fullest states first.

    Args:
        knowledge: the states.
        credit: of ending with each set, 0 where it cannot be reached.
        grid: the prices.
    """
    values: dict[int, Float64[np.ndarray, "patients points"]] = {}
    choices: dict[int, Int8[np.ndarray, "patients points"]] = {}
    lasts: dict[int, Int64[np.ndarray, " patients"]] = {}
    rows, seen = np.arange(len(credit)), np.zeros(0)
    for at in reversed(range(len(knowledge.nodes))):
        node = knowledge.nodes[at]
        stops = node.mix @ credit[:, node.sets]
        best = stops.argmax(axis=1)
        lasts[at] = node.sets[best]
        seen = np.repeat(stops[rows, best][:, None], len(grid.points), axis=1)
        value = np.repeat(credit[rows, lasts[at]][:, None], len(grid.points), axis=1)
        choice = np.zeros(value.shape, dtype=np.int8)
        for source, after in node.steps:
            goes = values[after] - grid.points[:, source]
            expected = node.mix @ goes
            better = (expected > seen) & knowledge.reach[after][:, None]
            seen, value = np.where(better, expected, seen), np.where(better, goes, value)
            choice[better] = source + 1
        values[at], choices[at] = value, choice
    order = range(len(knowledge.nodes))
    return Programme(
        grid=grid,
        first=seen,
        own=values[0],
        choice=tuple(choices[at] for at in order),
        last=tuple(lasts[at] for at in order),
    )


@dataclass(frozen=True, kw_only=True)
class Corners:
    """Where prices lie between those of a grid: a mix of up to 2^sources of its points.

    Attributes:
        point: index of each corner [corners, batch, cases].
        share: how much of each [corners, batch, cases].
        slope: by modality, how each share changes with that price [corners, sources, batch, cases].
    """

    point: Int64[np.ndarray, "corners batch cases"]
    share: Float64[np.ndarray, "corners batch cases"]
    slope: Float64[np.ndarray, "corners sources batch cases"]


def corners(grid: PriceGrid, price: Float64[np.ndarray, "batch cases sources"]) -> Corners:
    """Place prices in the grid; those beyond its end count as its end."""
    sides = [_place(axis, price[..., s]) for s, axis in enumerate(grid.axes)]
    sizes = [len(axis) for axis in grid.axes]
    points, shares, slopes = [], [], []
    for ends in product((0, 1), repeat=len(sizes)):
        point = np.zeros(price.shape[:-1], dtype=np.int64)
        parts, tilts = [], []
        for (low, high_share, per_price), size, end in zip(sides, sizes, ends):
            point = point * size + low + end
            parts.append(high_share if end else 1.0 - high_share)
            tilts.append(per_price if end else -per_price)
        points.append(point)
        shares.append(np.prod(parts, axis=0))
        slopes.append(
            [tilts[s] * np.prod(parts[:s] + parts[s + 1 :], axis=0) for s in range(len(sizes))]
        )
    return Corners(point=np.array(points), share=np.array(shares), slope=np.array(slopes))


def _place(
    axis: Float64[np.ndarray, " _"], price: Float64[np.ndarray, "batch cases"]
) -> tuple[
    Int64[np.ndarray, "batch cases"],
    Float64[np.ndarray, "batch cases"],
    Float64[np.ndarray, "batch cases"],
]:
    low = np.clip(np.searchsorted(axis, price, side="right") - 1, 0, len(axis) - 2)
    width = axis[low + 1] - axis[low]
    share = np.clip((price - axis[low]) / width, 0.0, 1.0)
    return low, share, np.where(price < axis[-1], 1.0 / width, 0.0)


def read(
    programme: Programme, patient: Int64[np.ndarray, "batch cases"], at: Corners
) -> tuple[Float64[np.ndarray, "batch cases"], Float64[np.ndarray, "batch cases sources"]]:
    """Values of cases at their first score, and how often each modality is then processed."""
    here = programme.first[patient[None], at.point]
    value = (here * at.share).sum(axis=0)
    use = -(here[:, None] * at.slope).sum(axis=0)
    return value, np.moveaxis(use, 0, -1)


def read_own(
    programme: Programme, patient: Int64[np.ndarray, "batch cases"], at: Corners
) -> Float64[np.ndarray, "batch cases"]:
    """What these very patients get, by decisions that do not know who they are."""
    return np.asarray((programme.own[patient[None], at.point] * at.share).sum(axis=0))


def ending(
    knowledge: Knowledge,
    programme: Programme,
    patient: Int64[np.ndarray, "batch cases"],
    at: Corners,
) -> Float64[np.ndarray, "sets patients"]:
    """Share of all cases that end with each set and score, in the programme's own plan.

    Sums to the number of patients: as many cases as the pool has.
    """
    n_patients, n_points = programme.first.shape
    flat = np.bincount(
        (patient[None] * n_points + at.point).ravel(),
        weights=at.share.ravel(),
        minlength=n_patients * n_points,
    )
    mass = flat.reshape(n_patients, n_points) * (n_patients / patient.size)
    used = np.flatnonzero(mass.any(axis=0))
    ends = np.zeros((knowledge.logit.shape[1], n_patients))
    arrived = {0: mass[:, used]}
    rows = np.arange(n_patients)
    for k, node in enumerate(knowledge.nodes):
        if k not in arrived:
            continue
        here, choice, last = arrived.pop(k), programme.choice[k][:, used], programme.last[k]
        # Who stands at the start may be any of the patients near by; from then on it is that one.
        who = node.mix if k == 0 else None
        stopping = (here * (choice == STOP)).sum(axis=1)
        if who is None:
            ends[last, rows] += stopping
        else:
            for final in np.unique(last):
                ends[final] += who @ (stopping * (last == final))
        for source, after in node.steps:
            moved = here * (choice == source + 1)
            arrived[after] = arrived.get(after, 0.0) + (moved if who is None else who @ moved)
    return ends
