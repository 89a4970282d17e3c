"""The ensemble that a student of many sets replaces: networks a modality, several seeds each.

What a user would run who has no fused model: for each modality a multilayer perceptron with two
hidden layers of 256 units on all of its encoded features, the width that published omics networks
use (the self-normalising networks of PORPOISE, Chen et al. 2022, Cancer Cell 40:865), five seeds
of each, the usual size of a deep ensemble (Lakshminarayanan et al. 2017, arXiv:1612.01474), and
late fusion: the mean probability over the seeds of every modality that the patient has.

A modality's networks of all seeds are exported as one graph, cleaned and opened as the student's
is. Beside it are measured the same in onnxruntime's int8 arithmetic, and one session a network.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn
from torch.nn import functional

from distill.crossfit import ModalityRows, TrainingData
from distill.preprocess import TablePreprocessor, fit_preprocessor
from distill.quantise import OPSET, finish_graph

WIDTH, DROPOUT = 256, 0.25
EPOCHS, BATCH, LEARNING_RATE, DECAY = 15, 64, 1e-3, 0.05


class Stack(nn.Module):
    """Networks of one modality, one a seed, run side by side as batched products."""

    def __init__(self, inputs: int, seeds: int) -> None:
        super().__init__()
        sizes = (inputs, WIDTH, WIDTH, 1)
        self.weight = nn.ParameterList(
            nn.Parameter(torch.randn(seeds, a, b) * (2 / a) ** 0.5) for a, b in pairwise(sizes)
        )
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(seeds, 1, b)) for b in sizes[1:])

    def logits(self, x: Tensor) -> Tensor:
        """Log-odds, seeds x batch."""
        hidden = x.unsqueeze(0)
        for weight, bias in list(zip(self.weight, self.bias))[:-1]:
            hidden = functional.relu(hidden @ weight + bias)
            hidden = functional.dropout(hidden, DROPOUT, self.training)
        return (hidden @ self.weight[-1] + self.bias[-1]).squeeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        """Mean probability over the seeds."""
        return torch.sigmoid(self.logits(x)).mean(0)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One modality's networks and the preprocessing before them."""

    preprocessor: TablePreprocessor
    stack: Stack


def train_member(rows: ModalityRows, label: np.ndarray, inside: np.ndarray, seeds: int) -> Member:
    """Networks of one modality on these patients; each seed starts and draws for itself."""
    at = np.flatnonzero(inside[rows.row])
    raw = rows.raw.take(at)
    preprocessor = fit_preprocessor(raw)
    x = torch.from_numpy(preprocessor.transform(raw))
    y = torch.from_numpy(label[rows.row[at]].astype(np.float32))
    torch.manual_seed(0)
    stack = Stack(x.shape[1], seeds).train()
    optimiser = torch.optim.AdamW(stack.parameters(), lr=LEARNING_RATE, weight_decay=DECAY)
    for _ in range(EPOCHS):
        for rows_of_batch in torch.randperm(len(y)).split(BATCH):
            optimiser.zero_grad()
            said = stack.logits(x[rows_of_batch])
            target = y[rows_of_batch].expand_as(said)
            # Summed over seeds, so that each network is trained as if it were alone.
            loss = functional.binary_cross_entropy_with_logits(said, target, reduction="none")
            loss.mean(1).sum().backward()
            optimiser.step()
    return Member(preprocessor=preprocessor, stack=stack.eval().requires_grad_(False))


def out_of_fold(data: TrainingData, seeds: int) -> np.ndarray:
    """The ensemble's probability of every patient, from networks of the other folds."""
    total, count = np.zeros(data.label.size), np.zeros(data.label.size)
    for fold in data.folds:
        for name in data.modalities:
            rows = data.tables[name]
            member = train_member(rows, data.label, data.fold != fold, seeds)
            at = np.flatnonzero(data.fold[rows.row] == fold)
            x = torch.from_numpy(member.preprocessor.transform(rows.raw.take(at)))
            total[rows.row[at]] += member.stack(x).numpy()
            count[rows.row[at]] += 1
    return total / count


def export(module: nn.Module, inputs: int, path: Path) -> None:
    """One graph with a dynamic number of patients, as the student is exported."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.zeros(2, inputs),), str(path), dynamo=True, verbose=False,
            external_data=False, input_names=["x"], output_names=["probability"],
            dynamic_shapes={"x": {0: torch.export.Dim("batch")}}, opset_version=OPSET,
        )  # fmt: skip
    finish_graph(path, "")


def one_seed(stack: Stack, seed: int) -> Stack:
    """A single network of a stack."""
    alone = Stack(stack.weight[0].shape[1], 1)
    for mine, its in zip([*alone.weight, *alone.bias], [*stack.weight, *stack.bias]):
        mine.data.copy_(its.data[seed : seed + 1])
    return alone.eval().requires_grad_(False)


def some_seeds(stack: Stack, seeds: int) -> Stack:
    """The first networks of a stack."""
    fewer = Stack(stack.weight[0].shape[1], seeds)
    for mine, its in zip([*fewer.weight, *fewer.bias], [*stack.weight, *stack.bias]):
        mine.data.copy_(its.data[:seeds])
    return fewer.eval().requires_grad_(False)


def write_ensemble(data: TrainingData, folder: Path, sizes: Sequence[int]) -> dict[str, Member]:
    """Train on all patients and write every graph that is measured.

    ``<modality>.<seeds>.onnx`` for each size, ``<modality>.<seeds>.dynamic.onnx`` with int8
    arithmetic, and ``<modality>.single.<seed>.onnx`` for the largest.
    """
    everyone = np.ones(data.label.size, dtype=bool)
    members = {}
    for name in data.modalities:
        member = train_member(data.tables[name], data.label, everyone, max(sizes))
        inputs = member.stack.weight[0].shape[1]
        for seeds in sizes:
            path = folder / f"{name}.{seeds}.onnx"
            export(some_seeds(member.stack, seeds), inputs, path)
            quantised = folder / f"{name}.{seeds}.dynamic.onnx"
            quantize_dynamic(path, quantised, weight_type=QuantType.QInt8)
        for seed in range(max(sizes)):
            export(one_seed(member.stack, seed), inputs, folder / f"{name}.single.{seed}.onnx")
        members[name] = member
    return members


def parameters(members: dict[str, Member], seeds: int) -> int:
    """Trained numbers of the ensemble."""
    each = sum(p.numel() for m in members.values() for p in m.stack.parameters())
    return each * seeds // max(m.stack.weight[0].shape[0] for m in members.values())
