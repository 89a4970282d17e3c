"""A learned policy at work: the network of a policy directory in NumPy, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from agent.errors import PolicyError
from agent.policies.facts import action_facts
from agent.policies.features import FeatureIndex
from agent.policies.files import LEARNED_KINDS, PolicyFile, read_policy, read_weights
from agent.policies.guide import advised_observation, open_guide
from agent.policies.protocol import Policy, check_inputs
from agent.policies.scoring import ScoringWeights
from envs.catalogue import ActionCatalogue
from envs.observation import ObservationLayout


@dataclass(frozen=True, kw_only=True)
class LearnedPolicy:
    """The open action to which the trained network gives the highest preference.

    Attributes:
        layout: names of the observation's fields.
        catalogue: names of the actions.
        weights: the network.
        trained: one phrase on the training, for the reasons.
        elsewhere: the modalities it was trained on, where they are not this layout's; else empty.
        guide: planner whose advice the network reads as well; None for most.
        name: name in reports.
        provenance: how it was trained.
    """

    layout: ObservationLayout
    catalogue: ActionCatalogue
    weights: ScoringWeights
    trained: str
    elsewhere: str = ""
    guide: Policy | None = None
    name: str = "ppo"
    provenance: dict[str, Any] | None = None

    @classmethod
    def open(
        cls, directory: Path, layout: ObservationLayout, catalogue: ActionCatalogue
    ) -> LearnedPolicy:
        """Read a policy directory that ``greenboard rl train`` wrote.

        The cohort may be another one than it was trained on: ``elsewhere`` and every reason say
        so then.

        Raises:
            PolicyError: if a file is missing or changed, or of another version.
        """
        stored = read_policy(directory, layout, catalogue)
        if stored.weights is None or stored.kind not in LEARNED_KINDS:
            raise PolicyError(f"{directory} is a {stored.kind!r} policy without a network.")
        tensors = read_weights(directory, stored.weights)
        elsewhere = _elsewhere(stored, layout)
        guide = None
        if stored.guide is not None:
            guide = open_guide(directory, layout, catalogue, elsewhere=bool(elsewhere))
        steps, seed = (stored.provenance.get(key, "?") for key in ("steps", "seed"))
        return cls(
            layout=layout,
            catalogue=catalogue,
            weights=ScoringWeights.of_tensors(tensors, str(directory)),
            trained=f"{stored.kind}, {steps} steps, seed {seed}",
            elsewhere=elsewhere,
            guide=guide,
            name=stored.name,
            provenance=stored.provenance,
        )

    @cached_property
    def index(self) -> FeatureIndex:
        """Where this layout keeps what the network reads."""
        return FeatureIndex.of(self.layout)

    def reset(self, num_envs: int, seed: int) -> None:
        """Nothing to forget: the choice is deterministic."""

    def preferences(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"] | None = None,
    ) -> Float32[np.ndarray, "batch actions"]:
        """The network's logits, before masking; a guide takes all actions as open without mask."""
        if action_mask is None:
            action_mask = np.ones((len(observation), self.catalogue.n), dtype=np.bool_)
        seen = advised_observation(self.guide, observation, action_mask)
        return self.weights.logits(self.index, seen)

    def act(
        self,
        observation: Float32[np.ndarray, "batch fields"],
        action_mask: Bool[np.ndarray, "batch actions"],
    ) -> Int64[np.ndarray, " batch"]:
        """The open action with the highest logit."""
        check_inputs(observation, action_mask, self.layout, self.catalogue)
        logits = np.where(action_mask, self.preferences(observation, action_mask), -np.inf)
        return np.asarray(logits.argmax(axis=1), dtype=np.int64)

    def reason(self, observation: Float32[np.ndarray, " fields"], action: int) -> str:
        """The network's preference for the action against finalising, and the facts beside it."""
        logits = self.preferences(observation[None])[0].astype(np.float64)
        over_finalise = logits[action] - logits[self.catalogue.finalise]
        facts = action_facts(self.layout, self.catalogue, observation, action)
        name = self.catalogue.names[action]
        trained = self.trained + (f", guided by {self.guide.name}" if self.guide else "")
        trained += f"; trained on {self.elsewhere}" if self.elsewhere else ""
        if action == self.catalogue.finalise:
            return f"The network ({trained}) prefers {name} to every open action ({facts})."
        return (
            f"The network ({trained}) prefers {name}, {over_finalise:+.2f} in log-odds over "
            f"finalise ({facts})."
        )


def _elsewhere(stored: PolicyFile, layout: ObservationLayout) -> str:
    made_for = tuple(stored.layout.get("modalities", ()))
    same = made_for == layout.modalities and tuple(stored.layout["transfers"]) == layout.transfers
    return "" if same else ", ".join(made_for)
