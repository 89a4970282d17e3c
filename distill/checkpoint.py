"""A training run on disk: one safetensors file, tensors and a JSON header, whole or not at all.

A run that is brought back from it goes on bit for bit as if it had never stopped: weights, moments
of the optimiser, the schedule and both random generators are in it. Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distill.errors import TrainingError
from distill.loop import LoopState

FORMAT = 1
HEADER = "greenboard"
MODEL, BEST, MOMENT, GENERATOR = "model.", "best.", "optimiser.", "torch_generator"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run at one moment, as bytes' worth of tensors and JSON values.

    Attributes:
        tensors: weights, moments and torch's generator.
        facts: everything else that the next step depends on.
        extra: what the caller keeps with it.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    extra: Mapping[str, Any]


def capture(
    state: LoopState, extra: Mapping[str, Any], best: Mapping[str, Tensor] | None = None
) -> Checkpoint:
    """Copy all that the next step depends on.

    Args:
        state: the run.
        extra: JSON values to keep with it.
        best: weights to keep beside the present ones.
    """
    optimiser = state.optimiser.state_dict()
    tensors = {f"{MODEL}{k}": v.detach().clone() for k, v in state.model.state_dict().items()}
    tensors |= {f"{BEST}{k}": v.detach().clone() for k, v in (best or {}).items()}
    plain: dict[str, dict[str, Any]] = {}
    for slot, values in optimiser["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{MOMENT}{slot}.{name}"] = value.detach().clone()
            else:
                plain.setdefault(str(slot), {})[name] = value
    tensors[GENERATOR] = torch.get_rng_state()
    return Checkpoint(
        tensors=tensors,
        facts={
            "format": FORMAT, "epoch": state.epoch, "step": state.step, "moments": plain,
            "groups": optimiser["param_groups"], "schedule": state.schedule.state_dict(),
            "generator": state.rng.bit_generator.state,
        },
        extra=dict(extra),
    )  # fmt: skip


def restore(found: Checkpoint, state: LoopState) -> None:
    """Put a captured run in place of a new one.

    Raises:
        TrainingError: if it is of another network or optimiser.
    """
    facts = found.facts
    moments: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in facts["moments"].items()}
    for key, value in found.tensors.items():
        if key.startswith(MOMENT):
            slot, name = key.removeprefix(MOMENT).split(".", 1)
            moments.setdefault(int(slot), {})[name] = value.clone()
    try:
        state.model.load_state_dict(weights_of(found))
        state.optimiser.load_state_dict({"state": moments, "param_groups": facts["groups"]})
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"The checkpoint is of another student: {reason}") from error
    state.schedule.load_state_dict(facts["schedule"])
    generator = facts["generator"]
    if generator["bit_generator"] != state.rng.bit_generator.state["bit_generator"]:
        raise TrainingError(f"The checkpoint's generator is {generator['bit_generator']}.")
    state.rng.bit_generator.state = generator
    torch.set_rng_state(found.tensors[GENERATOR])
    state.epoch, state.step = int(facts["epoch"]), int(facts["step"])


def weights_of(found: Checkpoint, prefix: str = MODEL) -> dict[str, Tensor]:
    """The student's weights in it: the present ones, or the best (empty if none were kept)."""
    return {k.removeprefix(prefix): v for k, v in found.tensors.items() if k.startswith(prefix)}


def write_checkpoint(path: Path, found: Checkpoint) -> None:
    """Write beside the target, flush to disk, then rename: never half a file under that name."""
    tensors = {k: v.contiguous() for k, v in found.tensors.items()}
    header = json.dumps(_plain({**found.facts, "extra": found.extra}), allow_nan=False)
    replace_file(path, save(tensors, metadata={HEADER: header}))


def replace_file(path: Path, content: bytes) -> None:
    """Put these bytes under this name, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one.

    Raises:
        TrainingError: if it is not one, was cut short, or is of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[HEADER])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise TrainingError(
            f"{path} is no checkpoint of a training run ({error}). Remove it; the student that it "
            "held is then trained anew."
        ) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT or GENERATOR not in tensors:
        raise TrainingError(
            f"{path} is not a checkpoint of format {FORMAT}. Remove it; the student that it held "
            "is then trained anew."
        )
    return Checkpoint(tensors=tensors, facts=facts, extra=facts.pop("extra"))


def _plain(value: Any) -> Any:
    """The same as JSON values.

    Raises:
        TrainingError: if something in it is none: an optimiser or schedule of another kind.
    """
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TrainingError(
        f"A {type(value).__name__} in the state of the optimiser or schedule cannot be kept in a "
        "checkpoint."
    )
