"""Ways to an int8 student: what is int8 in each graph, how far off it is, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from distill.cohort import Cohort
from distill.evaluate import read_tables
from distill.parity import answers, compare
from distill.quantise import graph_facts
from distill.runtime import StudentRuntime
from distill.session import REFUSALS, open_session
from distill.transfers import EvidenceSets

DRAWS = 2000


def spread(values: list[float]) -> dict[str, Any]:
    """Median with its interval from draws of the runs, and the runs' own middle 95 %."""
    v = np.asarray(values)
    drawn = np.random.default_rng(0).choice(v, (DRAWS, v.size))
    medians = np.median(drawn, axis=1)
    return {
        "value": float(np.median(v)),
        "ci95": [float(q) for q in np.quantile(medians, (0.025, 0.975))],
        "central95_of_runs": [float(q) for q in np.quantile(v, (0.025, 0.975))],
        "n": int(v.size),
    }


class Everyone:
    """All patients of the cohort as the student takes them."""

    def __init__(self, runtime: StudentRuntime, cohort: Cohort) -> None:
        tables, _ = read_tables(runtime, cohort)
        n = cohort.n_patients
        self.present = np.zeros((n, len(runtime.modalities)), dtype=bool)
        for j, name in enumerate(runtime.modalities):
            if name in tables:
                self.present[:, j] = tables[name][1]
        self.x = runtime.features(tables, n, runtime.gaps(cohort.temporal, n))
        self.sets = EvidenceSets.enumerate(runtime.transfers)
        self.masks = np.ones((n, 1, len(runtime.tokens)), dtype=np.float32)


class Rows(CalibrationDataReader):
    """What the static quantisation looks at."""

    def __init__(self, everyone: Everyone) -> None:
        self.feeds = iter([{"x": everyone.x, "mask": everyone.masks}])

    def get_next(self) -> Any:
        """The next feed, None at the end."""
        return next(self.feeds, None)


def variants(runtime: StudentRuntime, everyone: Everyone, folder: Path) -> dict[str, Any]:
    """Every way to int8 that was tried: what is int8 in it, how far off, how fast."""
    source = runtime.bundle.graph("fp32")

    def dynamic(path: Path, per_channel: bool) -> None:
        quantize_dynamic(source, path, per_channel=per_channel, weight_type=QuantType.QInt8)

    def static(path: Path, per_channel: bool) -> None:
        quantize_static(
            source, path, Rows(everyone), quant_format=QuantFormat.QDQ, per_channel=per_channel,
            weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )  # fmt: skip

    made: dict[str, Callable[[Path], None]] = {
        "dynamic, a scale a matrix": lambda path: dynamic(path, False),
        "dynamic, a scale a column": lambda path: dynamic(path, True),
        "static, a scale a matrix": lambda path: static(path, False),
        "static, a scale a column": lambda path: static(path, True),
    }
    reference = answers(runtime, everyone.x, everyone.present, everyone.sets)
    found = {"float32": described(runtime, source, reference, everyone)}
    packed = runtime.bundle.graph("int8")
    found["int8 weights, as bundled"] = described(runtime, packed, reference, everyone)
    for name, make in made.items():
        path = folder / f"variant{len(found)}.onnx"
        try:
            make(path)
            found[name] = described(runtime, path, reference, everyone)
        except REFUSALS as error:
            found[name] = {"refused": str(error).splitlines()[0][:200]}
    return found


def described(runtime: StudentRuntime, path: Path, reference: Any, everyone: Everyone) -> Any:
    """One graph's contents, its distance from float32 on everyone, and its time for one case."""
    session = open_plainly(path) if "variant" in path.name else open_session(path)
    other = replace(runtime, session=session)
    parity = compare(reference, answers(other, everyone.x, everyone.present, everyone.sets))
    feed = {"x": everyone.x[:1], "mask": everyone.masks[:1]}
    spent = []
    for _ in range(500):
        start = time.process_time()
        session.run(["logit"], feed)
        spent.append(1e6 * (time.process_time() - start))
    facts = dict(graph_facts(path))
    return {**facts, "parity": parity.to_json(), "graph_cpu_us": spread(spent[100:])}


def open_plainly(path: Path) -> Any:
    """A session that keeps int8 arithmetic."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )
