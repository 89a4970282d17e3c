"""The time gate: how far a token may be believed, by how long before the specimen it was taken."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

PACE = 8.0
"""What a parameter is multiplied by: the gates are few, and a step of the optimiser has to move
them as far as their use asks for within one training."""
START = 0.02
"""Where a rate starts that nothing is known of."""


class TimeGate(nn.Module):
    """Per modality ``gate = exp(-decay)``, with a decay that never falls as a gap grows.

    ``decay = sum over columns of a * gap + b * log(1 + gap)`` where the gap is known, and ``c``
    where it is not; ``a``, ``b`` and ``c`` are learned, not negative, one of each per modality and
    column that ages it. So the gate is 1 at no gap, between 0 and 1 else, and monotone; a bridge
    takes the gate of the modality that it starts from. A long gap makes a token's log-odds
    approach its resting value.
    """

    def __init__(
        self,
        start: Float[Tensor, "columns modalities"],
        unknown: Float[Tensor, "columns modalities"],
    ) -> None:
        """Where ``a`` and ``c`` start; where ``a`` starts at 0 the gate stays open."""
        super().__init__()
        self.columns = start.shape[0]
        self.straight = nn.Parameter(torch.zeros_like(start))
        self.early = nn.Parameter(torch.zeros_like(start))
        self.unknown = nn.Parameter(torch.zeros_like(start))
        self.rest = nn.Parameter(torch.zeros(start.shape[1]))
        self.register_buffer("aged", (start > 0).float(), persistent=False)
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("start_unknown", unknown, persistent=False)

    aged: Tensor
    start: Tensor
    start_unknown: Tensor

    def rates(self) -> tuple[Tensor, Tensor, Tensor]:
        """``a``, ``b`` and ``c``, columns x modalities each, 0 where a column does not age one."""
        little = torch.full_like(self.start, START)
        return (
            self.aged * _positive(self.straight, self.start),
            self.aged * _positive(self.early, little),
            self.aged * _positive(self.unknown, self.start_unknown),
        )

    def decay(self, times: Float[Tensor, "batch features"]) -> Float[Tensor, "batch modalities"]:
        """How much is taken off each modality's attention score; its gate is ``exp(-decay)``.

        Args:
            times: scaled gaps (0 where not known), then 1 where the gap is known, else 0.
        """
        gap, known = times[:, : self.columns], times[:, self.columns :]
        straight, early, unknown = self.rates()
        return gap @ straight + torch.log1p(gap) @ early + (1.0 - known) @ unknown

    def settle(
        self, logit: Float[Tensor, "batch modalities"], decay: Float[Tensor, "batch modalities"]
    ) -> Float[Tensor, "batch modalities"]:
        """Log-odds drawn towards each modality's resting value as its gate closes."""
        rest = self.rest * self.aged.amax(dim=0)
        share = torch.exp(-decay)
        # A sum of two products, so that an open gate passes log-odds on to the last bit.
        return share * logit + (1.0 - share) * rest


def _positive(
    parameter: Float[Tensor, "columns modalities"], start: Float[Tensor, "columns modalities"]
) -> Float[Tensor, "columns modalities"]:
    """A rate above 0 that is ``start`` where the parameter is 0."""
    at = torch.log(torch.expm1(start.clamp(min=1e-4)))
    return functional.softplus(PACE * parameter + at)
