"""Int8 weights: the grid that a matrix is rounded to, and graphs that hold it. Needs no torch.

Each column of each slot's matrix has a scale of its own, so that its largest weight is 127 steps.
Only what is stored is int8: a session turns the weights into float32 once, when it opens the graph.
Int8 arithmetic was measured (``benchmarks/distill_serving.py``) and is slower at this size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float, Float32, Float64, Int8
from onnx import TensorProto, helper, numpy_helper

from distill.errors import BundleError
from distill.session import IDENTITY

STEPS = 127
SMALLEST = np.finfo(np.float32).tiny
LEAST = 160
"""Smaller matrices stay float32: they weigh nothing, and some are felt in every answer."""
OPSET = 21
"""First ONNX operator set whose DequantizeLinear takes a scale for each slot and column."""


@dataclass(frozen=True, kw_only=True)
class Int8Matrix:
    """A stack of matrices as whole numbers times one scale a column."""

    values: Int8[np.ndarray, "*slots inputs outputs"]
    scale: Float32[np.ndarray, "*slots 1 outputs"]

    @property
    def weight(self) -> Float32[np.ndarray, "*slots inputs outputs"]:
        """The float32 weights that a session computes with."""
        return np.asarray(self.values.astype(np.float32) * self.scale)


def column_scales(
    weight: Float[np.ndarray, "*slots inputs outputs"],
) -> Float32[np.ndarray, "*slots 1 outputs"]:
    """One step of each column's grid."""
    largest: Float64[np.ndarray, "*slots 1 outputs"] = np.abs(weight.astype(np.float64)).max(
        axis=-2, keepdims=True
    )
    return np.maximum(largest / STEPS, SMALLEST).astype(np.float32)


def to_int8(weight: Float[np.ndarray, "*slots inputs outputs"]) -> Int8Matrix:
    """Round to the nearest point of the grid."""
    scale = column_scales(weight)
    steps = np.rint(weight.astype(np.float64) / scale.astype(np.float64))
    return Int8Matrix(values=np.clip(steps, -STEPS, STEPS).astype(np.int8), scale=scale)


def worth_rounding(shape: tuple[int, ...]) -> bool:
    """Whether a matrix of this shape is stored as int8."""
    return len(shape) in (2, 3) and shape[-1] > 1 and math.prod(shape) >= LEAST


def write_int8(graph: Path, out: Path) -> None:
    """Write the same graph with int8 matrices; small ones stay as they are.

    Raises:
        BundleError: if the result is no valid graph.
    """
    model = onnx.load(graph)
    unpacking = _round_matrices(model.graph)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*unpacking, *nodes])
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BundleError(f"The int8 student is no valid graph: {error}.") from error
    onnx.save(model, out)


def _round_matrices(graph: Any) -> list[Any]:
    """Replace the right-hand matrices of products by int8 ones, and say how to unpack them."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = [n.input[1] for n in graph.node if n.op_type == "MatMul" and n.input[1] in constants]
    unpacking = []
    for name in dict.fromkeys(names):
        weight = numpy_helper.to_array(constants[name])
        if not worth_rounding(weight.shape):
            continue
        packed = to_int8(weight)
        scale, options = packed.scale, {"axis": weight.ndim - 2, "block_size": weight.shape[-2]}
        if weight.ndim == 2:
            scale, options = scale[0], {"axis": 1}
        graph.initializer.remove(constants[name])
        graph.initializer.append(numpy_helper.from_array(packed.values, f"{name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        parts = [f"{name}.int8", f"{name}.scale"]
        unpacking.append(helper.make_node("DequantizeLinear", parts, [name], **options))
    return unpacking


def finish_graph(path: Path, identity: str) -> None:
    """Take the exporter's notes out of a graph and write down whose weights it holds."""
    model = onnx.load(path)
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    helper.set_model_props(model, {IDENTITY: identity})
    onnx.save(model, path)


def graph_facts(path: Path) -> Mapping[str, Any]:
    """What is in a graph: operators, and how many bytes of its constants are of which type."""
    model = onnx.load(path)
    size: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        kind = TensorProto.DataType.Name(tensor.data_type).lower()
        size[kind] += numpy_helper.to_array(tensor).nbytes
    return {
        "bytes": path.stat().st_size,
        "constant_bytes": dict(sorted(size.items())),
        "operators": dict(sorted(Counter(n.op_type for n in model.graph.node).items())),
    }
