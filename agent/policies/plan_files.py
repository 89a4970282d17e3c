"""A calibrated planner as a policy directory: settings in ``policy.json``, tables beside it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from agent.errors import PolicyError
from agent.policies.files import (
    POLICY_FILE,
    PolicyFile,
    pack_weights,
    read_weights,
    write_policy,
)
from agent.policies.patient_program import BINS, PatientProgram
from agent.policies.plan_settings import KINDS, PlannerKind, PlanSettings
from agent.policies.planner import PlannedPolicy
from agent.policies.shadow import DemandCurves
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout

DEMAND = ("per_kwh", "per_slot", "kwh", "slots")
PROGRAM = ("per_kwh", "per_slot", "onward")


def write_plan(
    directory: Path,
    kind: PlannerKind,
    policy: PlannedPolicy,
    *,
    provenance: dict[str, Any],
    patients: Collection[str],
) -> Path:
    """Write a calibrated planner as a policy directory.

    Args:
        directory: made if it is not there.
        kind: which planner it is.
        policy: as :func:`agent.calibration.calibrate` returned it.
        provenance: how it was calibrated.
        patients: hashed case ids of those it was calibrated on.

    Raises:
        PolicyError: if the policy was not calibrated: it has no tables to keep.
    """
    if policy.demand is None:
        raise PolicyError(f"{kind!r} has not been calibrated: there is nothing to store.")
    tensors = {f"demand.{name}": getattr(policy.demand, name) for name in DEMAND}
    if policy.program is not None:
        tensors |= {f"program.{name}": getattr(policy.program, name) for name in PROGRAM}
    if policy.rivals is not None:
        tensors["rivals"] = policy.rivals
    content, entry = pack_weights({k: np.asarray(v, np.float32) for k, v in tensors.items()})
    stored = PolicyFile.for_layout(
        policy.layout, policy.catalogue, kind=kind, name=policy.name,
        settings=policy.settings.model_dump(), weights=entry, provenance=provenance,
    )  # fmt: skip
    return write_policy(directory, stored, content, patients=patients)


def open_plan(
    directory: Path, stored: PolicyFile, layout: ObservationLayout, catalogue: ActionCatalogue
) -> PlannedPolicy:
    """A calibrated planner from its directory.

    Raises:
        PolicyError: if its settings or tables are missing, changed or do not fit together.
    """
    path = directory / POLICY_FILE
    if stored.settings is None or stored.weights is None:
        raise PolicyError(f"{path}: a {stored.kind} policy needs settings and tables.")
    try:
        settings = PlanSettings.model_validate(stored.settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "settings"
        raise PolicyError(f"{path}: {where}: {first['msg']}. Calibrate it again.") from error
    tensors = {
        name: tensor.astype(np.float64)
        for name, tensor in read_weights(directory, stored.weights).items()
    }
    _check_tables(directory, tensors, len(layout.modalities) - 1)
    program = None
    if "program.onward" in tensors:
        parts = {name: tensors[f"program.{name}"] for name in PROGRAM}
        parts["onward"] = parts["onward"].astype(np.float32)
        program = PatientProgram(**parts)
    return PlannedPolicy(
        layout=layout,
        catalogue=catalogue,
        settings=settings,
        demand=DemandCurves(**{name: tensors[f"demand.{name}"] for name in DEMAND}),
        program=program,
        rivals=tensors.get("rivals"),
        name=stored.name,
    )


def planner_kind(kind: str) -> PlannerKind:
    """The name as a planner's kind.

    Raises:
        PolicyError: if it is none.
    """
    if kind not in KINDS:
        raise PolicyError(f"{kind!r} is no planner; planners: {', '.join(KINDS)}.")
    return kind


def _check_tables(directory: Path, tensors: dict[str, np.ndarray], others: int) -> None:
    demand = {f"demand.{name}" for name in DEMAND}
    program = {f"program.{name}" for name in PROGRAM}
    names = set(tensors) - {"rivals"}
    if names not in (demand, demand | program):
        raise PolicyError(f"{directory}: its tables are not those that policy.json speaks of.")
    shape = tuple(len(tensors[f"demand.{axis}"]) for axis in ("per_kwh", "per_slot"))
    expected = {"demand.kwh": shape, "demand.slots": shape}
    if names != demand:
        axes = tuple(len(tensors[f"program.{axis}"]) for axis in ("per_kwh", "per_slot"))
        expected["program.onward"] = (*axes, 1 << others, 1 << others, others, BINS)
        shape += axes
    for name, size in expected.items():
        if tensors[name].shape != size:
            raise PolicyError(f"{directory}: {name} has shape {tensors[name].shape}, not {size}.")
    prices = [tensors[name] for name in names if name.rpartition(".")[2].startswith("per_")]
    whole = all(np.isfinite(tensor).all() for tensor in tensors.values())
    if min(shape) < 2 or not whole or not all((np.diff(price) > 0).all() for price in prices):
        raise PolicyError(f"{directory}: its prices do not ascend, or its tables hold no numbers.")
