"""The time gate: how far a token may be believed, by how long before the specimen it was taken."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

PACE = 8.0
"""What a parameter is multiplied by: the gates are few, and a step of the optimiser has to move
them as far as their use asks for within one training."""
START = -4.0
"""Where the rates start, before softplus: a gap of the training median takes 3 % away."""


class TimeGate(nn.Module):
    """Per token ``gate = exp(-decay)``, with a decay that never falls as a gap grows.

    ``decay = sum over columns of a * gap + b * log(1 + gap)`` where the gap is known, and ``c``
    where it is not; ``a``, ``b`` and ``c`` are learned, not negative, one of each per token and
    column. So the gate is 1 at no gap, between 0 and 1 else, and monotone, and the data say which
    modalities a column speaks of: tokens are those of the modalities, and a bridge takes the gate
    of the one that it starts from. A long gap makes a token's log-odds approach its resting value.
    """

    def __init__(self, tokens: int, columns: int, fixed: tuple[int, ...]) -> None:
        """Gates for so many tokens; the ``fixed`` ones have no time and stay at 1."""
        super().__init__()
        self.columns = columns
        self.straight = nn.Parameter(torch.zeros(columns, tokens))
        self.early = nn.Parameter(torch.zeros(columns, tokens))
        self.unknown = nn.Parameter(torch.zeros(columns, tokens))
        self.rest = nn.Parameter(torch.zeros(tokens))
        timed = torch.ones(tokens)
        timed[list(fixed)] = 0.0
        self.register_buffer("timed", timed, persistent=False)

    timed: Tensor

    def rates(self) -> tuple[Tensor, Tensor, Tensor]:
        """``a``, ``b`` and ``c``, columns x tokens each, 0 for the fixed tokens."""
        parts = (self.straight, self.early, self.unknown)
        first, second, third = (self.timed * functional.softplus(PACE * p + START) for p in parts)
        return first, second, third

    def decay(self, times: Float[Tensor, "batch features"]) -> Float[Tensor, "batch tokens"]:
        """How much is taken off each token's attention score; its gate is ``exp(-decay)``.

        Args:
            times: scaled gaps (0 where not known), then 1 where the gap is known, else 0.
        """
        gap, known = times[:, : self.columns], times[:, self.columns :]
        straight, early, unknown = self.rates()
        return gap @ straight + torch.log1p(gap) @ early + (1.0 - known) @ unknown

    def settle(
        self, logit: Float[Tensor, "batch tokens"], decay: Float[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens"]:
        """Log-odds drawn towards each token's resting value as its gate closes."""
        rest = self.rest * self.timed
        return rest + torch.exp(-decay) * (logit - rest)
