"""Serving the student: size, latency, energy and throughput, int8 against float32 and an ensemble.

    OMP_NUM_THREADS=1 python benchmarks/distill_serving.py \
        --cohort ../shared/data/tcga_nsclc --bundle runs/bench/bundle --out runs/serving.json

Needs a bundle of the cohort (``greenboard train``). Trains an ensemble of per-modality networks on
the same patients (see serving_ensemble.py for which, and why), exports it as the student is
exported, and measures both in one process without torch, held to one core, in rounds that run the
same cases through each in random order. What is compared is one answer: the probability of a case
with everything that it has. Beside it stand all evidence sets at once, the whole assessment that
the service asks for (conformal set, contributions, attention), and preparing the case.

Energy is what ``carbon.meter`` reads: counted where this machine lets its counters be read, else
modelled as CPU time x watts a core plus memory; the JSON says which. Ratios are of means over the
rounds, their intervals from 2,000 draws of whole rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.torch import load_file
from serving_ensemble import out_of_fold, parameters, write_ensemble
from serving_variants import DRAWS, Everyone, open_plainly, spread, variants

from api.cli.atomic import write_json
from distill.bundle import WEIGHTS
from distill.cohort import Cohort, read_cohort
from distill.metrics import auc
from distill.runtime import StudentRuntime
from distill.session import open_session
from distill.student import Student, StudentShape
from distill.train import training_data

SIZES = (1, 3, 5)
LIMITS = {"int8_mb": 4.0, "case_ms": 1.0, "energy_ratio": 0.32, "logit_difference": 0.02}
COLD = """
import sys, time
start = time.perf_counter(), time.process_time()
from pathlib import Path
from distill.runtime import StudentRuntime
middle = time.perf_counter(), time.process_time()
student = StudentRuntime.open(Path(sys.argv[1]), precision=sys.argv[2])
opened = time.perf_counter(), time.process_time()
student.assess(student.prepare(student.example()))
end = time.perf_counter(), time.process_time()
print(*(b[k] - a[k] for a, b in ((start, middle), (middle, opened), (opened, end)) for k in (0, 1)))
"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cohort", type=Path, default=Path("../shared/data/tcga_nsclc"))
    parser.add_argument("--bundle", type=Path, default=Path("runs/bench/bundle"))
    parser.add_argument("--out", type=Path, default=Path("runs/serving.json"))
    parser.add_argument("--ensemble", type=Path, help="keep the ensemble here, or reuse it")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cases", type=int, default=400, help="cases a round")
    parser.add_argument("--latencies", type=int, default=3000, help="single cases timed")
    parser.add_argument("--repeats", type=int, default=20, help="batches and cold starts timed")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def ratio(first: list[float], second: list[float]) -> dict[str, Any]:
    """Ratio of means over rounds, and its interval from draws of whole rounds."""
    a, b = np.asarray(first), np.asarray(second)
    at = np.random.default_rng(0).integers(0, a.size, (DRAWS, a.size))
    drawn = a[at].mean(axis=1) / b[at].mean(axis=1)
    return {
        "value": float(a.mean() / b.mean()),
        "ci95": [float(q) for q in np.quantile(drawn, (0.025, 0.975))],
        "n": int(a.size),
    }


def ensembles(cohort: Cohort, folder: Path) -> dict[str, Any]:
    """Train and export the ensemble, or take it from an earlier run; what it is, and how good."""
    kept = folder / "ensemble.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    data = training_data(cohort)
    members = write_ensemble(data, folder, SIZES)
    (folder / "preprocess.json").write_text(
        json.dumps({name: member.preprocessor.to_json() for name, member in members.items()})
    )
    top = max(SIZES)
    said = out_of_fold(data, top)
    kinds = {str(n): {m: [f"{m}.{n}.onnx"] for m in members} for n in SIZES}
    kinds[f"{top}, int8 arithmetic"] = {m: [f"{m}.{top}.dynamic.onnx"] for m in members}
    kinds[f"{top}, a session a network"] = {
        m: [f"{m}.single.{s}.onnx" for s in range(top)] for m in members
    }
    found = {
        "ensembles": kinds,
        "largest": str(top),
        "about": {
            "seeds": top,
            "parameters": parameters(members, top),
            "graph_bytes": sum((folder / f"{m}.{top}.onnx").stat().st_size for m in members),
            "auc_out_of_fold": auc(data.label.astype(np.int64), said).to_json(),
        },
    }
    kept.write_text(json.dumps(found))
    return found


def student_in_torch(runtime: StudentRuntime) -> Student:
    """The student of a bundle, from its weights."""
    config = runtime.bundle.manifest["config"]
    shape = StudentShape(
        modalities=runtime.modalities, transfers=runtime.transfers, features=runtime.n_features,
        width=config["width"], latent=config["latent"], token=config["token"],
        heads=config["heads"], times=() if runtime.times is None else runtime.times.names,
    )  # fmt: skip
    model = Student(shape)
    model.load_state_dict(load_file(runtime.bundle.file(WEIGHTS)))
    return model.eval().requires_grad_(False)


def throughput(
    runtime: StudentRuntime, everyone: Everyone, folder: Path, repeats: int
) -> dict[str, Any]:
    """Patients a CPU second, with everything that they have and under all evidence sets."""
    from distill.masks import set_masks

    model = student_in_torch(runtime)
    quantised = folder / "throughput.onnx"
    quantize_dynamic(runtime.bundle.graph("fp32"), quantised, weight_type=QuantType.QInt8)
    sessions = {
        "fp32": open_session(runtime.bundle.graph("fp32")),
        "int8": open_session(runtime.bundle.graph("int8")),
        "int8 arithmetic": open_plainly(quantised),
    }
    every = set_masks(everyone.sets, runtime.modalities)[None]
    n = len(everyone.x)
    masks = {
        "one set": everyone.masks,
        "all sets": np.ascontiguousarray(np.broadcast_to(every, (n, *every.shape[1:]))),
    }
    work: dict[str, dict[str, Callable[[], object]]] = {}
    for what, mask in masks.items():
        feed = {"x": everyone.x, "mask": mask}
        tensors = torch.from_numpy(everyone.x), torch.from_numpy(mask)
        work[what] = {k: (lambda s=s, f=feed: s.run(["logit"], f)) for k, s in sessions.items()}
        work[what]["torch eager"] = lambda t=tensors: model(*t)
    return {
        what: {k: spread([n / s for s in v]) for k, v in timed(kinds, repeats).items()}
        for what, kinds in work.items()
    }


@torch.no_grad()
def timed(kinds: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each, in rounds; all of them run on one thread."""
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats + 1):
        for name in rng.permutation(list(kinds)):
            start = time.process_time()
            kinds[name]()
            spent[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in spent.items()}


def cold_starts(bundle: Path, repeats: int) -> dict[str, Any]:
    """Milliseconds of a fresh process: imports, opening the bundle, the first case."""
    parts = ("import", "open", "first_case")
    kept: dict[str, dict[str, list[float]]] = {
        p: {f"{part}_{clock}_ms": [] for part in parts for clock in ("wall", "cpu")}
        for p in ("fp32", "int8")
    }
    for _ in range(repeats):
        for precision, values in kept.items():
            done = subprocess.run(
                [sys.executable, "-c", COLD, str(bundle), precision],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            for key, seconds in zip(values, map(float, done.stdout.split())):
                values[key].append(1e3 * seconds)
    return {p: {k: spread(v) for k, v in values.items()} for p, values in kept.items()}


def measured(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Run the child and sum up its rounds."""
    (folder / "job.json").write_text(json.dumps(job))
    script = Path(__file__).with_name("serving_measure.py")
    subprocess.run([sys.executable, str(script), str(folder)], check=True)
    raw = json.loads((folder / "measured.json").read_text())
    rounds = raw["rounds"]
    top = f"ensemble {job['largest']}"
    pairs = {
        "one answer": ("student int8", top),
        "one answer, float32 student": ("student fp32", top),
        "one answer, ensemble in int8 arithmetic": ("student int8", f"{top}, int8 arithmetic"),
        "one answer, a session a network": ("student int8", f"{top}, a session a network"),
        "whole assessment against one answer": ("student int8, whole assessment", top),
        "all evidence sets": ("student int8, all evidence sets", f"{top}, all evidence sets"),
        "with preparing the case": (
            "student int8, prepared and assessed", f"{top}, prepared and scored",
        ),
        "one answer, int8 against float32": ("student int8", "student fp32"),
    }  # fmt: skip
    pairs |= {f"one answer, ensemble of {n}": ("student int8", f"ensemble {n}") for n in SIZES}
    return {
        "energy_basis": raw["energy"],
        "per_case": {
            name: {
                "mj": spread([1e3 * j for j in values["j"]]),
                "cpu_us": spread([1e6 * s for s in values["cpu_s"]]),
                "wall_us": spread([1e6 * s for s in values["wall_s"]]),
            }
            for name, values in rounds.items()
        },
        "energy_ratio": {
            what: ratio(rounds[a]["j"], rounds[b]["j"]) for what, (a, b) in pairs.items()
        },
        "latency_ms": {
            k: {**spread(v), "p99": float(np.quantile(v, 0.99))}
            for k, v in raw["latency_ms"].items()
        },
    }


def targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was to be reached, and whether it was."""
    serving, energy = report["serving"], report["measured"]["energy_ratio"]
    latency = report["measured"]["latency_ms"]
    rows = [
        ("int8 student, MB", serving["graphs"]["int8"]["bytes"] / 1e6, LIMITS["int8_mb"]),
        ("assessing a case, ms, median", latency["assess"]["value"], LIMITS["case_ms"]),
        ("preparing and assessing, ms, median", latency["case"]["value"], LIMITS["case_ms"]),
        (
            "int8 against float32, largest difference of log-odds",
            serving["parity_int8"]["max_logit_difference"], LIMITS["logit_difference"],
        ),
        ("int8 against float32, decisions changed", serving["parity_int8"]["decisions_changed"], 0),
    ]  # fmt: skip
    rows += [
        (f"energy against the ensemble: {what}", energy[what]["value"], LIMITS["energy_ratio"])
        for what in (
            "one answer", "one answer, ensemble in int8 arithmetic", "all evidence sets",
            "whole assessment against one answer", "with preparing the case",
        )
    ]  # fmt: skip
    return [
        {"what": what, "value": value, "at_most": limit, "reached": bool(value <= limit)}
        for what, value, limit in rows
    ]


def main() -> None:
    """Measure everything and write one JSON."""
    args = arguments()
    torch.set_num_threads(1)
    cohort = read_cohort(args.cohort)
    runtime = StudentRuntime.open(args.bundle, precision="fp32")
    everyone = Everyone(runtime, cohort)
    metrics = json.loads((args.bundle / "metrics.json").read_text())
    report: dict[str, Any] = {
        "cohort": cohort.name, "synthetic": cohort.synthetic, "n": cohort.n_patients,
        "bundle": runtime.bundle_version, "cpus": os.cpu_count(),
        "student_auc_out_of_fold": metrics["full"]["auc"], "serving": metrics["serving"],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = args.ensemble or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        report["int8_variants"] = variants(runtime, everyone, folder)
        report["patients_per_cpu_s"] = throughput(runtime, everyone, folder, args.repeats)
        report["cold_start"] = cold_starts(args.bundle, args.repeats)
        ensemble = ensembles(cohort, folder)
        job = {
            "cohort": str(args.cohort), "bundle": str(args.bundle), "seed": args.seed,
            "rounds": args.rounds, "cases": args.cases, "latencies": args.latencies, **ensemble,
        }  # fmt: skip
        report["ensemble"] = ensemble["about"]
        report["measured"] = measured(folder, job)
    report["load_1min"] = os.getloadavg()[0]
    report["targets"] = targets(report)
    write_json(args.out, report)
    for row in report["targets"]:
        word = "reached" if row["reached"] else "MISSED"
        print(f"{row['what']}: {row['value']:.4g} (<= {row['at_most']:g}) {word}")


if __name__ == "__main__":
    main()
