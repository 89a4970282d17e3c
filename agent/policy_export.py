"""From a trained network to a policy directory: safetensors, JSON, and the same as ONNX."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from agent.errors import RlTrainingError
from agent.policies.features import (
    ACTION,
    BUDGET_PER_CASE,
    LEAD_FIELDS,
    LEAST_INTENSITY,
    MOST,
    ONE_CASE,
    ONE_WAITING,
    SLOTS_PER_WAITING,
    TO_COME_PER_WAITING,
    FeatureIndex,
    column,
    feature_names,
)
from agent.policies.files import (
    LearnedKind,
    PolicyFile,
    pack_weights,
    write_atomically,
    write_policy,
)
from agent.policies.scoring import ScoringWeights
from envs.setup import ReviewSetup

ONNX_FILE = "policy.onnx"
OPSET = 18
IR_VERSION = 10
TOLERANCE = 1e-4
CHECKED_BATCHES = (1, 3, 64)


def export_policy(
    weights: ScoringWeights,
    setup: ReviewSetup,
    out: Path,
    *,
    kind: LearnedKind,
    name: str,
    provenance: Mapping[str, Any],
    patients: Collection[str],
    guide: str | None = None,
) -> Path:
    """Write a network as a policy directory that needs neither torch nor SB3.

    Args:
        weights: the network.
        setup: the sessions that it was trained on.
        out: made if it is not there; holds the guide already, where there is one.
        kind: the algorithm.
        name: in reports.
        provenance: how it was trained.
        patients: hashed case ids of those it was trained on.
        guide: name of the planner in ``out/guide`` whose advice is one of the network's inputs.

    Raises:
        RlTrainingError: if ONNX does not answer as NumPy does.
    """
    content, entry = pack_weights(weights.to_tensors())
    index = FeatureIndex.of(setup.layout)
    graph = onnx_bytes(weights, index, guided=guide is not None)
    check_onnx(graph, weights, index, setup, guided=guide is not None)
    stored = PolicyFile.for_layout(
        setup.layout,
        setup.catalogue,
        kind=kind,
        name=name,
        features=feature_names(),
        weights=entry,
        guide=guide,
        provenance=dict(provenance),
    )
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / ONNX_FILE, graph)
    return write_policy(out, stored, content, patients=patients)


class _Graph:
    """Nodes and constants of a graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, name: str, value: float) -> str:
        return self.constant(name, np.array(value, dtype=np.float32))

    def ints(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, dtype=np.int64))

    def add(self, kind: str, out: str, *inputs: str, **settings: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [out], name=out, **settings))
        return out


def onnx_bytes(weights: ScoringWeights, index: FeatureIndex, *, guided: bool) -> bytes:
    """The network with one layout's positions, for any batch size.

    Args:
        weights: the network.
        index: where the layout keeps the features.
        guided: whether the advice of a guide follows the observation, one column an action.

    Returns:
        A model ``observation [batch, fields] -> logits [batch, actions], value [batch]``; closed
        actions are for the caller to mask.
    """
    graph = _Graph()
    n_columns = index.n_fields + (index.n_actions if guided else 0)
    _advice(graph, weights, index, guided=guided)
    context = _context(graph, index)
    actions, is_open = _actions(graph, index)
    _logits(graph, weights, (context, actions, is_open))
    _value(graph, weights, (context, actions, is_open))
    batch = "batch"
    kind = TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "action_scoring",
            [helper.make_tensor_value_info("observation", kind, [batch, n_columns])],
            [
                helper.make_tensor_value_info("logits", kind, [batch, index.n_transfers + 2]),
                helper.make_tensor_value_info("value", kind, [batch]),
            ],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="greenboard",
    )
    return bytes(model.SerializeToString(deterministic=True))


def _advice(graph: _Graph, w: ScoringWeights, index: FeatureIndex, *, guided: bool) -> None:
    """The advice for transfers and for the rest, and what it adds to the preferences."""
    first, n = index.n_fields if guided else 0, index.n_transfers
    at = graph.constant("advice_at", np.arange(first, first + index.n_actions, dtype=np.int64))
    advised = graph.add("Gather", "columns", "observation", at, axis=1)
    if not guided:
        advised = graph.add("Mul", "no_advice", advised, graph.number("zero", 0.0))
    split = graph.ints("advice_parts", n, index.n_actions - n)
    graph.nodes.append(
        helper.make_node("Split", [advised, split], ["for_transfers", "for_others"], axis=1)
    )
    weight = np.append(np.repeat(w.advice_weight[0], n), w.advice_weight[1:])
    graph.add("Mul", "advice", advised, graph.constant("advice_weight", weight))


def _context(graph: _Graph, index: FeatureIndex) -> str:
    """As :func:`agent.policies.features.context_features`."""
    raw = graph.add(
        "Gather", "raw", "observation", graph.constant("context_at", index.context), axis=1
    )
    n_leads, first = len(LEAD_FIELDS), column(LEAD_FIELDS[0])

    def pick(name: str, *at: int) -> str:
        return graph.add("Gather", name, raw, graph.ints(f"{name}_at", *at), axis=1)

    budget = pick("budget", column("budget_left_g_co2e"))
    cases = graph.add(
        "Max", "cases", pick("cases_left", column("cases_left")), graph.number("one", ONE_CASE)
    )
    waiting = graph.add(
        "Max", "waits", pick("waiting", column("waiting")), graph.number("one_w", ONE_WAITING)
    )
    now = graph.add(
        "Max", "now", pick("now_raw", column("intensity_now")),
        graph.number("least", LEAST_INTENSITY),
    )  # fmt: skip
    coming = graph.add(
        "Mul", "coming", pick("to_come", column("to_come")),
        graph.number("per_waiting", TO_COME_PER_WAITING),
    )  # fmt: skip
    squared = graph.add("Mul", "budget2", budget, budget)
    scaled = graph.add("Mul", "budget_g", squared, graph.number("per_case", BUDGET_PER_CASE))
    slots = graph.add(
        "Mul", "slots", pick("slots_left", column("slots_left")),
        graph.number("per_slot", SLOTS_PER_WAITING),
    )  # fmt: skip
    open_cases = graph.add("Add", "open_cases", waiting, coming)
    ratios = graph.add(
        "Concat", "ratios",
        graph.add("Div", "budget_per_case", scaled, cases),
        graph.add("Div", "slots_per_case", slots, open_cases),
        graph.add("Div", "share_ahead", pick("ahead", column("ahead")), waiting),
        graph.add("Div", "leads", pick("leads_raw", *range(first, first + n_leads)), now),
        axis=1,
    )  # fmt: skip
    most = graph.number("most", MOST)
    ratios = graph.add("Min", "ratios_", ratios, most)
    return graph.add("Concat", "context", raw, ratios, "for_others", axis=1)


def _actions(graph: _Graph, index: FeatureIndex) -> tuple[str, str]:
    """As :func:`agent.policies.features.action_features` and ``runnable``."""
    flat = graph.add(
        "Gather", "flat", "observation", graph.constant("action_at", index.action), axis=1
    )
    shape = graph.ints("shape", -1, index.n_transfers, len(ACTION))
    raw = graph.add("Reshape", "features", flat, shape)

    def pick(name: str) -> str:
        at = graph.ints(f"{name}_at", ACTION.index(name))
        return graph.add("Gather", f"a_{name}", raw, at, axis=2)

    grams = pick("g_co2e")
    linear = graph.add("Min", "linear", graph.add("Mul", "grams2", grams, grams), "most")
    half = graph.number("half", 0.5)
    is_open = graph.add(
        "And", "runnable",
        graph.add("Greater", "there", pick("present_source"), half),
        graph.add("Less", "not_run", pick("run"), half),
    )  # fmt: skip
    return (
        graph.add(
            "Concat",
            "actions",
            raw,
            linear,
            graph.add("Unsqueeze", "advised", "for_transfers", graph.ints("axis_2", 2)),
            axis=2,
        ),
        graph.add("Cast", "runnable_", is_open, to=TensorProto.FLOAT),
    )


def _layer(graph: _Graph, name: str, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
    x = graph.add("MatMul", f"{name}_mul", x, graph.constant(f"{name}_w", weight.T))
    if bias is None:
        return x
    return graph.add("Add", f"{name}_add", x, graph.constant(f"{name}_b", bias))


def _logits(graph: _Graph, w: ScoringWeights, inputs: tuple[str, str, str]) -> None:
    context, actions, is_open = inputs
    first = _layer(graph, "context_in", context, w.context_in_weight, w.context_in_bias)
    wide = graph.add("Unsqueeze", "context_3d", first, graph.ints("axis1", 1))
    own = _layer(graph, "action_in", actions, w.action_in_weight, None)
    hidden = graph.add("Relu", "h1", graph.add("Add", "h1_", wide, own))
    middle = _layer(graph, "action_mid", hidden, w.action_mid_weight, w.action_mid_bias)
    hidden = graph.add("Relu", "h2", middle)
    score = _layer(graph, "action_out", hidden, w.action_out_weight, None)
    of_open = graph.add("Mul", "h2_open", hidden, is_open)
    pooled = graph.add("ReduceMax", "pooled", of_open, "axis1", keepdims=0)
    joined = graph.add("Concat", "joined", context, pooled, axis=1)
    other = _layer(graph, "other_in", joined, w.other_in_weight, w.other_in_bias)
    other = graph.add("Relu", "other_h", other)
    other = _layer(graph, "other_out", other, w.other_out_weight, w.other_out_bias)
    flat = graph.add("Squeeze", "score", score, graph.ints("axis2", 2))
    graph.add("Add", "logits", graph.add("Concat", "scores", flat, other, axis=1), "advice")


def _value(graph: _Graph, w: ScoringWeights, inputs: tuple[str, str, str]) -> None:
    context, actions, is_open = inputs
    of_open = graph.add("Mul", "a_open", actions, is_open)
    total = graph.add("ReduceSum", "a_sum", of_open, "axis1", keepdims=0)
    highest = graph.add("ReduceMax", "a_max", of_open, "axis1", keepdims=0)
    x = graph.add("Concat", "summary", context, total, highest, axis=1)
    x = graph.add("Relu", "v1", _layer(graph, "value_in", x, w.value_in_weight, w.value_in_bias))
    x = graph.add("Relu", "v2", _layer(graph, "value_mid", x, w.value_mid_weight, w.value_mid_bias))
    x = _layer(graph, "value_out", x, w.value_out_weight, w.value_out_bias)
    graph.add("Squeeze", "value", x, "axis1")


def check_onnx(
    content: bytes,
    weights: ScoringWeights,
    index: FeatureIndex,
    setup: ReviewSetup,
    *,
    guided: bool,
) -> None:
    """Ask ONNX and NumPy the same, in several batch sizes.

    Raises:
        RlTrainingError: if an answer differs by more than float32 sums may.
    """
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    low, high = np.maximum(setup.layout.low, -2.0), np.minimum(setup.layout.high, 2.0)
    for batch in CHECKED_BATCHES:
        seen = rng.uniform(low, high, (batch, setup.layout.size)).astype(np.float32)
        if guided:
            advised = np.eye(index.n_actions, dtype=np.float32)
            seen = np.hstack([seen, advised[rng.integers(0, index.n_actions, batch)]])
        logits, value = session.run(["logits", "value"], {"observation": seen})
        for ours, theirs in (
            (weights.logits(index, seen), logits), (weights.value(index, seen), value)
        ):  # fmt: skip
            scale = max(1.0, float(np.abs(ours).max()))
            if ours.shape != theirs.shape or np.abs(ours - theirs).max() > TOLERANCE * scale:
                raise RlTrainingError(
                    "The ONNX export answers differently from NumPy on the same observations; "
                    "nothing was written. Please report this with the training's arguments."
                )
