"""A policy as a directory: ``policy.json`` and, for a learned one, ``weights.safetensors``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from agent.errors import PolicyError
from agent.policies.features import feature_names
from agent.policies.plan_settings import PlannerKind
from envs.catalogue import ActionCatalogue
from envs.errors import LayoutError
from envs.observation import ObservationLayout

POLICY_FILE = "policy.json"
WEIGHTS_FILE: Literal["weights.safetensors"] = "weights.safetensors"
PATIENTS_FILE: Literal["training_ids.json"] = "training_ids.json"
FORMAT: Literal[1] = 1
LearnedKind = Literal["ppo", "maskable-ppo", "ppo-lagrangian", "cloned-ppo"]
LEARNED_KINDS: tuple[str, ...] = get_args(LearnedKind)
"""Policies with a network, by the algorithm that trained it."""


class WeightsEntry(BaseModel):
    """Where the weights are and what they must hash to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Literal["weights.safetensors"] = WEIGHTS_FILE
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PatientsEntry(BaseModel):
    """Where the hashed case ids of the training patients are, and what the file must hash to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Literal["training_ids.json"] = PATIENTS_FILE
    n: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PolicyFile(BaseModel):
    """The contents of ``policy.json``.

    Attributes:
        format: version of this format.
        kind: the algorithm that trained a network, ``price`` (a price, no weights), or a
            planner (settings, and tables as weights).
        name: the name in reports.
        layout: the observation it was made for, as ``ObservationLayout.to_json`` writes it.
        actions: the catalogue's names, in order.
        g_per_auc: price of a ``price`` policy, gCO2e per unit of AUC.
        features: what a network reads, whichever cohort's layout that comes from.
        guide: planner in the folder ``guide`` whose advice is one of a network's inputs.
        settings: of a planner, as ``PlanSettings`` dumps them.
        weights: file and hash of a network.
        patients: whom it was trained or calibrated on; earlier versions did not say.
        provenance: how it was trained or calibrated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = FORMAT
    kind: Literal[LearnedKind, "price", PlannerKind]
    name: str
    layout: dict[str, Any]
    actions: tuple[str, ...]
    g_per_auc: float | None = Field(default=None, gt=0)
    features: dict[str, Any] | None = None
    guide: str | None = None
    settings: dict[str, Any] | None = None
    weights: WeightsEntry | None = None
    patients: PatientsEntry | None = None
    provenance: dict[str, Any]

    @classmethod
    def for_layout(
        cls, layout: ObservationLayout, catalogue: ActionCatalogue, **fields: Any
    ) -> PolicyFile:
        """A policy file made for this observation and these actions."""
        return cls(layout=json.loads(layout.to_json()), actions=catalogue.names, **fields)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that its name never shows half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def pack_weights(tensors: dict[str, np.ndarray]) -> tuple[bytes, WeightsEntry]:
    """Tensors as safetensors bytes, with the entry that ``policy.json`` needs."""
    content = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})
    return content, WeightsEntry(sha256=hashlib.sha256(content).hexdigest())


def pack_patients(hashes: Collection[str]) -> tuple[bytes, PatientsEntry]:
    """Hashed case ids as the bytes of a file, with the entry that ``policy.json`` needs."""
    content = (json.dumps({"sha256": sorted(hashes)}, indent=1) + "\n").encode()
    digest = hashlib.sha256(content).hexdigest()
    return content, PatientsEntry(n=len(hashes), sha256=digest)


def write_policy(
    directory: Path,
    policy: PolicyFile,
    weights: bytes | None = None,
    *,
    patients: Collection[str],
) -> Path:
    """Write a policy directory; ``policy.json`` comes last, so an unfinished one has none.

    Args:
        directory: made if it is not there.
        policy: the contents of ``policy.json``; its ``patients`` are filled in.
        weights: of a learned policy.
        patients: hashed case ids of those it was trained or calibrated on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / POLICY_FILE).unlink(missing_ok=True)
    if weights is not None:
        write_atomically(directory / WEIGHTS_FILE, weights)
    content, entry = pack_patients(patients)
    write_atomically(directory / PATIENTS_FILE, content)
    policy = policy.model_copy(update={"patients": entry})
    text = policy.model_dump_json(indent=2, exclude_none=True) + "\n"
    write_atomically(directory / POLICY_FILE, text.encode())
    return directory


def read_policy(
    directory: Path, layout: ObservationLayout, catalogue: ActionCatalogue
) -> PolicyFile:
    """Read ``policy.json`` and check that it can act on this bundle's catalogue.

    A learned policy names features, not one cohort's modalities: it acts on any layout of this
    version. The others were calibrated on one catalogue and are refused on another.

    Raises:
        PolicyError: if it is missing, malformed, of another version, or of another bundle.
    """
    path = directory / POLICY_FILE
    try:
        content = path.read_bytes()
        _refuse_old_network(path, content)
        stored = PolicyFile.model_validate_json(content)
        made_for = ObservationLayout.from_json(json.dumps(stored.layout))
    except OSError as error:
        raise PolicyError(
            f"No policy at {directory}: it has no readable {POLICY_FILE}. 'greenboard rl train "
            "--out DIR' writes one when it ends; continue an interrupted one with --resume."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PolicyError(f"{path}: {where}: {first['msg']}. Train the policy again.") from error
    except LayoutError as error:
        raise PolicyError(f"{path}: {error}") from error
    if stored.kind in LEARNED_KINDS:
        _check_features(path, stored)
    elif made_for != layout or stored.actions != catalogue.names:
        raise PolicyError(
            f"{path} was made for modalities {', '.join(made_for.modalities)} and "
            f"{len(stored.actions)} actions; this bundle has {', '.join(layout.modalities)} and "
            f"{catalogue.n}. Train a policy on this bundle."
        )
    return stored


def _refuse_old_network(path: Path, content: bytes) -> None:
    """Networks of the first version read one cohort's fields by their place."""
    if b'"hidden_layers"' in content:
        raise PolicyError(
            f"{path} holds a network of an earlier version, made for one bundle's layout only. "
            "Train the policy again with 'greenboard rl train'."
        )


def _check_features(path: Path, stored: PolicyFile) -> None:
    expected = feature_names()
    if stored.features != expected:
        versions = [
            f"{which.get('layout_version')}.{which.get('features_version')}"
            for which in (stored.features or {}, expected)
        ]
        raise PolicyError(
            f"{path} reads features of version {versions[0]}; this version has {versions[1]}. "
            "Train the policy again."
        )


def read_patients(directory: Path, entry: PatientsEntry) -> frozenset[str]:
    """Read the hashed case ids of the training patients, refusing changed bytes.

    Raises:
        PolicyError: if the file is missing or changed.
    """
    path = directory / entry.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PolicyError(
            f"{path} cannot be read: {error}. Copy the whole policy folder again."
        ) from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise PolicyError(f"{path}: its bytes have changed. Copy the policy again or train it.")
    return frozenset(json.loads(content)["sha256"])


def read_weights(directory: Path, entry: WeightsEntry) -> dict[str, np.ndarray]:
    """Read the weights, refusing changed bytes.

    Raises:
        PolicyError: if the file is missing, changed, or not safetensors.
    """
    path = directory / entry.file
    try:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != entry.sha256:
            raise PolicyError(
                f"{path} has SHA-256 {digest[:12]}..., {POLICY_FILE} says {entry.sha256[:12]}...: "
                "its bytes have changed. Copy the policy again or train it again."
            )
        tensors: dict[str, np.ndarray] = load(content)
    except (OSError, SafetensorError) as error:
        raise PolicyError(f"{path} cannot be read as weights: {error}") from error
    return tensors
