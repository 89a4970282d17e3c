"""Write a trained student as a bundle, all of it or nothing."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64
from safetensors.torch import save_file

from distill import bundle as files
from distill.bundle import Bundle
from distill.card import model_card
from distill.cohort import Cohort
from distill.config import TrainConfig
from distill.errors import TrainingError
from distill.evidence import EvidenceTable
from distill.export import check_parity, export_onnx, median_latency_s
from distill.grid import TorchGraph
from distill.masks import everything_masks
from distill.parity import Everywhere, answers, choose, compare
from distill.quantise import graph_facts, write_int8
from distill.runtime import StudentRuntime
from distill.student import count_parameters
from distill.temporal import TEMPORAL
from distill.train import Progress, Trained, fit, no_progress

PARITY_PATIENTS = 256
LIBRARIES = ("torch", "onnxruntime", "numpy", "scikit-learn", "lightgbm")
NOT_MEASURED = "training was not measured; 'greenboard train' measures it"


def unmeasured_training(seconds: float) -> dict[str, Any]:
    """The ``training`` entry where nobody measured: null with a reason, never 0."""
    return {
        "seconds": seconds,
        "energy_kwh": {"value": None, "basis": None, "source": None, "reason": NOT_MEASURED},
        "g_co2e": {"value": None, "reason": NOT_MEASURED},
    }


def _quality(trained: Trained) -> Float32[np.ndarray, "patients modalities"]:
    data = trained.data
    out = np.zeros((data.label.size, len(data.modalities)), dtype=np.float32)
    for j, name in enumerate(data.modalities):
        table = data.tables[name]
        out[table.row, j] = table.raw.quality()
    return out


def evidence_table(
    trained: Trained,
    pipeline_kwh: Mapping[str, float],
    transfer_kwh: float,
    meta: Mapping[str, Any],
) -> EvidenceTable:
    """The out-of-fold scores with what each modality and each inference costs.

    Raises:
        TrainingError: if a modality's pipeline energy is missing.
    """
    data, cohort, scores = trained.data, trained.cohort, trained.out_of_fold
    lacking = [m for m in data.modalities if m not in pipeline_kwh]
    if lacking:
        raise TrainingError(
            f"No pipeline energy for {', '.join(lacking)}; declare a pipeline in cohort.toml."
        )
    return EvidenceTable(
        cohort=cohort.name,
        synthetic=cohort.synthetic,
        modalities=data.modalities,
        sets=trained.sets,
        case_id=cohort.case_id,
        group=cohort.group,
        fold=data.fold,
        label=data.label,
        present=data.present(),
        quality=_quality(trained),
        # Four decimals are finer than any use of them, and halve the file.
        logit=np.round(scores.evidence, 4).astype(np.float32),
        disagreement=np.round(scores.disagreement, 4).astype(np.float32),
        pipeline_kwh=_per_modality(data.modalities, pipeline_kwh),
        transfer_kwh=np.full(len(trained.sets.transfers), transfer_kwh),
        meta=dict(meta),
    )


def _per_modality(
    modalities: tuple[str, ...], kwh: Mapping[str, float]
) -> Float64[np.ndarray, " modalities"]:
    return np.array([kwh[m] for m in modalities], dtype=np.float64)


def _facts(trained: Trained, created: datetime) -> dict[str, Any]:
    cohort, shape = trained.cohort, trained.student.shape
    label = cohort.manifest.label
    return {
        "created": created.isoformat(),
        "greenboard": version("greenboard"),
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "cohort": cohort.name,
        "synthetic": cohort.synthetic,
        "research_use_only": True,
        "n_patients": cohort.n_patients,
        "n_hospitals": len(set(cohort.group)),
        "label": {"negative": label.negative, "positive": label.positive},
        "n_labels": int(trained.data.labelled.sum()),
        "modalities": list(shape.modalities),
        "privileged": list(trained.data.privileged),
        "transfers": [t.name for t in shape.transfers],
        "seed": trained.config.seed,
        "config": {k: getattr(trained.config, k) for k in trained.config.__dataclass_fields__},
        "student": {
            "features": shape.features,
            "parameters": count_parameters(trained.student.model),
        },
    }


def _write_student(
    trained: Trained, folder: Path, x: Float32[np.ndarray, "patients inputs features"],
    present: Bool[np.ndarray, "patients modalities"],
) -> dict[str, float]:  # fmt: skip
    model = trained.student.model
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / files.WEIGHTS)
    export_onnx(model, folder / files.STUDENT, files.sha256_of(folder / files.WEIGHTS))
    write_int8(folder / files.STUDENT, folder / files.STUDENT_INT8)
    rng = np.random.default_rng(trained.config.seed)
    some = np.sort(rng.permutation(len(x))[:PARITY_PATIENTS])
    worst = check_parity(model, folder / files.STUDENT, x[some], present[some], rng)
    return {"onnx_parity_max_logit_difference": worst}


def _serving(
    trained: Trained, folder: Path, facts: Mapping[str, Any],
    x: Float32[np.ndarray, "patients inputs features"],
) -> dict[str, Any]:  # fmt: skip
    """Compare the int8 student with the float32 one on all patients, and choose what is served.

    Needs everything in the folder that a runtime reads.
    """
    present, sets = trained.data.present(), trained.sets
    written = Bundle(
        path=folder, manifest={**facts, "files": dict.fromkeys(p.name for p in folder.iterdir())}
    )

    def everywhere(runtime: StudentRuntime) -> Everywhere:
        return answers(runtime, x, present, sets)

    fp32 = StudentRuntime.of(written, "fp32")
    reference = everywhere(fp32)
    parity = compare(reference, everywhere(StudentRuntime.of(written, "int8")))
    rounding = None
    if trained.student.as_trained is not None:
        unrounded = replace(fp32, session=TorchGraph(trained.student.as_trained))
        rounding = compare(everywhere(unrounded), reference).to_json()
    precision, reason = choose(parity)
    return {
        "precision": precision,
        "reason": reason,
        "parity_int8": parity.to_json(),
        "rounding": rounding,
        "graphs": {p: dict(graph_facts(written.graph(p))) for p in written.precisions},
    }


def _latency_ms(
    trained: Trained, graph: Path, x: Float32[np.ndarray, "patients inputs features"]
) -> float:
    shape, present = trained.student.model.shape, trained.data.present()
    everything = everything_masks(present[:1], shape.modalities, shape.transfers)
    return 1e3 * median_latency_s(graph, x, everything[:, None])


def write_bundle(
    trained: Trained,
    out: Path,
    *,
    pipeline_kwh: Mapping[str, float],
    transfer_kwh: float,
    created: datetime,
    training: Mapping[str, Any] | None = None,
    energy_note: str = "",
    pipeline_h: Mapping[str, float] | None = None,
) -> Path:
    """Write, check and seal a bundle under its final name.

    Args:
        trained: what :func:`distill.train.fit` gave.
        out: the bundle's folder; an older bundle there is replaced.
        pipeline_kwh: modelled energy of processing each inference modality once, kWh.
        transfer_kwh: energy of one bridge and student inference, kWh.
        created: when, with time zone.
        training: seconds, energy and emissions of training, each with its basis.
        energy_note: how ``pipeline_kwh`` and ``transfer_kwh`` came about.
        pipeline_h: declared run time of processing each inference modality once, hours.

    Raises:
        BundleError: if ``out`` is something else, or ONNX and torch disagree.
        TrainingError: if a pipeline's energy is missing.
    """
    facts = _facts(trained, created)
    meta = {
        "seed": trained.config.seed, "greenboard": facts["greenboard"],
        "pipeline_kwh": "modelled (Green Algorithms) from cohort.toml", "note": energy_note,
        "teachers": dict(trained.teacher_choice), "pipeline_h": dict(pipeline_h or {}),
    }  # fmt: skip
    table = evidence_table(trained, pipeline_kwh, transfer_kwh, meta)
    data, student = trained.data, trained.student
    x = student.features(data)
    with files.new_folder(out) as folder:
        checks = _write_student(trained, folder, x, data.present())
        table.save(folder / files.EVIDENCE)
        files.dump_json(folder / files.PREPROCESS, {
            "modalities": {
                m: p.to_json() for m, p in zip(data.modalities, student.preprocessors)
            },
            "features": {
                m: list(p.feature_names) for m, p in zip(data.modalities, student.preprocessors)
            },
            **({} if student.times is None else {TEMPORAL: student.times.to_json()}),
        })  # fmt: skip
        files.dump_json(folder / files.CALIBRATION, trained.calibration.to_json())
        ids = sorted(files.hash_case_id(case) for case in trained.cohort.case_id)
        files.dump_json(folder / files.TRAINING_IDS, {"sha256": ids})
        facts["version"] = _version(folder)
        serving = _serving(trained, folder, facts, x)
        facts["student"] |= {"precision": serving["precision"], "reason": serving["reason"]}
        served = folder / files.GRAPHS[serving["precision"]]
        metrics = {
            "format": 1, "cohort": facts["cohort"], "synthetic": facts["synthetic"],
            "n": facts["n_patients"], "n_labels": facts["n_labels"], **trained.metrics, **checks,
            "inference_ms": _latency_ms(trained, served, x), "serving": serving,
            "training": dict(training or unmeasured_training(trained.seconds)),
        }  # fmt: skip
        files.dump_json(folder / files.METRICS, metrics)
        (folder / files.CARD).write_text(model_card(facts, metrics), encoding="utf-8")
        files.seal(folder, facts)
    return out


def _version(folder: Path) -> str:
    """Short sum over what decides a score: weights, preprocessing, calibration."""
    parts = (files.WEIGHTS, files.PREPROCESS, files.CALIBRATION)
    joined = "".join(files.sha256_of(folder / name) for name in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def train_bundle(
    cohort: Cohort,
    out: Path,
    *,
    config: TrainConfig,
    pipeline_kwh: Mapping[str, float],
    transfer_kwh: float,
    created: datetime,
    progress: Progress = no_progress,
) -> Path:
    """Train and write in one go, without measuring energy (``agent.build`` does measure).

    Raises:
        TrainingError: if the cohort cannot be learnt from.
        BundleError: if ``out`` is something else.
    """
    files.check_target(out)
    trained = fit(cohort, config, progress)
    return write_bundle(
        trained, out, pipeline_kwh=pipeline_kwh, transfer_kwh=transfer_kwh, created=created
    )
