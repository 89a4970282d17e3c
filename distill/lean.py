"""The student's arithmetic arranged for serving: the same numbers by fewer, larger operations.

A graph of this size spends its time between operations, not in them. Modalities and bridges come
first in every array, so that nothing is turned around between products; heads that read the same
thing are one product; biases of tokens are in the slots; the query is in the key's matrix.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from distill.gate import TimeGate
from distill.student import NEVER, GroupedLinear, Student, StudentOutput


def _beside(first: GroupedLinear, second: GroupedLinear) -> tuple[Tensor, Tensor]:
    """Two maps of the same input as one."""
    weight = torch.cat([first.weight, second.weight], dim=2)
    return weight, torch.cat([first.bias, second.bias], dim=2)


def _query_of_key(student: Student) -> Tensor:
    """Scores of a token for every head: the key's matrix times that head's query, scaled."""
    heads, size = student.query.shape
    key: Tensor = student.key.weight.reshape(heads, size, -1)
    scores: Tensor = (key * student.query.unsqueeze(-1)).sum(1).T
    return scores / math.sqrt(size)


def _arranged(student: Student) -> dict[str, Tensor]:
    """The student's numbers as :class:`LeanStudent` wants them."""
    encoder, bridges, m = student.encoder, student.bridges, len(student.shape.modalities)
    slot = student.slot.detach().clone()
    slot[:m] += student.branch_token.bias.detach()
    slot[m:] += student.bridge_token.bias.detach()
    mixing, last = (part for part in student.interaction if isinstance(part, nn.Linear))
    said, said_bias = _beside(bridges.to_latent, bridges.to_logit)
    return {
        "first": encoder.first.weight, "first_bias": encoder.first.bias,
        "inner": encoder.inner.weight, "inner_bias": encoder.inner.bias,
        # The heads read what the encoder made and what came in, side by side.
        "own": torch.cat([encoder.head.weight, encoder.direct.weight], dim=1),
        "own_bias": encoder.head.bias + encoder.direct.bias,
        "bridge": bridges.first.weight, "bridge_bias": bridges.first.bias,
        "said": said, "said_bias": said_bias,
        "branch_token": student.branch_token.weight.T,
        "bridge_token": student.bridge_token.weight.T,
        "slot": torch.cat([slot[:, None], student.absent.transpose(0, 1)]),
        "score": _query_of_key(student), "value": student.value.weight.T,
        "mixing": mixing.weight.T, "mixing_bias": mixing.bias,
        "last": last.weight.T, "last_bias": last.bias,
        "share": torch.cat([torch.ones(m), student.bridge_share.detach()]),
        "source": bridges.source,
    }  # fmt: skip


class LeanStudent(nn.Module):
    """Says what a trained :class:`distill.student.Student` says; for export only."""

    first: Tensor
    first_bias: Tensor
    inner: Tensor
    inner_bias: Tensor
    own: Tensor
    own_bias: Tensor
    bridge: Tensor
    bridge_bias: Tensor
    said: Tensor
    said_bias: Tensor
    branch_token: Tensor
    bridge_token: Tensor
    slot: Tensor
    score: Tensor
    value: Tensor
    mixing: Tensor
    mixing_bias: Tensor
    last: Tensor
    last_bias: Tensor
    share: Tensor
    source: Tensor

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.modalities, self.heads = len(student.shape.modalities), student.query.shape[0]
        self.columns = 2 * len(student.shape.times)
        self.gate = student.gate
        for name, value in _arranged(student).items():
            self.register_buffer(name, value.detach().clone().contiguous())

    def forward(
        self,
        x: Float[Tensor, "batch inputs features"],
        mask: Float[Tensor, "batch sets tokens"],
    ) -> StudentOutput:
        """Score every set of every patient; see :meth:`distill.student.Student.forward`."""
        each = x.transpose(0, 1)
        rows = each if self.gate is None else each[: self.modalities]
        hidden = functional.gelu(rows @ self.first + self.first_bias)
        hidden = hidden + functional.gelu(hidden @ self.inner + self.inner_bias)
        own = torch.cat([hidden, rows], dim=2) @ self.own + self.own_bias
        start = hidden.index_select(0, self.source)
        said = functional.gelu(start @ self.bridge + self.bridge_bias) @ self.said + self.said_bias
        decay = None
        if self.gate is not None:
            own, said, decay = self._gated(self.gate, own, said, x)
        token_logit = torch.cat([own, said[:, :, -1:]]).squeeze(-1).T
        tokens = torch.cat([hidden @ self.branch_token, said @ self.bridge_token])
        pooled, attention = self._attend(tokens, mask, decay)
        summed = mask @ (token_logit * self.share).unsqueeze(-1)
        mixed = functional.gelu(pooled @ self.mixing + self.mixing_bias) @ self.last
        return StudentOutput((summed + mixed + self.last_bias).squeeze(-1), token_logit, attention)

    def _gated(
        self, gate: TimeGate, own: Tensor, said: Tensor, x: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        decay = gate.decay(x[:, self.modalities, : self.columns])
        source = decay.index_select(1, self.source)
        settled = gate.settle(own.squeeze(-1).T, decay).T.unsqueeze(-1)
        return settled, said * torch.exp(-source).T.unsqueeze(-1), torch.cat([decay, source], dim=1)

    def _attend(self, tokens: Tensor, mask: Tensor, decay: Tensor | None) -> tuple[Tensor, Tensor]:
        # The absent token is one more row, all of it in the slot.
        every = functional.pad(tokens, (0, 0, 0, 0, 0, 1)) + self.slot
        score = (every @ self.score).permute(1, 2, 0)
        if decay is not None:
            score = score - functional.pad(decay, (0, 1)).unsqueeze(1)
        banned = (functional.pad(mask, (0, 1), value=1.0) - 1.0) * -NEVER
        share = torch.softmax(score.unsqueeze(2) + banned.unsqueeze(1), dim=-1)
        rows, size = every.shape[0], every.shape[2] // self.heads
        value = (every @ self.value).reshape(rows, -1, self.heads, size).permute(1, 2, 0, 3)
        pooled = (share @ value).permute(0, 2, 1, 3).flatten(2)
        return pooled, share.mean(dim=1)[:, :, :-1]
