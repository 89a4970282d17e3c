"""The actions of a review: every transfer, then ``finalise``, then ``defer``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool

from distill.transfers import Transfer, max_depth
from envs.errors import CatalogueError

FINALISE = "finalise"
DEFER = "defer"


@dataclass(frozen=True, init=False)
class ActionCatalogue:
    """Names and indices of the discrete actions, and the rule that masks them.

    Attributes:
        transfers: the bundle's transfers; action ``t`` runs ``transfers[t]``.
    """

    transfers: tuple[Transfer, ...]

    def __init__(self, transfers: Iterable[Transfer | str]) -> None:
        """Take the transfers in the bundle's order, as objects or as ``source->target``.

        Raises:
            CatalogueError: if a transfer appears twice.
        """
        parsed = tuple(t if isinstance(t, Transfer) else Transfer.parse(t) for t in transfers)
        if len(set(parsed)) != len(parsed):
            raise CatalogueError(f"A transfer appears twice among {[t.name for t in parsed]}.")
        object.__setattr__(self, "transfers", parsed)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Action names in index order."""
        return (*(t.name for t in self.transfers), FINALISE, DEFER)

    @property
    def n(self) -> int:
        """Number of actions."""
        return len(self.transfers) + 2

    @property
    def n_transfers(self) -> int:
        """Number of transfers; they are the actions ``0 .. n_transfers - 1``."""
        return len(self.transfers)

    @property
    def finalise(self) -> int:
        """Index of the action that closes the case."""
        return len(self.transfers)

    @property
    def defer(self) -> int:
        """Index of the action that puts the case off to the end of the queue."""
        return len(self.transfers) + 1

    @cached_property
    def depth(self) -> int:
        """The most transfers that one case may get."""
        return max_depth(self.transfers)

    def index(self, name: str) -> int:
        """Index of an action by its name.

        Raises:
            CatalogueError: if there is no such action; the message suggests the nearest.
        """
        if name in self.names:
            return self.names.index(name)
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise CatalogueError(f"Unknown action {name!r}.{hint} Actions: {', '.join(self.names)}.")

    def available(
        self, modalities: Sequence[str], present: Bool[np.ndarray, "batch modalities"]
    ) -> Bool[np.ndarray, "batch transfers"]:
        """Whether each case has the source of each transfer.

        Raises:
            CatalogueError: if a transfer's source is not among the modalities.
        """
        lacking = sorted({t.source for t in self.transfers} - set(modalities))
        if lacking:
            raise CatalogueError(
                f"Transfers start from {lacking[0]!r}, which is not among the modalities "
                f"{', '.join(modalities)}."
            )
        columns = [list(modalities).index(t.source) for t in self.transfers]
        return np.asarray(present[:, columns])

    def action_mask(
        self,
        *,
        available: Bool[np.ndarray, "batch transfers"],
        run: Bool[np.ndarray, "batch transfers"],
        may_defer: Bool[np.ndarray, " batch"],
        affordable: Bool[np.ndarray, "batch transfers"] | None = None,
    ) -> Bool[np.ndarray, "batch actions"]:
        """Which actions are open: the one rule, for one live case or for a batch.

        A transfer is masked when its source is absent, when it was run already, when the case
        has reached the depth limit, or when it is not affordable (None: no budget masks).
        ``finalise`` is never masked.
        """
        mask = np.ones((len(available), self.n), dtype=np.bool_)
        mask[:, : self.finalise] = available & ~run
        mask[run.sum(axis=1) >= self.depth, : self.finalise] = False
        if affordable is not None:
            mask[:, : self.finalise] &= affordable
        mask[:, self.defer] = may_defer
        return mask
