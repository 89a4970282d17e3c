"""Round a trained student's matrices to the int8 grid, so that its int8 copy is the same student.

What is scored, calibrated and reported is the rounded student. The float32 and the int8 graph then
hold the same numbers, and no decision can differ between them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from distill.quantise import to_int8, worth_rounding
from distill.student import GroupedLinear, Student


def _matrices(model: Student) -> Iterator[Float[Tensor, "*slots inputs outputs"]]:
    """The right-hand matrices of every product that the exported graph holds as int8."""
    for module in model.modules():
        weight = None
        if isinstance(module, GroupedLinear):
            weight = module.weight.data
        elif isinstance(module, nn.Linear):
            weight = module.weight.data.T
        if weight is not None and worth_rounding(tuple(weight.shape)):
            yield weight
    # Exported as a column beside those of the latent, see distill.lean.
    yield model.bridges.to_logit.weight.data


@torch.no_grad()
def on_grid(model: Student) -> Student:
    """A copy whose matrices are what :func:`distill.quantise.write_int8` stores."""
    rounded = copy.deepcopy(model)
    for weight in _matrices(rounded):
        packed = to_int8(np.ascontiguousarray(weight.numpy()))
        weight.copy_(torch.from_numpy(packed.weight))
    return rounded


class TorchGraph:
    """A student in torch that answers as a session does, to compare the two by the same code."""

    def __init__(self, model: Student) -> None:
        self.model = model.eval()

    @torch.no_grad()
    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """The named outputs for these inputs; see :class:`distill.session.Graph`."""
        feed = {name: torch.from_numpy(value) for name, value in input_feed.items()}
        out = self.model(feed["x"], feed["mask"])._asdict()
        return [out[name].numpy() for name in output_names or out]
