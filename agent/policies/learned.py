"""A learned policy at work: the network of a policy directory in NumPy, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from agent.errors import PolicyError
from agent.policies.facts import action_facts
from agent.policies.files import PolicyFile, read_policy, read_weights
from agent.policies.protocol import check_inputs
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout

Layer = tuple[np.ndarray, np.ndarray]


def tensor_names(hidden_layers: int) -> tuple[tuple[str, str], ...]:
    """Names of weight and bias of each layer, input first."""
    layers = [f"hidden.{i}" for i in range(hidden_layers)] + ["output"]
    return tuple((f"{layer}.weight", f"{layer}.bias") for layer in layers)


def _layers(path: Path, stored: PolicyFile, sizes: tuple[int, int]) -> tuple[Layer, ...]:
    if stored.weights is None or stored.hidden_layers is None:
        raise PolicyError(f"{path} is a {stored.kind!r} policy without a network.")
    tensors = read_weights(path, stored.weights)
    names = tensor_names(stored.hidden_layers)
    if set(tensors) != {name for pair in names for name in pair}:
        raise PolicyError(f"{path}: the weights do not have the tensors that policy.json names.")
    layers = tuple((tensors[w], tensors[b]) for w, b in names)
    width = sizes[0]
    for weight, bias in layers:
        if weight.ndim != 2 or weight.shape[1] != width or bias.shape != (weight.shape[0],):
            raise PolicyError(f"{path}: a layer of shape {weight.shape} does not fit {width}.")
        width = weight.shape[0]
    if width != sizes[1]:
        raise PolicyError(f"{path}: the network has {width} outputs, not {sizes[1]} actions.")
    return layers


@dataclass(frozen=True, kw_only=True)
class LearnedPolicy:
    """The open action to which the trained network gives the highest preference.

    Attributes:
        layout: names of the observation's fields.
        catalogue: names of the actions.
        layers: weight [out, in] and bias [out] of each layer; tanh between them.
        trained: one phrase on the training, for the reasons.
        name: name in reports.
    """

    layout: ObservationLayout
    catalogue: ActionCatalogue
    layers: tuple[Layer, ...]
    trained: str
    name: str = "ppo"

    @classmethod
    def open(
        cls, directory: Path, layout: ObservationLayout, catalogue: ActionCatalogue
    ) -> LearnedPolicy:
        """Read a policy directory that ``greenboard rl train`` wrote.

        Raises:
            PolicyError: if a file is missing, changed, or made for another bundle.
        """
        stored = read_policy(directory, layout, catalogue)
        layers = _layers(directory, stored, (layout.size, catalogue.n))
        steps, seed = (stored.provenance.get(key, "?") for key in ("steps", "seed"))
        return cls(
            layout=layout,
            catalogue=catalogue,
            layers=layers,
            trained=f"{steps} steps, seed {seed}",
            name=stored.name,
        )

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget: the choice is deterministic."""

    def preferences(
        self, observation: Float32[np.ndarray, "batch fields"]
    ) -> Float32[np.ndarray, "batch actions"]:
        """The network's logits, before masking."""
        hidden = observation
        for weight, bias in self.layers[:-1]:
            hidden = np.tanh(hidden @ weight.T + bias)
        weight, bias = self.layers[-1]
        return np.asarray(hidden @ weight.T + bias, dtype=np.float32)

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """The open action with the highest logit."""
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        logits = np.where(action_mask, self.preferences(observation), -np.inf)
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """The network's preference for the action against finalising, and the facts beside it."""
        logits = self.preferences(observation[None])[0].astype(np.float64)
        over_finalise = logits[action] - logits[self.catalogue.finalise]
        facts = action_facts(self.layout, self.catalogue, observation, action)
        name = self.catalogue.names[action]
        if action == self.catalogue.finalise:
            return f"The network ({self.trained}) prefers {name} to every open action ({facts})."
        return (
            f"The network ({self.trained}) prefers {name}, {over_finalise:+.2f} in log-odds over "
            f"finalise ({facts})."
        )
