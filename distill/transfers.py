"""Transfers between modalities, and the evidence sets that running them can reach.

A transfer ``source->target`` processes the source (if that is not done yet) and runs the bridge
that says what the source tells about the target. The set of transfers run so far for a patient
is that patient's evidence set; the empty set is clinical data alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Int32, UInt64

from distill.errors import DistillError

ARROW = "->"
JOIN = "+"
EMPTY_SET = "skip"
BASE_MODALITY = "clinical"
COMFORTABLE_SETS = 1024
MAX_EVIDENCE_SETS = 8192
"""Above this many sets the table would outgrow memory on a small machine: depth is cut instead."""

NAMED_FIRST = (("genomics", "pathology"), ("clinical", "genomics"), ("pathology", "clinical"))
"""The three transfers that the four-action rule speaks of lead the catalogue."""


class TransferError(DistillError, ValueError):
    """A transfer name that does not parse or is not in the catalogue."""


@dataclass(frozen=True, kw_only=True, order=True)
class Transfer:
    """One directed transfer of knowledge between two modalities."""

    source: str
    target: str

    @property
    def name(self) -> str:
        """``source->target``, as it appears in commands, reports and the API."""
        return f"{self.source}{ARROW}{self.target}"

    @classmethod
    def parse(cls, name: str) -> Transfer:
        """Read ``source->target``.

        Raises:
            TransferError: if the name has not exactly two different, non-empty parts.
        """
        parts = [part.strip() for part in name.split(ARROW)]
        if len(parts) != 2 or not all(parts) or parts[0] == parts[1]:
            raise TransferError(
                f"Transfer {name!r} is not of the form 'source{ARROW}target' with two different "
                f"modalities, for example 'genomics{ARROW}pathology'."
            )
        return cls(source=parts[0], target=parts[1])


def all_transfers(modalities: Sequence[str]) -> tuple[Transfer, ...]:
    """Every ordered pair of modalities, the three named transfers first where they apply."""
    pairs = [(s, t) for s in modalities for t in modalities if s != t]
    named = [pair for pair in NAMED_FIRST if pair in pairs]
    rest = [pair for pair in pairs if pair not in named]
    return tuple(Transfer(source=s, target=t) for s, t in named + rest)


def _sets_up_to(n_transfers: int, depth: int) -> int:
    return sum(comb(n_transfers, size) for size in range(depth + 1))


def max_depth(transfers: Sequence[Transfer]) -> int:
    """The most transfers that one patient may get, so that the evidence table stays small.

    As many as keep the number of sets at :data:`COMFORTABLE_SETS`; more, up to
    :data:`MAX_EVIDENCE_SETS`, where that is what it takes to process every modality once.
    """
    n = len(transfers)
    sources = {t.source for t in transfers} - {BASE_MODALITY}
    depth = max(d for d in range(n + 1) if _sets_up_to(n, d) <= COMFORTABLE_SETS)
    while depth < len(sources) and _sets_up_to(n, depth + 1) <= MAX_EVIDENCE_SETS:
        depth += 1
    return depth


@dataclass(frozen=True, kw_only=True)
class EvidenceSets:
    """All reachable sets of transfers, and how running one more moves between them.

    Attributes:
        transfers: the catalogue, in the order of the bits.
        bits: bit ``t`` of ``bits[k]`` says that transfer ``t`` is in set ``k``; ``bits[0] == 0``.
        next_set: ``next_set[k, t]`` is the set after running ``t`` in ``k``; -1 if it was run
            already or the depth limit is reached.
    """

    transfers: tuple[Transfer, ...]
    bits: UInt64[np.ndarray, " sets"]
    next_set: Int32[np.ndarray, "sets transfers"]

    @classmethod
    def enumerate(cls, transfers: Sequence[Transfer]) -> EvidenceSets:
        """List the sets by size, then in catalogue order; deterministic."""
        n = len(transfers)
        depth = max_depth(transfers)
        bits = [
            sum(1 << t for t in members)
            for size in range(depth + 1)
            for members in combinations(range(n), size)
        ]
        index = {value: k for k, value in enumerate(bits)}
        next_set = np.full((len(bits), n), -1, dtype=np.int32)
        for k, value in enumerate(bits):
            for t in range(n):
                if not value >> t & 1:
                    next_set[k, t] = index.get(value | 1 << t, -1)
        return cls(
            transfers=tuple(transfers), bits=np.array(bits, dtype=np.uint64), next_set=next_set
        )

    @property
    def membership(self) -> Bool[np.ndarray, "sets transfers"]:
        """Which transfers each set holds."""
        shifts = np.arange(len(self.transfers), dtype=np.uint64)
        return (self.bits[:, None] >> shifts & np.uint64(1)).astype(bool)

    def processed(self, modalities: Sequence[str]) -> Bool[np.ndarray, "sets modalities"]:
        """Which modalities each set has processed: clinical always, and every source in it."""
        uses = np.array([[t.source == m for m in modalities] for t in self.transfers], dtype=bool)
        uses = uses.reshape(len(self.transfers), len(modalities))
        done = (self.membership.astype(np.int64) @ uses.astype(np.int64)) > 0
        done[:, [m == BASE_MODALITY for m in modalities]] = True
        return done

    def name(self, k: int) -> str:
        """The transfers of set ``k`` joined by ``+``; ``skip`` for the empty set."""
        members = [t.name for t, inside in zip(self.transfers, self.membership[k]) if inside]
        return JOIN.join(members) if members else EMPTY_SET

    def index_of(self, names: Sequence[str]) -> int:
        """The set that holds exactly these transfers.

        Raises:
            TransferError: if a name is unknown or the set is beyond the depth limit.
        """
        order = self._order
        unknown = [name for name in names if name not in order]
        if unknown:
            raise TransferError(
                f"Unknown transfer {unknown[0]!r}; this catalogue has {', '.join(order)}."
            )
        hit = self._index.get(sum(1 << order[name] for name in set(names)))
        if hit is None:
            raise TransferError(
                f"{len(set(names))} transfers are more than one case may have in this catalogue "
                f"({int(self.membership.sum(axis=1).max())})."
            )
        return hit

    @cached_property
    def _order(self) -> dict[str, int]:
        return {t.name: i for i, t in enumerate(self.transfers)}

    @cached_property
    def _index(self) -> dict[int, int]:
        return {int(value): k for k, value in enumerate(self.bits)}
