"""The evidence table: what the environments know of distillation, as plain numbers.

One row a patient, one column an evidence set: the out-of-fold, calibrated log-odds that the
student gives this patient with that evidence. Read and written without torch and without pickle.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int16

from distill.errors import BundleError
from distill.transfers import EvidenceSets, Transfer

FORMAT = 1
ARRAYS = (
    "case_id", "group", "bits", "next_set", "fold", "label", "present", "quality",
    "logit", "disagreement", "pipeline_kwh", "transfer_kwh",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EvidenceTable:
    """Out-of-fold scores of every patient under every reachable evidence set.

    Attributes:
        cohort: name of the cohort.
        synthetic: whether the patients are synthetic; whatever shows them must say so.
        modalities: the inference modalities, clinical first.
        sets: the transfers and the sets they reach (K sets, T transfers).
        case_id: identifiers, for joins only; never a feature and never an observation.
        group: hospital of each patient.
        fold: the fold in which the patient was held out (hospitals never split).
        label: 1 for the positive class; used for rewards and metrics only.
        present: which modalities the patient has.
        quality: share of a modality's cells that are filled in, 0 where it is absent.
        logit: calibrated log-odds, NaN where a source of the set is absent.
        disagreement: standard deviation of the log-odds between the tokens of the set.
        pipeline_kwh: declared (modelled) energy of processing each modality once, kWh.
        transfer_kwh: energy of one bridge and student inference, kWh.
        meta: provenance: how each energy figure came about, versions, seed.
    """

    cohort: str
    synthetic: bool
    modalities: tuple[str, ...]
    sets: EvidenceSets
    case_id: tuple[str, ...]
    group: tuple[str, ...]
    fold: Int16[np.ndarray, " patients"]
    label: Int8[np.ndarray, " patients"]
    present: Bool[np.ndarray, "patients modalities"]
    quality: Float32[np.ndarray, "patients modalities"]
    logit: Float32[np.ndarray, "patients sets"]
    disagreement: Float32[np.ndarray, "patients sets"]
    pipeline_kwh: Float64[np.ndarray, " modalities"]
    transfer_kwh: Float64[np.ndarray, " transfers"]
    meta: dict[str, Any]

    def __post_init__(self) -> None:
        n, k = len(self.case_id), len(self.sets.bits)
        m, t = len(self.modalities), len(self.sets.transfers)
        expected = {
            "fold": (n,), "label": (n,), "present": (n, m), "quality": (n, m),
            "logit": (n, k), "disagreement": (n, k), "pipeline_kwh": (m,), "transfer_kwh": (t,),
        }  # fmt: skip
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise BundleError(
                    f"Evidence table: {name} has shape {getattr(self, name).shape}, "
                    f"expected {shape}."
                )
        if len(set(self.case_id)) != n or len(self.group) != n:
            raise BundleError("Evidence table: case ids must be unique, one hospital each.")
        if not np.isin(self.label, (0, 1)).all():
            raise BundleError("Evidence table: labels must be 0 or 1.")
        if not np.array_equal(np.isfinite(self.logit), self.reachable):
            raise BundleError("Evidence table: log-odds must be finite exactly where reachable.")

    @property
    def n_patients(self) -> int:
        """Number of patients (rows)."""
        return len(self.case_id)

    @property
    def transfers(self) -> tuple[Transfer, ...]:
        """The catalogue's transfers, in action order."""
        return self.sets.transfers

    @cached_property
    def processed(self) -> Bool[np.ndarray, "sets modalities"]:
        """Which modalities each evidence set has processed."""
        return self.sets.processed(self.modalities)

    @cached_property
    def reachable(self) -> Bool[np.ndarray, "patients sets"]:
        """Whether the patient has every source that the set needs."""
        lacking = (~self.present).astype(np.int64) @ self.processed.T.astype(np.int64)
        return np.asarray(lacking == 0)

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` without any pickled object."""
        header = {
            "format": FORMAT,
            "cohort": self.cohort,
            "synthetic": self.synthetic,
            "modalities": list(self.modalities),
            "transfers": [t.name for t in self.transfers],
            "meta": self.meta,
        }
        np.savez_compressed(
            path,
            header=np.array(json.dumps(header, sort_keys=True)),
            case_id=np.array(self.case_id, dtype=np.str_),
            group=np.array(self.group, dtype=np.str_),
            bits=self.sets.bits, next_set=self.sets.next_set,
            fold=self.fold, label=self.label, present=self.present, quality=self.quality,
            logit=self.logit, disagreement=self.disagreement,
            pipeline_kwh=self.pipeline_kwh, transfer_kwh=self.transfer_kwh,
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> EvidenceTable:
        """Read a table written by :meth:`save`.

        Raises:
            BundleError: if the file is missing, not an evidence table, or inconsistent.
        """
        try:
            # Opened here, since np.load leaves the file open when it is not an archive.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data.files}
            header = json.loads(str(arrays.pop("header")))
        except FileNotFoundError as error:
            raise BundleError(
                f"No evidence table at {path}. 'greenboard train' writes BUNDLE/evidence.npz."
            ) from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(f"{path} is not an evidence table: {error}") from error
        if header.get("format") != FORMAT:
            raise BundleError(
                f"{path} has evidence format {header.get('format')!r}; this version reads "
                f"{FORMAT}. Train the bundle again."
            )
        lacking = sorted(set(ARRAYS) - set(arrays))
        if lacking:
            raise BundleError(f"{path} lacks the arrays {', '.join(lacking)}. Train it again.")
        sets = EvidenceSets(
            transfers=tuple(Transfer.parse(name) for name in header["transfers"]),
            bits=arrays.pop("bits"),
            next_set=arrays.pop("next_set"),
        )
        return cls(
            cohort=header["cohort"],
            synthetic=header["synthetic"],
            modalities=tuple(header["modalities"]),
            sets=sets,
            case_id=tuple(str(c) for c in arrays.pop("case_id")),
            group=tuple(str(g) for g in arrays.pop("group")),
            meta=header["meta"],
            **{name: arrays[name] for name in ARRAYS if name in arrays},
        )
