"""The features that a bundle takes, as a map of codes needs to know them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Columns:
    """One modality's features.

    Attributes:
        numbers: names of those that are numbers.
        words: names of the others, with the words that were known in training.
        flags: the numbers that were 0 or 1 in training, as mutations are.
    """

    numbers: frozenset[str]
    words: Mapping[str, tuple[str, ...]]
    flags: frozenset[str]

    def __contains__(self, name: str) -> bool:
        return name in self.numbers or name in self.words
