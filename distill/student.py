"""The student: one small network for any evidence set.

A token per processed modality and per bridge run, one learned absent token, multi-head attention
masked to what the evidence set holds. The log-odds are the sum of the modalities' own log-odds
plus what attention finds in their interaction. Tokens depend on the patient only and sets only on
the mask, so all sets of a patient are scored in one pass. Where the cohort tells when modalities
were acquired, a gate weighs each token by it (``distill.gate``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from distill.ageing import Ageing
from distill.gate import START, TimeGate
from distill.transfers import BASE_MODALITY, Transfer

NEVER = -1e9


@dataclass(frozen=True, kw_only=True)
class StudentShape:
    """Sizes of a student.

    Attributes:
        modalities: inference modalities in the order of the input.
        transfers: bridges, in catalogue order; tokens are modalities, then transfers.
        features: widest row's features; narrower ones are padded with zeros.
        width: units of an encoder.
        latent: units of a bridge's estimate of the target's latent.
        token: units of a token.
        heads: attention heads.
        dropout: dropout inside the encoders.
        times: temporal columns, whose row follows those of the modalities; none, no gate.
        ageing: per modality, where its gate starts; left out, all but clinical start nearly open.
    """

    modalities: tuple[str, ...]
    transfers: tuple[Transfer, ...]
    features: int
    width: int = 48
    latent: int = 16
    token: int = 32
    heads: int = 4
    dropout: float = 0.2
    times: tuple[str, ...] = ()
    ageing: tuple[Ageing, ...] = ()

    @property
    def inputs(self) -> int:
        """Rows of a patient's input: one a modality, and one for the times if there are any."""
        return len(self.modalities) + bool(self.times)

    @property
    def sources(self) -> tuple[int, ...]:
        """Position of each transfer's source among the modalities."""
        return tuple(self.modalities.index(t.source) for t in self.transfers)

    @property
    def targets(self) -> tuple[int, ...]:
        """Position of each transfer's target among the modalities."""
        return tuple(self.modalities.index(t.target) for t in self.transfers)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Names of the tokens in mask order."""
        return self.modalities + tuple(t.name for t in self.transfers)


class StudentOutput(NamedTuple):
    """What the student says: log-odds per set, per token, and where attention went."""

    logit: Float[Tensor, "batch sets"]
    token_logit: Float[Tensor, "batch tokens"]
    attention: Float[Tensor, "batch sets tokens"]


class Encoded(NamedTuple):
    """What the student makes of the patients before any evidence set is looked at."""

    branch: Float[Tensor, "batch modalities width"]
    branch_logit: Float[Tensor, "batch modalities"]
    bridge_latent: Float[Tensor, "batch transfers latent"]
    bridge_logit: Float[Tensor, "batch transfers"]
    decay: Float[Tensor, "batch tokens"] | None = None


class GroupedLinear(nn.Module):
    """One linear map a slot (modality or bridge), run as a single batched product."""

    def __init__(self, slots: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(slots, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(slots, 1, outputs))

    def forward(self, x: Float[Tensor, "batch slots inputs"]) -> Float[Tensor, "batch slots outs"]:
        """Map every slot by its own weights."""
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)


class Encoder(nn.Module):
    """Per-modality residual encoder with its own log-odds."""

    def __init__(self, shape: StudentShape) -> None:
        super().__init__()
        m, w = len(shape.modalities), shape.width
        self.first = GroupedLinear(m, shape.features, w)
        self.inner = GroupedLinear(m, w, w)
        self.direct = GroupedLinear(m, shape.features, 1)
        self.head = GroupedLinear(m, w, 1)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self, x: Float[Tensor, "batch modalities features"]
    ) -> tuple[Float[Tensor, "batch modalities width"], Float[Tensor, "batch modalities"]]:
        """Latent and log-odds of every modality; the log-odds keep a linear path of their own."""
        hidden = self.dropout(functional.gelu(self.first(x)))
        hidden = hidden + self.dropout(functional.gelu(self.inner(hidden)))
        return hidden, (self.head(hidden) + self.direct(x)).squeeze(-1)


class Bridges(nn.Module):
    """For each transfer: what the source's latent says of the target's latent and label."""

    def __init__(self, shape: StudentShape) -> None:
        super().__init__()
        t, hidden = len(shape.transfers), shape.latent
        source = torch.tensor(shape.sources, dtype=torch.long)
        self.register_buffer("source", source, persistent=False)
        self.first = GroupedLinear(t, shape.width, hidden)
        self.to_latent = GroupedLinear(t, hidden, shape.latent)
        self.to_logit = GroupedLinear(t, hidden, 1)

    source: Tensor

    def forward(
        self, branch: Float[Tensor, "batch modalities width"]
    ) -> tuple[Float[Tensor, "batch transfers latent"], Float[Tensor, "batch transfers"]]:
        """Estimated latent of the target and log-odds by way of it."""
        hidden = functional.gelu(self.first(branch.index_select(1, self.source)))
        return self.to_latent(hidden), self.to_logit(hidden).squeeze(-1)


def _gate(shape: StudentShape) -> TimeGate:
    if shape.ageing:
        rates = torch.tensor([a.rates for a in shape.ageing]).T
        return TimeGate(rates, torch.tensor([a.unknown for a in shape.ageing]).T)
    start = torch.full((len(shape.times), len(shape.modalities)), START)
    # Clinical data are of the review itself; all else was acquired at some time.
    start[:, shape.modalities.index(BASE_MODALITY)] = 0.0
    return TimeGate(start, start)


class Student(nn.Module):
    """Log-odds for any evidence set; see the module's docstring."""

    def __init__(self, shape: StudentShape) -> None:
        super().__init__()
        self.shape = shape
        m, t, d = len(shape.modalities), len(shape.transfers), shape.token
        self.encoder = Encoder(shape)
        self.bridges = Bridges(shape)
        self.branch_token = nn.Linear(shape.width, d)
        self.bridge_token = nn.Linear(shape.latent + 1, d)
        self.slot = nn.Parameter(torch.randn(m + t, d) * 0.1)
        self.absent = nn.Parameter(torch.randn(1, 1, d) * 0.1)
        self.query = nn.Parameter(torch.randn(shape.heads, d // shape.heads) * 0.1)
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        last = nn.Linear(24, 1)
        # Starts as a plain sum of log-odds; the interaction has to earn its place.
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.interaction = nn.Sequential(nn.Linear(d, 24), nn.GELU(), last)
        self.bridge_share = nn.Parameter(torch.zeros(t))
        self.gate: TimeGate | None = None
        if shape.times:
            self.gate = _gate(shape)

    def encode(self, x: Float[Tensor, "batch inputs features"]) -> Encoded:
        """Everything that depends on the patient alone."""
        m = len(self.shape.modalities)
        branch, branch_logit = self.encoder(x if self.gate is None else x[:, :m])
        bridge_latent, bridge_logit = self.bridges(branch)
        plain = Encoded(branch, branch_logit, bridge_latent, bridge_logit)
        return plain if self.gate is None else self._gated(plain, self.gate, x)

    def _gated(
        self, plain: Encoded, gate: TimeGate, x: Float[Tensor, "batch inputs features"]
    ) -> Encoded:
        m, columns = len(self.shape.modalities), 2 * len(self.shape.times)
        # Rows that no patient has, such as synthetic ones, have no times: none is known.
        times = x[:, m, :columns] if x.shape[1] > m else x.new_zeros(x.shape[0], columns)
        decay = gate.decay(times)
        # A bridge is as old as what it starts from; it measures nothing of its target.
        source = decay.index_select(1, self.bridges.source)
        is_open = torch.exp(-source)
        return Encoded(
            plain.branch,
            gate.settle(plain.branch_logit, decay),
            plain.bridge_latent * is_open.unsqueeze(-1),
            plain.bridge_logit * is_open,
            torch.cat([decay, source], dim=1),
        )

    def _attend(
        self,
        tokens: Float[Tensor, "batch tokens token"],
        mask: Float[Tensor, "batch sets tokens"],
        decay: Float[Tensor, "batch tokens"] | None,
    ) -> tuple[Float[Tensor, "batch sets token"], Float[Tensor, "batch sets tokens"]]:
        heads, size = self.query.shape
        batch = tokens.shape[0]
        every = torch.cat([tokens, self.absent.expand(batch, -1, -1)], dim=1)
        key = self.key(every).reshape(batch, -1, heads, size)
        value = self.value(every).reshape(batch, -1, heads, size).permute(0, 2, 1, 3)
        score = (key * self.query).sum(-1).permute(0, 2, 1) * size**-0.5
        if decay is not None:
            score = score - functional.pad(decay, (0, 1)).unsqueeze(1)
        # The absent token is always there, so an empty set still has something to attend to.
        banned = functional.pad((1.0 - mask) * NEVER, (0, 1))
        share = torch.softmax(score.unsqueeze(2) + banned.unsqueeze(1), dim=-1)
        pooled = (share @ value).permute(0, 2, 1, 3).flatten(2)
        return pooled, share.mean(dim=1)[:, :, :-1]

    def fuse(self, encoded: Encoded, mask: Float[Tensor, "batch sets tokens"]) -> StudentOutput:
        """Log-odds of each set from what :meth:`encode` gave."""
        bridged = torch.cat([encoded.bridge_latent, encoded.bridge_logit.unsqueeze(-1)], dim=-1)
        tokens = torch.cat([self.branch_token(encoded.branch), self.bridge_token(bridged)], dim=1)
        pooled, attention = self._attend(tokens + self.slot, mask, encoded.decay)
        token_logit = torch.cat([encoded.branch_logit, encoded.bridge_logit], dim=1)
        added = torch.cat([encoded.branch_logit, encoded.bridge_logit * self.bridge_share], dim=1)
        summed = (mask * added.unsqueeze(1)).sum(-1)
        return StudentOutput(summed + self.interaction(pooled).squeeze(-1), token_logit, attention)

    def forward(
        self,
        x: Float[Tensor, "batch inputs features"],
        mask: Float[Tensor, "batch sets tokens"],
    ) -> StudentOutput:
        """Score every set of every patient.

        Args:
            x: preprocessed features, zeros where a modality is absent; with ``shape.times`` one
                row more, scaled gaps and then 1 for each that is known (all unknown without it).
            mask: 1 where the set holds the token, else 0.
        """
        return self.fuse(self.encode(x), mask)


class TeacherNet(nn.Module):
    """The small task-trained network whose penultimate layer is the latent that bridges learn."""

    def __init__(self, features: int, latent: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(features, 2 * latent), nn.GELU(), nn.Linear(2 * latent, latent), nn.Tanh()
        )
        self.head = nn.Linear(latent, 1)

    def forward(
        self, x: Float[Tensor, "batch features"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, " batch"]]:
        """Latent and log-odds."""
        latent = self.body(x)
        return latent, self.head(latent).squeeze(-1)


def count_parameters(module: nn.Module) -> int:
    """Number of trained parameters."""
    return sum(p.numel() for p in module.parameters())
