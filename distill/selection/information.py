"""Relevance and redundancy as shares of entropy, from the patients that training may see."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int

BINS = 5
MISSING = -1


class Scores(NamedTuple):
    """What a selection problem is made of; both are shares of entropy, 0 to 1."""

    relevance: Float64[np.ndarray, " columns"]
    redundancy: Float64[np.ndarray, "columns columns"]


def binned(
    values: Float64[np.ndarray, "rows columns"], bins: int = BINS
) -> Int[np.ndarray, "rows columns"]:
    """Each column in bins of equal mass; a column of few different values keeps them apart.

    Missing cells get a code of their own: that a value is missing can tell something.
    """
    codes = np.full(values.shape, MISSING, dtype=np.int64)
    for j in range(values.shape[1]):
        filled = np.isfinite(values[:, j])
        v = values[filled, j]
        distinct = np.unique(v)
        if distinct.size <= bins:
            edges = distinct[1:]
        else:
            edges = np.unique(np.quantile(v, np.arange(1, bins) / bins))
        codes[filled, j] = np.searchsorted(edges, v, side="right")
    return codes


def coded_words(words: pd.DataFrame, most: int = 12) -> Int[np.ndarray, "rows columns"]:
    """Each column's words as codes, the commonest first; the rare ones share the last code."""
    codes = np.full(words.shape, MISSING, dtype=np.int64)
    for j, name in enumerate(words.columns):
        order = list(words[name].value_counts().index)
        position = {word: min(i, most - 1) for i, word in enumerate(order)}
        codes[:, j] = [position.get(word, MISSING) for word in words[name]]
    return codes


def scores(codes: Int[np.ndarray, "rows columns"], label: Int[np.ndarray, " rows"]) -> Scores:
    """Relevance ``I(x; y) / H(y)`` and redundancy ``I(x_i; x_j) / sqrt(H_i H_j)``.

    Mutual information is the plug-in estimate less the Miller-Madow bias (Miller 1955), ``(cells -
    rows - columns + 1) / 2n`` over occupied cells, and not below 0: without it a column of more
    codes would seem more relevant. A constant column has neither relevance nor redundancy.
    """
    both = np.concatenate([codes, label[:, None].astype(np.int64)], axis=1)
    information, entropy = _mutual_information(both)
    relevance = information[:-1, -1] / max(float(entropy[-1]), 1e-12)
    # A column without entropy shares none, whatever it is divided by.
    scale = np.sqrt(np.maximum(np.outer(entropy, entropy), 1e-12))[:-1, :-1]
    redundancy = information[:-1, :-1] / scale
    np.fill_diagonal(redundancy, 0.0)
    return Scores(np.clip(relevance, 0.0, 1.0), np.clip(redundancy, 0.0, 1.0))


def _mutual_information(
    codes: Int[np.ndarray, "rows columns"],
) -> tuple[Float64[np.ndarray, "columns columns"], Float64[np.ndarray, " columns"]]:
    """Of every pair of columns, nats, by one product of indicator matrices."""
    n, columns = codes.shape
    compact = [np.unique(codes[:, j], return_inverse=True)[1] for j in range(columns)]
    width = np.array([int(c.max(initial=0)) + 1 for c in compact])
    start = np.concatenate([[0], np.cumsum(width)])
    indicator = np.zeros((n, int(start[-1])), dtype=np.float32)
    for j, c in enumerate(compact):
        indicator[np.arange(n), start[j] + c] = 1.0
    share = indicator.mean(axis=0, dtype=np.float64)
    joint = (indicator.T @ indicator).astype(np.float64) / n
    occupied = np.add.reduceat(np.add.reduceat(joint > 0, start[:-1], 0, int), start[:-1], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(joint > 0, joint * np.log(joint / np.outer(share, share)), 0.0)
    plain = np.add.reduceat(np.add.reduceat(each, start[:-1], 0), start[:-1], 1)
    bias = (occupied - width[:, None] - width[None, :] + 1) / (2 * n)
    entropy = -np.add.reduceat(share * np.log(share), start[:-1])
    return np.maximum(0.5 * (plain + plain.T) - bias, 0.0), entropy
