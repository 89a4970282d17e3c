"""What a policy can know of a case, and what each state of knowledge leads to.

A case's state is (modalities present, modalities processed, current score). Patients of the pool
stand for the states: what is known of a case that stands where patient j stands is a weighted mix
of the patients near j, same modalities present and processed and a score close by, j among them.
So what follows, further scores and the chance of the positive class alike, is the empirical
distribution of the evaluated patients themselves, smoothed. The weights of one state are a
symmetric, doubly stochastic matrix: smoothing moves what is known about whom, never the totals.
With weights of 1 for each patient alone every score is known beforehand: foresight.

Having seen the evaluated patients makes the bound optimistic (each patient is part of what is
known about it), as a bound should be. Quality and disagreement are left out of the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from agent.bounds_problem import allowed_sets, least_setup_kwh, n_transfers_of, pool_scores
from envs.setup import ReviewSetup

BALANCING = 60
WIDTH = 0.6
"""Kernel width = 0.6 min(sd, IQR / 1.34) n^(-1/5): two thirds of Silverman's, to be generous."""


@dataclass(frozen=True, kw_only=True)
class KnowledgeNode:
    """One set of processed modalities.

    Attributes:
        sets: the evidence sets that process just these and that the rules allow.
        mix: who each patient's case may be, seen from here: rows and columns sum to 1 over the
            patients that have these modalities, and are 0 for the others.
        steps: for each modality that may be processed next, its position and the node it leads to.
    """

    sets: Int64[np.ndarray, " sets"]
    mix: Float64[np.ndarray, "patients patients"]
    steps: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """States of knowledge of the pool's patients.

    Attributes:
        nodes: fewest modalities first; node 0 is clinical data alone.
        reach: whether each patient has the node's modalities.
        logit: log-odds of each patient under each evidence set; NaN where unreachable.
        weight: how much each patient counts as positive.
        energy_kwh: of processing each further modality and one bridge, kWh.
        n_cases: cases in a session.
    """

    nodes: tuple[KnowledgeNode, ...]
    reach: Bool[np.ndarray, "nodes patients"]
    logit: Float64[np.ndarray, "patients sets"]
    weight: Float64[np.ndarray, " patients"]
    energy_kwh: Float64[np.ndarray, " sources"]
    n_cases: int


def build_knowledge(setup: ReviewSetup, *, width: float = WIDTH) -> Knowledge:
    """The states of knowledge of a setup's patients.

    Args:
        setup: the sessions' fixed numbers.
        width: kernel width as a multiple of min(sd, IQR / 1.34) n^(-1/5); near 0, every score is
            as good as known beforehand.
    """
    tables, pool = setup.tables, pool_scores(setup.tables)
    allowed, count = allowed_sets(setup), n_transfers_of(setup.tables)
    processed = tables.progress[:, : len(setup.layout.modalities)] > 0.5
    sources = np.flatnonzero(~processed[0])
    pattern = _patterns(tables.traits[:, : len(setup.layout.modalities)])
    groups = _groups(processed, allowed)
    keys = [tuple(bool(x) for x in processed[sets[0]]) for sets in groups]
    nodes, reach = [], []
    for sets, key in zip(groups, keys):
        seen = sets[np.argmin(count[sets])]
        score = pool.logit[:, seen]
        nodes.append(
            KnowledgeNode(
                sets=sets,
                mix=mixing(score, pattern, width),
                steps=_steps(key, keys, sources, one=setup.rules == "oneshot"),
            )
        )
        reach.append(np.isfinite(score))
    return Knowledge(
        nodes=tuple(nodes),
        reach=np.array(reach),
        logit=pool.logit,
        weight=pool.probability,
        energy_kwh=_energies(setup, sources),
        n_cases=setup.config.n_cases,
    )


def _patterns(present: np.ndarray) -> Int64[np.ndarray, " patients"]:
    bits = (present > 0.5).astype(np.int64)
    return np.asarray(bits @ (1 << np.arange(bits.shape[1])))


def _groups(
    processed: Bool[np.ndarray, "sets modalities"], allowed: Bool[np.ndarray, " sets"]
) -> list[Int64[np.ndarray, " members"]]:
    """Allowed sets by what they process, fewest modalities first."""
    keys, member = np.unique(processed, axis=0, return_inverse=True)
    order = np.argsort(keys.sum(axis=1), kind="stable")
    member = member.reshape(-1)
    found = [np.flatnonzero((member == k) & allowed) for k in order]
    return [sets for sets in found if sets.size]


def _steps(
    key: tuple[bool, ...],
    keys: list[tuple[bool, ...]],
    sources: Int64[np.ndarray, " sources"],
    *,
    one: bool,
) -> tuple[tuple[int, int], ...]:
    if one and key != keys[0]:
        return ()
    steps = []
    for position, source in enumerate(sources):
        after = tuple(had or k == source for k, had in enumerate(key))
        if after != key and after in keys:
            steps.append((position, keys.index(after)))
    return tuple(steps)


def _energies(
    setup: ReviewSetup, sources: Int64[np.ndarray, " sources"]
) -> Float64[np.ndarray, " sources"]:
    """Least energy of a transfer that processes the modality, set-up share included."""
    names = setup.layout.modalities
    step = setup.tables.step_kwh + least_setup_kwh(setup)
    uses = [[t.source == names[s] for t in setup.catalogue.transfers] for s in sources]
    return np.array([step[0, np.array(of)].min() if any(of) else np.inf for of in uses])


def mixing(
    score: Float64[np.ndarray, " patients"],
    pattern: Int64[np.ndarray, " patients"],
    width: float,
) -> Float64[np.ndarray, "patients patients"]:
    """Symmetric, doubly stochastic weights of patients with the same pattern and close scores.

    Args:
        score: log-odds in this state; NaN for patients that cannot reach it.
        pattern: modalities present, as a number.
        width: multiple of Silverman's kernel width; 0 for each patient alone.
    """
    mix = np.zeros((len(score), len(score)))
    finite = np.isfinite(score)
    for kind in np.unique(pattern[finite]):
        rows = np.flatnonzero(finite & (pattern == kind))
        mix[np.ix_(rows, rows)] = _balanced(score[rows], width)
    return mix


def _balanced(
    score: Float64[np.ndarray, " rows"], width: float
) -> Float64[np.ndarray, "rows rows"]:
    low, high = np.percentile(score, [25, 75])
    spread = min(float(score.std()), float(high - low) / 1.34) or float(score.std())
    scale = width * spread * len(score) ** -0.2
    apart = score[:, None] - score[None, :]
    if scale <= 0.0:
        near = (apart == 0.0).astype(np.float64) if spread > 0.0 else np.ones_like(apart)
    else:
        near = np.exp(-0.5 * (apart / scale) ** 2)
    for _ in range(BALANCING):
        root = np.sqrt(near.sum(axis=1))
        near = near / root[:, None] / root[None, :]
    return np.asarray(near)
