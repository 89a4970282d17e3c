"""Checkpoints of a training run: safetensors and JSON, complete or not there at all.

A checkpoint holds the network, the optimiser and the counters. Random generators and the
environments need no storing: every chunk of training starts them afresh from the run's seed and
the chunk's number, so a run that was killed and resumed ends with the same bytes as one that was
not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from agent.errors import RlTrainingError
from agent.policies.files import write_atomically

FORMAT: Literal[2] = 2
TENSORS_FILE = "tensors.safetensors"
STATE_FILE = "state.json"
KEPT = 2
PREFIX = "step-"


class CheckpointState(BaseModel):
    """Counters of a run, and what the run was asked to do.

    Attributes:
        format: version of this format.
        num_timesteps: environment steps trained on.
        n_updates: passes over the data so far.
        chunk: number of the chunk that comes next.
        looks: at the validation sessions: steps and reward of each.
        multiplier: of a run that learns a price on cost.
        agreement: with the policy that was imitated first, if one was.
        run: everything that must not change on resuming.
        tensors_sha256: hash of the tensors' file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = FORMAT
    num_timesteps: int = Field(ge=0)
    n_updates: int = Field(ge=0)
    chunk: int = Field(ge=0)
    looks: list[dict[str, Any]] = []
    multiplier: float | None = Field(default=None, ge=0)
    agreement: float | None = None
    run: dict[str, Any]
    tensors_sha256: str


def pack_training(
    policy: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """Weights and Adam's moments as named tensors."""
    tensors = {f"policy.{name}": t.detach().clone() for name, t in policy.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value).detach().clone()
    return tensors


def unpack_training(
    tensors: Mapping[str, torch.Tensor], policy: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Put :func:`pack_training`'s tensors back.

    Raises:
        RlTrainingError: if they belong to another network.
    """
    weights = {k.removeprefix("policy."): v for k, v in tensors.items() if k.startswith("policy.")}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            moments.setdefault(int(index), {})[name] = value
    try:
        policy.load_state_dict(weights)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (RuntimeError, ValueError) as error:
        raise RlTrainingError(f"The checkpoint is of another network: {error}") from error


def write_checkpoint(
    folder: Path, tensors: dict[str, torch.Tensor], counters: Mapping[str, Any], run: dict[str, Any]
) -> Path:
    """Write one checkpoint under its final name only when it is complete; keep the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{PREFIX}{counters['num_timesteps']:010d}"
    partial = folder / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    state = CheckpointState(**counters, run=run, tensors_sha256=hashlib.sha256(content).hexdigest())
    write_atomically(partial / TENSORS_FILE, content)
    write_atomically(partial / STATE_FILE, state.model_dump_json(indent=2).encode())
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def read_checkpoint(
    folder: Path, run: Mapping[str, Any]
) -> tuple[CheckpointState, dict[str, torch.Tensor]]:
    """Read the newest checkpoint of the same run.

    Args:
        folder: where checkpoints were written.
        run: what this run is asked to do; must equal what the checkpoint was made for.

    Raises:
        RlTrainingError: if there is none, it is damaged, or it belongs to another run.
    """
    found = checkpoints(folder)
    if not found:
        raise RlTrainingError(
            f"Nothing to resume: {folder} has no checkpoint. Start without --resume."
        )
    path = found[-1]
    try:
        state = CheckpointState.model_validate_json((path / STATE_FILE).read_bytes())
        content = (path / TENSORS_FILE).read_bytes()
        if hashlib.sha256(content).hexdigest() != state.tensors_sha256:
            raise RlTrainingError(f"{path}: the tensors' bytes have changed; remove {path}.")
        tensors = load(content)
    except (OSError, ValidationError, SafetensorError) as error:
        raise RlTrainingError(f"{path} cannot be read ({error}); remove it.") from error
    wanted = json.loads(json.dumps(dict(run)))
    changed = sorted(k for k in {*state.run, *wanted} if state.run.get(k) != wanted.get(k))
    if changed:
        key = changed[0]
        raise RlTrainingError(
            f"{path} is of another run: {key} was {state.run.get(key)!r}, now "
            f"{wanted.get(key)!r}. Resume with the same arguments or choose another --out."
        )
    return state, tensors
