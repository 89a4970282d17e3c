"""Open an ONNX graph for serving: one core, and one clear error for whatever is no graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from distill.errors import BundleError

IDENTITY = "greenboard.weights_sha256"
"""Entry of a graph's metadata: the SHA-256 of the weights file that it was exported with."""
REFUSALS = (
    RuntimeError, ValueError, state.Fail, state.InvalidArgument, state.InvalidGraph,
    state.InvalidProtobuf, state.NoModel, state.NoSuchFile, state.NotImplemented,
    state.RuntimeException,
)  # fmt: skip
"""What onnxruntime raises for a file that it cannot use; most are no subclass of anything."""


@runtime_checkable
class Graph(Protocol):
    """What scores: an onnxruntime session, or anything that answers like one."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """The named outputs, all of them without names, for these inputs."""
        ...


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """An onnxruntime session on one core.

    Raises:
        BundleError: if the file is not a usable graph.
    """
    options = onnxruntime.SessionOptions()
    # One core a case: a service runs many cases side by side, each of them tiny.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # Int8 weights become float32 once, at loading. Left to itself onnxruntime unpacks them at
    # every product: a fifth slower for a network of this size, and rounded once more.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(
            str(path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except REFUSALS as error:
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BundleError(f"{path} is not a usable ONNX model: {first}") from error


def open_student(path: Path, identity: str) -> onnxruntime.InferenceSession:
    """An onnxruntime session on a student's graph.

    Args:
        path: the graph.
        identity: SHA-256 of the weights file beside it.

    Raises:
        BundleError: if the file is not a usable graph, or was exported with other weights.
    """
    session = open_session(path)
    found = session.get_modelmeta().custom_metadata_map.get(IDENTITY)
    # Graphs of earlier versions do not say whose they are; only the manifest's sum vouches.
    if found is not None and found != identity:
        raise BundleError(
            f"{path} is the student of another bundle (it was exported with other weights). "
            "Restore the bundle from a copy."
        )
    return session
